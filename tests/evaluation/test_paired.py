"""Paired tests: the difference, its interval over people and seeds, and the randomization test."""

from __future__ import annotations

import numpy as np
import pytest

from vireid.evaluation.paired import paired_difference


def queries(values: np.ndarray, per_person: int = 4) -> dict[str, tuple[str, float]]:
    return {f"q{i:03}": (str(i // per_person), float(value)) for i, value in enumerate(values)}


def test_equal_methods_do_not_differ_and_unequal_ones_do() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0.2, 0.8, 160)
    noise = random.normal(0, 0.05, 160)
    same = paired_difference([queries(base)], [queries(base + noise - noise.mean())])
    assert same.mean == pytest.approx(0, abs=1e-12) and same.low < 0 < same.high and same.p > 0.9
    better = paired_difference([queries(base)], [queries(base + noise + 0.05)])
    assert better.mean == pytest.approx(0.05 + noise.mean()) and 0 < better.low < better.mean < better.high
    assert better.p < 0.001 and (better.queries, better.people, better.seeds) == (160, 40, 1)
    worse = paired_difference([queries(base + noise + 0.05)], [queries(base)])
    assert worse.mean == pytest.approx(-better.mean) and worse.p == better.p


def test_the_interval_is_that_of_people_not_of_queries() -> None:
    """Queries of one person that all change alike are one observation, not many."""
    per_person = np.random.default_rng(1).normal(0, 0.1, 30)
    spread = per_person.std(ddof=1) / np.sqrt(30)
    one = paired_difference([queries(np.zeros(600), 20)], [queries(np.repeat(per_person, 20), 20)])
    assert (one.high - one.low) / (2 * 1.96) == pytest.approx(spread, rel=0.1)


def test_seeds_widen_the_interval_where_they_disagree() -> None:
    base = np.random.default_rng(2).uniform(0.2, 0.8, 80)
    gains = [0.0, 0.02, 0.1]
    one = paired_difference([queries(base)] * 3, [queries(base + gain) for gain in gains])
    assert one.mean == pytest.approx(0.04) and one.seeds == 3 and "people and seeds" in one.test
    assert one.low < 0.02 and one.high > 0.06
    assert paired_difference([queries(base)], [queries(base + 0.04)]).low == pytest.approx(0.04)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="same seeds of both methods, got 1 and 2"):
        paired_difference([queries(np.zeros(4))], [queries(np.zeros(4))] * 2)
    with pytest.raises(ValueError, match="1 are in one alone, the first is q004"):
        paired_difference([queries(np.zeros(4))], [queries(np.zeros(5))])
