"""Measure a Calibration: rates, intervals and the logistic curve of every modality pair, from labeled embeddings.

A pair counts unless a rule leaves it out: pictures of one person by one camera are always left out, for neighboring
frames are not a test, and so is what the data set's protocol ignores. Different people at one camera stay in: they
are in a gallery too and the hardest to tell apart there.

**Intervals.** Pairs share pictures and people, hence the 90 % intervals come from drawing people with replacement, not
pairs (Bolle, Ratha, Pankanti: Error analysis of pattern recognition systems - the subsets bootstrap, CVIU 2004).

**Curve.** log-odds = a + b * similarity is fitted to both kinds of pairs with equal weight (Platt 1999, with his
softened targets; Brummer and du Preez, Application-independent evaluation of speaker detection, CSL 2006), to those
from the similarity on that 3 % of the pairs of different people reach. A line through all of them is drawn where most
pairs are, far below every match, and up there each pair of modalities is off by another amount: the order of a list of
both modalities suffers (docs/serve/search.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import root
from scipy.special import expit, log_expit

from vireid.data.datasets.ignore import same_pid_and_camera
from vireid.data.table import Table
from vireid.deploy.calibration import NEEDED, PAIRS, Calibration, Pair, Row
from vireid.errors import CalibrationError

log = logging.getLogger(__name__)
BINS = 1 << 20  # of the similarity's range [-1, 1]: thresholds are multiples of 2e-6
PER_DECADE = 20  # rows of a table for each factor of ten in the rate
REPLICATES = 200  # of the bootstrap
INTERVAL = 0.9
BLOCK = 1 << 22  # similarities at a time
MAX_PEOPLE = 3000  # for intervals; more are drawn down to this number
TAIL = 0.03  # of the pairs of different people, to which the curve is fitted
NOT_MORE_ALIKE = (
    "pictures of one person are no more alike than those of different people to this embedder: train it longer"
)

Ignore = Callable[[Table, Table], np.ndarray | None]


def calibrate(
    vectors: np.ndarray,
    table: Table,
    *,
    embedder: str,
    split: str,
    people: Literal["unseen", "test", "unknown"] = "unseen",
    ignore: Ignore | None = None,
    ignored: str = "same person in the same camera",
) -> Calibration:
    """Tables for every modality pair from vectors (R, D) of the rows of `table`; they are L2-normalized here.

    `ignore` (query, gallery) -> mask is a rule on top of the one for the same person in the same camera, and `ignored`
    says both in words. Raises CalibrationError where no modality pair has enough pairs, with the reason for each.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise CalibrationError("vectors must be finite and not zero; embed again")
    unit = (vectors / norms).astype(np.float32)
    order = np.argsort(table.pid, kind="stable")  # so that each person is one stretch of columns
    unit, table = unit[order], table[order]
    pairs: dict[str, Pair] = {}
    missing: dict[str, str] = {}
    for name, kinds in PAIRS.items():
        try:
            pairs[name] = _measure(Compared(unit, table, kinds, ignore))
        except CalibrationError as error:
            missing[name] = str(error)
    if not pairs:
        raise CalibrationError("nothing can be calibrated:\n" + "\n".join(f"  {n}: {r}" for n, r in missing.items()))
    return Calibration(
        embedder=embedder,
        dataset=table.dataset,
        split=split,
        images=table.fingerprint,
        people=people,
        ignored=ignored,
        pairs=pairs,
        missing=missing,
    )


