"""Row: the figures (Metrics) of one trial of a protocol, with the stamp of the conditions they were measured under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ConfigDict

from vireid.errors import ArgumentError


@dataclass(frozen=True)
class Metrics:
    """Figures of one trial as fractions; `cmc[k - 1]` is the rank-k rate."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    cmc: tuple[float, ...]  # (K,)
    mAP: float
    mINP: float
    num_queries: int
    num_valid: int  # queries with at least one true match; the averages are over these

    def rank(self, k: int) -> float:
        """Rank-k rate; ValueError beyond the recorded length."""
        if not 1 <= k <= len(self.cmc):
            raise ArgumentError(f"the CMC was recorded for ranks 1 to {len(self.cmc)}, got {k}; ask for a longer one")
        return self.cmc[k - 1]

    @property
    def rank1(self) -> float:
        return self.rank(1)

    @property
    def rank5(self) -> float:
        return self.rank(5)

    @property
    def rank10(self) -> float:
        return self.rank(10)

    @property
    def rank20(self) -> float:
        return self.rank(20)


COLUMNS: dict[str, Callable[[Metrics], float]] = {
    "R1": lambda m: m.rank1,
    "R5": lambda m: m.rank5,
    "R10": lambda m: m.rank10,
    "R20": lambda m: m.rank20,
    "mAP": lambda m: m.mAP,
    "mINP": lambda m: m.mINP,
}
LONGEST_RANK = 20  # of COLUMNS
NAME = "name"  # this entry of the stamp, if there is one, is a column of the table: what the figures are of
AVERAGED_OVER = "partition"


@dataclass(frozen=True)
class Row:
    """The figures of one trial."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    protocol: str
    trial: int  # from 0
    metrics: Metrics
    num_gallery: int
    stamp: dict[str, str]

    @property
    def group(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What rows that are averaged have in common."""
        return self.protocol, tuple(sorted(item for item in self.stamp.items() if item[0] != AVERAGED_OVER))
