"""Score normalization: similarities of different modality pairs on one scale, without knowing who is on a picture.

Two pictures of one modality are more alike than two of different modalities, the same person or not. In a gallery of
both, wrong pictures of the query's own modality then stand before right ones of the other. What a pair of modalities
has in common is the mean similarity of pictures of different people, for which a cohort stands: up to COHORT gallery
pictures of each modality, of which hardly two show one person.

    s'(q, g) = s(q, g) - mean of s(a, b)      a of the cohort of q's modality, b of that of g's modality, a not b

The order within one modality does not change. Dividing by the standard deviation too (Z-norm; Auckenthaler, Carey,
Lloyd-Thomas: Score normalization for text-independent speaker verification systems, Digital Signal Processing 10, 2000)
is worse here: the pair that tells people apart less has the smaller deviation, and is raised for it. Measured in
docs/serve/search.md.
"""

from __future__ import annotations

import numpy as np

COHORT = 500  # gallery pictures of each modality
MIN_COHORT = 30  # fewer tell too little of a mean
STAMP = f"centered (mean of each pair of modalities subtracted, cohort of up to {COHORT} gallery images of each)"


def spread(size: int, count: int) -> np.ndarray:
    """Up to `count` of the places 0 to size - 1, evenly spread, the first and the last among them.

    >>> spread(7, 3).tolist(), spread(2, 3).tolist()
    ([0, 3, 6], [0, 1])
    """
    return np.arange(size) if size <= count else np.linspace(0, size - 1, count).round().astype(np.int64)


def mean_of_others(similarity: np.ndarray, same: bool) -> float:
    """The mean of similarities (C, C'); where both are the `same` pictures, without those of a picture with itself.

    >>> mean_of_others(np.array([[1.0, 0.25], [0.5, 1.0]]), same=True)
    0.375
    """
    values = np.asarray(similarity, np.float64)
    if not same:
        return float(values.mean())
    return float((values.sum() - np.trace(values)) / (len(values) * (len(values) - 1)))
