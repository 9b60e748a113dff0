"""The one reader: every kind of picture becomes upright RGB of 8 bits, or an error that names the file."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from heic_picture import heic, quarters
from PIL import Image, features

from vireid import images, picture_kinds
from vireid.errors import ArgumentError, PictureError, PictureTooLarge
from vireid.images import FILTERS, GrayRule, Limits, read, resize

SIZE = (32, 64)  # width, height


def colored(seed: int = 0) -> Image.Image:
    """Noise without any symmetry."""
    small = np.random.RandomState(seed).randint(0, 256, (8, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def png16(pixels: np.ndarray, color_type: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write; pixels (H, W, C) uint16."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def same(picture: object, expected: Image.Image) -> None:
    found = read(picture)  # pyright: ignore[reportArgumentType]
    assert found.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_ordinary_pictures_are_those_of_pillow(tmp_path: Path, kind: str, mode: str) -> None:
    data = encoded(colored().convert(mode), kind)
    with Image.open(io.BytesIO(data)) as opened:
        expected = opened.convert("RGB")
    (tmp_path / "a").write_bytes(data)
    for picture in (data, tmp_path / "a", str(tmp_path / "a"), Image.open(tmp_path / "a")):
        same(picture, expected)
    same(np.asarray(expected), expected)
    for name, filter in FILTERS.items():
        with Image.open(tmp_path / "a") as opened:
            pillows = np.asarray(opened.convert("RGB").resize((12, 24), filter))
        np.testing.assert_array_equal(resize(read(data), (24, 12), name), pillows)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG", {})],
    ids=["png", "webp", "tiff", "tiff-lzw", "jpeg"],
)
def test_what_the_camera_noted_is_applied_once(orientation: int, kind: str, options: dict[str, str]) -> None:
    undo = {2: 0, 3: 1, 4: 6, 5: 5, 6: 2, 7: 3, 8: 4}  # by hand, not by the table of the reader
    names = ("FLIP_LEFT_RIGHT", "ROTATE_180", "ROTATE_90", "TRANSVERSE", "ROTATE_270", "TRANSPOSE", "FLIP_TOP_BOTTOM")
    upright = colored()
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose[names[undo[orientation]]])
    data = encoded(stored, kind, exif=exif(orientation), **options)
    found = read(data)
    assert found.size == SIZE
    if kind != "JPEG":
        same(data, upright)
        with Image.open(io.BytesIO(data)) as opened:
            same(opened, upright)
    elif orientation > 1:
        difference = np.asarray(found).astype(int) - np.asarray(upright)
        assert np.abs(difference).mean() < 12
    np.testing.assert_array_equal(np.asarray(read(found)), np.asarray(found))


def test_transparent_parts_are_white() -> None:
    pixels = np.dstack([np.asarray(colored()), np.full((64, 32), 255, np.uint8)])
    same(encoded(Image.fromarray(pixels), "PNG"), colored())  # opaque: the very pixels
    pixels[:20, :, 3] = 0
    expected = np.asarray(colored()).copy()
    expected[:20] = 255
    for picture in (pixels, Image.fromarray(pixels), encoded(Image.fromarray(pixels), "PNG")):
        same(picture, Image.fromarray(expected))
    half = Image.new("RGBA", SIZE, (0, 0, 0, 128))
    assert np.unique(np.asarray(read(half))).tolist() == [127]
    gray = Image.merge("LA", (colored().convert("L"), Image.fromarray(pixels[:, :, 3])))
    expected = np.asarray(colored().convert("L").convert("RGB")).copy()
    expected[:20] = 255
    same(encoded(gray, "PNG"), Image.fromarray(expected))


def test_palettes_and_their_transparent_color() -> None:
    palette = colored().quantize(8)
    same(encoded(palette, "PNG"), palette.convert("RGB"))
    same(encoded(palette, "GIF"), palette.convert("RGB"))
    index = np.asarray(palette)
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[index == 3] = 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(encoded(palette, "PNG", transparency=3), Image.fromarray(expected))
        same(encoded(palette, "PNG", transparency=bytes([255] * 3 + [0])), Image.fromarray(expected))
    levels = colored().convert("L")
    expected = np.asarray(levels.convert("RGB")).copy()
    key = int(expected[0, 0, 0])
    expected[expected == key] = 255
    same(encoded(levels, "PNG", transparency=key), Image.fromarray(expected))


def test_cmyk_and_one_bit() -> None:
    data = encoded(colored().convert("CMYK"), "JPEG", quality=100, subsampling=0)
    difference = np.asarray(read(data)).astype(int) - np.asarray(colored())
    assert np.abs(difference).mean() < 2
    bits = colored().convert("1")
    same(encoded(bits, "PNG"), bits.convert("RGB"))


def deep() -> np.ndarray:
    """A thermal picture: gray values around 7,500 of 65,535."""
    return (7000 + 4 * np.asarray(colored().convert("L")).astype(np.float64)).astype(np.uint16)


def test_gray_of_sixteen_bits_is_stretched(tmp_path: Path) -> None:
    values = deep()
    low, high = np.percentile(values, (1, 99))
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    assert np.ptp(expected) == 255
    rgb = Image.fromarray(expected).convert("RGB")
    same(encoded(Image.fromarray(values), "PNG"), rgb)
    same(encoded(Image.fromarray(values), "TIFF"), rgb)
    same(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"), rgb)
    same(encoded(Image.fromarray(values.astype(np.int32)), "TIFF"), rgb)
    for kind in (np.uint16, np.int32, np.float32, np.float64):
        same(values.astype(kind), rgb)
        same(values.astype(kind)[:, :, None], rgb)
    turned = Image.fromarray(np.rot90(values))
    same(encoded(turned, "PNG", exif=exif(6)), rgb)


def test_a_fixed_range_of_gray_values() -> None:
    fixed = GrayRule(7000, 9000)
    found = read(np.array([[0, 7000], [8000, 60_000]], np.uint16), gray=fixed)
    assert np.asarray(found)[:, :, 0].tolist() == [[0, 0], [128, 255]]
    odd = np.array([[np.nan, np.inf], [-np.inf, 8000]])
    assert np.asarray(read(odd, gray=fixed))[:, :, 0].tolist() == [[0, 255], [0, 128]]
    assert np.asarray(read(np.full((2, 2), 40_000, np.uint16)))[0, 0].tolist() == [128] * 3  # flat: middle gray
    few = np.zeros((50, 50))
    few[0, 0] = 9
    assert np.asarray(read(few))[0, :2, 0].tolist() == [255, 0]  # its percentiles are equal
    with pytest.raises(PictureError, match="no finite value"):
        read(np.full((2, 2), np.nan))
    for low, high in ((1, 1), (2, 1), (None, 1), (1, None), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ArgumentError, match="a gray range"):
            GrayRule(low, high)


def test_gray_values_are_those_of_the_file(tmp_path: Path) -> None:
    """Pillow stretches PGM to 65535, reads 32 bits as signed and leaves a negative of 16 bits as it is."""
    values, fixed = deep(), GrayRule(7000, 9000)
    expected = read(values, gray=fixed)
    pgm = b"P5 32 64 16383\n" + values.astype(">u2").tobytes()
    np.testing.assert_array_equal(np.asarray(read(pgm, gray=fixed)), np.asarray(expected))
    large = values.astype(np.uint32) * 400_000
    tiff = encoded(Image.fromarray(large.view(np.int32)), "TIFF", tiffinfo={339: 1})
    np.testing.assert_array_equal(np.asarray(read(tiff)), np.asarray(read(large)))
    signed = encoded(Image.fromarray(values.astype(np.int32) - 8000), "TIFF")
    found = read(signed, gray=GrayRule(-1000, 1000))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    negative = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    with Image.open(io.BytesIO(negative)) as opened:
        assert opened.tag_v2[262] == 0  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_array_equal(255 - np.asarray(read(negative, gray=fixed)), np.asarray(expected))


def test_what_begins_as_a_picture(tmp_path: Path) -> None:
    for number, (data, known) in enumerate(((encoded(colored(), "PNG"), True), (heic(), True), (b"BM", True),
                                            (b"ab", False), (b"", False))):  # fmt: skip
        (tmp_path / str(number)).write_bytes(data)
        assert images.is_picture(tmp_path / str(number)) == known
        if len(data) == 2:
            refused(data, "cannot be read as a picture")
    assert not images.is_picture(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "it is a pipe, a socket or a device and not a file")


def test_the_first_of_several_frames_is_read_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    first, second = colored(1).quantize(64), colored(2).quantize(64)
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        more = {"lossless": True} if kind == "WEBP" else {}
        many = [first, second] if kind == "GIF" else [first.convert("RGB"), second.convert("RGB")]
        data = encoded(many[0], kind, save_all=True, append_images=many[1:], **more)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(np.asarray(read(data, "film")), np.asarray(first.convert("RGB")))
        assert caplog.messages == ["film holds several frames or pages; the first one is read"], kind
    caplog.clear()
    read(encoded(colored(), "MPO", save_all=True, append_images=[colored(1)]))
    assert caplog.messages == []  # the second picture of a phone's JPEG is a preview


def test_names_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(colored(), "PNG"))
    same(tmp_path / "a.jpg", colored())


@pytest.mark.skipif("avif" not in features.get_supported(), reason="this Pillow has no AVIF")
def test_avif() -> None:
    found = np.asarray(read(encoded(colored(), "AVIF", quality=100)))
    assert np.abs(found.astype(int) - np.asarray(colored())).mean() < 3


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(picture: object, match: str, **more: object) -> None:
    with pytest.raises(PictureError, match=match):
        read(picture, **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_a_file_without_its_end_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    data = encoded(colored(), kind)
    (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
    refused(tmp_path / "cut", r"/cut cannot be read as a picture: .*; copy it again or leave it out")


def test_what_is_no_picture(tmp_path: Path) -> None:
    refused(tmp_path / "none.jpg", r"none\.jpg: there is no such file")
    refused(tmp_path, "cannot be read as a picture: ")
    (tmp_path / "empty.jpg").touch()
    refused(tmp_path / "empty.jpg", r"empty\.jpg is empty \(0 bytes\)")
    refused(b"no picture", "does not begin as JPEG, PNG, WebP")
    refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "does not begin as")
    refused("a\0b", "cannot be read as a picture")
    refused(3, "expected a path, bytes, a PIL image or an array, got int")
    refused(np.zeros((8, 8, 3), np.uint16), "expected uint8 pixels .* got uint16", name="row 7")
    refused(np.zeros((8, 8), bool), "got bool")
    refused(np.zeros((8, 8, 2), np.uint8), r"got \(8, 8, 2\)")
    refused(np.zeros((0, 8), np.uint8), r"got \(0, 8\)")
    refused(Image.new("RGB", (0, 4)), "has no pixels")


def test_a_decoder_may_raise_anything(tmp_path: Path) -> None:
    data = bytearray(encoded(colored().convert("L"), "TIFF"))
    first = struct.unpack("<I", data[4:8])[0]
    for entry in range(first + 2, first + 2 + 12 * struct.unpack("<H", data[first : first + 2])[0], 12):
        if struct.unpack("<H", data[entry : entry + 2])[0] == 273:  # where the pixels begin becomes a text
            data[entry + 2] = 2
    with pytest.raises(TypeError), Image.open(io.BytesIO(bytes(data))) as opened:
        opened.load()
    refused(bytes(data), "x.tif cannot be read as a picture", name="x.tif")


@pytest.mark.parametrize("kind", ["<f2", "<f8"])
def test_a_tiff_of_other_floats_says_which_are_read(kind: str) -> None:
    values = np.zeros((4, 4), kind)
    tags = [(256, 4), (257, 4), (258, 8 * values.itemsize), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4),
            (279, values.nbytes), (339, 3)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + struct.pack("<H", len(tags)) + entries
    refused(data + bytes(4), "x.tif stores its pixels in a form .* or to floats of 32", name="x.tif")


@pytest.mark.parametrize(
    ("low", "high", "count"), [(0, 65536, 5000), (7000, 7400, 33), (9, 10, 40), (0, 3, 1), (0, 3, 2)]
)
def test_percentiles_of_sixteen_bits_are_those_of_numpy(low: int, high: int, count: int) -> None:
    for seed in range(20):
        values = np.random.RandomState(seed).randint(low, high, (count, 1)).astype(np.uint16)
        assert np.array_equal(GrayRule().apply(values), GrayRule().apply(values.astype(np.float64)))
        assert np.array_equal(GrayRule(3, 7100).apply(values), GrayRule(3, 7100).apply(values.astype(np.int32)))


def test_a_tiff_that_holds_a_part_of_its_pixels_is_refused() -> None:
    """Found by a fuzzer: 250 bytes that took 5.8 GB and 90 seconds."""
    data = bytearray(encoded(Image.fromarray(deep()), "TIFF"))
    first = struct.unpack("<I", data[4:8])[0]
    for entry in range(first + 2, first + 2 + 12 * struct.unpack("<H", data[first : first + 2])[0], 12):
        if struct.unpack("<H", data[entry : entry + 2])[0] == 257:  # height
            data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 4_000_000)
    refused(bytes(data), "x.tif holds only part of its 32 x 4000000 pixels", name="x.tif")


def test_color_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    values = np.repeat(deep()[:, :, None], 4, 2)
    for channels, color_type in ((3, 2), (2, 4), (4, 6)):
        refused(png16(values[:, :, :channels], color_type), "expected 8 bits a channel")
    same(png16(values[:, :, :1], 0), read(deep()))
    ppm = b"P6 32 64 65535\n" + values[:, :, :3].astype(">u2").tobytes()
    refused(ppm, "expected 8 bits a channel")
    with Image.open(io.BytesIO(png16(values[:, :, :3], 2))) as lazy:
        refused(lazy, "expected 8 bits a channel")


@pytest.mark.skipif(importlib.util.find_spec("pi_heif") is None, reason="needs the extra `heic`")
def test_heic_is_read_upright(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001.HEIC").write_bytes(heic())
    for picture in (heic(), tmp_path / "IMG_0001.HEIC"):
        pixels = np.asarray(read(picture)).astype(int)
        assert pixels.shape == (64, 32, 3) and np.abs(pixels - quarters()).mean() < 8
    for damaged in (heic()[:-200], heic()[:40] + bytes(len(heic()) - 40)):
        refused(damaged, "p.heic cannot be read as a picture", name="p.heic")


def test_heic_names_the_package_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pi_heif", "pillow_heif"):
        monkeypatch.setitem(sys.modules, module, None)
    refused(heic(), r"p.heic is a HEIC picture.*pip install 'vireid\[heic\]'", name="p.heic")


def test_avif_names_the_pillow_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {kind: opener for kind, opener in picture_kinds.openers().items() if kind != "AVIF"}
    monkeypatch.setattr(picture_kinds, "openers", lambda: known)
    refused(heic().replace(b"heic", b"avif"), r"AVIF picture.*pip install 'pillow>=11\.3'")


def test_limits_of_pixels_and_bytes_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Limits(max_pixels=2047, max_bytes=10_000, max_scans=64)
    data = encoded(colored(), "PNG")

    def too_large(data: bytes, match: str) -> None:
        with pytest.raises(PictureTooLarge, match=match) as caught:
            read(data, "p", limits=small)
        assert caught.value.http_status == 413

    too_large(data, "p has 32 x 64 pixels, at most 0.002047 million are read")
    too_large(data + bytes(10_000), r"p has 0\.0 MB, at most 0\.01 are read")
    same(data, read(data, limits=Limits(max_pixels=2048)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would warn from 101 and refuse from 201
    same(data, colored())


def progressive(scans: int) -> bytes:
    data = encoded(colored(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def test_scans_are_counted_up_to_the_end_of_the_jpeg() -> None:
    limits = Limits(max_scans=64)
    refused(progressive(100), "more than 64 scans", limits=limits)
    film = encoded(colored(), "JPEG") + b"MotionPhoto_Data" + b"\xff\xda\0\2" * 1000
    assert read(film, limits=limits).size == SIZE
    thumbnail = b"\xff\xe1" + struct.pack(">H", 4002) + b"\xff\xda\0\2" * 1000
    plain = encoded(colored(), "JPEG")
    assert read(plain[:2] + thumbnail + plain[2:], limits=limits).size == SIZE


def test_a_damaged_exif_block_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    data = encoded(colored(), "PNG", exif=b"Exif\0\0XX*\0nothing")
    with caplog.at_level(logging.WARNING):
        assert read(data, "p").size == SIZE
    assert "p: its EXIF block is damaged" in caplog.text


def test_a_picture_of_another_program_is_left_alone() -> None:
    picture = colored()
    found = read(picture)
    found.paste(0, (0, 0, 9, 9))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(colored()))
    with pytest.raises(ArgumentError, match="lanczos, bicubic, bilinear, got 'nearest'"):
        resize(picture, (4, 4), "nearest")
