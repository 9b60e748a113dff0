"""People in the frames of live cameras: detected, tracked, and those who become rows of the gallery chosen.

A row has to be written while the person is still there, so crops are chosen as they come: the first of a track, then
one every `interval_s`, a time that doubles after each `double_after` rows of one track.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from vireid.ingest.boxes import Box, boxes_of
from vireid.ingest.detect import Detector
from vireid.ingest.sources import Crop
from vireid.ingest.track import LOST_S, NO_TRACK, PackageTracker
from vireid.ingest.video import APART_S
from vireid.live.settings import Camera
from vireid.live.shots import Shot

FRAMES = 8  # that the detector sees at a time
FORGOTTEN_S = 30.0  # since a track was seen last


@dataclass
class Passage:
    """A track of which rows were made."""

    rows: int
    last_s: float  # of the last row
    seen_s: float


@dataclass
class People:
    """The people at one camera; `detector` may be that of other cameras too."""

    name: str
    camera: Camera
    detector: Detector | None
    detections: int = 0
    _passages: dict[str, Passage] = field(default_factory=dict)
    _scene: tuple[int, tuple[int, ...]] | None = None  # connection and size of the last frame
    _last_s: float = -math.inf
    _begun: str = ""  # the name of the frame at which the tracker began
    _tracker: PackageTracker | None = None
    _known: list[Box] | None = None  # of a file

    def crops(self, shots: Sequence[Shot]) -> list[Crop]:
        """The crops of some frames that become rows, in order of time."""
        crops: list[Crop] = []
        for begin in range(0, len(shots), FRAMES):
            part = shots[begin : begin + FRAMES]
            pictures = [shot.pixels() for shot in part]
            for shot, picture, boxes in zip(part, pictures, self._boxes(part, pictures), strict=True):
                crops += self._chosen(shot, picture, boxes)
        return crops

    def _boxes(self, shots: Sequence[Shot], pictures: Sequence[np.ndarray]) -> list[list[Box]]:
        if self.camera.whole:
            self.detections += len(shots)
            return [[Box(s.media_s, 0, 0, p.shape[1], p.shape[0])] for s, p in zip(shots, pictures, strict=True)]
        if self.camera.boxes is not None:
            return [self._listed(shot) for shot in shots]
        assert self.detector is not None
        boxes = []
        for shot, picture, (places, scores) in zip(shots, pictures, self.detector(pictures), strict=True):
            self.detections += len(places)
            tracks = self._tracks(shot, picture.shape, places, scores)
            every = zip(places.tolist(), scores.tolist(), tracks, strict=True)
            boxes.append(
                [
                    Box(shot.media_s, at[0], at[1], at[2], at[3], track, score)
                    for at, score, track in every
                    if track != "-"
                ]
            )
        return boxes

    def _tracks(self, shot: Shot, size: tuple[int, ...], places: np.ndarray, scores: np.ndarray) -> list[str]:
        """The track of each box; after a cut, a gap or a change of size the tracker begins from the start."""
        if self.camera.tracker == "none" or self.camera.kind == "folder":
            return [""] * len(places)
        scene = (shot.connection, size)
        if scene != self._scene or shot.media_s - self._last_s > LOST_S or self._tracker is None:
            self._tracker = PackageTracker(self.camera.tracker, self.camera.fps)
            self._begun, self._scene, self._passages = shot.name.rpartition("/")[2], scene, {}
        self._last_s = shot.media_s
        numbers = self._tracker(shot.media_s, places, scores).tolist()
        return ["-" if number == NO_TRACK else f"{self._begun}-{number}" for number in numbers]

    def _listed(self, shot: Shot) -> list[Box]:
        """The boxes that a file has for the moment of a frame."""
        if self._known is None:
            assert self.camera.boxes is not None
            self._known = boxes_of(self.camera.boxes, shot.path, (shot.path.name, str(shot.path)))
        times = [box.time_s for box in self._known]
        half_s = min(APART_S, 0.5 / self.camera.fps)
        first, last = bisect_left(times, shot.media_s - half_s), bisect_left(times, shot.media_s + half_s)
        near = self._known[first:last]
        if not near:
            return []
        moment = min((box.time_s for box in near), key=lambda each: abs(each - shot.media_s))
        return [box for box in near if box.time_s == moment]

    def _chosen(self, shot: Shot, picture: np.ndarray, boxes: Sequence[Box]) -> list[Crop]:
        crops = []
        for place, box in enumerate(boxes):
            inside = box._replace(left=max(box.left, 0), right=min(box.right, picture.shape[1]))
            if not self.camera.whole and not inside.shows_somebody(self.camera.min_height):
                continue
            if not self._wanted(box.track, shot.media_s):
                continue
            crop = cut(picture, box, 0.0 if self.camera.whole else self.camera.margin)
            if crop is not None:
                crops.append(Crop(
                    id=f"{shot.name}/{place}", path=shot.path, camera=self.name, time_s=shot.time_s,
                    modality=self.camera.modality, track=box.track, pid=box.pid, picture=crop,
                    quality=box.score * (box.bottom - box.top),
                ))  # fmt: skip
        self._passages = {
            track: one for track, one in self._passages.items() if shot.media_s - one.seen_s < FORGOTTEN_S
        }
        return crops

    def _wanted(self, track: str, media_s: float) -> bool:
        """Whether a box becomes a row."""
        if self.camera.kind == "folder" and not track:
            return True
        passage = self._passages.get(track)
        if passage is None or media_s < passage.last_s:
            self._passages[track] = Passage(1, media_s, media_s)
            return True
        passage.seen_s = media_s
        if not track and media_s == passage.last_s:  # the same frame
            return True
        factor = 2 ** min((passage.rows - 1) // self.camera.double_after, 20) if track else 1
        if media_s - passage.last_s < self.camera.interval_s * factor - 1e-6:
            return False
        self._passages[track] = replace(passage, rows=passage.rows + 1, last_s=media_s)
        return True


def cut(picture: np.ndarray, box: Box, margin: float) -> Image.Image | None:
    """A box with its margin cut out of a frame (H, W, 3); None where less than two pixels of it lie in the frame."""
    wide, high = margin * (box.right - box.left), margin * (box.bottom - box.top)
    left, top = max(0, math.floor(box.left - wide)), max(0, math.floor(box.top - high))
    right = min(picture.shape[1], math.ceil(box.right + wide))
    bottom = min(picture.shape[0], math.ceil(box.bottom + high))
    if right - left < 2 or bottom - top < 2:
        return None
    return Image.fromarray(np.ascontiguousarray(picture[top:bottom, left:right]))


def check_tracker(camera: Camera) -> None:
    """MissingPackage or TrackerError at once, and not at the first person."""
    if camera.tracker != "none" and camera.boxes is None and not camera.whole and camera.kind != "folder":
        PackageTracker(camera.tracker, camera.fps)
