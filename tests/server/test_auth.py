"""Tokens, roles, sessions, and the rule about serving other machines."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from hostile_pictures import GOOD
from served import bearer, make_service, routes

from vireid.deploy.bundle import Bundle
from vireid.errors import AccessError
from vireid.server import auth
from vireid.server.app import create_app
from vireid.server.auth import Sessions, Tokens, check_binding, is_loopback
from vireid.server.search_service import SearchService
from vireid.server.settings import ServerSettings

ROUTES = {
    "search": [("POST", "/api/v1/search"), ("POST", "/api/v1/records/list"), ("GET", "/api/v1/thumbnail?id=gate 1/5/0"),
               ("GET", "/api/v1/attention?id=gate 1/5/0"), ("GET", "/api/v1/marks"), ("POST", "/api/v1/marks"),
               ("GET", "/api/v1/openapi.json"), ("GET", "/api/v1/examples/0"), ("POST", "/api/v1/attention"),
               ("POST", "/api/v1/visits"), ("GET", "/api/v1/scene?id=gate 1/5/0"), ("GET", "/api/v1/alarms"),
               ("POST", "/api/v1/case-file"), ("GET", "/api/v1/cases"), ("POST", "/api/v1/cases"),
               ("GET", "/api/v1/cases/none"), ("POST", "/api/v1/cases/none"), ("DELETE", "/api/v1/cases/none"),
               ("GET", "/api/v1/cases/none/pictures/0"), ("POST", "/api/v1/detect")],
    "ingest": [("POST", "/api/v1/records")],
    "monitor": [("GET", "/metrics")],
    "admin": [("POST", "/api/v1/person"), ("POST", "/api/v1/forget"), ("GET", "/api/v1/audit"), ("GET", "/api/v1/docs"),
              ("GET", "/api/v1/docs/start.js")],
}  # fmt: skip


def test_every_route_of_the_api_needs_its_role(closed: SearchService, secrets: dict[str, str]) -> None:
    app = create_app(closed)
    paths = routes()
    paths |= {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    listed = {(method, path.partition("?")[0]) for places in ROUTES.values() for method, path in places}
    listed = {
        (method, path.replace("/0", "/{number}").replace("start.js", "{name}").replace("none", "{case_id}"))
        for method, path in listed
    }
    known = {("GET", "/"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/page/{name}"), ("GET", "/api/v1/about")}
    known |= {("POST", "/api/v1/session"), ("DELETE", "/api/v1/session")}
    assert paths == listed | known  # a new route joins this test
    api = TestClient(app, base_url="http://somewhere", raise_server_exceptions=False)
    for right, places in ROUTES.items():
        for method, path in places:
            assert api.request(method, path).status_code == 401
            assert api.request(method, path, headers={"authorization": "Bearer wrong"}).status_code == 401
            for role, secret in secrets.items():
                found = api.request(method, path, headers={"authorization": f"Bearer {secret}"}).status_code
                assert (found not in (401, 403)) == (role in ("admin", right)), (role, method, path, found)


@pytest.mark.parametrize("days", [0, -1, math.nan, math.inf, 1e308])
def test_a_token_ends_after_a_number_of_days(tmp_path: Path, days: float) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    with pytest.raises(AccessError, match="a number of days above 0"):
        tokens.add("desk", "search", days)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {0}", "bearer{0}", "Bearer {0}x", "Bearer x{0}", "Bearer vireid_", "Token {0}",
     "Bearer {0},{0}", "Bearer " + "a" * 7000],
)  # fmt: skip
def test_bad_tokens(closed: SearchService, secrets: dict[str, str], header: str) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    found = api.get("/api/v1/about", headers={"authorization": header.format(secrets["admin"])})
    assert found.status_code == 401 and found.headers["www-authenticate"] == "Bearer" and "rows" not in found.text


def test_an_ingest_token_sees_nothing_and_a_search_token_deletes_nothing(
    closed: SearchService, secrets: dict[str, str]
) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    about = api.get("/api/v1/about", headers=bearer(secrets["ingest"])).json()
    assert about["caller"]["role"] == "ingest" and "cameras" not in about and "rows" not in about
    given = {"data": {"record": '{"camera": "c"}'}, "files": {"picture": ("x", GOOD)}}
    assert api.post("/api/v1/records", headers=bearer(secrets["ingest"]), **given).status_code == 200
    body = {"filter": {"pids": ["p5"]}, "expect": 8}
    assert api.post("/api/v1/forget", json=body, headers=bearer(secrets["search"])).status_code == 403
    assert closed.archive.gallery.count() == 65
    [denied] = [entry for entry in closed.archive.audit.entries() if entry["what"] == "denied"]
    assert denied["who"] == "the search" and denied["why"] == "needs admin"


def test_a_token_ends(closed: SearchService, secrets: dict[str, str]) -> None:
    tokens = closed.settings.tokens
    assert tokens is not None
    api = TestClient(create_app(closed), base_url="http://somewhere")
    short = tokens.add("a day", "search", days=1e-9)
    assert api.get("/api/v1/about", headers=bearer(short)).status_code == 401
    long = tokens.add("a week", "search", days=7)
    assert api.get("/api/v1/about", headers=bearer(long)).status_code == 200
    cookie = api.post("/api/v1/session", headers=bearer(secrets["search"])).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and secrets["search"] not in cookie
    assert api.get("/api/v1/about").json()["caller"]["name"] == "the search"  # by the cookie
    assert api.post("/api/v1/forget", json={"filter": {"pids": ["p5"]}}).status_code == 403
    tokens.revoke("the search")
    assert api.get("/api/v1/about").status_code == 401  # at once, and its session with it
    assert api.get("/api/v1/about", headers=bearer(long)).status_code == 200


def test_sessions(closed: SearchService, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    assert (
        api.post("/api/v1/session").status_code == 401 == api.post("/api/v1/session", headers=bearer("x")).status_code
    )
    api.post("/api/v1/session", headers=bearer(secrets["admin"]))
    assert api.get("/api/v1/audit").status_code == 200
    assert api.post("/api/v1/session", headers=bearer(secrets["admin"])).cookies["vireid"] != api.cookies.get("other")
    api.delete("/api/v1/session")
    assert api.get("/api/v1/audit").status_code == 401
    assert api.get("/api/v1/about", headers={"cookie": "vireid=guess"}).status_code == 401
    sessions, token = Sessions(), Tokens(closed.settings.tokens.path).all()[0]  # type: ignore[union-attr]
    monkeypatch.setattr(auth, "MAX_SESSIONS", 3)
    begun = [sessions.begin(token) for _ in range(5)]
    assert [sessions.token_digest(secret) is not None for secret in begun] == [False, False, True, True, True]
    monkeypatch.setattr(auth, "SESSION_S", -1.0)
    assert sessions.token_digest(sessions.begin(token)) is None


def test_secure_cookies_behind_https(bundle: Bundle, tmp_path: Path, secrets: dict[str, str]) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    service = make_service(
        tmp_path / "f", bundle, fill=False, settings=ServerSettings(tokens=tokens, hosts=(), https=True)
    )
    api = TestClient(create_app(service), base_url="https://somewhere")
    assert "Secure" in api.post("/api/v1/session", headers=bearer(secrets["search"])).headers["set-cookie"]


def test_every_token_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    first = tokens.add("a", "search")
    tokens.add("b", "admin")
    compared: list[tuple[str, str]] = []
    plain = auth.hmac.compare_digest

    def counting(one: str, other: str) -> bool:
        compared.append((one, other))
        return plain(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", counting)
    assert tokens.find(first).name == "a" and len(compared) == 2  # type: ignore[union-attr]
    assert tokens.find("x") is None and len(compared) == 4
    assert {len(one) for pair in compared for one in pair} == {64}


@pytest.mark.parametrize("name", ["two\nlines", "tab\there", "\x1b[31mred", "\u202ereversed"])
def test_the_name_of_a_token_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(AccessError, match="the name of a token is one line without control characters"):
        Tokens(tmp_path / "tokens.json").add(name, "search")
    assert not (tmp_path / "tokens.json").exists()


def test_the_file_of_tokens_holds_no_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    secret = tokens.add("desk", "search")
    assert secret.startswith("vireid_") and len(secret) > 40
    assert (
        secret not in (tmp_path / "tokens.json").read_text()
        and secret[7:] not in (tmp_path / "tokens.json").read_text()
    )
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0
    for wrong, told in (
        (lambda: tokens.add("desk", "admin"), "called 'desk' exists already"),
        (lambda: tokens.add("x", "king"), "a role"),  # type: ignore[arg-type]
        (lambda: tokens.add("", "admin"), "1 to 80"),
        (lambda: tokens.revoke("nobody"), "no token is called 'nobody'; the tokens are desk"),
        (lambda: Tokens(tmp_path / "none.json").all(), "vireid token"),
    ):
        with pytest.raises(AccessError, match=told):
            wrong()
    if os.name != "nt":
        (tmp_path / "tokens.json").chmod(0o666)
        with pytest.raises(AccessError, match="chmod 600"):
            tokens.find(secret)
        (tmp_path / "tokens.json").chmod(0o600)
    (tmp_path / "tokens.json").write_text('{"format": "vireid tokens 1", "tokens": [{"name": "x"}]}')
    with pytest.raises(AccessError, match="not a file of tokens"):
        tokens.all()


def test_a_broken_file_of_tokens_lets_nobody_in(closed: SearchService, secrets: dict[str, str]) -> None:
    assert closed.settings.tokens is not None
    closed.settings.tokens.path.write_text("[]")
    api = TestClient(create_app(closed), base_url="http://somewhere", raise_server_exceptions=False)
    found = api.get("/api/v1/about", headers=bearer(secrets["admin"]))
    assert found.status_code == 503 and str(closed.settings.tokens.path) not in found.text


def test_refused_requests_do_not_fill_the_disk(closed: SearchService) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    for _ in range(200):
        assert api.get("/api/v1/about?" + "x" * 2000).status_code == 401
    denied = [entry for entry in closed.archive.audit.entries() if entry["what"] == "denied"]
    assert 1 <= len(denied) < 100 and (closed.archive.folder / "audit.jsonl").stat().st_size < 100_000


# --- serving other machines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False),
     ("::", False), ("", False), ("192.168.1.5", False), ("example.org", False), ("127.0.0.1.example.org", False),
     ("localhost.example.org", False), ("2130706433", False)],
)  # fmt: skip
def test_it_opens_to_others_with_tokens_alone(host: str, own: bool, tmp_path: Path) -> None:
    assert is_loopback(host) == own
    tokens = Tokens(tmp_path / "tokens.json")
    if own:
        check_binding(host, None)
        return
    with pytest.raises(AccessError, match="--tokens"):
        check_binding(host, None)
    with pytest.raises(AccessError, match="no tokens"):
        check_binding(host, tokens)
    tokens.add("desk", "search")
    check_binding(host, tokens)
    tokens.revoke("desk")
    with pytest.raises(AccessError, match="no token"):
        check_binding(host, tokens)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "no tokens at"), (b"", "is not a file of tokens"), (b"\xff[", "is not a file of tokens")],
)
def test_tokens_that_cannot_be_used_end_the_start_on_this_machine_too(
    content: bytes | None, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.json"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(AccessError, match=told):
        check_binding("127.0.0.1", Tokens(path))
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(AccessError, match="folder cannot be read"):
        check_binding("127.0.0.1", Tokens(tmp_path / "folder"))
