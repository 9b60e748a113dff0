"""What the tests of the watch-list share: a calibration, rows of a known similarity, a person."""

from __future__ import annotations

from typing import Any

import numpy as np

from vireid.deploy.calibration import Calibration, Pair, Row
from vireid.live.watchlist import Person
from vireid.search.gallery import Record
from vireid.types import INFRARED

DIM, AT_S = 4, 1795550651.0
RATES = {1e-1: 0.5, 1e-2: 0.7, 1e-3: 0.9}  # false-match rate: threshold; 30,000 pairs support the last


def calibrated() -> Calibration:
    table = tuple(Row(threshold=at, false_match_rate=rate, false_non_match_rate=0.1) for rate, at in RATES.items())
    pair = Pair(same_pairs=500, other_pairs=30_000, people=40, offset=-8, slope=12, cllr=0.5, rows=table)
    names = ("visible/visible", "visible/infrared", "infrared/infrared")
    return Calibration(
        embedder="e", dataset="d", split="val", images="0", people="unseen", ignored="", missing={},
        pairs=dict.fromkeys(names, pair),
    )  # fmt: skip


def turned(similarity: float) -> np.ndarray:
    """A unit vector of this similarity to the first axis."""
    return np.array([similarity, np.sqrt(1 - similarity**2), 0, 0], np.float32)


def row(name: str, similarity: float, camera: str = "gate", after_s: float = 0.0, modality: int = INFRARED) -> Record:
    return Record(name, turned(similarity), camera, AT_S + after_s, modality, name)


def person(**changes: Any) -> Person:
    given = {"purpose": "missing", "until": "2099-01-01", "false_alarms_per_day": 1, "rows": ("known",)}
    return Person(**{**given, **changes})


def rows_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["row"] for event in events]
