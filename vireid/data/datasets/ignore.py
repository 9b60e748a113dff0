"""Ignore rules: which gallery images do not count for a query. Each maps (query, gallery) to a (Q, G) mask or None."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vireid.data.table import COLUMNS, Table
from vireid.errors import DataError

IgnoreRule = Callable[[Table, Table], np.ndarray | None]


def same_pid_and_camera(query: Table, gallery: Table) -> np.ndarray:
    """Gallery images of the query's own identity taken by the query's own camera."""
    pid = query.pid[:, None] == gallery.pid[None, :]
    return pid & (query.camid[:, None] == gallery.camid[None, :])


def same(column: str) -> IgnoreRule:
    """Gallery images with the query's value in this column, of any identity; blank and NaN equal nothing.

    >>> from vireid.data.table import table_from_columns
    >>> columns = dict(path=["a", "b", "c"], pid=[1, 1, 2], camid=[1, 2, 2], modality=[0, 1, 1], split=["test"] * 3)
    >>> table = table_from_columns(".", columns | {"frame": [7, 7, 8]}, "manifest")
    >>> same("frame")(table[:1], table[1:]).tolist()
    [[True, False]]
    """

    def rule(query: Table, gallery: Table) -> np.ndarray:
        mine, theirs = _column(query, column), _column(gallery, column)
        if mine.dtype.kind in "US":  # compare small numbers instead of Q x G strings
            known, codes = np.unique(theirs, return_inverse=True)
            at = np.minimum(np.searchsorted(known, mine), len(known) - 1) if len(known) else np.zeros(len(mine), int)
            matches = known[at] == mine if len(known) else np.zeros(len(mine), bool)
            mine, theirs = np.where(matches & (mine != ""), at, -1), codes.reshape(-1)
        return mine[:, None] == theirs[None, :]

    return rule


def any_of(rules: tuple[IgnoreRule, ...]) -> IgnoreRule:
    """A gallery image is ignored if one of the rules ignores it."""

    def rule(query: Table, gallery: Table) -> np.ndarray | None:
        ignored = None
        for one in rules:
            mask = one(query, gallery)
            if mask is not None:
                ignored = mask if ignored is None else ignored | mask
        return ignored

    return rule


def _column(table: Table, name: str) -> np.ndarray:
    if name in COLUMNS:
        return getattr(table, name)
    if name not in table.extras:
        known = ", ".join([*COLUMNS, *table.extras])
        raise DataError(f"the ignore rule needs a column `{name}`; this table has {known}: add it or change `ignore`")
    return table.extras[name]
