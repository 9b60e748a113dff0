"""Search in the segments of a sidecar (lance_sidecar.py): candidates by codes, then the exact order.

Codes find candidates in each segment, under a mask of the rows that are alive and pass the filter. The candidates are
ordered by the upper bits of their vectors, and those that this cannot tell apart by all bits, in float64. Where few
rows pass, all are candidates. Large segments are searched at the same time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from vireid.search.drivers import exact
from vireid.search.drivers import lance_codes as codes
from vireid.search.drivers.lance_rows import records_of
from vireid.search.drivers.lance_segment import Segment
from vireid.search.gallery import Filter, Hit
from vireid.system import available_cores

FEW_ROWS = 2_000  # that pass a filter and are all candidates
PARALLEL_ROWS = 100_000  # from here on a segment is searched in a thread of its own
WANTED = 10  # rows that the candidates of a Coder are for
HIDDEN = 100  # ids that a search finds and leaves out; more of them become part of the mask
Masks = Sequence[np.ndarray | None]


def nearest(
    segments: Sequence[Segment], coder: codes.Coder, queries: np.ndarray, k: int, where: Filter, with_vectors: bool
) -> list[list[Hit]]:
    """The k most similar of each query (Q, D)."""
    hidden: tuple[str, ...] = ()
    if len(where.without_ids) <= HIDDEN:
        hidden, where = where.without_ids, replace(where, without_ids=())
    masks = _each(lambda segment: segment.passing(where), segments, segments)
    hits = []
    for query in queries:
        records, vectors = [], [np.zeros((0, query.size), np.float32)]
        for segment, rows in _best(segments, coder, query, k + len(hidden), masks, where):
            of_segment = records_of(segment.records(rows), None)
            shown = [at for at, record in enumerate(of_segment) if record.id not in hidden]
            records += [of_segment[at] for at in shown]
            vectors.append(segment.vectors(rows[shown]))
        hits.append(exact.in_order(query, records, np.concatenate(vectors), k, with_vectors))
    return hits


def _best(
    segments: Sequence[Segment], coder: codes.Coder, query: np.ndarray, k: int, masks: Masks, where: Filter
) -> list[tuple[Segment, np.ndarray]]:
    """The k most similar rows and their equals, by segment."""
    passing = sum(s.rows if m is None else int(np.count_nonzero(m)) for s, m in zip(segments, masks, strict=True))
    want = min(k, passing)
    if not want:
        return []
    turned = None if passing <= max(FEW_ROWS, want) else coder.rotated(query)
    candidates = coder.open_candidates if where.empty else coder.candidates
    looks = [coder.probed if where.empty else segment.lists(where) for segment in segments]
    limit = min(candidates * -(-want // WANTED), max(exact.MAX_TIED, 4 * want))
    while True:
        rows, scores, places = _candidates(segments, masks, looks, turned, min(limit, passing))
        similarity = _similarities(segments, rows, places, query, want)
        chosen = similarity >= _largest(similarity, want) - exact.TIED
        cut = len(rows) < passing and scores[chosen].min() <= scores.min() + exact.TIED
        if not cut or limit >= exact.MAX_TIED:
            return [(segments[at], rows[chosen & (places == at)]) for at in np.unique(places[chosen])]
        limit = min(4 * limit, exact.MAX_TIED)


def _candidates(
    segments: Sequence[Segment],
    masks: Masks,
    looks: Sequence[float | np.ndarray],
    turned: np.ndarray | None,
    count: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, their scores by codes and the number of their segment (n,).

    All rows are candidates, with infinite scores, in segments without codes, and in all where `turned` is None.
    """

    def find(task: tuple[Segment, np.ndarray | None, float | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        segment, mask, look = task
        if turned is None or segment.index is None:
            rows = np.arange(segment.rows) if mask is None else np.flatnonzero(mask)
            return rows, np.full(len(rows), np.inf, np.float32)
        return codes.nearest(segment.index, turned, mask, count, look)

    parts = _each(find, list(zip(segments, masks, looks, strict=True)), segments)
    places = np.repeat(np.arange(len(parts)), [len(rows) for rows, _ in parts])
    rows, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    if np.count_nonzero(scores < np.inf) > count:  # each segment gave that many
        best = scores >= _largest(scores[scores < np.inf], count)
        rows, scores, places = rows[best], scores[best], places[best]
    return rows, scores, places


def _similarities(
    segments: Sequence[Segment], rows: np.ndarray, places: np.ndarray, query: np.ndarray, want: int
) -> np.ndarray:
    """Similarity (n,) of candidates to a query; -inf for those that are surely not among the `want` best."""
    similarity = np.empty(len(rows), np.float32)
    for at in np.unique(places):
        here = places == at
        similarity[here] = segments[at].packed.rough(rows[here], query)
    near = similarity >= _largest(similarity, want) - 2 * max(segment.slack for segment in segments)
    for at in np.unique(places[near]):
        here = near & (places == at)
        similarity[here] = exact.similarities(query, segments[at].vectors(rows[here]))
    similarity[~near] = -np.inf
    return similarity


def _largest(values: np.ndarray, count: int) -> np.floating:
    """The smallest of the `count` largest."""
    return np.partition(values, len(values) - count)[len(values) - count]


def _each(work: Callable[[Any], Any], tasks: Sequence[Any], segments: Sequence[Segment]) -> list[Any]:
    """`work` of every task, one for each segment."""
    if sum(segment.rows >= PARALLEL_ROWS for segment in segments) < 2:
        return [work(task) for task in tasks]
    return list(_pool().map(work, tasks))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), "vireid-search")
