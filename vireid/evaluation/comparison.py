"""Comparison: several methods, each trained from several seeds, ranked in one table for each data set and protocol.

A seed's figure is its mean over the protocol's trials; a method's figure is the mean and the sample standard deviation
(n - 1) over its seeds. `gain` is the mean over the seeds of mAP minus that of the first method at the same seed, with
the standard deviation of these differences: paired, because the seed also draws the batches.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vireid.errors import ArgumentError
from vireid.evaluation.publication import PAPER_COLUMNS, Figures, publication_table
from vireid.evaluation.publication import Line as FiguresLine
from vireid.evaluation.results import (
    COLUMNS,
    NAME,
    Results,
    TerminalTable,
    markdown_table,
    percent,
    stamp_lines,
)
from vireid.evaluation.rows import Metrics

RANKED_BY = "mAP"
OF_ONE_RUN = ("run", "seed", "embedder", "refiner", "partition", NAME)  # of the stamp: what differs between the runs


@dataclass(frozen=True)
class Trained:
    """One trained and evaluated run, or a floor such as chance, whose `seed` is None."""

    data: str  # how the table calls the data set
    name: str  # how it calls the method
    seed: int | None
    results: Results
    pictures: int = 0  # drawn from the training rows, views of one picture counted once
    train_s: float = 0.0
    parameters: int = 0  # deployed
    notes: tuple[str, ...] = ()  # what the reader of the table has to know


@dataclass(frozen=True)
class Line:
    """A method on one data set under one protocol; figures are fractions by column."""

    data: str
    protocol: str
    name: str
    by_seed: dict[int | None, dict[str, float]]
    runs: list[Trained] = field(repr=False)
    stamp: dict[str, str] = field(repr=False)

    @cached_property
    def mean(self) -> dict[str, float]:
        return {column: statistics.fmean(self._values(column)) for column in COLUMNS}

    @cached_property
    def std(self) -> dict[str, float] | None:
        """None for a single seed."""
        if len(self.by_seed) < 2:
            return None
        return {column: statistics.stdev(self._values(column)) for column in COLUMNS}

    def gain(self, first: Line) -> tuple[float, float | None] | None:
        """Mean and deviation of mAP above that of the same seeds of another line; None without a common seed."""
        seeds = [seed for seed in self.by_seed if seed in first.by_seed and seed is not None]
        gains = [self.by_seed[seed][RANKED_BY] - first.by_seed[seed][RANKED_BY] for seed in seeds]
        if not gains or self is first:
            return None
        return statistics.fmean(gains), statistics.stdev(gains) if len(gains) > 1 else None

    def _values(self, column: str) -> list[float]:
        return [figures[column] for figures in self.by_seed.values()]


@dataclass(frozen=True)
class Comparison:
    """Runs of any methods, data sets and seeds; the first named method is the one that gains are measured against."""

    runs: tuple[Trained, ...]

    @cached_property
    def blocks(self) -> dict[tuple[str, str], list[Line]]:
        """The lines of each (data, protocol), in the order of the runs."""
        grouped: dict[tuple[str, str], dict[str, list[Trained]]] = {}
        for run in self.runs:
            for protocol in dict.fromkeys(row.protocol for row in run.results.rows):
                grouped.setdefault((run.data, protocol), {}).setdefault(run.name, []).append(run)
        return {
            (data, protocol): [_line(data, protocol, name, runs) for name, runs in by_name.items()]
            for (data, protocol), by_name in grouped.items()
        }

    def ranked(self, data: str, protocol: str) -> list[Line]:
        """The lines of one block, the best mAP first."""
        return sorted(self.blocks[data, protocol], key=lambda line: -line.mean[RANKED_BY])

    def markdown(self) -> str:
        """The table in percent, followed by the stamps."""
        return markdown_table(*self._cells(), self._notes())

    def latex(self, columns: Sequence[str] = PAPER_COLUMNS) -> str:
        """The table as LaTeX for a paper (booktabs): best bold, second underlined, the stamps as comments."""
        several = len({data for data, _ in self.blocks}) > 1
        by_name: dict[str, dict[str, Figures]] = {}
        for (data, protocol), lines in self.blocks.items():
            for line in lines:
                group = f"{data}: {protocol}" if several else protocol
                by_name.setdefault(line.name, {})[group] = Figures(line.mean, line.std)
        floors = {line.name for lines in self.blocks.values() for line in lines if None in line.by_seed}
        return publication_table(
            [FiguresLine(name, groups, name in floors) for name, groups in by_name.items()], self._notes(), columns
        )

    def __rich__(self) -> TerminalTable:
        return TerminalTable(*self._cells(), self._notes())

    def csv(self) -> str:
        """One line per run and protocol (the mean over its trials), fractions, with all that the table is made of."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self._records()[0]) if self.runs else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._records())
        return text.getvalue()

    def json(self) -> str:
        """The records of `csv` with the stamps."""
        return json.dumps(self._records(stamps=True), indent=1, ensure_ascii=False) + "\n"

    def _records(self, stamps: bool = False) -> list[dict[str, object]]:
        records: list[dict[str, object]] = []
        for (data, protocol), lines in self.blocks.items():
            for line in lines:
                for run in line.runs:
                    record: dict[str, object] = {"data": data, "protocol": protocol, "method": line.name}
                    record |= {"seed": run.seed, **line.by_seed[run.seed], "pictures": run.pictures}
                    record |= {"train_s": round(run.train_s, 1), "parameters": run.parameters}
                    records.append({**record, "stamp": line.stamp, "notes": list(run.notes)} if stamps else record)
        return records

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = ["data", "protocol", "place", "method", *COLUMNS, "gain in mAP", "seeds", "pictures seen"]
        header += ["parameters", "training s", "stamp"]
        cells: list[list[str]] = []
        for number, (place, line, first) in enumerate(self._in_order(), 1):
            figures = [percent(line.mean[c], None if line.std is None else line.std[c]) for c in COLUMNS]
            gain = line.gain(first)
            trained = [run for run in line.runs if run.seed is not None]
            costs = [f"{statistics.fmean(values):,.0f}" for values in _costs(trained)] if trained else ["", "", ""]
            named = [line.data, line.protocol, str(place), line.name]
            cells.append([*named, *figures, _signed(gain), str(len(trained) or ""), *costs, f"[{number}]"])
        return header, cells

    def _in_order(self) -> list[tuple[int, Line, Line]]:
        """(place, line, line that its gain is measured against) of every line of the table."""
        places = []
        for (data, protocol), lines in self.blocks.items():
            first = next((line for line in lines if None not in line.by_seed), lines[0])
            places += [(place, line, first) for place, line in enumerate(self.ranked(data, protocol), 1)]
        return places

    def _notes(self) -> list[str]:
        ordered = [line for _, line, _ in self._in_order()]
        notes = list(dict.fromkeys(note for line in ordered for run in line.runs for note in run.notes))
        against = " and ".join(dict.fromkeys(first.name for _, _, first in self._in_order()))
        return [
            *stamp_lines([line.stamp for line in ordered]),
            *notes,
            "percent; mean ± standard deviation over the seeds (n - 1), a seed's figure is its mean over the trials; "
            f"ranked by {RANKED_BY}; gain: {RANKED_BY} above {against} of the same seed, in points; pictures seen: "
            "drawn from the training rows, views of one picture counted once; parameters: deployed",
        ]


