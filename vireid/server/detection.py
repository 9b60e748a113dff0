"""People in an uploaded picture, so that one of them can be searched for without a box being drawn."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

from vireid.ingest.detect import Detector
from vireid.server.responses import DetectedPerson
from vireid.server.uploads import SMALLEST

MAX_PEOPLE = 50  # that are answered, by score


class Detection:
    """The detector of a service, which is used by one thread at a time: not every runtime allows more."""

    def __init__(self, detector: Detector) -> None:
        self._detector, self._lock = detector, threading.Lock()

    def people(self, picture: Image.Image) -> list[DetectedPerson]:
        """The people in an RGB picture who are large enough to be searched for, the highest score first."""
        with self._lock:
            [(boxes, scores)] = self._detector([np.asarray(picture)])
        large = (boxes[:, 2] - boxes[:, 0] >= SMALLEST[1]) & (boxes[:, 3] - boxes[:, 1] >= SMALLEST[0])
        boxes, scores = boxes[large], scores[large]
        order = np.argsort(-scores, kind="stable")[:MAX_PEOPLE]
        return [
            DetectedPerson(box=(left, top, right, bottom), score=score)
            for (left, top, right, bottom), score in zip(boxes[order].tolist(), scores[order].tolist(), strict=True)
        ]
