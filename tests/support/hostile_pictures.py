"""Uploads that are no harmless picture, each with the status that refuses it."""

from __future__ import annotations

import struct
import zlib

from served import jpeg, stripes


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
