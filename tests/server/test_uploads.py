"""Uploaded pictures: what is refused, what they become, and that they never reach the disk."""

from __future__ import annotations

import io
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from hostile_pictures import GOOD, REFUSED, bomb, png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from served import SMALL, client, jpeg, make_service, post_picture, stripes
from starlette.formparsers import MultiPartParser

from vireid.deploy.bundle import Bundle
from vireid.errors import UploadError
from vireid.server.deps import InMemoryMultiPartParser
from vireid.server.search_service import SearchService
from vireid.server.uploads import decode


@pytest.fixture(scope="module")
def service(shared_service: SearchService) -> SearchService:
    return shared_service


@pytest.fixture(scope="module")
def api(shared_api: TestClient) -> TestClient:
    return shared_api


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_harmless_picture_is_refused(api: TestClient, name: str) -> None:
    data, status = REFUSED[name]
    found = post_picture(api, data)
    assert found.status_code == status, found.text
    assert set(found.json()) == {"error"} and "Traceback" not in found.text


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


@settings(max_examples=150)
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
def test_the_name_of_a_file_does_nothing(api: TestClient, service: SearchService, name: str, tmp_path: Path) -> None:
    post_picture(api, GOOD)
    before = sorted(path.name for path in service.archive.folder.rglob("*"))
    found = post_picture(api, GOOD, name=name)
    assert found.status_code == (200 if len(name) < 1000 else 422) and name not in found.text
    assert sorted(path.name for path in service.archive.folder.rglob("*")) == before
    assert name not in (service.archive.folder / "audit.jsonl").read_text(encoding="utf-8")


def test_the_declared_type_does_nothing(api: TestClient) -> None:
    assert post_picture(api, GOOD, kind="text/html").status_code == 200
    assert post_picture(api, b"<svg/>", kind="image/png").status_code == 415


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def rollovers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of uploads that were moved from memory to a file on the disk."""
    sizes: list[int] = []
    rollover = tempfile.SpooledTemporaryFile.rollover

    def recorded(file: Any) -> None:
        if not file._rolled:
            sizes.append(file.tell())
        rollover(file)

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", recorded)
    return sizes


def large_picture() -> bytes:
    """A PNG of more than 5 MB, which no compression makes smaller."""
    pixels = np.random.default_rng(0).integers(0, 256, (1800, 1000, 3), dtype=np.uint8)
    return jpeg(Image.fromarray(pixels), "PNG", compress_level=0)


def test_a_query_picture_never_reaches_the_disk(
    bundle: Bundle, tmp_path: Path, rollovers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starlette's own parser would write it to a file, which shows that the recording works."""
    api, data = client(make_service(tmp_path / "files", bundle)), large_picture()
    assert len(data) > 5_000_000
    assert post_picture(api, data).status_code == 200
    assert rollovers == []
    monkeypatch.setattr(InMemoryMultiPartParser, "spool_max_size", MultiPartParser.spool_max_size)
    assert post_picture(api, data).status_code == 200
    [size] = rollovers
    assert size > MultiPartParser.spool_max_size
