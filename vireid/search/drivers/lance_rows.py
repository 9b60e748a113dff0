"""Rows of a gallery in LanceDB's words: filters as SQL, tables of Arrow as records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from vireid.search.drivers.dialect import Dialect
from vireid.search.gallery import Facets, Filter, Moment, Record


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


def newest_rows(table: Any, where: Filter, limit: int, after: Moment | None) -> Any:
    """The latest rows that pass, behind `after`, as a table of Arrow; see Gallery.newest."""
    conditions = [text] if (text := condition(where)) else []
    if after is not None:
        time_s, row_id = after
        unknown, same = np.isnan(time_s), f"id > {quoted(row_id)}"
        behind = f"(time_s < {time_s!r} OR (time_s = {time_s!r} AND {same}) OR time_s IS NULL)"
        conditions.append(f"(time_s IS NULL AND {same})" if unknown else behind)
    columns = [name for name in table.schema.names if name != "vector"]
    query = table.search().where(" AND ".join(conditions) or None).select(columns).limit(limit)
    latest = {"column_name": "time_s", "ascending": False, "nulls_first": False}
    return query.order_by([latest, {"column_name": "id", "ascending": True}]).to_arrow()


def schema_of(dim: int, description: str) -> Any:
    """The columns of a new gallery."""
    import pyarrow as pa

    names = ("camera", "path", "track", "pid", "thumbnail", "digest")
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("time_s", pa.float64()),  # null: unknown
            pa.field("modality", pa.int8(), nullable=False),
            pa.field("tags", pa.list_(pa.string())),
            *(pa.field(name, pa.string(), nullable=False) for name in names),
        ],
        metadata={"vireid": description},
    )


def table_of(schema: Any, records: list[Record], vectors: np.ndarray) -> Any:
    """Records and their vectors (n, D) as a table of these columns."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        name: [getattr(record, name) for record in records] for name in schema.names if name != "vector"
    }
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    columns["time_s"] = pa.array(columns["time_s"], pa.float64(), from_pandas=True)  # nan becomes null
    columns["modality"] = [int(value) for value in columns["modality"]]
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


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
        each["time_s"] = math.nan if each["time_s"] is None else each["time_s"]
        vector = np.zeros(0, np.float32) if vectors is None else vectors[row].copy()
        each["tags"] = tuple(each["tags"] or ())
        records.append(Record.stored(vector=vector, **each))
    return records
