"""Overview: what a Searcher keeps of its gallery: a cohort of each modality, and how many crops a track has.

Both look at every row, so they are kept until the gallery has grown by a tenth, has shrunk at all (what was deleted is
not kept), or an hour has passed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vireid.evaluation.score_norm import COHORT
from vireid.search.gallery import Filter, Gallery

GROWTH, AGE_S = 1.1, 3600.0


@dataclass(frozen=True)
class _Kept:
    """A value, of how many rows it is, and since when."""

    value: Any
    rows: int
    since_s: float

    def holds(self, rows: int) -> bool:
        return self.rows <= rows <= GROWTH * self.rows and time.monotonic() - self.since_s < AGE_S


class Overview:
    """See this file's head. May be used by several threads."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._kept: dict[object, _Kept] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """To be called after rows were deleted."""
        with self._lock:
            self._kept.clear()

    def cohort(self, modality: int) -> np.ndarray:
        """Vectors (n, D) of up to COHORT rows of a modality."""
        where = Filter(modality=modality)

        def draw() -> np.ndarray:
            rows = self.gallery.sample(COHORT, where)
            return np.stack([row.vector for row in rows]) if rows else np.zeros((0, self.gallery.dim), np.float32)

        return self._value(modality, self.gallery.count(where), draw)

    def tracks(self, rows: int) -> int:
        """About how many tracks this many rows are of, by the rows per track of the whole gallery; 0 for no row."""

        def share() -> float:
            facets = self.gallery.facets()
            return facets.tracks / max(1, sum(facets.modalities.values()))

        return round(rows * self._value("tracks", self.gallery.count(), share)) if rows else 0

    def _value(self, key: object, rows: int, make: Callable[[], Any]) -> Any:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or not kept.holds(rows):
                kept = self._kept[key] = _Kept(make(), rows, time.monotonic())
            return kept.value
