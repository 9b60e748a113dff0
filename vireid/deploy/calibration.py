"""Calibration: from what similarity on are two pictures taken for the same person, and how sure is that.

For each pair of modalities, from pictures of people that the embedder was not trained on:

    false-match rate(t)      share of the pairs of different people with cosine similarity >= t
    false-non-match rate(t)  share of the pairs of one person with cosine similarity < t

(ISO/IEC 19795-1). The similarity has no direction, so infrared/visible and visible/infrared are one table.

A pair counts unless a rule leaves it out: pictures of one person by one camera are always left out, for neighboring
frames are no test, and so is what the data set's protocol ignores. Different people before one camera stay in: they are
in a gallery too and the hardest to tell apart there.

**What the data can support.** A rate p needs at least 30 / p pairs of different people, so that 30 false matches stand
behind it: the rule of 30 (Doddington et al., The NIST speaker recognition evaluation, Speech Communication 2000).
Pairs share pictures and people, hence the 90 % intervals come from drawing people with replacement, not pairs (Bolle,
Ratha, Pankanti: Error analysis of pattern recognition systems - the subsets bootstrap, CVIU 2004).

**Probability.** log-odds = a + b * similarity + log(prior / (1 - prior)), fitted to both kinds of pairs with equal say
(Platt 1999, with his softened targets; Brummer and du Preez, Application-independent evaluation of speaker detection,
CSL 2006). Two parameters and not isotonic regression: strictly monotone, so the order of a list never changes; defined
beyond the similarities that were seen; and fitted well by few people, where isotonic regression says 0 and 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from vireid.data.datasets.ignore import same_pid_and_camera
from vireid.data.table import Table
from vireid.errors import CalibrationError
from vireid.system import replacing
from vireid.types import INFRARED, VISIBLE
from vireid.version import __version__

FORMAT = "vireid calibration 1"
NAME = "calibration.json"
PAIRS = {
    "visible/visible": (VISIBLE, VISIBLE),
    "visible/infrared": (VISIBLE, INFRARED),
    "infrared/infrared": (INFRARED, INFRARED),
}
NEEDED = 30  # false matches behind a rate, and pairs of one person behind a table
BINS = 1 << 20  # of the similarity's range [-1, 1]: thresholds are multiples of 2e-6
PER_DECADE = 20  # rows of a table for each factor of ten in the rate
REPLICATES = 200  # of the bootstrap
INTERVAL = 0.9
BLOCK = 1 << 22  # similarities at a time
MOST_PEOPLE = 3000  # for intervals; more are drawn down to this number

Ignore = Callable[[Table, Table], np.ndarray | None]


class Row(BaseModel):
    """Rates at one threshold; with 90 % intervals over people at the full decades."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    false_match_rate: float
    false_non_match_rate: float
    false_match_interval: tuple[float, float] | None = None
    false_non_match_interval: tuple[float, float] | None = None


