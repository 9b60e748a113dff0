"""Segments: ten minutes of a video, the unit in which videos are indexed.

    detect and track, once      -> ARCHIVE.files/boxes/KEY.csv, whole or not at all
    choose crops of each track  -> at most `max_crops` of them, at least `interval_s` apart, spread over it
    cut them out                -> Crop, in order of time; a frame is decoded when a crop of it is opened

KEY is a digest of the video (path, size, time of change), the segment and what decides the boxes, the weights
included. Tracks do not cross segments: a person in view at the border has a track in each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vireid.errors import BoxesError, VideoError
from vireid.ingest.boxes import Box, boxes_of, read_written, write_boxes
from vireid.ingest.detect import Detector, lowest_score, open_detector, weights_digest
from vireid.ingest.sources import Crop
from vireid.ingest.track import NO_TRACK, PackageTracker
from vireid.ingest.video import Stills, Video, named_time, pixels, sample_frames
from vireid.ingest.video_settings import VideoSettings
from vireid.types import ModalityOrAuto

FOLDER = "boxes"  # of an archive
CLOSEST_S = 0.002  # two crops of a track; ids count milliseconds
FRAMES = 8  # that a detector sees at a time
LONGEST_NAME = 160  # bytes of a video's name in a track, which holds 256


@dataclass(frozen=True)
class Source:
    """A video to index: `id` names it in the gallery, `names` what a file of boxes may call it."""

    id: str
    names: tuple[str, ...]
    path: Path
    camera: str
    start_s: float = math.nan
    modality: ModalityOrAuto = "auto"
    pid: str = ""
    tags: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class Segment:
    """A piece (see sources.py) of a video, from start_s until before end_s (inf for the last one)."""

    source: Source
    number: int
    start_s: float
    end_s: float
    settings: VideoSettings
    store: Path | None  # the folder for detected boxes

    @property
    def name(self) -> str:
        return f"{self.source.id}#{self.number:04d}"

    def crops(self) -> Iterator[Crop]:
        """Crops in order of time. Raises VideoError, after those that are there, for a damaged video."""
        try:
            boxes, damage = self.boxes()
        except BoxesError as error:
            raise VideoError(str(error)) from error
        stills, source = Stills(self.source.path), self.source
        for box, place in chosen(boxes, self.settings):
            track = f"{_short(source.id)}#{self.number:04d}-{box.track}" if box.track else ""
            where = f"{self.number:04d}-{box.track}/{box.time_s:.3f}" if box.track else f"{box.time_s:.3f}/{place}"
            yield Crop(
                id=f"{source.id}#{where}", path=source.path, camera=source.camera, time_s=source.start_s + box.time_s,
                modality=source.modality, track=track, pid=box.pid or source.pid, tags=source.tags,
                picture=_Cut(stills, box, self.settings.margin),
                row=f"{source.id}#{self.number:04d}-{box.track}" if box.track else "",
                quality=box.score * (box.bottom - box.top), digest=source.digest,
            )  # fmt: skip
        if damage:
            raise VideoError(damage)

    def boxes(self) -> tuple[list[Box], str]:
        """The boxes of this segment in order of time, and what was wrong with the video."""
        if self.settings.boxes is not None:
            boxes = boxes_of(self.settings.boxes, self.source.path, self.source.names)
            return [box for box in boxes if self.start_s <= box.time_s < self.end_s], ""
        if self.store is None:
            raise BoxesError("a detector needs a folder to keep its boxes in; pass store=")
        file = self.store / f"{self.key()}.csv"
        if not file.is_file():
            boxes, damage = self._detect(detector_of(self.settings))
            write_boxes(file, boxes, {"video": self.source.id, "segment": self.number, "damage": damage})
        boxes, about = read_written(file)
        return boxes, str(about.get("damage", ""))

    def key(self) -> str:
        """A digest of what decides which boxes are found, under the names of version 0.1, whose files are reused."""
        settings, about = self.settings, self.source.path.stat()
        assert settings.detector_used is not None
        decides = {
            "format": 1, "video": str(self.source.path.resolve()), "bytes": about.st_size, "changed": about.st_mtime_ns,
            "start": self.start_s, "end": str(self.end_s), "weights": weights_digest(settings.detector_used),
            "tracker": settings.tracker, "rate": settings.fps, "label": settings.label,
            "least_score": lowest_score(settings.detector_used, settings.min_score),
        }  # fmt: skip
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode(errors="surrogateescape")).hexdigest()[:32]

    def _detect(self, detector: Detector) -> tuple[list[Box], str]:
        settings = self.settings
        tracker = None if settings.tracker == "none" else PackageTracker(settings.tracker, settings.fps)
        kept, damage = list[Box](), list[str]()
        with Video(self.source.path) as video:
            shown = sample_frames(settings.fps, self.start_s, _until_damage(video, self.start_s, self.end_s, damage))
            while batch := [(time_s, pixels(frame)) for time_s, frame in islice(shown, FRAMES)]:
                detections = detector([picture for _, picture in batch])
                for (time_s, _), (boxes, scores) in zip(batch, detections, strict=True):
                    tracks = [""] * len(boxes)
                    if tracker is not None:
                        numbers = tracker(time_s, boxes, scores).tolist()
                        tracks = ["-" if number == NO_TRACK else str(number) for number in numbers]
                    for box, score, track in zip(boxes.tolist(), scores.tolist(), tracks, strict=True):
                        if track != "-":
                            kept.append(Box(time_s, box[0], box[1], box[2], box[3], track, score))
        return sorted(kept), damage[0] if damage else ""


def segments_of(source: Source, settings: VideoSettings, store: Path | None) -> Iterator[Segment]:
    """The segments of a video; one that cannot be opened has one, which says so when it is worked."""
    try:
        with Video(source.path) as video:
            length_s, created_s = video.duration_s, video.created_s
    except VideoError:
        length_s, created_s = 0.0, math.nan
    if math.isnan(source.start_s):
        begun = named_time(source.path.name)
        source = replace(source, start_s=created_s if math.isnan(begun) else begun)
    count = max(1, math.ceil(length_s / settings.segment_s - 1e-6))
    for number in range(count):
        start_s = number * settings.segment_s
        yield Segment(source, number, start_s, math.inf if number == count - 1 else start_s + settings.segment_s,
                      settings, store)  # fmt: skip


def chosen(boxes: list[Box], settings: VideoSettings) -> list[tuple[Box, int]]:
    """The boxes that become crops, in order of time, each with its place among those of its moment.

    Of a track at most `max_crops`, `interval_s` apart, spread evenly; without tracks all boxes of one frame every
    `interval_s`.
    """
    tracks: dict[str, list[tuple[Box, int]]] = {}
    moment, place = -math.inf, 0
    for box in boxes:
        place = place + 1 if box.time_s == moment else 0
        moment = box.time_s
        if box.shows_somebody(settings.min_height):
            tracks.setdefault(box.track, []).append((box, place))
    crops, apart_s = [], max(settings.interval_s, CLOSEST_S) - 1e-6
    for track, many in tracks.items():
        apart: list[tuple[Box, int]] = []
        for one in many:
            since = one[0].time_s - apart[-1][0].time_s if apart else math.inf
            if since >= apart_s or (not track and since == 0):
                apart.append(one)
        if track and len(apart) > settings.max_crops:
            apart = [apart[at] for at in np.linspace(0, len(apart) - 1, settings.max_crops).round().astype(int)]
        crops += apart
    return sorted(crops)


@dataclass(frozen=True)
class _Cut:
    """A crop that is cut out when it is read."""

    stills: Stills
    box: Box
    margin: float

    def __call__(self) -> Image.Image:
        frame, box = self.stills.at(self.box.time_s), self.box
        wide, high = self.margin * (box.right - box.left), self.margin * (box.bottom - box.top)
        left, top = max(0, math.floor(box.left - wide)), max(0, math.floor(box.top - high))
        right = min(frame.shape[1], math.ceil(box.right + wide))
        bottom = min(frame.shape[0], math.ceil(box.bottom + high))
        if right - left < 2 or bottom - top < 2:
            raise VideoError(
                f"{self.stills.path} at {box.time_s:.3f} s: the box {tuple(box[1:5])} lies outside of the frame of "
                f"{frame.shape[1]} x {frame.shape[0]} pixels; do the boxes belong to this video?"
            )
        return Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))


@lru_cache(maxsize=1)
def detector_of(settings: VideoSettings) -> Detector:
    """The detector of these settings, opened once in a process."""
    assert settings.detector_used is not None
    return open_detector(settings.detector_used, settings.min_score, settings.label, settings.device)


def _until_damage(video: Video, start_s: float, end_s: float, damage: list[str]) -> Iterator[tuple[float, Any]]:
    try:
        yield from video.frames(start_s, end_s)
    except VideoError as error:
        damage.append(str(error))


def _short(name: str) -> str:
    """A name that a track has room for."""
    raw = name.encode(errors="surrogateescape")
    if len(raw) <= LONGEST_NAME:
        return name
    return f"{hashlib.sha256(raw).hexdigest()[:16]}-{name[-32:]}"
