"""Cells of a segment (lance_segment.py): rows of one modality whose times are near, with lists of codes of their own.

A filter by modality or time skips the lists of the cells that hold no row that passes. In the others rows that pass lie
side by side, which faiss goes through faster than through rows that pass here and there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vireid.search.gallery import Filter
from vireid.types import MODALITIES

CELL_ROWS = 16_384


@dataclass(frozen=True)
class Cells:
    """Modality, first and last time (C,) of cells, and where the lists of each begin, with their number at the end.

    Times are Unix seconds, an unknown one counts as none: inf and -inf in a cell without any.
    """

    modality: np.ndarray
    first_s: np.ndarray
    last_s: np.ndarray
    lists: np.ndarray  # (C + 1,)

    @classmethod
    def of(cls, modality: np.ndarray, time_s: np.ndarray, list_rows: int) -> tuple[Cells, np.ndarray]:
        """Cells of rows (N,), each with a list for every `list_rows`, and the cell of each row (N,)."""
        bins = max(1, round(len(modality) / CELL_ROWS / len(MODALITIES)))
        known = np.sort(time_s[~np.isnan(time_s)])
        edges = known[np.arange(1, bins) * len(known) // bins] if len(known) else known
        keys = modality * bins + np.searchsorted(edges, time_s, side="right")  # nan: in the last bin
        _, cell, rows = np.unique(keys, return_inverse=True, return_counts=True)
        first, last = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
        np.fmin.at(first, cell, time_s)
        np.fmax.at(last, cell, time_s)
        of_cell = np.empty(len(rows), np.int64)
        of_cell[cell] = modality
        lists = np.concatenate([[0], np.cumsum(np.maximum(1, np.rint(rows / list_rows)))]).astype(np.int64)
        return cls(of_cell, first, last, lists), cell

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Cells:
        with np.load(path) as stored:
            return cls(**stored)

    def lists_for(self, where: Filter) -> np.ndarray:
        """The lists (n,) that can hold a row that passes."""
        may = np.ones(len(self.modality), bool)
        if where.modality is not None:
            may &= self.modality == where.modality
        if where.after_s is not None:
            may &= self.last_s >= where.after_s
        if where.before_s is not None:
            may &= self.first_s < where.before_s
        return np.flatnonzero(np.repeat(may, np.diff(self.lists)))
