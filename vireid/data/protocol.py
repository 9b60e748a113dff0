"""Protocol: who queries whom, who is ignored, how often it is repeated, and how the figure is stamped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vireid.data.table import Table

Trial = tuple[np.ndarray, np.ndarray]  # rows of the table: queries (Q,), gallery (G,)


def ignore_nothing(query: Table, gallery: Table) -> np.ndarray | None:
    """Every gallery image counts for every query."""
    return None


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol, named as a path such as `sysu/all/single-shot`.

    `trials(table)` lists (query rows, gallery rows) for trial 0, 1, ...; `ignore(query, gallery)` takes a block of
    query rows and all gallery rows and returns a boolean (Q, G) mask of gallery images that do not count for that
    query, or None. With `cmc_over_pids` a rank list is reduced to the first appearance of each identity before the
    CMC is read (SYSU-MM01, LLCM); mAP and mINP are always over images. `stamp` is printed beside every figure. With
    `normalized` the mean of each pair of modalities is subtracted from the similarities (evaluation/score_norm.py).
    """

    name: str
    trials: Callable[[Table], Sequence[Trial]]
    ignore: Callable[[Table, Table], np.ndarray | None] = ignore_nothing
    cmc_over_pids: bool = False
    stamp: dict[str, str] = field(default_factory=dict)
    normalized: bool = False
