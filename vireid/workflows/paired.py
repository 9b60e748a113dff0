"""`vireid results --paired`: whether methods differ on the same queries, from the queries.csv of their runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from vireid.errors import ArgumentError
from vireid.evaluation.paired import Values, paired_difference
from vireid.evaluation.paired_table import PairedLine, PairedTable
from vireid.evaluation.queries import CONDITIONS, read_queries
from vireid.training.run_folder import RunFolder
from vireid.workflows.run_outputs import QUERIES
from vireid.workflows.side_by_side import named_runs

Measured = tuple[dict[str, str], dict[str, tuple[str, float]]]  # conditions, and the values of every query


def paired_of(runs: Sequence[Path | str]) -> PairedTable:
    """Compare the method of each further run with that of the first one, under each protocol of both.

    Runs of one method that differ in their seed are compared seed by seed, those on RegDB's partitions query by query.
    Of a run that was evaluated in several ways the latest one counts. Raises RunError, DataError, ArgumentError for
    fewer than two methods, seeds or queries that differ, and methods without a protocol in common.
    """
    methods: dict[str, dict[int, list[RunFolder]]] = {}
    for name, run in named_runs(runs):
        methods.setdefault(name, {}).setdefault(run.record.seed, []).append(run)
    if len(methods) < 2:
        raise ArgumentError(f"a paired test compares two methods or more, got {', '.join(methods)}; name more runs")
    measured = {name: {seed: _merged(own) for seed, own in by_seed.items()} for name, by_seed in methods.items()}
    (reference, first), *others = measured.items()
    lines, notes = [], []
    for name, second in others:
        seeds = sorted(set(first) & set(second))
        if not seeds:
            raise ArgumentError(
                f"a paired test needs runs of the same seeds: {reference} has {sorted(first)}, {name} {sorted(second)}"
            )
        shared = [p for p in first[seeds[0]] if all(p in side[seed] for side in (first, second) for seed in seeds)]
        if not shared:
            raise ArgumentError(f"{reference} and {name} were evaluated under no common protocol; evaluate both alike")
        for protocol in shared:
            before, after = ([side[seed][protocol][1] for seed in seeds] for side in (first, second))
            lines.append(PairedLine(protocol, name, reference, paired_difference(before, after)))
            notes += _unlike(name, second[seeds[0]][protocol][0], reference, first[seeds[0]][protocol][0])
    return PairedTable(tuple(lines), tuple(dict.fromkeys(notes)))


def _merged(runs: Sequence[RunFolder]) -> dict[str, Measured]:
    """By protocol what the runs of one method and seed, which differ in their partition, reached for every query."""
    merged: dict[str, Measured] = {}
    for run in runs:
        for protocol, (conditions, values) in _latest(run).items():
            prefix = f"{run.record.partition}: " if run.record.partition else ""
            into = merged.setdefault(protocol, (conditions, {}))[1]
            into.update({f"{prefix}{query}": value for query, value in values.items()})
    return merged


def _latest(run: RunFolder) -> dict[str, tuple[dict[str, str], Values]]:
    """By protocol the conditions of its latest evaluation, which stands first, and the values of every query."""
    conditions: dict[str, dict[str, str]] = {}
    people: dict[str, dict[str, str]] = {}
    trials: dict[str, dict[str, list[float]]] = {}
    for line in read_queries(run.path / QUERIES):
        protocol, own = line["protocol"], {name: line[name] for name in CONDITIONS}
        if conditions.setdefault(protocol, own) != own or not line["AP"]:
            continue
        people.setdefault(protocol, {})[line["query"]] = line["pid"]
        trials.setdefault(protocol, {}).setdefault(line["query"], []).append(float(line["AP"]))
    return {
        protocol: (
            conditions[protocol],
            {query: (people[protocol][query], statistics.fmean(values)) for query, values in by_query.items()},
        )
        for protocol, by_query in trials.items()
    }


def _unlike(name: str, own: dict[str, str], reference: str, others: dict[str, str]) -> list[str]:
    """A note where two methods were measured in different ways."""
    differing = [key for key in CONDITIONS if own[key] != others[key]]
    return [f"{key}: {own[key]} of {name}, {others[key]} of {reference}" for key in differing]
