"""The one reader of pictures: a path, bytes, a PIL image or an array in, an upright RGB picture of 8 bits out.

Training, embedding, indexing, searching, figures and checks read through `read`, so that one picture has one vector:

    orientation   what the camera noted (EXIF, or XMP) is applied
    transparency  is laid on white, as a page shows it: RGBA, LA, a transparent color of a palette
    CMYK, YCbCr, palettes, 1 bit, gray     become RGB by Pillow's rules; color profiles are not applied
    gray of more than 8 bits, or floats    becomes 8 bits by a `GrayRule`: a fixed range, or the picture's percentiles
    color of 16 bits a channel             is refused: Pillow would keep the upper 8 bits without a word
    several frames or pages                the first one is read, and the log says so
    names         do not count: the first bytes say what a file is

A picture that cannot be read whole, or is larger than `Limits`, is a PictureError that names the file. `resize` is the
only resampling on the way to a network.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile

from vireid.errors import ArgumentError, PictureError, PictureTooLarge
from vireid.gray_levels import LEVELS, percentiles, stretched
from vireid.picture_kinds import HEAD, begins_as_picture, opener_of
from vireid.types import ResizeFilter, Size

log = logging.getLogger(__name__)

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif", ".heic",
    ".heif", ".ppm", ".pgm",
)  # fmt: skip
BACKGROUND = "white"
MEGA = 1_000_000
UNKNOWN_PIXELS = "unknown pixel mode"  # what Pillow says of them

FILTERS = {name: Image.Resampling[name.upper()] for name in ("lanczos", "bicubic", "bilinear")}

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
ORIENTATION = 0x0112  # the EXIF tag; its values 2 to 8 and what makes them upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A marker of JPEG that is not stuffing (FF 00), a restart (FF D0 to D7) or filling (FF FF).
MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
START_OF_SCAN, END_OF_IMAGE, WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)

Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class GrayRule:
    """How gray values of more than 8 bits become 0 to 255: `low` black, `high` white, linear between, cut outside.

    Without a range it is the 1st and the 99th percentile of the picture's finite values; where these are equal, its
    smallest and largest value; a flat picture is middle gray. NaN is black. A fixed range keeps temperatures
    comparable between pictures; take the one that training took.

    >>> str(GrayRule()), str(GrayRule(7000, 9000))
    ('percentiles 1 to 99', '7000 to 9000')
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ArgumentError(f"a gray range has both ends or none, got {self.low} to {self.high}")
        if self.low is not None and self.high is not None and not -math.inf < self.low < self.high < math.inf:
            raise ArgumentError(f"a gray range goes from a lower to a higher number, got {self.low} to {self.high}")

    def __str__(self) -> str:
        return "percentiles 1 to 99" if self.low is None else f"{self.low:g} to {self.high:g}"

    @classmethod
    def of(cls, ends: Sequence[float] | None) -> GrayRule:
        """The rule of a fixed range (low, high), or of None."""
        return cls() if ends is None else cls(*ends)

    @property
    def ends(self) -> tuple[float, float] | None:
        """The fixed range, None without one."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """uint8 of gray values of any number type; ValueError where no value is finite."""
        low, high = self.low, self.high
        if low is None or high is None:
            low, high = percentiles(values)
        if values.dtype == np.uint16:  # each level once: a tenth of the memory
            return stretched(np.arange(LEVELS), low, high)[values]
        return stretched(values, low, high)


@dataclass(frozen=True)
class Limits:
    """What a picture may have before a pixel of it is decoded; None sets no limit.

    `max_pixels` is where Pillow itself refuses; `max_scans` (of a JPEG, each of which is a pass over the whole picture)
    matters for pictures of strangers: a camera writes 1, a progressive JPEG about 10.
    """

    max_pixels: int = 178_956_970
    max_bytes: int | None = None
    max_scans: int | None = None


STRETCH, LIMITS = GrayRule(), Limits()


def read(
    picture: Picture, name: str | None = None, *, gray: GrayRule = STRETCH, limits: Limits = LIMITS
) -> Image.Image:
    """A picture as a new PIL image of mode RGB, upright; `name` is what errors call it (a file is called by its path).

    An array is uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or gray values of another number type (H, W).
    Raises PictureError, of which PictureTooLarge says that a limit is passed.
    """
    if isinstance(picture, Image.Image):
        return _decoded(picture, name or "the image", gray, limits)
    if isinstance(picture, np.ndarray):
        return _of_array(picture, name or "the array", gray)
    if isinstance(picture, bytes):
        return _of_file(io.BytesIO(picture), len(picture), name or "the file", gray, limits)
    if not isinstance(picture, str | os.PathLike):
        raise PictureError(
            f"{name or 'the picture'}: expected a path, bytes, a PIL image or an array, got {type(picture).__name__}; "
            "decode it"
        )
    path = Path(picture)
    name = name or str(path)
    try:
        check_file(path, name)
        with path.open("rb") as file:
            return _of_file(file, os.fstat(file.fileno()).st_size, name, gray, limits)
    except FileNotFoundError:
        raise PictureError(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:  # a folder, no permission, a name with a zero byte
        if isinstance(error, PictureError):
            raise
        raise _unreadable(name, getattr(error, "strerror", None) or str(error)) from error


def resize(picture: Image.Image, size: Size, filter: ResizeFilter | str = "lanczos") -> np.ndarray:
    """What `read` gave as uint8 (height, width, 3) by Pillow's filter "lanczos", "bicubic" or "bilinear"."""
    return np.asarray(picture.resize((size[1], size[0]), FILTERS[check_filter(filter)]))


