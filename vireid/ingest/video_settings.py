"""Settings of videos in an index: where people's boxes come from and which of them become crops. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from vireid.declaration import Count, NonNegative, Positive, Share, settings

TrackerName = Literal["bytetrack", "sort", "ocsort", "none"]
Rows = Literal["crops", "tracks"]
PERSON = "person"
SEGMENT_S = 600.0
DETECTOR = "nanodet"  # where none is named: the one that comes with vireid
SOURCES = (
    "boxes of people in videos come from a detector (--detector FOLDER or HUB/NAME, see docs/serve/video.md) or from "
    "--boxes FILE; give one of them"
)


@settings
class VideoSettings:
    """How people are found in videos and which crops are kept.

    Either by a detector (see detect.py) with `tracker`, `fps` and `min_score`; or by `boxes` (see boxes.py).
    """

    detector: str | Path | None = None
    """Videos: what finds people: nanodet (default), a folder with weights of RT-DETRv2 or D-FINE, or a Hub name."""
    boxes: Path | None = None
    """Videos: people's boxes, a CSV or MOT file or a folder of them."""
    tracker: TrackerName = "bytetrack"
    """Videos: the tracker that joins detected boxes of one person."""
    fps: Positive = 5.0
    """Videos: frames per second that the detector sees."""
    min_score: Share | None = None
    """Videos: lowest score of a detected box, 0 to 1; by default 0.6 for nanodet and 0.3 for others."""
    label: str = PERSON
    """Videos: the detector's name for people."""
    interval_s: NonNegative = 1.0
    """Videos: seconds between two crops of a track."""
    max_crops: Count = 8
    """Videos: maximum number of crops of a track."""
    margin: NonNegative = 0.05
    """Videos: part of a box's width and height that is added on each side."""
    min_height: NonNegative = 40.0
    """Videos: minimum height of a box in pixels."""
    segment_s: Positive = SEGMENT_S
    """Videos: seconds of a segment, which is processed as a whole."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    @model_validator(mode="after")
    def one_source(self) -> VideoSettings:
        if self.detector is not None and self.boxes is not None:
            raise ValueError(SOURCES)
        return self

    @property
    def detector_used(self) -> str | Path | None:
        """The detector; None where boxes come from a file."""
        return None if self.boxes is not None else self.detector or DETECTOR
