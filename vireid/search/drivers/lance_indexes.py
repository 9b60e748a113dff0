"""The indexes that LanceDB keeps of a gallery: by value, and of vectors where there is no sidecar."""

from __future__ import annotations

from typing import Any

BITS = 2  # of the index for each number; with 1 a filtered answer misses 1 to 20 % (docs/concepts/gallery.md)
SAMPLED = 32  # rows for each partition, to train it; 256, LanceDB's default, takes minutes at a million rows


def by_value() -> dict[str, Any]:
    """The index of each column that has one."""
    from lancedb.index import Bitmap, BTree, LabelList

    few, many = Bitmap(), BTree()
    return {"id": many, "time_s": many, "track": many, "pid": many, "camera": few, "modality": few, "tags": LabelList()}


def of_vectors(rows: int) -> Any:
    """The index of this many vectors, for LanceDB to train."""
    from lancedb.index import IvfRq

    return IvfRq(num_partitions=partitions(rows), num_bits=BITS, max_iterations=10, sample_rate=SAMPLED)


def partitions(rows: int) -> int:
    return max(1, round(rows**0.5))
