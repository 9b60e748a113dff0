"""Gray values of more than 8 bits as 8 bits: percentiles of a picture, and the stretch between two values."""

from __future__ import annotations

import numpy as np

FLAT = 0.5  # of the range: a picture of one value is middle gray
LEVELS = 1 << 16  # of 16 bits
PART = 1_000_000  # values counted at once


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8: `low` becomes black and `high` white, linear between, cut outside; NaN is black."""
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf
        share = (values - low) / (high - low) if high > low else np.full(values.shape, FLAT)
    share = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The 1st and the 99th percentile of the finite values, their smallest and largest where these are equal.

    ValueError where no value is finite.
    """
    if values.dtype == np.uint16:
        low, high = _of_counts(values)
        return (low, high) if low != high else (float(values.min()), float(values.max()))
    known = values[np.isfinite(values)].astype(np.float64)
    if not known.size:
        raise ValueError("it holds no finite value")
    low, high = np.percentile(known, (1, 99)).tolist()
    return (low, high) if low != high else (float(known.min()), float(known.max()))


def _of_counts(values: np.ndarray) -> tuple[float, float]:
    """What np.percentile says of 16-bit values, from the count of each level."""
    flat, counts = values.reshape(-1), np.zeros(LEVELS, np.int64)
    for start in range(0, flat.size, PART):
        counts += np.bincount(flat[start : start + PART], minlength=LEVELS)
    places, upto = (flat.size - 1) * np.array((0.01, 0.99)), counts.cumsum()
    below = np.floor(places).astype(np.int64)
    share = places - below
    one, other = (np.searchsorted(upto, np.minimum(place, flat.size - 1), "right") for place in (below, below + 1))
    low, high = np.where(share < 0.5, one + (other - one) * share, other - (other - one) * (1 - share)).tolist()
    return low, high
