"""Several runs as one side of an explanation (RegDB's splits, or seeds): what they stored, and means over them."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vireid.data.table import Table
from vireid.evaluation.rescore import Conditions, Stored


@dataclass(frozen=True)
class StoredRuns:
    """The vectors of several runs, each with the digest of the pictures that it tests; figures are means over them."""

    runs: tuple[tuple[str, Stored], ...]

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """The layers and flips that all of them keep."""
        first, *others = (stored.keys for _, stored in self.runs)
        return tuple(key for key in first if all(key in keys for keys in others))

    @property
    def table(self) -> Table:
        """The rows of the first run."""
        return self.runs[0][1].table

    def score(self, conditions: Conditions) -> dict[str, float]:
        """Mean fractions by column; errors as `Stored.score`."""
        scores = [stored.score(conditions) for _, stored in self.runs]
        return {column: statistics.fmean(score[column] for score in scores) for column in scores[0]}

    def testing(self, images: Collection[str]) -> StoredRuns:
        """Those that test one of these sets of pictures."""
        return StoredRuns(tuple(run for run in self.runs if run[0] in images))


Kept = Stored | StoredRuns


@dataclass(frozen=True)
class Common:
    """What both sides test: how many pictures or splits of how many, and what is stored of these."""

    noun: str
    counts: tuple[int, int]
    shared: int
    first: Kept
    second: Kept


def in_common(first: Kept, second: Kept, images: tuple[str, str]) -> Common:
    """The splits that both sides test where one of them is several runs, else the pictures; `images` by side."""
    if isinstance(first, StoredRuns) or isinstance(second, StoredRuns):
        sides = [_runs(stored, own) for stored, own in zip((first, second), images, strict=True)]
        digests = [{digest for digest, _ in side.runs} for side in sides]
        both = digests[0] & digests[1]
        counts = len(digests[0]), len(digests[1])
        return Common("split", counts, len(both), sides[0].testing(both), sides[1].testing(both))
    keys = _keys(first), _keys(second)
    rows = [np.flatnonzero(np.isin(own, other)) for own, other in (keys, keys[::-1])]
    counts = len(keys[0]), len(keys[1])
    return Common("picture", counts, len(rows[0]), first.only(rows[0]), second.only(rows[1]))


def _runs(stored: Kept, images: str) -> StoredRuns:
    return stored if isinstance(stored, StoredRuns) else StoredRuns(((images, stored),))


def _keys(stored: Stored) -> np.ndarray:
    """What tells the pictures of a table apart, and whose they are."""
    table = stored.table
    columns = zip(table.path, table.pid, table.camid, table.modality, strict=True)
    return np.array(["/".join(map(str, row)) for row in columns])
