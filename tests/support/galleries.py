"""What the tests of galleries share: records from a seed, an exact answer by plain numpy, filters and hostile texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Gallery, Record

DIM = 16
DIGEST = "a" * 64
HOSTILE = (
    "o'brien", 'say "hi"', "' OR 1=1 --", "'; DROP TABLE records; --", '" or "" == "', "\\", "\\'", '\\"', "a\\nb",
    "line\nbreak", "tab\there", "\r\n", "%", "a_b", "{x}", "${HOME}", "/* */", "../../etc/passwd", "NULL", "人员 夜",
    "é\u0301", "\u202egpj.exe", "\u2028", "😀", " ", "id", "[1,2]", "<script>alert(1)</script>", "\x1b[31m", "\x7f",
)  # fmt: skip
DRIVERS = ("memory", "lance", "milvus")


def place(driver: str, folder) -> str:
    """The url of a new gallery; skips where the driver's extra is absent."""
    if driver == "lance":
        pytest.importorskip("lancedb", reason="extra: search")
        return f"lance:{folder / 'gallery'}"
    if driver == "milvus":
        pytest.importorskip("pymilvus", reason="extra: milvus")
        pytest.importorskip("milvus_lite", reason="extra: milvus")
        return f"milvus:{folder / 'gallery.db'}"
    return "memory:"


def open_new(driver: str, folder, dim: int = DIM) -> Gallery:
    return open_gallery(place(driver, folder), dim=dim, bundle_digest=DIGEST)


def unit(rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((rows, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def records(count: int, seed: int = 0, dim: int = DIM, prefix: str = "r") -> list[Record]:
    """Records that differ in everything a filter looks at; every seventh has no known time."""
    vectors = unit(count, seed, dim)
    return [
        Record(
            f"{prefix}{n:05}", vectors[n], camera=f"cam{n % 5}", time_s=math.nan if n % 7 == 3 else 1000.0 + n,
            modality=n // 2 % 2, path=f"day {n % 3}/{n}.jpg", track=f"t{n // 4}", pid=f"p{n % 11}" if n % 3 else "",
            tags=tuple(tag for tag, every in (("bag", 2), ("hat", 3), ("kid", 5)) if n % every == 0),
            thumbnail=f"thumbs/{n}.webp",
        )
        for n in range(count)
    ]  # fmt: skip


FILTERS = {
    "nothing": Filter(),
    "cameras": Filter(cameras=("cam1", "cam4", "elsewhere")),
    "after": Filter(after_s=1050.0),
    "before": Filter(before_s=1050.0),
    "between": Filter(after_s=1020.0, before_s=1060.5),
    "modality": Filter(modality=1),
    "one tag": Filter(tags=("hat",)),
    "all tags": Filter(tags=("kid", "bag")),
    "pids": Filter(pids=("p1", "p7")),
    "no pid": Filter(pids=("",)),
    "tracks": Filter(tracks=("t3", "t9")),
    "without": Filter(without_ids=(*(f"r{n:05}" for n in range(90)), "unknown")),
    "camera and modality": Filter(cameras=("cam0", "cam2"), modality=0),
    "time and tag": Filter(after_s=1010.0, before_s=1100.0, tags=("bag",)),
    "everything at once": Filter(
        cameras=("cam0", "cam1", "cam2"), after_s=1002.0, before_s=1110.0, modality=0, tags=("bag",),
        pids=("p1", "p5", ""), tracks=tuple(f"t{n}" for n in range(0, 25)), without_ids=("r00012", "r00020"),
    ),
    "nobody": Filter(cameras=("cam1",), tags=("no such",)),
}  # fmt: skip


def passes(record: Record, filter: Filter) -> bool:
    """The meaning of a filter, one record at a time."""
    return (
        (not filter.cameras or record.camera in filter.cameras)
        and (filter.after_s is None or record.time_s >= filter.after_s)
        and (filter.before_s is None or record.time_s < filter.before_s)
        and (filter.modality is None or record.modality == filter.modality)
        and all(tag in record.tags for tag in filter.tags)
        and (not filter.pids or record.pid in filter.pids)
        and (not filter.tracks or record.track in filter.tracks)
        and record.id not in filter.without_ids
    )


def exact(given: Sequence[Record], queries: np.ndarray, k: int, filter: Filter = Filter()) -> list[list[str]]:  # noqa: B008
    """Ids of the k most alike of each query, equals by id."""
    kept = [record for record in given if passes(record, filter)]
    answer = []
    for query in queries.astype(np.float64):
        alike = {r.id: np.float32((r.vector.astype(np.float64) * query).sum()) for r in kept}
        answer.append(sorted(alike, key=lambda each, alike=alike: (-alike[each], each))[:k])
    return answer


def ids(hits) -> list[list[str]]:
    return [[hit.record.id for hit in line] for line in hits]


def changed(record: Record, **fields) -> Record:
    return replace(record, **fields)


GIVEN_ONE = records(1)[0]
