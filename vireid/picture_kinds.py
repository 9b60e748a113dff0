"""What a file is, by its first bytes: the kinds of pictures that are read, and the names of what else comes."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import IO

from PIL import Image

from vireid.errors import PictureError

log = logging.getLogger(__name__)

HEAD = 16  # bytes that say what a file is; of a shorter one zeros stand for the rest
# Formats by Pillow's name with the module that reads them. All of Pillow's others (PostScript, PDF, ...) are left out:
# they run programs, or are not photographs.
PLUGINS = {
    "JPEG": "JpegImagePlugin", "PNG": "PngImagePlugin", "WEBP": "WebPImagePlugin", "BMP": "BmpImagePlugin",
    "DIB": "BmpImagePlugin", "TIFF": "TiffImagePlugin", "GIF": "GifImagePlugin", "PPM": "PpmImagePlugin",
    "AVIF": "AvifImagePlugin",
}  # fmt: skip
KINDS = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, HEIC or PPM"
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
OTHER_KINDS = {  # what else people give, by its first bytes in lower case
    b"%pdf": "a PDF", b"<svg": "an SVG drawing", b"<?xml": "XML", b"<!doctype": "a web page", b"<html": "a web page",
    b"pk\x03\x04": "a ZIP archive", b"\x1f\x8b": "a gzip archive", b"8bps": "a Photoshop file",
    b"\x00\x00\x00\x0cjp": "JPEG 2000", b"version https://": "a pointer of Git LFS",
    b"\x00\x05\x16\x07": "the companion file of macOS",
}  # fmt: skip


def begins_as_picture(head: bytes) -> bool:
    """Whether a file with these first bytes is of a kind that `read` knows, HEIC without its package included."""
    padded = head.ljust(HEAD, b"\0")
    known = any(accepts is not None and accepts(padded) for _, accepts in openers().values())
    return known or (head[4:8] == b"ftyp" and head[8:12] in (*HEIC_BRANDS, *AVIF_BRANDS))


def opener_of(head: bytes, name: str) -> tuple[str, Callable[[IO[bytes], str], Image.Image]]:
    """Pillow's name of the format that a file begins as, and what opens it."""
    for kind, (opener, accepts) in openers().items():
        if accepts is not None and accepts(head.ljust(HEAD, b"\0")) is True:  # a text: a library is missing
            return kind, opener
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in AVIF_BRANDS:
        raise PictureError(
            f"{name} is an AVIF picture, which this Pillow cannot read: pip install 'pillow>=11.3', or convert it to "
            "JPEG or PNG"
        )
    if brand in HEIC_BRANDS:
        return "HEIF", _heif_opener(name)
    content = next((what for begin, what in OTHER_KINDS.items() if head.lstrip().lower().startswith(begin)), "")
    raise PictureError(
        f"{name} cannot be read as a picture: it does not begin as {KINDS}"
        + (f" but as {content}" if content else "")
        + "; convert it to one of these, or leave it out"
    )


def _heif_opener(name: str) -> Callable[[IO[bytes], str], Image.Image]:
    """What opens a HEIC picture: pi-heif, or pillow-heif, which writes them too and whose wheel is under the GPL."""
    for module in ("pi_heif", "pillow_heif"):
        try:
            importlib.import_module(module).register_heif_opener()
        except ImportError:
            continue
        return Image.OPEN["HEIF"][0]
    raise PictureError(
        f"{name} is a HEIC picture, which needs another package: pip install 'vireid[heic]', or convert it to JPEG "
        "or PNG"
    )


@lru_cache(maxsize=1)
def openers() -> dict[str, tuple[Callable, Callable | None]]:
    """By format: what opens a file, and what tells the format from its first bytes."""
    for module in set(PLUGINS.values()):
        try:
            importlib.import_module(f"PIL.{module}")
        except ModuleNotFoundError:  # AVIF before Pillow 11.3
            log.debug("Pillow has no %s", module)
    return {kind: Image.OPEN[kind] for kind in PLUGINS if kind in Image.OPEN}
