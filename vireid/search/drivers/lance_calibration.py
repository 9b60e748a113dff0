"""How far a search by codes must look: measured on a gallery's own rows when its sidecar is built.

Some rows are queries. Their ten most similar others are found exactly, but for rows of their own track: who asks has
another picture, and near duplicates lie in one list. That is done among all rows and under filters that are hard: the
other modality, and a window of time, where few of the rows that pass show the person and the ten hold strangers, which
codes order badly. `candidates` is how far down the order by codes the true ones lie. Without a filter a larger share
of the lists needs fewer candidates: the cheapest pair is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vireid.search.drivers import lance_codes as codes
from vireid.search.drivers.lance_segment import Segment
from vireid.search.gallery import EVERYTHING, Filter

QUERIES, WANTED = 64, 10
GOAL = 0.997  # of the true ones are among the candidates
PROBED = (0.125, 0.25, 0.5, 0.75, 1.0)  # of the lists, without a filter
SCANNED = 50  # rows whose codes are compared in the time that one candidate takes
MIN_CANDIDATES, MAX_CANDIDATES = 300, 4_100
WINDOW = (0.4, 0.7)  # of the rows by time


class CodesTooCoarse(Exception):
    """Less than GOAL of the true ones are among MAX_CANDIDATES: a smaller share of them."""

    def __init__(self, share: float) -> None:
        super().__init__(
            f"codes find {100 * share:.1f} % of the most similar rows of this gallery, fewer than {100 * GOAL:.1f} %"
        )


@dataclass(frozen=True)
class Queries:
    """Vectors (Q, D), their rows counted over all segments (Q,), and their tracks (Q,), "" where there is none."""

    vectors: np.ndarray
    rows: np.ndarray
    tracks: list[str]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Queries:
        total = sum(segment.rows for segment in segments)
        chosen = [codes.spread(segment.rows, max(1, QUERIES * segment.rows // total)) for segment in segments]
        return cls(
            np.concatenate([segment.vectors(rows) for segment, rows in zip(segments, chosen, strict=True)]),
            np.concatenate([start + rows for start, rows in zip(_starts(segments), chosen, strict=False)]),
            [
                track
                for segment, rows in zip(segments, chosen, strict=True)
                for track in segment.records(rows)["track"].to_pylist()
            ],
        )


def calibrated(coder: codes.Coder, segments: Sequence[Segment]) -> codes.Coder:
    """The coder with the candidates and the share of lists that find GOAL of the rows that an exact search finds.

    Raises CodesTooCoarse.
    """
    queries = Queries.of(segments)
    masks = [[segment.passing(where) for segment in segments] for where in _filters(segments)]
    true = _true(segments, queries, masks)

    def ranks(which: int, probed: float) -> np.ndarray:
        return _ranks(coder, segments, queries.vectors, masks[which], true[which], probed)

    every = [ranks(which, 1.0) for which in range(len(masks))]
    if max(map(_needed, every)) > MAX_CANDIDATES:
        raise CodesTooCoarse(min(float(np.mean(each < MAX_CANDIDATES)) for each in every))
    pairs = [(_needed(ranks(0, probed)), probed) for probed in PROBED]
    open_candidates, probed = min(
        (pair for pair in pairs if pair[0] <= MAX_CANDIDATES), key=lambda pair: SCANNED * pair[0] + pair[1] * coder.rows
    )
    candidates = max(map(_needed, every[1:]))
    return replace(coder, candidates=candidates, open_candidates=open_candidates, probed=probed)


def _filters(segments: Sequence[Segment]) -> list[Filter]:
    """None, then hard ones."""
    times = np.concatenate([segment.times() for segment in segments])
    times = times[~np.isnan(times)]
    windows = [EVERYTHING]
    if len(times):
        after, before = np.quantile(times, WINDOW)
        windows += [Filter(after_s=float(after), before_s=float(before))] if after < before else []
    return windows + [replace(where, modality=each) for where in windows for each in (0, 1)]


def _true(
    segments: Sequence[Segment], queries: Queries, masks: Sequence[Sequence[np.ndarray | None]]
) -> list[np.ndarray]:
    """For each filter the rows (Q, WANTED), counted over all segments, that are most similar and of another track.

    -1 where fewer rows pass.
    """
    shape = (len(queries.vectors), WANTED)
    best = [(np.full(shape, -np.inf, np.float32), np.full(shape, -1)) for _ in masks]
    names = sorted(set(queries.tracks) - {""})
    own = np.array([names.index(name) if name else -2 for name in queries.tracks])
    for at, (start, segment) in enumerate(zip(_starts(segments), segments, strict=False)):
        tracks, first = segment.tracks(names), 0
        for block in segment.blocks():
            here = slice(first, first + len(block))
            similarity = queries.vectors @ block.T
            numbers = start + np.arange(first, first + len(block))
            similarity[(tracks[here] == own[:, None]) | (numbers == queries.rows[:, None])] = -np.inf
            for which, mask in enumerate(masks):
                passing = mask[at]
                rows = np.arange(len(block)) if passing is None else np.flatnonzero(passing[here])
                best[which] = _merged(best[which], similarity[:, rows], numbers[rows])
            first += len(block)
    return [np.where(np.isinf(scores), -1, rows) for scores, rows in best]


def _merged(best: tuple[np.ndarray, np.ndarray], more: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The WANTED largest scores (Q, WANTED) and their rows, of those before and more (Q, n) of other rows (n,)."""
    scores = np.concatenate([best[0], more], 1)
    numbers = np.concatenate([best[1], np.broadcast_to(rows, more.shape)], 1)
    order = np.argpartition(-scores, WANTED - 1, 1)[:, :WANTED]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)


def _ranks(
    coder: codes.Coder, segments: Sequence[Segment], queries: np.ndarray, masks: Sequence[np.ndarray | None],
    true: np.ndarray, probed: float,
) -> np.ndarray:  # fmt: skip
    """How far down the order by codes the true rows lie, MAX_CANDIDATES where they are not found."""
    starts = _starts(segments)
    coded = np.concatenate([np.full(segment.rows, segment.index is not None) for segment in segments])
    ranks: list[np.ndarray] = []
    for query, right in zip(queries, true, strict=True):
        right = right[right >= 0]
        turned, right = coder.rotated(query), right[coded[right]]  # without codes all rows are candidates
        parts = [
            (start + rows, scores)
            for start, segment, mask in zip(starts, segments, masks, strict=False)
            if segment.index is not None
            for rows, scores in [codes.nearest(segment.index, turned, mask, MAX_CANDIDATES, probed)]
        ]
        if not parts or not len(right):
            continue
        rows, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        rows = rows[np.argsort(-scores, kind="stable")]
        there = rows[None] == right[:, None]
        ranks.append(np.where(there.any(1), there.argmax(1), MAX_CANDIDATES))
    return np.sort(np.concatenate(ranks)) if ranks else np.zeros(1, np.int64)


def _needed(ranks: np.ndarray) -> int:
    """How many candidates hold GOAL of the true rows, in hundreds."""
    count = int(ranks[int(np.ceil(GOAL * len(ranks))) - 1]) + 1
    return max(MIN_CANDIDATES, -(-count // 100) * 100)


def _starts(segments: Sequence[Segment]) -> np.ndarray:
    return np.cumsum([0, *(segment.rows for segment in segments)])