@dataclass(frozen=True)
class Compared:
    """Every pair of two modalities, each once, in blocks; rows of `table` stand in order of pid."""

    unit: np.ndarray  # (R, D) float32, L2-normalized
    table: Table
    kinds: tuple[int, int]
    ignore: Ignore | None

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Bins (q, G) int32 of the similarities, masks same and other (q, G), and the pids (q,) and (G,)."""
        first, second = (np.flatnonzero(self.table.modality == kind) for kind in self.kinds)
        right = self.unit[second].T
        against = self.table[second]
        step = max(1, BLOCK // max(1, len(second)))
        for start in range(0, len(first), step):
            rows = first[start : start + step]
            queries = self.table[rows]
            similarity = self.unit[rows] @ right
            bins = np.clip((similarity.astype(np.float64) + 1) * (BINS // 2), 0, BINS - 1).astype(np.int32)
            counts = ~same_pid_and_camera(queries, against)
            if self.ignore is not None:  # the similarity has no direction: a pair that one direction ignores is out
                for mask in (self.ignore(queries, against), _transposed(self.ignore(against, queries))):
                    if mask is not None:
                        counts &= ~mask
            if self.kinds[0] == self.kinds[1]:
                counts &= rows[:, None] < second[None, :]
            same = queries.pid[:, None] == against.pid[None, :]
            yield bins, counts & same, counts & ~same, queries.pid, against.pid


def _transposed(mask: np.ndarray | None) -> np.ndarray | None:
    return None if mask is None else mask.T


def _measure(compared: Compared) -> Pair:
    """The table and the logistic curve of one modality pair; CalibrationError where the pairs are too few."""
    same, other = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    people: set[int] = set()
    for bins, is_same, is_other, pid, _ in compared.blocks():
        same += np.bincount(bins[is_same], minlength=BINS)
        other += np.bincount(bins[is_other], minlength=BINS)
        people |= set(pid[is_same.any(1)].tolist())
    for count, what in ((int(same.sum()), "one person by different cameras"), (int(other.sum()), "different people")):
        if count < NEEDED:
            raise CalibrationError(f"it needs at least {NEEDED} pairs of {what}, there are {count}")
    offset, slope, cllr = fit_logistic(same, other)
    rows = table_rows(other)
    decades = {at for at, row in enumerate(rows) if row[0]}
    places = np.array([row[1] for row in rows])
    intervals = _intervals(compared, places[sorted(decades)])
    spans = dict(zip(sorted(decades), intervals, strict=True))
    matches, misses = np.cumsum(other[::-1])[::-1], np.cumsum(same) - same  # at or above a bin, below it
    return Pair(
        same_pairs=int(same.sum()),
        other_pairs=int(other.sum()),
        people=len(people),
        offset=offset,
        slope=slope,
        cllr=cllr,
        rows=tuple(
            Row(
                threshold=place / (BINS // 2) - 1,
                false_match_rate=float(matches[place] / matches[0]),
                false_non_match_rate=float(misses[place] / same.sum()),
                false_match_interval=spans[at][0] if at in spans else None,
                false_non_match_interval=spans[at][1] if at in spans else None,
            )
            for at, place in enumerate(places.tolist())
        ),
    )


def table_rows(other: np.ndarray) -> list[tuple[bool, int]]:
    """(full decade?, bin) by falling rate, down to NEEDED / pairs: the lowest bin that is not above the rate."""
    total = int(other.sum())
    rising = -np.cumsum(other[::-1])[::-1].astype(np.float64)  # (BINS,) minus the matches from each bin on
    steps = math.floor(PER_DECADE * math.log10(total / NEEDED) + 1e-9)
    rates = [(step % PER_DECADE == 0, 10 ** (-step / PER_DECADE)) for step in range(1, steps + 1)]
    rates.append((False, NEEDED / total))
    places = np.searchsorted(rising, [-rate * total * (1 + 1e-9) for _, rate in rates])
    # equal vectors of different people: a rate may not be reached
    return [(decade, min(int(place), BINS - 1)) for (decade, _), place in zip(rates, places, strict=True)]


def fit_logistic(same: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Offset, slope and Cllr in bits from counts (BINS,) of similarities.

    Minimizes the cross entropy in which both kinds of pairs weigh one half. The curve is that of the upper TAIL of the
    pairs of different people where NEEDED pairs of each kind are in it, Cllr that of all pairs. Fitted to all, the
    targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2), which keep the slope finite where the kinds do not overlap;
    in the tail these would outweigh the few pairs of different people. Raises CalibrationError where pictures of one
    person are not more alike than others.
    """
    used = np.flatnonzero(same + other)
    high, low = (same.sum() + 1) / (same.sum() + 2), 1 / (other.sum() + 2)
    offset, slope = _logistic(same, other, used, (high, low))
    start = np.searchsorted(-np.cumsum(other[::-1])[::-1], -TAIL * other.sum())
    if min(same[start:].sum(), other[start:].sum()) >= NEEDED:
        try:
            offset, slope = _logistic(same, other, used[used >= start], (1.0, 0.0))
        except CalibrationError:  # up there they are no more alike, or do not overlap
            log.info("the curve of log-odds is fitted to all pairs: the most similar ones alone do not determine it")
    odds = offset + slope * _similarity(used)
    positive, negative = same[used] / (2 * same.sum()), other[used] / (2 * other.sum())
    return offset, slope, -float(positive @ log_expit(odds) + negative @ log_expit(-odds)) / math.log(2)


