"""Calibration: at which similarity two pictures count as a match, and how probable it is that they show one person.

For each pair of modalities, from pictures of people that the embedder was not trained on (calibration_fit.py):

    false-match rate(t)      share of the pairs of different people with cosine similarity >= t
    false-non-match rate(t)  share of the pairs of one person with cosine similarity < t

(ISO/IEC 19795-1). The similarity has no direction, so infrared/visible and visible/infrared are one table.

**What the data can support.** A rate p needs at least 30 / p pairs of different people, so that 30 false matches stand
behind it: the rule of 30 (Doddington et al., The NIST speaker recognition evaluation, Speech Communication 2000).

**Probability.** log-odds = a + b * similarity + log(prior / (1 - prior)). Two parameters and not isotonic regression:
strictly monotone, so the order of a list never changes; defined beyond the similarities that were seen; and fitted well
by few people, where isotonic regression says 0 and 1.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vireid.deploy.bundle_config import CALIBRATION
from vireid.errors import CalibrationError
from vireid.json_file import read_json
from vireid.system import replacing
from vireid.types import INFRARED, VISIBLE
from vireid.version import __version__

PAIRS = {
    "visible/visible": (VISIBLE, VISIBLE),
    "visible/infrared": (VISIBLE, INFRARED),
    "infrared/infrared": (INFRARED, INFRARED),
}
NEEDED = 30  # false matches behind a rate, and pairs of one person behind a table


class Row(BaseModel):
    """Rates at one threshold; with 90 % intervals over people at the full decades."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float
    false_match_rate: float
    false_non_match_rate: float
    false_match_interval: tuple[float, float] | None = None
    false_non_match_interval: tuple[float, float] | None = None


class Pair(BaseModel):
    """One pair of modalities. `cllr` is the cost of the log-likelihood ratio in bits: 0 perfect, 1 knows nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    same_pairs: int = Field(ge=1)  # of one person
    other_pairs: int = Field(ge=1)  # of different people
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
        measured = self.pair(pair)
        needed = math.ceil(NEEDED / false_match_rate * (1 - 1e-9))
        if measured.other_pairs < needed:
            raise CalibrationError(
                f"a false-match rate of {false_match_rate:g} for {pair_name(pair)} needs at least {needed:,} pairs of "
                f"different people, there are {measured.other_pairs:,}: "
                f"ask for {NEEDED / measured.other_pairs:.1g} or more, "
                "or calibrate on more people"
            )
        for row in measured.rows:
            if row.false_match_rate <= false_match_rate * (1 + 1e-9):
                return row
        raise CalibrationError(
            f"no threshold separates {pair_name(pair)} at a false-match rate of {false_match_rate:g}: too many pairs "
            "of different people have the very same similarity; the embedder gives equal vectors to different pictures"
        )

    def log_odds(self, similarity: np.ndarray | float, pair: str | tuple[int, int], prior: float = 0.5) -> np.ndarray:
        """log(p / (1 - p)) (float64, shape of `similarity`) of the probability p below, with the same errors."""
        if not 0 < prior < 1:
            raise CalibrationError(f"a prior probability lies between 0 and 1, got {prior}")
        measured = self.pair(pair)
        return measured.offset + measured.slope * np.asarray(similarity, np.float64) + math.log(prior / (1 - prior))

    def probability(
        self, similarity: np.ndarray | float, pair: str | tuple[int, int], prior: float = 0.5
    ) -> np.ndarray:
        """Probability (float64, shape of `similarity`) that two pictures show one person.

        `prior` is the probability before the pictures were looked at: one half says what the similarity alone says;
        among N people of whom one is the right one it is 1 / N.
        """
        return np.exp(-np.logaddexp(0, -self.log_odds(similarity, pair, prior)))  # without scipy, whose import is slow

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
        path = path / CALIBRATION if path.is_dir() else path
        if not path.is_file():
            raise CalibrationError(f"there is no {path}; make it with `vireid calibrate`")
        content = read_json(path, CalibrationError, "calibrate again")
        try:
            calibration = Calibration.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
            message = f"{path} is not a calibration that vireid wrote ({reason}); calibrate again"
            raise CalibrationError(message) from error
        return calibration if digest is None else calibration.check(digest)

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


def _rate(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2%} ({interval[0]:.2%} to {interval[1]:.2%})"
