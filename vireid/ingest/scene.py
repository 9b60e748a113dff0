"""Scene: the whole frame that a row was cut from, with its box where the archive keeps it, and the frames around it.

A row of a video knows the video's path, and its id the segment, the track and the second (segments.py). The box is
found again among those that the detector left in the archive; boxes that came from a user's file are not kept there. A
row of a picture shows that picture. Nothing is copied: a source that is gone or has changed has no scene.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vireid import images
from vireid.errors import BoxesError, SourceError
from vireid.images import GrayRule
from vireid.ingest.boxes import Box, about_written, read_written
from vireid.ingest.identity import video_digest
from vireid.ingest.video import SUFFIXES, Stills
from vireid.search.gallery import Record
from vireid.system import file_digest

log = logging.getLogger(__name__)
NAMED = re.compile(r"(?P<video>.*)#(?P<segment>\d{4,})-(?P<track>[^/]*?)(?:/(?P<second>\d+\.\d+))?", re.DOTALL)
PLAIN = re.compile(r"(?P<video>.*)#(?P<second>\d+\.\d+)/\d+", re.DOTALL)
NEAR_S = 0.02  # between the second of an id and that of its box
MAX_PX = 1280  # of the longer side
COLOR = (255, 209, 102)


@dataclass(frozen=True)
class Scene:
    """A frame, and whether there are frames around it; `boxed` says that the row's box is drawn in it."""

    picture: Image.Image
    video: bool
    boxed: bool


def scene_of(record: Record, boxes: Path, gray: GrayRule, offset_s: float = 0.0) -> Scene:
    """The scene of a row, `offset_s` seconds later; `boxes` is the archive's folder of boxes.

    SourceError where the source is not on this machine, or is another file now; VideoError and PictureError where it
    cannot be read.
    """
    path = Path(record.path)
    if not record.path or not path.is_absolute() or not path.is_file():
        raise SourceError("the source of this crop is not on this machine, so there is no whole frame to show")
    is_video = path.suffix.lower() in SUFFIXES
    digest = video_digest(path) if is_video else file_digest(path)
    if record.digest and digest != record.digest:
        raise SourceError("the source of this crop is another file now, so there is no whole frame to show")
    if not is_video:
        return Scene(_small(images.read(path, gray=gray)), video=False, boxed=False)
    second, box = _place(record, boxes)
    frame = Image.fromarray(np.ascontiguousarray(Stills(path).at(max(0.0, second + offset_s))))
    if box is not None and offset_s == 0:
        width = max(2, round(max(frame.size) / 320))
        ImageDraw.Draw(frame).rectangle(tuple(box[1:5]), outline=COLOR, width=width)
    return Scene(_small(frame), video=True, boxed=box is not None and offset_s == 0)


def _place(record: Record, boxes: Path) -> tuple[float, Box | None]:
    """The second of a video that a row is of, and its box if it is kept."""
    named = NAMED.fullmatch(record.id)
    plain = None if named else PLAIN.fullmatch(record.id)
    if plain:
        return float(plain["second"]), None
    if named is None:
        raise SourceError("the id of this crop does not say its place in the video, so there is no frame to show")
    second = math.nan if named["second"] is None else float(named["second"])
    kept = _kept_boxes(boxes, named["video"], int(named["segment"]))
    track = [box for box in kept if box.track == named["track"]]
    if not math.isnan(second):
        near = [box for box in track if abs(box.time_s - second) <= NEAR_S]
        return second, min(near, key=lambda box: abs(box.time_s - second), default=None)
    if not track:
        raise SourceError("the boxes of this track are not kept in the archive, so there is no frame to show")
    best = max(track, key=lambda box: box.score * (box.bottom - box.top))
    return best.time_s, best


def _kept_boxes(folder: Path, video: str, segment: int) -> list[Box]:
    for file in sorted(folder.glob("*.csv")) if folder.is_dir() else ():
        try:
            if _about(file, file.stat().st_mtime_ns) == (video, segment):
                return read_written(file)[0]
        except BoxesError as error:  # the frame is shown without its box
            log.warning("%s", error)
    return []


@lru_cache(maxsize=10_000)
def _about(file: Path, changed_ns: int) -> tuple[str, int]:
    """The video and the segment that a file of boxes is of."""
    about = about_written(file)
    try:
        return str(about["video"]), int(about["segment"])
    except (KeyError, ValueError, TypeError):
        raise BoxesError(f"{file}, line 1 does not name video and segment; remove the file, it is made again") from None


def _small(picture: Image.Image) -> Image.Image:
    small = picture.convert("RGB")
    small.thumbnail((MAX_PX, MAX_PX), Image.Resampling.LANCZOS)
    return small
