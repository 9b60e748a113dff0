"""Trackers: which boxes of successive frames are one person, through the `trackers` package.

ByteTrack (Zhang, Sun, Jiang, Yu, Weng, Yuan, Luo, Liu, Wang: "ByteTrack: Multi-Object Tracking by Associating Every
Detection Box", ECCV 2022), SORT (Bewley, Ge, Ott, Ramos, Upcroft, ICIP 2016), OC-SORT (Cao, Pang, Weng, Khirodkar,
Kitani, CVPR 2023).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vireid.errors import TrackerError
from vireid.ingest.video_settings import TrackerName

CLASSES: dict[str, str] = {"bytetrack": "ByteTrackTracker", "sort": "SORTTracker", "ocsort": "OCSORTTracker"}
LOST_S = 2.0  # for which a hidden person keeps the track
BUFFER_FPS = 30  # frames a second that the package's lost_track_buffer is counted in
NO_TRACK = -1


class PackageTracker:
    """A tracker of the package for frames that come at about `fps` a second; its numbers begin at 0."""

    def __init__(self, name: TrackerName, fps: float) -> None:
        if name not in CLASSES:
            raise TrackerError(f"tracker is one of {', '.join((*CLASSES, 'none'))}, got {name!r}")
        try:
            import supervision
            import trackers
        except ImportError as error:
            raise TrackerError(
                "tracking needs the package trackers: pip install 'vireid[video]', or --tracker none"
            ) from error
        self._detections: Any = supervision.Detections
        self._tracker: Any = getattr(trackers, CLASSES[name])(
            lost_track_buffer=round(LOST_S * BUFFER_FPS), frame_rate=fps
        )

    def __call__(self, time_s: float, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        place = np.arange(len(boxes))  # the package may change their order
        given = self._detections(
            xyxy=boxes.reshape(-1, 4).astype(np.float32), confidence=scores, class_id=np.zeros(len(boxes), int),
            data={"place": place},
        )  # fmt: skip
        tracked = self._tracker.update(given, timestamp=time_s)
        numbers = np.full(len(boxes), NO_TRACK, np.int64)
        if len(tracked):
            numbers[tracked.data["place"].astype(int)] = tracked.tracker_id
        return numbers
