"""Rows of a gallery in LanceDB's words: filters as SQL, tables of Arrow as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from vireid.search.drivers.dialect import Dialect
from vireid.search.gallery import Facets, Filter, Record


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


def compute() -> Any:
    """pyarrow.compute, whose functions are made when it is imported, which type checkers do not see."""
    import pyarrow.compute

    return pyarrow.compute


def facets_of(batches: Iterable[Any]) -> Facets:
    """Facets of record batches with camera, modality, tags, time_s and track."""
    import pyarrow as pa

    pc = compute()
    tracks: set[tuple[str, str]] = set()
    alone = 0
    counts: dict[str, Counter[Any]] = {"camera": Counter(), "modality": Counter(), "tags": Counter()}
    first = last = np.nan
    for batch in batches:
        for name, counter in counts.items():
            column = batch[name].flatten() if name == "tags" else batch[name]
            counter.update({each["values"]: each["counts"] for each in pc.value_counts(column).to_pylist()})
        passages = pa.table({name: batch[name] for name in ("camera", "track")})
        groups = passages.group_by(["camera", "track"]).aggregate([([], "count_all")]).to_pylist()
        tracks |= {(group["camera"], group["track"]) for group in groups if group["track"]}
        alone += sum(group["count_all"] for group in groups if not group["track"])
        low, high = pc.min_max(batch["time_s"]).as_py().values()
        if low is not None:
            first, last = float(np.fmin(first, low)), float(np.fmax(last, high))
    cameras, modalities, tags = (dict(sorted(counter.items())) for counter in counts.values())
    return Facets(cameras, modalities, tags, first, last, len(tracks) + alone)


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