def check_filter(filter: str) -> str:
    """The name of a filter; ArgumentError where there is none of this name."""
    if filter not in FILTERS:
        raise ArgumentError(f"filter is one of {', '.join(FILTERS)}, got {filter!r}")
    return filter


# --- files ------------------------------------------------------------------------------------------------------------


def _of_file(file: IO[bytes], size: int, name: str, gray: GrayRule, limits: Limits) -> Image.Image:
    if limits.max_bytes is not None and size > limits.max_bytes:
        raise PictureTooLarge(
            f"{name} has {size / MEGA:.1f} MB, at most {limits.max_bytes / MEGA:g} are read; "
            "take the crop of the person, or a smaller frame"
        )
    head = file.read(HEAD)
    if not head:
        raise PictureError(f"{name} is empty (0 bytes); copy it again or leave it out")
    kind, opener = opener_of(head, name)
    file.seek(0)
    if kind == "JPEG" and limits.max_scans is not None:
        if _scans(file.read(), limits.max_scans) > limits.max_scans:
            raise PictureError(
                f"{name} is a JPEG of more than {limits.max_scans} scans, which no camera writes; save it again"
            )
        file.seek(0)
    # Not Image.open: it warns of pictures that are smaller than its limit, and warnings cannot be held back in threads.
    try:
        opened = opener(file, "")
    except Exception as error:  # on a damaged file Pillow's decoders raise nearly anything
        raise _unreadable(name, error) from error
    return _decoded(opened, name, gray, limits)


def is_picture(path: Path) -> bool:
    """Whether a file begins as a picture; False where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return begins_as_picture(file.read(HEAD))
    except OSError:
        return False


def check_file(path: Path, name: str) -> None:
    """PictureError where a path is not a file: a pipe or a device would be waited for. Raises what `stat` raises."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise PictureError(f"{name} cannot be read as a picture: it is {what} and not a file; name a file")


def _scans(data: bytes, enough: int) -> int:
    """Scans of a JPEG up to its end, which is not the end of the file where a phone appended a video."""
    at, scans = 2, 0
    while scans <= enough and (match := MARKER.search(data, at)):
        marker, at = match[1][0], match.end()
        if marker == END_OF_IMAGE:
            break
        scans += marker == START_OF_SCAN
        if marker not in WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans


def _unreadable(name: str, reason: object) -> PictureError:
    said = str(reason).strip() or type(reason).__name__
    if said == UNKNOWN_PIXELS:
        return PictureError(
            f"{name} stores its pixels in a form that Pillow does not read (floats of 16 or 64 bits, for instance); "
            "convert it to 8 or 16 bits, or to floats of 32"
        )
    return PictureError(f"{name} cannot be read as a picture: {said}; copy it again or leave it out")


# --- pixels -----------------------------------------------------------------------------------------------------------


