"""Uploads: bytes from a stranger to an RGB picture, or a refusal that says why.

What is refused before a pixel is decoded: more bytes than allowed, whatever does not begin as JPEG, PNG or WebP, more
pixels than allowed (read from the header), a JPEG of hundreds of scans, each of which costs a pass over the picture.
Only Pillow's three decoders are tried, the first picture of a file alone is read, and its name is not looked at.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from struct import error as StructError

from PIL import Image, ImageOps

from vireid.errors import UploadError

MEGA = 1_000_000
BEGINNINGS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "WEBP": b"RIFF"}
SCAN, MOST_SCANS = b"\xff\xda", 64  # a camera writes 1, a progressive JPEG about 10; the thumbnail in it has some
SMALLEST = (16, 8)  # (height, width) of a crop


@dataclass(frozen=True)
class Limits:
    """Of one request: bytes and pixels of a picture, pictures, and seconds for sending it."""

    picture_bytes: int = 12 * MEGA
    picture_pixels: int = 25 * MEGA
    pictures: int = 8
    upload_s: float = 60.0

    @property
    def body_bytes(self) -> int:
        """Of the whole request."""
        return self.pictures * self.picture_bytes + MEGA


@dataclass(frozen=True)
class Upload:
    """An RGB picture, turned as the camera was held, and the sha256 of the bytes it came in."""

    image: Image.Image
    digest: str

    def crop(self, box: tuple[float, float, float, float] | None) -> Image.Image:
        """The part inside a box (left, top, right, bottom), fractions of the sides; UploadError if it is too small."""
        if box is None:
            return self.image
        width, height = self.image.size
        left, top, right, bottom = (round(part * side) for part, side in zip(box, (width, height) * 2, strict=True))
        if right - left < SMALLEST[1] or bottom - top < SMALLEST[0]:
            raise UploadError(
                f"the box holds {max(0, right - left)} x {max(0, bottom - top)} pixels, fewer than "
                f"{SMALLEST[1]} x {SMALLEST[0]}; draw it around the whole person",
                422,
            )
        return self.image.crop((left, top, right, bottom))


def decode(data: bytes, limits: Limits) -> Upload:
    """The picture in `data`; UploadError for anything else."""
    if len(data) > limits.picture_bytes:
        raise UploadError(
            f"the picture has {len(data) / MEGA:.1f} MB, at most {limits.picture_bytes / MEGA:g} are taken; "
            "send the crop of the person, or a smaller frame",
            413,
        )
    kinds = [kind for kind, beginning in BEGINNINGS.items() if data.startswith(beginning)]
    if not kinds or (kinds == ["WEBP"] and data[8:12] != b"WEBP"):
        raise UploadError("this is no JPEG, PNG or WebP picture; convert it to one of these")
    if kinds == ["JPEG"] and data.count(SCAN) > MOST_SCANS:
        raise UploadError(f"this JPEG has more than {MOST_SCANS} scans, which no camera writes; save it again")
    try:
        with Image.open(io.BytesIO(data), formats=kinds) as image:
            width, height = image.size
            if width * height > limits.picture_pixels:
                raise _too_many(width, height, limits)
            image.load()
            return Upload(_rgb(ImageOps.exif_transpose(image)), hashlib.sha256(data).hexdigest())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UploadError(f"the picture has too many pixels ({error})", 413) from error
    except UploadError:
        raise
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError, EOFError, OverflowError,
            MemoryError, StructError, ZeroDivisionError) as error:  # what damaged files make Pillow raise  # fmt: skip
        raise UploadError("the picture is damaged and cannot be read; save it again") from error


def _too_many(width: int, height: int, limits: Limits) -> UploadError:
    most = limits.picture_pixels / MEGA
    return UploadError(f"the picture has {width} x {height} pixels, at most {most:g} million are taken; scale it", 413)


def _rgb(image: Image.Image) -> Image.Image:
    """Transparent parts become white, as a page would show them; 16 bits of gray become 8."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
