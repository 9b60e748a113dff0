"""Filters as the text of a store: conditions are built here, and a driver's Dialect says how parts are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vireid.search.gallery import Filter


@dataclass(frozen=True)
class Dialect:
    """How a store writes conditions: `quoted` makes a literal of a text, so that none is read as code.

    The others are templates of `column` and `value`, or of `column` and `values`, separated by commas.
    """

    quoted: Callable[[str], str]
    equal: str
    one_of: str
    none_of: str
    all_in: str  # a list column holds all of the values
    conjunction: str

    def condition(self, where: Filter, after_id: str | None = None) -> str:
        """What the records that pass a filter fulfill, those after `after_id` alone if it is given; "": all records."""
        parts = [] if after_id is None else [f"id > {self.quoted(after_id)}"]
        columns = {"camera": where.cameras, "pid": where.pids, "track": where.tracks}
        parts += [self.among(column, values) for column, values in columns.items() if values]
        if where.after_s is not None:
            parts.append(f"time_s >= {float(where.after_s)!r}")
        if where.before_s is not None:
            parts.append(f"time_s < {float(where.before_s)!r}")
        if where.modality is not None:
            parts.append(self.equal.format(column="modality", value=int(where.modality)))
        if where.tags:
            parts.append(self.all_in.format(column="tags", values=self._list(where.tags)))
        if where.without_ids:
            parts.append(self.none_of.format(column="id", values=self._list(where.without_ids)))
        return self.conjunction.join(parts)

    def among(self, column: str, values: Sequence[str]) -> str:
        """The condition that a column holds one of these texts."""
        return self.one_of.format(column=column, values=self._list(values))

    def _list(self, values: Iterable[str]) -> str:
        return ", ".join(map(self.quoted, values))
