"""What clients rely on: HEAD beside GET, 304 for what they have, parts without a file name, errors with a name."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import jpeg, post_picture, routes, stripes

PLACES = {
    "/page/{name}": "/page/app.js",
    "/api/v1/examples/{number}": "/api/v1/examples/0",
    "/api/v1/docs/{name}": "/api/v1/docs/start.js",
    "/api/v1/thumbnail": "/api/v1/thumbnail?id=gate 1/5/1",
    "/api/v1/attention": "/api/v1/attention?id=gate 1/5/1",
}


def test_head_is_get_without_the_body(shared_api: TestClient) -> None:
    places = [PLACES.get(path, path) for method, path in sorted(routes()) if method == "GET"]
    assert len(places) >= 11
    for place in (*places, "/api/v1/thumbnail?id=absent", "/nowhere"):
        got, head = shared_api.get(place), shared_api.head(place)
        assert head.status_code == got.status_code and head.content == b"", place
        kept = [{k: v for k, v in answer.headers.items() if k in ("content-type", "etag", "cache-control")}
                for answer in (got, head)]  # fmt: skip
        assert kept[0] == kept[1]
    assert shared_api.head("/api/v1/search").status_code == shared_api.get("/api/v1/search").status_code == 405


@pytest.mark.parametrize("place", ["/", "/page/style.css", "/api/v1/thumbnail?id=gate 1/5/1"])
def test_what_the_client_has_is_not_sent_again(shared_api: TestClient, place: str) -> None:
    first = shared_api.get(place)
    etag = first.headers["etag"]
    for value in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = shared_api.get(place, headers={"if-none-match": value})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), value
        assert again.headers["cache-control"] == first.headers["cache-control"]
    for value in ('"other"', etag[:-2] + '"'):
        assert shared_api.get(place, headers={"if-none-match": value}).content == first.content


def multipart(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form whose parts have these dispositions."""
    lines = [
        b"--edge\r\nContent-Disposition: form-data; " + how.encode() + b"\r\n\r\n" + data + b"\r\n"
        for how, data in parts
    ]
    return b"".join(lines) + b"--edge--\r\n", {"content-type": "multipart/form-data; boundary=edge"}


def test_a_picture_without_a_file_name_is_a_picture(api: TestClient) -> None:
    ask = ('name="ask"', b'{"limit": 1}')
    large = jpeg(stripes(), "PNG") + bytes(1_500_000)  # Starlette's fields end at a megabyte
    for part in ('name="picture"', "name=picture", 'name="picture"; filename=""'):
        for data in (jpeg(stripes()), large):
            body, headers = multipart((part, data), ask)
            found = api.post("/api/v1/search", content=body, headers=headers)
            assert found.status_code == 200 and len(found.json()["hits"]) == 1, (part, found.text)
    body, headers = multipart(('name="picture"', jpeg(stripes())), ask, ask)
    twice = api.post("/api/v1/search", content=body, headers=headers)
    assert twice.status_code == 422 and "the field `ask` comes 2 times; send it once" in twice.text
    body, headers = multipart(('name="picture"', jpeg(stripes())), ('name="ask"; filename="ask.json"', ask[1]))
    assert len(api.post("/api/v1/search", content=body, headers=headers).json()["hits"]) == 1
    body, headers = multipart(ask, ('name="limit"', b"1"))
    told = api.post("/api/v1/search", content=body, headers=headers).json()["error"]
    assert "a form has the fields `picture` (files) and `ask` (JSON), got 'limit'" in told
    body, headers = multipart(('name="image"', b"x"))
    told = api.post("/api/v1/search", content=body, headers=headers).json()["error"]
    assert "a form has the fields `picture` (files) and `ask` (JSON), got 'image'" in told


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("report.pdf", b"%PDF-1.7\n", "a PDF"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        ("page.html", b"\n<!DOCTYPE html><title>x</title>", "a web page"),
        ("all.zip", b"PK\x03\x04....", "a ZIP archive"),
        ("notes.txt", b"he", ""),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name(shared_api: TestClient, name: str, data: bytes, kind: str) -> None:
    found = post_picture(shared_api, data, name)
    assert found.status_code == 415
    told = found.json()["error"]
    assert told.startswith(f"picture 1 ({name}) cannot be read as a picture: it does not begin as JPEG")
    assert not kind or f"but as {kind};" in told
    files = [("picture", ("good.jpg", jpeg(stripes()))), ("picture", (f"/tmp/x/{name}", data))]
    told = shared_api.post("/api/v1/search", files=files, data={"ask": "{}"}).json()["error"]
    assert told.startswith(f"picture 2 ({name}) ")


def test_a_file_name_that_is_no_plain_text_is_not_repeated(shared_api: TestClient) -> None:
    for name in ("<b>.pdf", "x" * 101, "a\u202egpj.exe"):
        assert post_picture(shared_api, b"%PDF", name).json()["error"].startswith("picture 1 cannot be read")
