"""Whether a file or folder of boxes belongs to the videos that are indexed, before the first row is written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vireid.errors import BoxesError, SourceError, VideoError
from vireid.ingest.boxes import PLACES, Box, boxes_of, check_source, videos_in
from vireid.ingest.segments import Source
from vireid.ingest.video import APART_S, Video
from vireid.ingest.video_settings import VideoSettings

log = logging.getLogger(__name__)
HALF = 0.5  # of the boxes of a video: where more lie outside of its frames they are not of this video

LATE = 1.01  # of the length that the container says, which may be a little short


def check_boxes(source: Path, videos: Sequence[Source], settings: VideoSettings) -> None:
    """BoxesError where the boxes cannot be those of these videos, SourceError where `source` has no video.

    Boxes of other videos may be in a file, and a video may have none: that is logged. A video that cannot be opened
    is left to the one who reads it.
    """
    assert settings.boxes is not None
    if not videos:
        raise SourceError(
            f"{source} holds no video, so the boxes of {settings.boxes} belong to nothing; leave them out"
        )
    if check_source(settings.boxes) and len(videos) > 1:
        raise BoxesError(f"{settings.boxes} has no column `video`, and {source} holds several videos; add it")
    counts = [_check_video(settings.boxes, video, settings.min_height) for video in videos]
    without = [video.id for video, count in zip(videos, counts, strict=True) if count == 0]
    if not any(counts) and None not in counts:
        what = "these videos" if len(videos) > 1 else "this video"
        raise BoxesError(
            f"{settings.boxes} has no box of {what}: {_first(without)}; {_what_it_has(settings.boxes, source)}"
        )
    if without:
        log.warning("%s has no box of %d of %d videos: %s", settings.boxes, len(without), len(videos), without[0])


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _what_it_has(boxes: Path, source: Path) -> str:
    """What a file or folder of boxes has in place of boxes of the videos."""
    if boxes.is_dir():
        return "the files there have no line that counts"
    names = videos_in(boxes)
    if not names:
        return "it has no line that counts (in a .txt a confidence of 0 is left out)"
    below = f"the path of each below {source}" if source.is_dir() else source.name
    return f"its column `video` has {_first(names)}; expected {below}"


def _check_video(file: Path, source: Source, min_height: float) -> int | None:
    """The number of boxes of a video, None where it cannot be opened; BoxesError where they do not fit it."""
    try:
        boxes = boxes_of(file, source.path, source.names)
        with Video(source.path) as video:
            longest, duration_s = max(video.size), video.duration_s
    except VideoError:
        return None
    if boxes:
        words = f"{file}: the boxes of {source.id}"
        _check_places(words, np.array([box[1:5] for box in boxes]), longest, min_height)
        _check_times(words, boxes, duration_s)
    return len(boxes)


def _check_places(words: str, places: np.ndarray, longest: int, min_height: float) -> None:
    """Places (N, 4) against the longer side of the frames and the lowest height that becomes a crop."""
    heights = places[:, 3] - places[:, 1]
    if (low := heights < min_height).all():
        reason = "they look like fractions of the frame: multiply them by its width and height"
        if places.max() > 1.5:
            reason = "are they in percent, or of a smaller picture? Else lower --min-height"
        raise BoxesError(
            f"{words} are all lower than --min-height {min_height:g} pixels, the highest has {heights.max():.3g}; "
            f"{reason}"
        )
    middles = (places[:, :2] + places[:, 2:]) / 2
    outside = (middles < 0).any(1) | (middles > longest).any(1)
    if outside.mean() > HALF:
        raise BoxesError(
            f"{words} lie outside of its frames, {int(outside.sum())} of {len(places)}: they reach to "
            f"{places.max():.0f} and the longer side has {longest} pixels. Expected {', '.join(PLACES)} in pixels of "
            "this video; are they left, top, width, height, or of another size?"
        )
    if low.any():
        log.info("%s: %d of %d are lower than --min-height and left out", words, int(low.sum()), len(places))


def _check_times(words: str, boxes: Sequence[Box], duration_s: float) -> None:
    last = boxes[-1].time_s
    if duration_s > 0 and last > LATE * duration_s + APART_S:
        raise BoxesError(
            f"{words} continue until {last:.2f} s and the video ends at {duration_s:.2f} s; a time is in seconds since "
            "the first moment, not in milliseconds and not of the day. Are they of another video?"
        )
