"""The search service under attack: hostile pictures, names, filters, bodies, tokens and pages of other sites."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("multipart", reason="needs the extra `serve`")
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from served import HERE, client, jpeg, make_bundle, make_service, stripes

from vireid.deploy.bundle import Bundle
from vireid.errors import AccessError
from vireid.server import auth as access
from vireid.server.app import Service, create_app
from vireid.server.auth import Sessions, Tokens, check_binding, is_loopback
from vireid.server.uploads import Limits, UploadError, decode

SMALL = Limits(picture_bytes=200_000, picture_pixels=1_000_000, pictures=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("safety"))


@pytest.fixture(scope="module")
def service(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Read only in these tests."""
    return make_service(tmp_path_factory.mktemp("files"), bundle, limits=SMALL)


@pytest.fixture(scope="module")
def api(service: Service) -> TestClient:
    return client(service)


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    tokens = Tokens(tmp_path / "tokens.json")
    return {role: tokens.add(f"the {role}", role) for role in ("search", "ingest", "admin")}


@pytest.fixture
def closed(bundle: Bundle, tmp_path: Path, secrets: dict[str, str]) -> Service:
    return make_service(tmp_path / "files", bundle, tokens=Tokens(tmp_path / "tokens.json"), hosts=())


def ask(api: TestClient, data: bytes, name: str = "a.jpg", kind: str = "image/jpeg", body: Any = None) -> Any:
    return api.post(
        "/api/search", files={"picture": (name, data, kind)}, data={"ask": json.dumps(body or {"limit": 1})}
    )


