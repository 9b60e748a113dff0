"""Rows of a gallery in LanceDB's words: filters as SQL, tables of Arrow as records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vireid.search.gallery import Filter, Record


def condition(where: Filter) -> str | None:
    """A filter as LanceDB's SQL, None where everything passes. Texts are quoted, so that none is read as SQL."""
    parts = [
        among(column, values)
        for column, values in (("camera", where.cameras), ("pid", where.pids), ("track", where.tracks))
        if values
    ]
    if where.after_s is not None:
        parts.append(f"time_s >= {float(where.after_s)!r}")
    if where.before_s is not None:
        parts.append(f"time_s < {float(where.before_s)!r}")
    if where.modality is not None:
        parts.append(f"modality = {int(where.modality)}")
    if where.tags:
        parts.append(f"array_has_all(tags, [{', '.join(map(quoted, where.tags))}])")
    if where.without_ids:
        parts.append(f"NOT ({among('id', where.without_ids)})")
    return " AND ".join(parts) or None


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"  # as in the SQL standard: a backslash means itself


def among(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(quoted, values))})"


def vectors_of(table: Any) -> np.ndarray:
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)


def records_of(table: Any, vectors: np.ndarray | None) -> list[Record]:
    names = [name for name in ("id", "camera", "time_s", "modality", "path", "track", "pid", "tags", "thumbnail")]
    columns = [table[name].to_pylist() for name in names]
    records = []
    for row, values in enumerate(zip(*columns, strict=True)):
        each: dict[str, Any] = dict(zip(names, values, strict=True))
        each["time_s"] = np.nan if each["time_s"] is None else each["time_s"]
        vector = np.zeros(0, np.float32) if vectors is None else vectors[row].copy()
        each["tags"] = tuple(each["tags"] or ())
        records.append(Record(vector=vector, **each))
    return records
