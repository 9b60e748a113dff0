"""`vireid watch` for the film of live_scene.py, with known boxes in place of a detector.

A detector needs weights, which no package ships. The boxes of truth.json are looked up by the number that each frame
shows, moved by 3 % of their size, given scores of 0.5 to 0.95, and one in twenty is missing.

    python benchmarks/live_watch.py CAMERAS.yaml --gallery night --watchlist watchlist.yaml --truth film/truth.json
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from live_scene import number_of

from vireid.models import DEFAULT
from vireid.workflows.watch import watch_cameras

MOVED, MISSED = 0.03, 0.05


class KnownBoxes:
    """A detector that looks up what is in a frame."""

    def __init__(self, truth: Path) -> None:
        self.places = json.loads(truth.read_text())["places"]
        self.random = np.random.default_rng(0)

    def __call__(self, frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.people(*number_of(frame)) for frame in frames]

    def people(self, camera: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        known = [box for _, box in self.places[camera].get(str(number), ()) if self.random.random() > MISSED]
        boxes = np.array(known, np.float32).reshape(-1, 4)
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes += self.random.uniform(-MOVED, MOVED, boxes.shape).astype(np.float32) * size
        return boxes, self.random.uniform(0.5, 0.95, len(boxes)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cameras", type=Path)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--watchlist", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--status", type=float, default=10.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    watch_cameras(
        options.cameras, options.gallery, DEFAULT, show=lambda status: print(json.dumps(status), flush=True),
        detector=KnownBoxes(options.truth), watchlist=options.watchlist, status_s=options.status,
    )  # fmt: skip


if __name__ == "__main__":
    main()
