"""Paired tests: whether two methods differ on the same queries, and by how much.

    d(s, q)    average precision of the second method minus that of the first, for seed s and query q
    difference the mean of d over seeds and queries, in fractions of mAP
    interval   95 %, percentile bootstrap: people are drawn with replacement, each with all of its queries, because the
               queries of one person are not independent; where there are several seeds, they are drawn too
               (Efron and Tibshirani, An Introduction to the Bootstrap, 1993)
    p          two-sided randomization test: under the null hypothesis each person's differences may have either sign
               (Smucker, Allan and Carterette, "A comparison of statistical significance tests for information
               retrieval evaluation", CIKM 2007)

A query's average precision is its mean over the trials. An interval over seeds says how far another training may lie;
one over people alone says how far other test people may lie, and nothing of another training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vireid.errors import ArgumentError

DRAWS = 10_000
LEVEL = 0.95
BLOCK = 1000  # draws at a time
Values = Mapping[str, tuple[str, float]]  # query -> its person and its average precision


@dataclass(frozen=True)
class PairedDifference:
    """`mean` fractions by which the second method lies above the first, its interval, and the p of the test."""

    mean: float
    low: float
    high: float
    p: float
    queries: int
    people: int
    seeds: int

    @property
    def test(self) -> str:
        """What was computed, for the caption of a table."""
        over = "people and seeds" if self.seeds > 1 else "people"
        return (
            f"{LEVEL:.0%} interval: percentile bootstrap over {over}, {DRAWS:,} draws; "
            "p: two-sided randomization test over people, not corrected for several comparisons"
        )


def paired_difference(first: Sequence[Values], second: Sequence[Values], seed: int = 0) -> PairedDifference:
    """Compare two methods: for each seed, in the same order, the average precision of every query by its name.

    Raises ArgumentError where the two do not have the same seeds or the same queries.
    """
    if len(first) != len(second) or not first:
        raise ArgumentError(f"a paired test needs the same seeds of both methods, got {len(first)} and {len(second)}")
    names = sorted(first[0])
    for one in (*first, *second):
        if sorted(one) != names:
            differing = sorted(set(names) ^ set(one))
            raise ArgumentError(
                f"a paired test needs the same queries of both methods; {len(differing)} are in one alone, the first "
                f"is {differing[0]}: evaluate both on the same data and protocol"
            )
    values = np.array([[b[name][1] - a[name][1] for name in names] for a, b in zip(first, second, strict=True)])
    people, person = np.unique([first[0][name][0] for name in names], return_inverse=True)
    counts = np.bincount(person).astype(float)  # (P,) queries
    sums = np.array([np.bincount(person, weights=line, minlength=len(people)) for line in values])  # (S, P)
    mean = float(values.mean())
    random = np.random.default_rng(seed)
    means, extreme = [], 0
    for _ in range(DRAWS // BLOCK):
        drawn = random.multinomial(len(people), np.full(len(people), 1 / len(people)), BLOCK).astype(float)
        seeds = random.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), BLOCK) / len(sums)  # (B, S)
        means.append(((seeds @ sums) * drawn).sum(1) / (drawn @ counts))
        signs = random.choice((-1.0, 1.0), (BLOCK, len(people)))
        flipped = signs @ sums.mean(0) / len(names)
        extreme += int(np.count_nonzero(np.abs(flipped) >= abs(mean) - 1e-12))
    low, high = np.quantile(np.concatenate(means), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return PairedDifference(
        mean, float(low), float(high), (1 + extreme) / (1 + DRAWS), len(names), len(people), len(values)
    )
