"""The results of several runs as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vireid.errors import ArgumentError
from vireid.evaluation.results import NAME, Results
from vireid.training.run_folder import RunFolder
from vireid.workflows.run_outputs import RESULTS

OWN = ("run", "embedder", "data", "images")  # entries of the stamp that differ between the runs of one experiment


def results_of(runs: Sequence[Path | str]) -> Results:
    """The results of several runs as one table, each line named by its method (and folder where that is not enough).

    Runs that differ in their partition alone (RegDB's ten splits) are averaged. Raises DataError, RunError.
    """
    rows, floors = [], Results(())
    for name, run in named_runs(runs):
        own = (*OWN, "refiner") if run.record.base is not None else OWN
        results = Results.load(run.path / RESULTS)
        for row in results.floors:
            kept = {key: value for key, value in row.stamp.items() if key not in OWN}
            floors += Results((), (replace(row, stamp=kept),))
        for row in results.rows:
            kept = {key: value for key, value in row.stamp.items() if key not in own}
            rows.append(replace(row, stamp={**kept, NAME: name}))
    return Results(tuple(rows)) + floors


def named_runs(runs: Sequence[Path | str]) -> list[tuple[str, RunFolder]]:
    """Opened runs with their names: the method, and the folder where that is not enough; RunError, ArgumentError."""
    opened = [RunFolder.open(run) for run in runs]
    if not opened:
        raise ArgumentError("give at least one run folder")
    paths = [str(run.path.resolve()) for run in opened]
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise ArgumentError(f"{', '.join(sorted(twice))} is given twice; name each run once")
    kinds = [(r.record.method, r.record.partition, r.record.seed, r.record.dataset) for r in opened]
    return [
        (run.record.method + (f" ({run.path.name})" if kinds.count(kind) > 1 else ""), run)
        for run, kind in zip(opened, kinds, strict=True)
    ]