class Pair(BaseModel):
    """One pair of modalities. `cllr` is the cost of the log-likelihood ratio in bits: 0 perfect, 1 knows nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    same_pairs: int  # of one person
    other_pairs: int  # of different people
    people: int
    offset: float  # a
    slope: float  # b
    cllr: float
    rows: tuple[Row, ...]  # by falling false-match rate


class Calibration(BaseModel):
    """calibration.json: tables by modality pair for one embedder; `missing` says why a pair has none.

    `people` is "unseen" (not trained on), "test" (the test people, whose figures such a threshold flatters) or
    "unknown" (other data, of which training may have seen people).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vireid calibration 1"] = "vireid calibration 1"
    embedder: str  # sha256 of its weights
    dataset: str
    split: str
    images: str  # fingerprint of the rows
    people: Literal["unseen", "test", "unknown"]
    ignored: str
    pairs: dict[str, Pair]
    missing: dict[str, str]
    vireid: str = __version__

    def pair(self, pair: str | tuple[int, int]) -> Pair:
        """The table of a modality pair in either order, by name or as (VISIBLE, INFRARED); CalibrationError if none."""
        name = pair_name(pair)
        if name not in self.pairs:
            raise CalibrationError(
                f"there is no calibration for {name}: {self.missing.get(name, 'it was not measured')}"
            )
        return self.pairs[name]

    def threshold(self, false_match_rate: float, pair: str | tuple[int, int]) -> float:
        """The smallest measured similarity at which at most this share of the pairs of different people match.

        Raises CalibrationError where the data cannot support the rate, with the number of pairs that it needs.
        """
        return self.row(false_match_rate, pair).threshold

    def row(self, false_match_rate: float, pair: str | tuple[int, int]) -> Row:
        """The table's row that `threshold` takes; the same errors."""
        if not 0 < false_match_rate < 1:
            raise CalibrationError(f"a false-match rate lies between 0 and 1, got {false_match_rate}")
        found = self.pair(pair)
        needed = math.ceil(NEEDED / false_match_rate * (1 - 1e-9))
        if found.other_pairs < needed:
            raise CalibrationError(
                f"a false-match rate of {false_match_rate:g} for {pair_name(pair)} needs at least {needed:,} pairs of "
                f"different people, there are {found.other_pairs:,}: ask for {NEEDED / found.other_pairs:.1g} or more, "
                "or calibrate on more people"
            )
        for row in found.rows:
            if row.false_match_rate <= false_match_rate * (1 + 1e-9):
                return row
        raise CalibrationError(
            f"no threshold separates {pair_name(pair)} at a false-match rate of {false_match_rate:g}: too many pairs "
            "of different people have the very same similarity; the embedder gives equal vectors to different pictures"
        )

    def probability(
        self, similarity: np.ndarray | float, pair: str | tuple[int, int], prior: float = 0.5
    ) -> np.ndarray:
        """Probability (float64, shape of `similarity`) that two pictures show one person.

        `prior` is the probability before the pictures were looked at: one half says what the similarity alone says;
        among N people of whom one is the right one it is 1 / N.
        """
        if not 0 < prior < 1:
            raise CalibrationError(f"a prior probability lies between 0 and 1, got {prior}")
        found = self.pair(pair)
        odds = found.offset + found.slope * np.asarray(similarity, np.float64) + math.log(prior / (1 - prior))
        return _sigmoid(odds)

    def check(self, digest: str) -> Calibration:
        """Itself; CalibrationError where it belongs to another embedder."""
        if self.embedder != digest:
            raise CalibrationError(
                f"this calibration belongs to embedder {self.embedder[:12]}..., not to {digest[:12]}...: similarities "
                "of two networks are not comparable; run `vireid calibrate` again"
            )
        return self

    def save(self, path: Path) -> Path:
        with replacing(path) as partial:
            partial.write_text(self.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def load(folder: Path | str, digest: str | None = None) -> Calibration:
        """Read calibration.json of a bundle or run, of the embedder with this digest; CalibrationError if none fits."""
        path = Path(folder)
        path = path / NAME if path.is_dir() else path
        if not path.is_file():
            raise CalibrationError(f"there is no {path}; make it with `vireid calibrate`")
        try:
            found = Calibration.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (ValidationError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise CalibrationError(f"{path} is no calibration that vireid wrote ({reason}); calibrate again") from error
        return found if digest is None else found.check(digest)

    def markdown(self) -> str:
        """The rows at full decades as a table, for reading."""
        lines = [
            "| pair | false matches | threshold | false non-matches | pairs same / other | people |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name, pair in self.pairs.items():
            for row in pair.rows:
                if row.false_match_interval and row.false_non_match_interval:
                    lines.append(
                        f"| {name} | {_rate(row.false_match_rate, row.false_match_interval)} | {row.threshold:.4f} | "
                        f"{_rate(row.false_non_match_rate, row.false_non_match_interval)} | "
                        f"{pair.same_pairs:,} / {pair.other_pairs:,} | {pair.people} |"
                    )
        lines += [f"\n{name}: no table, {reason}" for name, reason in self.missing.items()]
        return "\n".join(lines) + "\n"


def pair_name(pair: str | tuple[int, int]) -> str:
    """The name of a modality pair in either order.

    >>> pair_name((INFRARED, VISIBLE)), pair_name("infrared/visible")
    ('visible/infrared', 'visible/infrared')
    """
    for name, kinds in PAIRS.items():
        if pair in (name, "/".join(reversed(name.split("/")))):
            return name
        if not isinstance(pair, str) and sorted(pair) == sorted(kinds):
            return name
    raise CalibrationError(
        f"a modality pair is one of {', '.join(PAIRS)}, or two of {VISIBLE} and {INFRARED}; got {pair!r}"
    )


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


# --- one modality pair ------------------------------------------------------------------------------------------------


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
            asked = self.table[rows]
            similarity = self.unit[rows] @ right
            bins = np.clip((similarity.astype(np.float64) + 1) * (BINS // 2), 0, BINS - 1).astype(np.int32)
            counts = ~same_pid_and_camera(asked, against)
            if self.ignore is not None:  # the similarity has no direction: a pair that one direction ignores is out
                for mask in (self.ignore(asked, against), _transposed(self.ignore(against, asked))):
                    if mask is not None:
                        counts &= ~mask
            if self.kinds[0] == self.kinds[1]:
                counts &= rows[:, None] < second[None, :]
            same = asked.pid[:, None] == against.pid[None, :]
            yield bins, counts & same, counts & ~same, asked.pid, against.pid


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
    """Offset, slope and Cllr in bits from counts (BINS,) of similarities; CalibrationError where likeness says nothing.

    Minimizes the cross entropy with both kinds weighing one half, by Newton's method; the targets are Platt's,
    (n + 1) / (n + 2) and 1 / (n + 2), which keep the slope finite where the kinds do not overlap.
    """
    used = np.flatnonzero(same + other)
    x = (used + 0.5) / (BINS // 2) - 1
    positive, negative = same[used] / (2 * same.sum()), other[used] / (2 * other.sum())
    high, low = (same.sum() + 1) / (same.sum() + 2), 1 / (other.sum() + 2)
    weight = positive + negative
    target = (positive * high + negative * low) / weight
    center, scale = float(weight @ x), float(np.sqrt(weight @ np.square(x - weight @ x))) or 1.0
    z = np.stack([np.ones_like(x), (x - center) / scale])
    beta = np.zeros(2)

    def cost(beta: np.ndarray) -> float:
        odds = beta @ z
        return float(weight @ (np.logaddexp(0, odds) - target * odds))

    for _ in range(100):
        p = _sigmoid(beta @ z)
        gradient = z @ (weight * (p - target))
        curvature = (z * (weight * p * (1 - p))) @ z.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while cost(beta - length * step) > cost(beta) and length > 1e-6:
            length /= 2
        beta = beta - length * step
        if np.abs(length * step).max() < 1e-9:
            break
    slope = float(beta[1] / scale)
    if not slope > 0:
        raise CalibrationError(
            "pictures of one person are no more alike than those of different people to this embedder: train it longer"
        )
    odds = beta @ z
    cllr = float(positive @ np.logaddexp(0, -odds) + negative @ np.logaddexp(0, odds)) / math.log(2)
    return float(beta[0] - slope * center), slope, cllr


def _intervals(compared: Compared, places: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """90 % intervals of both rates at each threshold (its bin), people drawn with replacement."""
    pids = np.unique(compared.table.pid)
    random = np.random.RandomState(0)
    if len(pids) > MOST_PEOPLE:
        pids = np.sort(random.choice(pids, MOST_PEOPLE, replace=False))
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
    found = []
    all_others, all_sames = np.sum((drawn @ others) * drawn, 1), drawn @ sames
    for number in range(len(places)):
        false_matches = np.sum((drawn @ matches[number]) * drawn, 1) / np.maximum(all_others, 1)
        false_misses = (drawn @ misses[number]) / np.maximum(all_sames, 1)
        spans = [np.quantile(values, [below, beyond]).tolist() for values in (false_matches, false_misses)]
        found.append(((spans[0][0], spans[0][1]), (spans[1][0], spans[1][1])))
    return found


def _starts(sorted_values: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.r_[True, np.diff(sorted_values) != 0])


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -odds))


def _rate(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2%} ({interval[0]:.2%} to {interval[1]:.2%})"
