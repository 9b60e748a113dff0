"""Pairs: similarities of pictures of one person and of different people, by pair of modalities.

A pair counts as in `vireid calibrate`: each once, and pictures of one person by one camera are left out, for
neighboring frames are not a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vireid.data.datasets.ignore import same_pid_and_camera
from vireid.data.table import Table
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.types import INFRARED, VISIBLE, Similarity

KINDS = {
    "visible/visible": (VISIBLE, VISIBLE),
    "visible/infrared": (VISIBLE, INFRARED),
    "infrared/infrared": (INFRARED, INFRARED),
}
MAX_PICTURES = 2500  # of all people that are compared: 3 million pairs


@dataclass(frozen=True)
class Pairs:
    """Similarities of one pair of modalities: `same` (S,) of one person, `other` (O,) of different people."""

    same: np.ndarray
    other: np.ndarray

    @property
    def overlap(self) -> float:
        """The area that the two densities share, from 0 (apart) to 1 (equal), by histograms of 100 bins."""
        low, high = min(self.same.min(), self.other.min()), max(self.same.max(), self.other.max())
        edges = np.linspace(low, max(high, low + 1e-6), 101)
        shares = [np.histogram(values, edges)[0] / len(values) for values in (self.same, self.other)]
        return float(np.minimum(*shares).sum())


def pairs(embeddings: Embeddings, max_pictures: int = MAX_PICTURES, seed: int = 0) -> dict[str, Pairs]:
    """The pairs by kind ("visible/infrared"), those kinds alone that have pairs of both sorts.

    Where there are more than `max_pictures` pictures, people are drawn until they have as many. ArgumentError where no
    kind has pairs of one person and of different people.
    """
    chosen = embeddings[_people(embeddings.table, max_pictures, seed)]
    by_kind: dict[str, Pairs] = {}
    for name, (first, second) in KINDS.items():
        rows, against = (np.flatnonzero(chosen.table.modality == kind) for kind in (first, second))
        values = compared(chosen.vectors[rows], chosen.vectors[against], chosen.similarity)
        one, two = chosen.table[rows], chosen.table[against]
        counts = ~same_pid_and_camera(one, two)
        if first == second:
            counts &= rows[:, None] < against[None, :]
        same = one.pid[:, None] == two.pid[None, :]
        if (same & counts).any() and (~same & counts).any():
            by_kind[name] = Pairs(values[same & counts], values[~same & counts])
    if not by_kind:
        raise ArgumentError(
            "no two pictures of one person by different cameras, or none of different people; take rows of a test split"
        )
    return by_kind


def compared(first: np.ndarray, second: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Similarities (n, m) of vectors (n, D) and (m, D): the cosine, or minus the squared distance."""
    if similarity == "euclidean":
        squares = np.square(first).sum(1)[:, None] + np.square(second).sum(1)[None, :]
        return 2 * first @ second.T - squares
    tiny = np.finfo(np.float32).tiny
    unit = [vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), tiny) for vectors in (first, second)]
    return unit[0] @ unit[1].T


def _people(table: Table, max_pictures: int, seed: int) -> np.ndarray:
    """Rows of all people, or of people drawn until they have `max_pictures` pictures."""
    if len(table) <= max_pictures:
        return np.arange(len(table))
    drawn = np.random.default_rng(seed).permutation(table.pids)
    counts = np.cumsum([np.count_nonzero(table.pid == pid) for pid in drawn])
    return np.flatnonzero(np.isin(table.pid, drawn[: max(2, int(np.searchsorted(counts, max_pictures)))]))
