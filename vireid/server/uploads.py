"""Uploads: the bytes of an uploaded picture to an RGB picture, or an error that says why they are refused.

Read by vireid.images, as what is indexed. Refused before a pixel is decoded: more bytes than allowed, whatever does not
begin as one of its formats, more pixels than allowed (read from the header), a JPEG of hundreds of scans, each of which
costs a pass over the picture. One of Pillow's decoders is tried, by the first bytes; the name of a file decides
nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from PIL import Image

from vireid import images
from vireid.errors import PictureError, PictureTooLarge, UploadError
from vireid.images import MEGA, STRETCH, GrayRule

MAX_SCANS = 64  # of a JPEG
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
class SentFile:
    """The bytes of an uploaded file, and what errors call it."""

    data: bytes
    name: str


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


def decode(data: bytes, limits: Limits, gray: GrayRule = STRETCH, name: str = "the picture") -> Upload:
    """The picture in `data`; UploadError, which calls it `name`, for anything else."""
    bounds = images.Limits(limits.picture_pixels, limits.picture_bytes, MAX_SCANS)
    try:
        return Upload(images.read(data, name, gray=gray, limits=bounds), hashlib.sha256(data).hexdigest())
    except PictureTooLarge as error:
        raise UploadError(str(error), error.http_status) from error
    except PictureError as error:
        raise UploadError(str(error)) from error
