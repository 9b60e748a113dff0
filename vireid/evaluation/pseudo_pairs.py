"""Pseudo-pairs: which pictures of two modalities probably show one person, judged by their vectors alone.

Vectors are centered on themselves (centering.py) and averaged over groups of pictures that are known to show one
person, such as the track of one camera. A visible and an infrared group are a pair where each is the nearest of the
other: reciprocal nearest neighbors across the modalities. Most people who passed only cameras of one modality have no
reciprocal neighbor and so drop out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vireid.evaluation.centering import centered, modality_means
from vireid.types import INFRARED, VISIBLE

BLOCK = 1 << 26  # similarities at a time


@dataclass(frozen=True)
class PseudoPairs:
    """Pairs of groups: `visible` and `infrared` (P,) are group numbers, `similarity` (P,) their centered cosine."""

    visible: np.ndarray
    infrared: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.similarity)

    def first(self, count: int) -> PseudoPairs:
        """The first pairs."""
        return PseudoPairs(self.visible[:count], self.infrared[:count], self.similarity[:count])


def pseudo_pairs(vectors: np.ndarray, modality: np.ndarray, group: np.ndarray) -> PseudoPairs:
    """Pairs among unit vectors (N, D) with modality (N,) and group (N,), the most similar pair first.

    A group holds pictures of one modality.
    """
    unit = centered(vectors, modality, modality_means(vectors, modality))
    sides = []
    for kind in (VISIBLE, INFRARED):
        rows = np.flatnonzero(modality == kind)
        numbers, places = np.unique(group[rows], return_inverse=True)
        sums = np.zeros((len(numbers), unit.shape[1]))
        np.add.at(sums, places, unit[rows])
        sides.append((numbers, (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)))
    (visible, v), (infrared, r) = sides
    if not len(visible) or not len(infrared):
        nothing = np.zeros(0, np.int64)
        return PseudoPairs(nothing, nothing, np.zeros(0, np.float32))
    nearest, similarity = _nearest(v, r)
    back, _ = _nearest(r, v)
    pairs = np.flatnonzero(back[nearest] == np.arange(len(v)))
    pairs = pairs[np.argsort(-similarity[pairs], kind="stable")]
    return PseudoPairs(visible[pairs], infrared[nearest[pairs]], similarity[pairs])


def _nearest(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar row of `other` for each row of `one` and its similarity."""
    places, values = np.zeros(len(one), np.int64), np.zeros(len(one), np.float32)
    step = max(1, BLOCK // len(other))
    for start in range(0, len(one), step):
        block = one[start : start + step] @ other.T
        places[start : start + step], values[start : start + step] = block.argmax(1), block.max(1)
    return places, values
