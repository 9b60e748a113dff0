"""Rows of a gallery in Milvus's words: filters as its expressions, rows as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vireid.search.drivers.dialect import Dialect
from vireid.search.gallery import NO_VECTOR, Record

IDS_AT_ONCE = 1_000
TEXTS = ("camera", "path", "track", "pid", "thumbnail", "digest")
ESCAPED = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))  # milvus-lite knows no \u


def _quoted(text: str) -> str:
    for plain, escaped in ESCAPED:
        text = text.replace(plain, escaped)
    return f'"{text}"'


EXPR = Dialect(
    _quoted,
    equal="{column} == {value}",
    one_of="{column} in [{values}]",
    none_of="{column} not in [{values}]",
    all_in="array_contains_all({column}, [{values}])",
    conjunction=" and ",
)


def parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many ids as one call takes, at a time."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def row_of(record: Record, vector: np.ndarray) -> dict[str, Any]:
    """What Milvus keeps of a record."""
    time_s = None if np.isnan(record.time_s) else record.time_s
    texts = {name: getattr(record, name) for name in ("id", *TEXTS)}
    return {**texts, "vector": vector, "time_s": time_s, "modality": int(record.modality), "tags": list(record.tags)}


def record_of(row: Any, vector: np.ndarray | None) -> Record:
    """The record that a row is."""
    texts = {name: row[name] for name in ("id", *TEXTS) if name in row}
    kept = NO_VECTOR if vector is None else vector
    time_s, modality, tags = time_of(row["time_s"]), int(row["modality"]), tuple(row["tags"] or ())
    return Record(vector=kept, time_s=time_s, modality=modality, tags=tags, **texts)


def time_of(value: float | None) -> float:
    """Unix seconds, nan where Milvus has none."""
    return np.nan if value is None else float(value)