def _line(data: str, protocol: str, name: str, runs: list[Trained]) -> Line:
    by_seed: dict[int | None, dict[str, float]] = {}
    for run in runs:
        if run.seed in by_seed:
            raise ArgumentError(f"seed {run.seed} of {name} on {data} is there twice; give each seed once")
        rows = [row for row in run.results.rows if row.protocol == protocol]
        stamps = {tuple(sorted(row.stamp.items())) for row in rows}
        if len(stamps) != 1:
            raise ArgumentError(
                f"{name} has figures under {len(stamps)} stamps for {protocol} on {data}; compare one each"
            )
        by_seed[run.seed] = {column: _over_trials([r.metrics for r in rows], column) for column in COLUMNS}
    first = next(row for row in runs[0].results.rows if row.protocol == protocol)
    stamp = {key: value for key, value in first.stamp.items() if key not in OF_ONE_RUN}
    return Line(data, protocol, name, by_seed, runs, stamp)


def _over_trials(metrics: Sequence[Metrics], column: str) -> float:
    return statistics.fmean(COLUMNS[column](m) for m in metrics)


def _costs(runs: list[Trained]) -> list[list[float]]:
    return [[r.pictures for r in runs], [r.parameters for r in runs], [r.train_s for r in runs]]


def _signed(gain: tuple[float, float | None] | None) -> str:
    """A difference in points with its sign."""
    if gain is None:
        return ""
    mean, std = gain
    return f"{100 * mean:+.2f}" + ("" if std is None else f" ± {100 * std:.2f}")
