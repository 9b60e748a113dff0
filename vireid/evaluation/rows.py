"""Row: the figures of one trial of a protocol, with the stamp of the conditions under which they were measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ConfigDict

from vireid.evaluation.metrics import Metrics

COLUMNS: dict[str, Callable[[Metrics], float]] = {
    "R1": lambda m: m.rank1,
    "R5": lambda m: m.rank5,
    "R10": lambda m: m.rank10,
    "R20": lambda m: m.rank20,
    "mAP": lambda m: m.mAP,
    "mINP": lambda m: m.mINP,
}
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