# --- pictures ---------------------------------------------------------------------------------------------------------


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG whose header may say anything."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """120 kB that would be 363 MB of pixels."""
    packer = zlib.compressobj(9)
    return png(11_000, 11_000, packer.compress(bytes(3000 * (3 * 11_000 + 1))) + packer.flush())


def scans() -> bytes:
    """A progressive JPEG whose last scan is repeated a thousand times: each is a pass over all its pixels."""
    data = jpeg(stripes(64, 64), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 1000 + data[-2:]


def tiff(width: int, height: int) -> bytes:
    """A TIFF of 32 x 64 pixels whose header says something else."""
    data = bytearray(jpeg(stripes(), "TIFF"))
    first = struct.unpack("<I", data[4:8])[0]
    for entry in range(first + 2, first + 2 + 12 * struct.unpack("<H", data[first : first + 2])[0], 12):
        tag = struct.unpack("<H", data[entry : entry + 2])[0]
        if tag in (256, 257):  # width and height
            data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


GOOD = jpeg(stripes())
REFUSED = {
    "nothing": (b"", 415),
    "text": (b"hello", 415),
    "html": (b"<html><script>alert(1)</script>", 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    "gif cut": (jpeg(stripes(), "GIF")[:60], 415),
    "tiff cut": (jpeg(stripes(), "TIFF")[:60], 415),
    "tiff of billions of pixels": (tiff(60_000, 60_000), 413),
    "gif of billions of pixels": (b"GIF89a" + b"\xff" * 4 + jpeg(stripes(), "GIF")[10:], 413),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "pickle": (b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.", 415),
    "webp in name only": (b"RIFF\x00\x00\x00\x00WAVEfmt ", 415),
    "cut": (GOOD[: len(GOOD) // 2], 415),
    "header alone": (GOOD[:24], 415),
    "png with a wrong sum": (jpeg(stripes(), "PNG")[:40] + b"\x00" * 40, 415),
    "png that is a jpeg": (b"\x89PNG\r\n\x1a\n" + GOOD, 415),
    "png of no size": (png(0, 0, zlib.compress(b"")), 415),
    "header of billions of pixels": (png(60_000, 60_000, zlib.compress(b"\x00")), 413),
    "more than the limit": (png(1001, 1000, zlib.compress(b"\x00")), 413),
    "decompression bomb": (bomb(), 413),
    "too many bytes": (jpeg(stripes(), "PNG") + bytes(200_000), 413),
    "a thousand scans": (scans(), 415),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_harmless_picture_is_refused(api: TestClient, name: str) -> None:
    data, status = REFUSED[name]
    began = time.monotonic()
    found = ask(api, data)
    assert found.status_code == status, found.text
    assert set(found.json()) == {"error"} and "Traceback" not in found.text
    assert time.monotonic() - began < 10  # a bomb that goes off takes minutes or the machine


def test_limits_are_checked_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, load = [], ImageFile.ImageFile.load

    def counted(self: ImageFile.ImageFile) -> Any:
        decoded.append(self.size)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    for data in (bomb(), png(60_000, 60_000, zlib.compress(b"\x00")), png(1001, 1000, b"")):
        with pytest.raises(UploadError):
            decode(data, SMALL)
    assert decoded == []
    decode(GOOD, SMALL)
    assert set(decoded) == {(32, 64)}


@pytest.mark.parametrize(
    "image",
    [stripes(), stripes().convert("L"), stripes().convert("P"), stripes().convert("RGBA"), stripes().convert("1"),
     Image.new("I;16", (32, 64), 40_000), stripes().convert("LA")],
    ids=lambda image: image.mode,
)  # fmt: skip
def test_every_mode_of_picture_becomes_rgb(image: Image.Image) -> None:
    found = decode(jpeg(image, "PNG"), SMALL)
    assert found.image.mode == "RGB" and found.image.size == image.size
    if image.mode == "I;16":
        assert found.image.getpixel((0, 0)) == (128, 128, 128)  # flat: middle gray


def test_transparent_parts_are_white_and_rotation_is_applied() -> None:
    clear = Image.new("RGBA", (32, 64), (255, 0, 0, 0))
    assert decode(jpeg(clear, "PNG"), SMALL).image.getpixel((3, 3)) == (255, 255, 255)
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decode(jpeg(stripes(64, 32), exif=turned), SMALL).image.size == (64, 32)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):  # all that is indexed
        assert decode(jpeg(stripes(), kind), SMALL).image.size == (32, 64)
    two = io.BytesIO()
    stripes().save(two, "WEBP", save_all=True, append_images=[stripes()] * 50)
    assert decode(two.getvalue(), SMALL).image.size == (32, 64)  # an animation is its first picture
    assert decode(jpeg(stripes().convert("CMYK")), SMALL).image.mode == "RGB"


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]),
    where=st.floats(0, 1),
    what=st.binary(min_size=1, max_size=12),
)
def test_damaged_pictures_are_read_or_refused(kind: str, where: float, what: bytes) -> None:
    data = bytearray(jpeg(stripes(), kind))
    at = int(where * (len(data) - 1))
    data[at : at + len(what)] = what
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of some damage
        try:
            assert decode(bytes(data), SMALL).image.mode == "RGB"
        except UploadError as error:
            assert error.http_status in (413, 415)


@pytest.mark.parametrize(
    "name",
    ["../../../../etc/passwd", "..\\..\\boot.ini", "/etc/passwd", "a\x00.jpg", "x" * 5000,
     "<img src=x onerror=alert(1)>",
     "\u202egpj.exe", "con", "%2e%2e%2f", "a.jpg; rm -rf /", "-rf"],
)  # fmt: skip
def test_the_name_of_a_file_does_nothing(api: TestClient, service: Service, name: str, tmp_path: Path) -> None:
    ask(api, GOOD)
    before = sorted(path.name for path in service.archive.folder.rglob("*"))
    found = ask(api, GOOD, name=name)
    assert found.status_code == (200 if len(name) < 1000 else 422) and name not in found.text
    assert sorted(path.name for path in service.archive.folder.rglob("*")) == before
    assert name not in (service.archive.folder / "audit.jsonl").read_text(encoding="utf-8")


def test_the_told_type_does_nothing(api: TestClient) -> None:
    assert ask(api, GOOD, kind="text/html").status_code == 200
    assert ask(api, b"<svg/>", kind="image/png").status_code == 415


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/page/../app.py", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/....//app.py", "/page/..%5capp.py", "/page/",
     "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/style.css%00.html", "/../../etc/passwd", "/page/words",
     "/api/examples/-1", "/api/examples/99999999999999999999", "/api/examples/../about", "/docs", "/redoc",
     "/openapi.json"],
)  # fmt: skip
def test_nothing_but_the_files_of_the_page_is_given(api: TestClient, path: str) -> None:
    found = api.get(path)
    assert found.status_code in (404, 422) or found.json().get("version"), (path, found.status_code)
    assert "import" not in found.text and "root:" not in found.text


@pytest.mark.parametrize(
    "id", ["../../../../etc/passwd", "..", "/etc/passwd", "a/../../b", "%2e%2e/x", "\x00", "x" * 513, "", "*", "."]
)
def test_thumbnails_are_given_by_id_alone(api: TestClient, service: Service, id: str) -> None:
    assert api.get("/api/thumbnail", params={"id": id}).status_code in (404, 422)
    assert api.get("/api/attention", params={"id": id}).status_code in (404, 422)


def test_a_row_does_not_say_where_its_file_lies(api: TestClient, service: Service) -> None:
    text = ask(api, GOOD, body={"limit": 64}).text + api.post("/api/records/list", json={}).text
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
    '{"boxes": [[0, 0, NaN, 1]]}', '{"boxes": [[-1, 0, 1, 1]]}', '{"like": [""]}', '{"like": ["\\u0000"]}',
    '{"right": ["a"], "wrong": ["a"]}', '{"purpose": "%s"}' % ("x" * 201), '{"unknown": 1}', '{"k": 5}',
    '{"filter": {"cameras": ["\\ud800"]}}', '{"filter": {"cameras": ["%s"]}}' % ("x" * 300),
    '{"filter": {"cameras": ["\\u0000"]}}', json.dumps({"filter": {"cameras": ["a"] * 501}}),
    json.dumps({"right": [str(n) for n in range(201)]}), "[" * 100_000, '{"a":' * 5000,
    '{"limit": 1' + "0" * 5000 + "}",
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG, ids=lambda body: body[:40])
def test_a_malformed_question_is_refused(api: TestClient, body: str) -> None:
    found = api.post("/api/search", files={"picture": ("a", GOOD)}, data={"ask": body})
    assert found.status_code == 422 and found.json()["error"] and len(found.text) < 1000, found.text


HOSTILE = [
    "' OR 1=1 --", "gate 1' OR camera != '", '" OR ""=="', "gate 1'; DROP TABLE records; --", "%", "_", "*",
    "\\", "''",
    "camera", "NULL", "true", "gate 1\n", "{{7*7}}", "${jndi:ldap://x}", "\u202e", "🙂",
    "array_contains(tags, 'night')",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["cameras", "pids", "tracks", "tags"])
def test_a_filter_is_a_value_and_no_program(api: TestClient, name: str, text: str) -> None:
    found = ask(api, GOOD, body={"filter": {name: [text]}})
    assert found.status_code == 200 and found.json()["hits"] == [] and found.json()["searched"] == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_nor_is_it_in_lancedb(text: str, bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="needs the extra `search`")
    from vireid.search.drivers.open import open_gallery
    from vireid.search.gallery import Filter

    opened = open_gallery(f"lance:{tmp_path / 'g'}", bundle.config.dim, bundle.config.digest)
    assert opened.count(Filter(cameras=(text,))) == 0 == opened.delete(filter=Filter(pids=(text,)))
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


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(fields, json_values, max_size=4) | json_values)
@pytest.mark.parametrize("path", ["/api/search", "/api/forget", "/api/marks", "/api/records/list"])
def test_no_json_makes_the_service_fail(api: TestClient, service: Service, path: str, body: Any) -> None:
    headers = {"content-type": "application/json"}
    found = api.post(path, content=json.dumps(body).encode("utf-8", "replace"), headers=headers)
    assert found.status_code < 500, found.text
    assert service.archive.gallery.count() == 64


def test_forms_that_are_none(api: TestClient) -> None:
    def post(content: bytes, kind: str) -> int:
        return api.post("/api/search", content=content, headers={"content-type": kind}).status_code

    assert post(b"x", "multipart/form-data") == 422  # no boundary
    assert post(b"--b\r\nnonsense", "multipart/form-data; boundary=b") == 422
    assert post(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b") == 422
    assert post(b"{}", "text/plain") == post(b"<a/>", "application/xml") == post(b"", "") == 415
    assert post(b"ask={}", "application/x-www-form-urlencoded") == 415
    four = [("picture", ("a", GOOD))] * 4
    assert "Too many files" in api.post("/api/search", files=four).json()["error"]
    two = {"data": {"ask": ["{}", "{}"]}, "files": {"picture": ("a", GOOD)}}
    assert "Too many fields" in api.post("/api/search", **two).json()["error"]
    other = api.post("/api/search", files={"shell": ("a", GOOD)})
    assert other.status_code == 422 and "`picture`" in other.json()["error"]
    long = api.post("/api/search", files={"picture": ("a", GOOD)}, data={"ask": "x" * 2_000_000})
    assert long.status_code in (413, 422)


def test_a_body_is_cut_off_whether_or_not_its_length_is_told(api: TestClient, service: Service) -> None:
    most = service.limits.body_bytes
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 100_000
            yield bytes(100_000)

    kinds = {"content-type": "application/json"}
    assert api.post("/api/search", content=bytes(most + 1), headers=kinds).status_code == 413
    assert api.post("/api/search", content=chunks(), headers=kinds).status_code == 413
    boundary = {"content-type": "multipart/form-data; boundary=b"}
    assert api.post("/api/search", content=chunks(), headers=boundary).status_code in (413, 422)
    lying = {**kinds, "content-length": "-5"}
    assert api.post("/api/search", content=b"{}", headers=lying).status_code == 400
    assert api.post("/api/search", content=b"{}", headers={**kinds, "content-length": "9" * 5000}).status_code == 413


def test_a_slow_body_is_not_waited_for(bundle: Bundle, tmp_path: Path) -> None:
    import anyio

    app = create_app(make_service(tmp_path / "a", bundle, fill=False, limits=Limits(upload_s=0.2)))
    sent: list[dict] = []

    async def one() -> None:
        async def receive() -> dict:
            await anyio.sleep(30)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/api/search", "raw_path": b"", "query_string": b"",
                 "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
                 "client": ("127.0.0.1", 1),
                 "server": ("127.0.0.1", 8000), "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
                 "root_path": "", "extensions": {}}  # fmt: skip
        await app(scope, receive, send)

    began = time.monotonic()
    anyio.run(one)
    assert sent[0]["status"] == 408 and time.monotonic() - began < 10


def test_no_more_requests_compute_than_fit(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from vireid.server import app as module

    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    service = make_service(tmp_path / "a", bundle)
    embed = service.searcher.search_vectors

    def slow(*given: Any, **more: Any) -> Any:
        time.sleep(0.5)
        return embed(*given, **more)

    monkeypatch.setattr(service.searcher, "search_vectors", slow)
    with client(service) as api, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: ask(api, GOOD).status_code, range(6)))
    assert sorted(set(found)) == [200, 503] and found.count(200) >= 2


# --- other sites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_another_host_name_is_refused(api: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name now leads to this machine."""
    found = api.get("/api/about", headers={"host": host})
    assert found.status_code == 421 and "cameras" not in found.text
    assert api.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_the_machines_own_names_are_answered(api: TestClient, host: str) -> None:
    assert api.get("/api/about", headers={"host": host}).status_code == 200


