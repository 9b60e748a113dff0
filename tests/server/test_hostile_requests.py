"""Hostile paths, ids, filters, bodies and forms; requests that are slow or too many."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from hostile_pictures import GOOD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import client, make_service, post_picture

import vireid.server
from vireid.deploy.bundle import Bundle
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.server.app import create_app
from vireid.server.search_service import SearchService
from vireid.server.settings import ServerSettings
from vireid.server.uploads import Limits


@pytest.fixture(scope="module")
def service(shared_service: SearchService) -> SearchService:
    return shared_service


@pytest.fixture(scope="module")
def api(shared_api: TestClient) -> TestClient:
    return shared_api


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/page/../app.py", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/....//app.py", "/page/..%5capp.py", "/page/",
     "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/style.css%00.html", "/../../etc/passwd", "/page/words",
     "/api/v1/examples/-1", "/api/v1/examples/99999999999999999999", "/api/v1/examples/../about", "/docs", "/redoc",
     "/openapi.json"],
)  # fmt: skip
def test_nothing_but_the_files_of_the_page_is_given(api: TestClient, path: str) -> None:
    found = api.get(path)
    assert found.status_code in (404, 422) or found.json().get("version"), (path, found.status_code)
    assert "import" not in found.text and "root:" not in found.text


@pytest.mark.parametrize(
    "id", ["../../../../etc/passwd", "..", "/etc/passwd", "a/../../b", "%2e%2e/x", "\x00", "x" * 513, "", "*", "."]
)
def test_thumbnails_are_given_by_id_alone(api: TestClient, service: SearchService, id: str) -> None:
    assert api.get("/api/v1/thumbnail", params={"id": id}).status_code in (404, 422)
    assert api.get("/api/v1/attention", params={"id": id}).status_code in (404, 422)


def test_a_row_does_not_say_where_its_file_lies(api: TestClient, service: SearchService) -> None:
    text = post_picture(api, GOOD, body={"limit": 64}).text + api.post("/api/v1/records/list", json={}).text
    assert str(service.bundle.path.parent) not in text and "/data/" not in text


# --- filters and bodies -----------------------------------------------------------------------------------------------

WRONG = [
    "", "null", "[]", "1", '"x"', "{", '{"limit": 0}', '{"limit": 201}', '{"limit": 1.5}', '{"limit": "many"}',
    '{"offset": -1}', '{"offset": 1999, "limit": 200}', '{"false_match_rate": 0}', '{"false_match_rate": 1}',
    '{"false_match_rate": NaN}', '{"false_match_rate": 1e400}', '{"modality": "thermal"}', '{"combine": "product"}',
    '{"rerank": "__import__"}', '{"filter": []}', '{"filter": {"cameras": "gate 1"}}', '{"filter": {"cameras": [1]}}',
    '{"filter": {"after_s": NaN}}', '{"filter": {"before_s": Infinity}}', '{"filter": {"after_s": 5, "before_s": 5}}',
    '{"filter": {"after_s": "yesterday"}}', '{"filter": {"modality": 1}}', '{"filter": {"where": "1=1"}}',
    '{"filter": {"without_ids": ["a"]}}', '{"boxes": [[0, 0, 1]]}', '{"boxes": [[1, 0, 0, 1]]}',
    '{"boxes": [[0, 0, NaN, 1]]}', '{"boxes": [[-1, 0, 1, 1]]}', '{"like": [""]}',
    '{"right": ["a"], "wrong": ["a"]}', '{"purpose": "%s"}' % ("x" * 201), '{"unknown": 1}', '{"k": 5}',
    '{"filter": {"cameras": ["\\ud800"]}}', '{"filter": {"cameras": ["%s"]}}' % ("x" * 300),
    '{"filter": {"cameras": ["\\u0000"]}}', json.dumps({"filter": {"cameras": ["a"] * 501}}),
    json.dumps({"right": [str(n) for n in range(201)]}), "[" * 100_000, '{"a":' * 5000,
    '{"limit": 1' + "0" * 5000 + "}", '{"limit": true}', '{"offset": false}', '{"filter": {"after_s": true}}',
    '{"boxes": [[false, 0, 1, 1]]}', '{"per_track": 1}', '{"per_track": "yes"}',
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG, ids=lambda body: body[:40])
def test_a_malformed_question_is_refused(api: TestClient, body: str) -> None:
    found = api.post("/api/v1/search", files={"picture": ("a", GOOD)}, data={"ask": body})
    assert found.status_code == 422 and found.json()["error"] and len(found.text) < 1000, found.text


def test_a_row_whose_id_is_no_text_is_not_there(api: TestClient) -> None:
    found = api.post("/api/v1/search", files={"picture": ("a", GOOD)}, data={"ask": '{"like": ["\\u0000"]}'})
    assert found.status_code == 404 and "not in the gallery" in found.json()["error"]


@pytest.mark.parametrize("value", ["probability", "similarity"])
def test_true_and_false_are_no_numbers_of_a_mark(api: TestClient, value: str) -> None:
    for wrong in ({value: False}, {"right": 1}):
        body = {"query": "0" * 64, "marks": [{"id": "a", "right": True, **wrong}]}
        assert api.post("/api/v1/marks", json=body).status_code == 422


HOSTILE = [
    "' OR 1=1 --", "gate 1' OR camera != '", '" OR ""=="', "gate 1'; DROP TABLE records; --", "%", "_", "*",
    "\\", "''",
    "camera", "NULL", "true", "gate 1\n", "{{7*7}}", "${jndi:ldap://x}", "\u202e", "🙂",
    "array_contains(tags, 'night')",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["cameras", "pids", "tracks", "tags"])
def test_a_filter_is_a_value_and_no_program(api: TestClient, name: str, text: str) -> None:
    found = post_picture(api, GOOD, body={"filter": {name: [text]}})
    assert found.status_code == 200 and found.json()["hits"] == [] and found.json()["searched"] == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_nor_is_it_in_lancedb(text: str, bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="extra: search")
    opened = open_gallery(f"lance:{tmp_path / 'g'}", bundle.config.dim, bundle.config.digest)
    assert opened.count(Filter(cameras=(text,))) == 0 == opened.delete(where=Filter(pids=(text,)))
    opened.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

fields = st.sampled_from(
    ["modality", "boxes", "like", "combine", "filter", "limit", "offset", "false_match_rate", "rerank", "right",
     "wrong", "purpose", "ids", "expect", "query", "marks", "after_id", "x"]
)  # fmt: skip


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=st.dictionaries(fields, json_values, max_size=4) | json_values)
@pytest.mark.parametrize("path", ["/api/v1/search", "/api/v1/forget", "/api/v1/marks", "/api/v1/records/list"])
def test_no_json_makes_the_service_fail(api: TestClient, service: SearchService, path: str, body: Any) -> None:
    headers = {"content-type": "application/json"}
    found = api.post(path, content=json.dumps(body).encode("utf-8", "replace"), headers=headers)
    assert found.status_code < 500, found.text
    assert service.archive.gallery.count() == 64


def test_forms_that_are_none(api: TestClient) -> None:
    def post(content: bytes, kind: str) -> int:
        return api.post("/api/v1/search", content=content, headers={"content-type": kind}).status_code

    assert post(b"x", "multipart/form-data") == 422  # no boundary
    assert post(b"--b\r\nnonsense", "multipart/form-data; boundary=b") == 422
    assert post(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b") == 422
    assert post(b"{}", "text/plain") == post(b"<a/>", "application/xml") == post(b"", "") == 415
    assert post(b"ask={}", "application/x-www-form-urlencoded") == 415
    four = [("picture", ("a", GOOD))] * 4
    assert "Too many files" in api.post("/api/v1/search", files=four).json()["error"]
    two = {"data": {"ask": ["{}", "{}"]}, "files": {"picture": ("a", GOOD)}}
    assert "the field `ask` comes 2 times" in api.post("/api/v1/search", **two).json()["error"]
    other = api.post("/api/v1/search", files={"shell": ("a", GOOD)})
    assert other.status_code == 422 and "`picture`" in other.json()["error"]
    long = api.post("/api/v1/search", files={"picture": ("a", GOOD)}, data={"ask": "x" * 2_000_000})
    assert long.status_code in (413, 422)


def test_a_body_is_cut_off_with_or_without_its_length(api: TestClient, service: SearchService) -> None:
    most = service.settings.limits.body_bytes
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 100_000
            yield bytes(100_000)

    kinds = {"content-type": "application/json"}
    assert api.post("/api/v1/search", content=bytes(most + 1), headers=kinds).status_code == 413
    assert api.post("/api/v1/search", content=chunks(), headers=kinds).status_code == 413
    boundary = {"content-type": "multipart/form-data; boundary=b"}
    assert api.post("/api/v1/search", content=chunks(), headers=boundary).status_code in (413, 422)
    lying = {**kinds, "content-length": "-5"}
    assert api.post("/api/v1/search", content=b"{}", headers=lying).status_code == 400
    assert api.post("/api/v1/search", content=b"{}", headers={**kinds, "content-length": "9" * 5000}).status_code == 413


def test_a_slow_body_is_not_waited_for(bundle: Bundle, tmp_path: Path) -> None:
    settings = ServerSettings(limits=Limits(upload_s=0.01))
    app = create_app(make_service(tmp_path / "a", bundle, fill=False, settings=settings))
    sent: list[dict] = []

    async def one() -> None:
        async def receive() -> dict:
            return await anyio.sleep_forever()  # type: ignore[return-value]

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/api/v1/search", "raw_path": b"", "query_string": b"",
                 "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
                 "client": ("127.0.0.1", 1),
                 "server": ("127.0.0.1", 8000), "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
                 "root_path": "", "extensions": {}}  # fmt: skip
        await app(scope, receive, send)

    anyio.run(one)  # returns, although the body never comes
    assert sent[0]["status"] == 408


def test_no_more_requests_compute_than_fit(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request computes and one waits until four others have been refused."""
    service = make_service(tmp_path / "a", bundle, settings=ServerSettings(max_computing=1, max_waiting=1))
    search_vectors, refused = service.searcher.search_vectors, threading.Semaphore(0)

    def search_after_refusals(*given: Any, **more: Any) -> Any:
        for _ in range(4):
            refused.acquire()
        refused.release(4)
        return search_vectors(*given, **more)

    monkeypatch.setattr(service.searcher, "search_vectors", search_after_refusals)

    def post(_: int) -> int:
        status = post_picture(api, GOOD).status_code
        if status == 503:
            refused.release()
        return status

    with client(service) as api, ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(post, range(6)))
    assert sorted(statuses) == [200, 200, 503, 503, 503, 503]


def test_nothing_in_the_search_product_can_execute_what_it_reads() -> None:
    """No pickle, no eval, no shell in any file of the search product."""
    names = re.compile(
        r"\b(pickle|dill|marshal|shelve|joblib)\b|\beval\(|\bexec\(|os\.system|shell=True|allow_pickle=True"
    )
    folder = Path(vireid.server.__file__).parent
    files = [path for room in ("server", "search", "ingest") for path in (folder.parent / room).rglob("*.py")]
    assert len(files) > 30
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            code = line.partition("#")[0]
            found = names.search(code.replace(".eval()", "").replace("its eval()", ""))
            assert not found or "no pickle" in line.lower(), f"{path.name}: {line}"
