"""The exact part of a search that all drivers share: similarity in float64, the order of hits, counts over rows."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from vireid.search.gallery import Facets, Hit, Moment, Record, newest_first

TIED = 2e-6  # squared distances closer than this are not distinguished by float32, so more rows are compared
SLACK = 16  # rows beyond k that a driver takes before the exact order
MAX_TIED = 16_384  # rows looked at for the sake of ties; Milvus gives no more at a time


def in_order(
    query: np.ndarray, records: Sequence[Record], vectors: np.ndarray, k: int, with_vectors: bool
) -> list[Hit]:
    """The k best of these candidates (n, D), exactly: the answer that all drivers agree on."""
    similarity = similarities(query, vectors)
    places = sorted(range(len(records)), key=lambda at: (-similarity[at], records[at].id))[:k]
    return [Hit(records[at].with_vector(vectors[at] if with_vectors else None), float(similarity[at])) for at in places]


def newest(moments: Iterable[Moment], limit: int, after: Moment | None) -> list[str]:
    """The ids of the `limit` latest behind `after`; see Gallery.newest."""
    begin = None if after is None else newest_first(after)
    behind = (one for one in moments if begin is None or newest_first(one) > begin)
    return [row_id for _, row_id in heapq.nsmallest(limit, behind, key=newest_first)]


def similarities(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Cosine similarity (n,) float32 of a unit vector (D,) to others (n, D), summed in float64."""
    return np.einsum("nd,d->n", vectors, query, dtype=np.float64).astype(np.float32)


def facets_of(rows: Iterable[tuple[str, int, float, Sequence[str], str]]) -> Facets:
    """Facets by looking at camera, modality, time_s, tags and track of one row after the other."""
    cameras: Counter[str] = Counter()
    modalities: Counter[int] = Counter()
    tags: Counter[str] = Counter()
    first = last = math.nan
    tracks: set[tuple[str, str]] = set()
    alone = 0
    for camera, modality, time_s, of_row, track in rows:
        cameras[camera] += 1
        modalities[int(modality)] += 1
        tags.update(of_row)
        if track:
            tracks.add((camera, track))
        else:
            alone += 1
        first, last = (time_s, time_s) if math.isnan(first) else (min(first, time_s), max(last, time_s))
    counts = [dict(sorted(counter.items())) for counter in (cameras, modalities, tags)]
    return Facets(*counts, first, last, len(tracks) + alone)  # type: ignore[arg-type]