def test_a_request_that_another_site_sent_is_refused(api: TestClient) -> None:
    cross = {"origin": "https://evil.example"}
    body = {"filter": {"pids": ["p5"]}, "expect": 8}
    for headers in (cross, {"origin": "null"}, {"origin": HERE + "1"}, {"sec-fetch-site": "cross-site"},
                    {"sec-fetch-site": "same-site"}):  # fmt: skip
        assert api.post("/api/forget", json=body, headers=headers).status_code == 403
    assert api.get("/api/thumbnail?id=x", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    own = {"origin": HERE, "sec-fetch-site": "same-origin"}
    assert api.post("/api/forget", json={"filter": {"pids": ["p5"]}}, headers=own).status_code == 200
    asked = api.options("/api/search", headers={**cross, "access-control-request-method": "POST"})
    assert asked.status_code in (403, 405)
    assert "access-control-allow-origin" not in api.get("/api/about", headers=cross).headers


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/api/about", "/api/nothing", "/api/thumbnail?id=gate 1/5/0"])
def test_every_answer_carries_the_policy(api: TestClient, path: str) -> None:
    for found in (api.get(path), api.get(path, headers={"host": "evil.example"})):
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert found.headers["x-content-type-options"] == "nosniff" and found.headers["x-frame-options"] == "DENY"
        assert found.headers["referrer-policy"] == "no-referrer" and found.headers["cache-control"]
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in found.headers


def test_an_unforeseen_error_tells_nothing(api: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any, **more: Any) -> None:
        raise RuntimeError("/srv/secret/path")

    monkeypatch.setattr(service.searcher, "search_vectors", broken)
    found = ask(api, GOOD)
    assert found.status_code == 500 and "secret" not in found.text and found.headers["content-security-policy"]


# --- tokens -----------------------------------------------------------------------------------------------------------

ROUTES = {
    "search": [("POST", "/api/search"), ("POST", "/api/records/list"), ("GET", "/api/thumbnail?id=gate 1/5/0"),
               ("GET", "/api/attention?id=gate 1/5/0"), ("GET", "/api/marks"), ("POST", "/api/marks"),
               ("GET", "/api/openapi.json"), ("GET", "/api/examples/0"), ("POST", "/api/attention")],
    "ingest": [("POST", "/api/records")],
    "admin": [("POST", "/api/forget"), ("GET", "/api/audit")],
}  # fmt: skip


def test_every_route_of_the_api_needs_its_role(closed: Service, secrets: dict[str, str]) -> None:
    app = create_app(closed)
    routes: Any = app.app.routes
    paths = {(method, route.path) for route in routes for method in route.methods - {"HEAD"}}
    listed = {(method, path.partition("?")[0]) for routes in ROUTES.values() for method, path in routes}
    listed = {(method, path.replace("/0", "/{number}")) for method, path in listed}
    known = {("GET", "/"), ("GET", "/page/{name}"), ("GET", "/api/about")}
    known |= {("POST", "/api/session"), ("DELETE", "/api/session")}
    assert paths == listed | known  # a new route joins this test
    api = TestClient(app, base_url="http://somewhere", raise_server_exceptions=False)
    for right, routes in ROUTES.items():
        for method, path in routes:
            assert api.request(method, path).status_code == 401
            assert api.request(method, path, headers={"authorization": "Bearer wrong"}).status_code == 401
            for role, secret in secrets.items():
                found = api.request(method, path, headers={"authorization": f"Bearer {secret}"}).status_code
                assert (found not in (401, 403)) == (role in ("admin", right)), (role, method, path, found)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {0}", "bearer{0}", "Bearer {0}x", "Bearer x{0}", "Bearer vireid_", "Token {0}",
     "Bearer {0},{0}", "Bearer " + "a" * 7000],
)  # fmt: skip
def test_bad_tokens(closed: Service, secrets: dict[str, str], header: str) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    found = api.get("/api/about", headers={"authorization": header.format(secrets["admin"])})
    assert found.status_code == 401 and found.headers["www-authenticate"] == "Bearer" and "rows" not in found.text