def _decoded(image: Image.Image, name: str, gray: GrayRule, limits: Limits) -> Image.Image:
    """An opened picture, decoded, upright and in RGB; one that another program opened is left as it is."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise PictureTooLarge(
            f"{name} has {width} x {height} pixels, at most {limits.max_pixels / MEGA:.4g} million are read; "
            "take the crop of the person, or scale it down"
        )
    if min(width, height) < 1:
        raise PictureError(f"{name} has no pixels ({width} x {height}); leave it out")
    if image.format == "TIFF" and not _is_whole(image):
        raise PictureError(f"{name} holds only part of its {width} x {height} pixels; copy it again or leave it out")
    if _is_deep_color(image):
        raise PictureError(
            f"{name} holds 16 bits a channel in color, expected 8 bits a channel (or one channel of 16); convert it "
            "to 8 bits with the range that your training pictures had"
        )
    try:
        if getattr(image, "is_animated", False) and image.format != "MPO":  # whose second frame is a preview
            log.warning("%s holds several frames or pages; the first one is read", name)
        stored = _Stored.of(image)
        image.load()
        turn = UPRIGHT.get(_orientation(image, name))
        rgb = _rgb(image, gray, stored)
    except Exception as error:  # on a damaged file Pillow's decoders raise nearly anything
        raise _unreadable(name, error) from error
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}  # what was applied must not be applied again
    return upright


def _is_whole(image: Image.Image) -> bool:
    """Whether the strips or tiles of a TIFF reach to its last row and column; Pillow makes the others black."""
    boxes = [tile[1] for tile in getattr(image, "tile", ()) if tile[1] is not None]
    if not boxes:
        return True
    ends = sorted((max(box[2] for box in boxes), max(box[3] for box in boxes)))  # the picture may lie turned
    return all(end >= side for end, side in zip(ends, sorted(image.size), strict=True))


def _is_deep_color(image: Image.Image) -> bool:
    """Whether Pillow will keep the upper 8 bits of each channel alone."""
    if not isinstance(image, ImageFile.ImageFile) or image.mode.startswith(("I", "F")):
        return False
    for tile in image.tile:
        stored = tile[3]
        words: list[Any] = list(stored) if isinstance(stored, tuple) else [stored]
        if image.format == "PPM" and image.mode == "RGB" and len(words) > 1 and words[1] > 255:  # its largest value
            return True
        if image.format in ("PNG", "TIFF") and ";16" in str(words[0]):  # how it is stored
            return True
    return False


def _orientation(image: Image.Image, name: str) -> int:
    """EXIF orientation, 1 (upright) where there is none."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception as error:  # as many kinds as of a damaged picture; its pixels are whole
        log.warning("%s: its EXIF block is damaged (%s), so it is taken as upright", name, error)
        return 1


@dataclass(frozen=True)
class _Stored:
    """What of gray values of more than 8 bits Pillow changes, or does not apply."""

    unsigned: bool = False  # a TIFF of 32 bits, which Pillow reads as signed
    white_is_zero: bool = False  # a TIFF that stores the negative; Pillow turns those of 8 bits alone
    largest: int | None = None  # of a PGM, which Pillow stretches to 65535

    @classmethod
    def of(cls, image: Image.Image) -> _Stored:
        """Of a picture that is not decoded yet."""
        if not isinstance(image, ImageFile.ImageFile) or not image.mode.startswith("I"):
            return cls()
        if image.format == "TIFF":
            tags: Any = getattr(image, "tag_v2", {})
            is_unsigned = image.mode == "I" and tags.get(SAMPLE_FORMAT, (1,))[0] == 1 and tags.get(BITS, (0,))[0] == 32
            return cls(unsigned=is_unsigned, white_is_zero=tags.get(PHOTOMETRIC) == 0)
        words = [tile[3] for tile in image.tile]
        if image.format == "PPM" and words and isinstance(words[0], tuple):
            return cls(largest=words[0][1])
        return cls()

    def values(self, image: Image.Image) -> np.ndarray:
        """The values as the file has them."""
        values = np.asarray(image)
        if self.unsigned:
            return values.view(np.uint32)
        return values if self.largest is None else np.rint(values * (self.largest / 65535))


def _rgb(image: Image.Image, gray: GrayRule, stored: _Stored) -> Image.Image:
    """A new image of mode RGB."""
    if image.mode.startswith(("I", "F")):
        values = stored.values(image)
        levels = gray.apply(values)
        levels = 255 - levels if stored.white_is_zero else levels
        if isinstance(key := image.info.get("transparency"), int):
            levels[values == key] = 255  # BACKGROUND
        return Image.fromarray(levels).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, BACKGROUND)
        rgb.paste(rgba, mask=rgba)
        return rgb
    return image.convert("RGB")


def _of_array(array: np.ndarray, name: str, gray: GrayRule) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not array.size or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(f"{name}: an array is (H, W, 3), (H, W, 4) or (H, W), got {array.shape}")
    if array.dtype != np.uint8:
        if array.ndim == 3 or array.dtype.kind not in "uif":
            raise PictureError(
                f"{name}: expected uint8 pixels 0..255 (or one channel of other numbers), got {array.dtype}; scale to "
                "8 bits as your training pictures were"
            )
        try:
            array = gray.apply(array)
        except ValueError as error:
            raise _unreadable(name, error) from error
    return _rgb(Image.fromarray(np.ascontiguousarray(array)), gray, _Stored())
