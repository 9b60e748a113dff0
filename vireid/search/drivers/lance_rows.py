"""Rows of a gallery in LanceDB's words: filters as SQL, tables of Arrow as records."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from vireid.search.drivers.dialect import Dialect
from vireid.search.gallery import Filter, Record


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"  # as in the SQL standard: a backslash means itself


SQL = Dialect(
    quoted,
    equal="{column} = {value}",
    one_of="{column} IN ({values})",
    none_of="NOT ({column} IN ({values}))",
    all_in="array_has_all({column}, [{values}])",
    conjunction=" AND ",
)


def condition(where: Filter, after_id: str | None = None) -> str | None:
    """A filter as LanceDB's SQL, None where everything passes."""
    return SQL.condition(where, after_id) or None


def vectors_of(table: Any) -> np.ndarray:
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)


def records_of(table: Any, vectors: np.ndarray | None) -> list[Record]:
    names = [field.name for field in fields(Record) if field.name in table.column_names and field.name != "vector"]
    columns = [table[name].to_pylist() for name in names]
    records = []
    for row, values in enumerate(zip(*columns, strict=True)):
        each: dict[str, Any] = dict(zip(names, values, strict=True))
        each["time_s"] = np.nan if each["time_s"] is None else each["time_s"]
        vector = np.zeros(0, np.float32) if vectors is None else vectors[row].copy()
        each["tags"] = tuple(each["tags"] or ())
        records.append(Record(vector=vector, **each))
    return records