def _similarity(bins: np.ndarray) -> np.ndarray:
    return (bins + 0.5) / (BINS // 2) - 1


def _logistic(
    same: np.ndarray, other: np.ndarray, used: np.ndarray, targets: tuple[float, float]
) -> tuple[float, float]:
    """Offset and slope from the counts of the bins that are used; CalibrationError where the slope is not positive."""
    x = _similarity(used)
    positive, negative = same[used] / (2 * same.sum()), other[used] / (2 * other.sum())
    weight = positive + negative
    target = (positive * targets[0] + negative * targets[1]) / weight
    if len(used) == 1:
        raise CalibrationError(NOT_MORE_ALIKE)
    center = float(weight @ x / weight.sum())
    scale = float(np.sqrt(weight @ np.square(x - center) / weight.sum()))
    z = np.stack([np.ones_like(x), (x - center) / scale])

    def gradient(beta: np.ndarray) -> np.ndarray:
        return z @ (weight * (expit(beta @ z) - target))

    def curvature(beta: np.ndarray) -> np.ndarray:
        p = expit(beta @ z)
        return (z * (weight * p * (1 - p))) @ z.T

    # the cross entropy is strictly convex, so the only zero of its gradient is its minimum
    solution = root(gradient, np.zeros(2), jac=curvature, tol=1e-10)
    if not solution.success:
        raise CalibrationError(f"the logistic curve could not be fitted ({solution.message}); please report this")
    slope = float(solution.x[1] / scale)
    if not slope > 0:
        raise CalibrationError(NOT_MORE_ALIKE)
    return float(solution.x[0] - slope * center), slope


def _intervals(compared: Compared, places: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """90 % intervals of both rates at each threshold (its bin), people drawn with replacement."""
    pids = np.unique(compared.table.pid)
    random = np.random.RandomState(0)
    if len(pids) > MAX_PEOPLE:
        pids = np.sort(random.choice(pids, MAX_PEOPLE, replace=False))
        keep = np.isin(compared.table.pid, pids)
        compared = Compared(compared.unit[keep], compared.table[keep], compared.kinds, compared.ignore)
    size = len(pids)
    others, matches = np.zeros((size, size)), np.zeros((len(places), size, size))
    sames, misses = np.zeros(size), np.zeros((len(places), size))
    for bins, is_same, is_other, pid, against in compared.blocks():
        rows, columns = np.searchsorted(pids, pid), np.searchsorted(pids, against)
        heads, starts = _starts(rows), _starts(columns)

        def by_people(mask: np.ndarray, heads: np.ndarray = heads, starts: np.ndarray = starts) -> np.ndarray:
            return np.add.reduceat(np.add.reduceat(mask, starts, axis=1, dtype=np.float64), heads, axis=0)

        at = np.ix_(rows[heads], columns[starts])
        others[at] += by_people(is_other)
        np.add.at(sames, rows, is_same.sum(1))
        for number, place in enumerate(places):
            above = bins >= place
            matches[(number, *at)] += by_people(is_other & above)
            np.add.at(misses[number], rows, (is_same & ~above).sum(1))
    # how often each person was drawn: (replicates, people)
    drawn = random.multinomial(size, np.full(size, 1 / size), size=REPLICATES).astype(np.float64)
    below, beyond = (1 - INTERVAL) / 2, (1 + INTERVAL) / 2
    intervals = []
    all_others, all_sames = np.sum((drawn @ others) * drawn, 1), drawn @ sames
    for number in range(len(places)):
        false_matches = np.sum((drawn @ matches[number]) * drawn, 1) / np.maximum(all_others, 1)
        false_misses = (drawn @ misses[number]) / np.maximum(all_sames, 1)
        spans = [np.quantile(values, [below, beyond]).tolist() for values in (false_matches, false_misses)]
        intervals.append(((spans[0][0], spans[0][1]), (spans[1][0], spans[1][1])))
    return intervals


def _starts(sorted_values: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.r_[True, np.diff(sorted_values) != 0])