def test_an_ingest_token_sees_nothing_and_a_search_token_deletes_nothing(
    closed: Service, secrets: dict[str, str]
) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    about = api.get("/api/about", headers=bearer(secrets["ingest"])).json()
    assert about["caller"]["role"] == "ingest" and "cameras" not in about and "rows" not in about
    given = {"data": {"record": '{"camera": "c"}'}, "files": {"picture": ("x", GOOD)}}
    assert api.post("/api/records", headers=bearer(secrets["ingest"]), **given).status_code == 200
    body = {"filter": {"pids": ["p5"]}, "expect": 8}
    assert api.post("/api/forget", json=body, headers=bearer(secrets["search"])).status_code == 403
    assert closed.archive.gallery.count() == 65
    [denied] = [entry for entry in closed.archive.audit.entries() if entry["what"] == "denied"]
    assert denied["who"] == "the search" and denied["why"] == "needs admin"


def test_a_token_ends(closed: Service, secrets: dict[str, str]) -> None:
    tokens = closed.tokens
    assert tokens is not None
    api = TestClient(create_app(closed), base_url="http://somewhere")
    short = tokens.add("a day", "search", days=1e-9)
    assert api.get("/api/about", headers=bearer(short)).status_code == 401
    long = tokens.add("a week", "search", days=7)
    assert api.get("/api/about", headers=bearer(long)).status_code == 200
    cookie = api.post("/api/session", headers=bearer(secrets["search"])).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and secrets["search"] not in cookie
    assert api.get("/api/about").json()["caller"]["name"] == "the search"  # by the cookie
    assert api.post("/api/forget", json={"filter": {"pids": ["p5"]}}).status_code == 403
    tokens.revoke("the search")
    assert api.get("/api/about").status_code == 401  # at once, and its session with it
    assert api.get("/api/about", headers=bearer(long)).status_code == 200


