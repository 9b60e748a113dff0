"""Lines: the rows of results that one line of a table or one curve stands for, with its name, mean and deviation.

Runs that differ in their seed alone are one line: a seed's value is its mean over the trials, the line's value is the
mean over the seeds, and the deviation is that of the seeds. Of one run the deviation is that of its trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vireid.errors import ArgumentError
from vireid.evaluation.rows import NAME, Metrics, Row

OF_ONE_RUN = ("run", "seed", "embedder", "refiner", "partition", "data", "images")  # of the stamp


class Average(NamedTuple):
    """Mean (...) and sample deviation (...), None for a single value, over "seeds" or "trials"."""

    mean: np.ndarray
    std: np.ndarray | None
    over: str


def lines_of(rows: Sequence[Row], protocol: str) -> dict[str, list[Row]]:
    """The rows of each line under a protocol by its name; ArgumentError for a protocol without rows."""
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        if row.protocol == protocol:
            key = tuple(sorted(item for item in row.stamp.items() if item[0] not in OF_ONE_RUN))
            groups.setdefault(key, []).append(row)
    if not groups:
        known = ", ".join(dict.fromkeys(row.protocol for row in rows)) or "none"
        raise ArgumentError(f"there are no results under {protocol}; there are those under {known}")
    names = _names([dict(key) for key in groups])
    return dict(zip(names, groups.values(), strict=True))


def average(rows: Sequence[Row], value: Callable[[Metrics], Sequence[float]]) -> Average:
    """Mean and deviation of a value of the rows of one line."""
    by_seed: dict[object, list[Sequence[float]]] = {}
    for row in rows:
        by_seed.setdefault(row.stamp.get("seed"), []).append(value(row.metrics))
    if len(by_seed) > 1:
        values, over = np.array([np.mean(trials, axis=0) for trials in by_seed.values()]), "seeds"
    else:
        values, over = np.array(next(iter(by_seed.values()))), "trials"
    return Average(values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else None, over)


def _names(stamps: Sequence[dict[str, str]]) -> list[str]:
    """What tells the lines apart: name or method, and the stamp entries in which lines of one name differ."""
    names = [stamp.get(NAME) or stamp.get("model") or stamp.get("method") or "run" for stamp in stamps]
    full = []
    for name, stamp in zip(names, stamps, strict=True):
        alike = [other for other, its in zip(stamps, names, strict=True) if its == name]
        own = [
            value
            for key, value in stamp.items()
            if key not in (NAME, "method", "model") and any(other.get(key) != value for other in alike)
        ]
        full.append(", ".join([name, *own]))
    return full