def test_sessions(closed: Service, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    assert api.post("/api/session").status_code == 401 == api.post("/api/session", headers=bearer("x")).status_code
    api.post("/api/session", headers=bearer(secrets["admin"]))
    assert api.get("/api/audit").status_code == 200
    assert api.post("/api/session", headers=bearer(secrets["admin"])).cookies["vireid"] != api.cookies.get("other")
    api.delete("/api/session")
    assert api.get("/api/audit").status_code == 401
    assert api.get("/api/about", headers={"cookie": "vireid=guess"}).status_code == 401
    sessions, token = Sessions(), Tokens(closed.tokens.path).all()[0]  # type: ignore[union-attr]
    monkeypatch.setattr(access, "MOST_SESSIONS", 3)
    begun = [sessions.begin(token) for _ in range(5)]
    assert [sessions.token_digest(secret) is not None for secret in begun] == [False, False, True, True, True]
    monkeypatch.setattr(access, "SESSION_S", -1.0)
    assert sessions.token_digest(sessions.begin(token)) is None


def test_secure_cookies_behind_https(bundle: Bundle, tmp_path: Path, secrets: dict[str, str]) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    service = make_service(tmp_path / "f", bundle, fill=False, tokens=tokens, hosts=(), secure=True)
    api = TestClient(create_app(service), base_url="https://somewhere")
    assert "Secure" in api.post("/api/session", headers=bearer(secrets["search"])).headers["set-cookie"]


def test_every_token_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    first = tokens.add("a", "search")
    tokens.add("b", "admin")
    compared: list[tuple[str, str]] = []
    plain = access.hmac.compare_digest

    def counting(one: str, other: str) -> bool:
        compared.append((one, other))
        return plain(one, other)

    monkeypatch.setattr(access.hmac, "compare_digest", counting)
    assert tokens.who(first).name == "a" and len(compared) == 2  # type: ignore[union-attr]
    assert tokens.who("x") is None and len(compared) == 4
    assert {len(one) for pair in compared for one in pair} == {64}


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
        (lambda: tokens.add("desk", "admin"), "called 'desk' already"),
        (lambda: tokens.add("x", "king"), "a role"),  # type: ignore[arg-type]
        (lambda: tokens.add("", "admin"), "1 to 80"),
        (lambda: tokens.revoke("nobody"), "no token is called 'nobody'; there are desk"),
        (lambda: Tokens(tmp_path / "none.json").all(), "vireid token"),
    ):
        with pytest.raises(AccessError, match=told):
            wrong()
    if os.name != "nt":
        (tmp_path / "tokens.json").chmod(0o666)
        with pytest.raises(AccessError, match="chmod 600"):
            tokens.who(secret)
        (tmp_path / "tokens.json").chmod(0o600)
    (tmp_path / "tokens.json").write_text('{"format": "vireid tokens 1", "tokens": [{"name": "x"}]}')
    with pytest.raises(AccessError, match="no file of tokens"):
        tokens.all()


def test_a_broken_file_of_tokens_lets_nobody_in(closed: Service, secrets: dict[str, str]) -> None:
    assert closed.tokens is not None
    closed.tokens.path.write_text("[]")
    api = TestClient(create_app(closed), base_url="http://somewhere", raise_server_exceptions=False)
    found = api.get("/api/about", headers=bearer(secrets["admin"]))
    assert found.status_code == 503 and str(closed.tokens.path) not in found.text


def test_refused_requests_do_not_fill_the_disk(closed: Service) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    for _ in range(200):
        assert api.get("/api/about?" + "x" * 2000).status_code == 401
    denied = [entry for entry in closed.archive.audit.entries() if entry["what"] == "denied"]
    assert 1 <= len(denied) < 100 and (closed.archive.folder / "audit.jsonl").stat().st_size < 100_000


# --- opening it -------------------------------------------------------------------------------------------------------


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


def test_nothing_in_serve_can_execute_what_it_reads() -> None:
    """No pickle, no eval, no shell in any file of the search product."""
    import vireid.server

    names = re.compile(
        r"\b(pickle|dill|marshal|shelve|joblib)\b|\beval\(|\bexec\(|os\.system|shell=True|allow_pickle=True"
    )
    folder = Path(vireid.server.__file__).parent
    files = [*folder.rglob("*.py"), folder.parent / "commands/serve.py"]
    assert len(files) > 15
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            code = line.partition("#")[0]
            found = names.search(code.replace(".eval()", "").replace("its eval()", ""))
            assert not found or "no pickle" in line.lower(), f"{path.name}: {line}"
