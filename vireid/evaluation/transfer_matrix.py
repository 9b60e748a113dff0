"""Transfer matrix: runs by what they were trained on (rows), tested on several data sets (columns), in one table."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from functools import cached_property

from vireid.errors import ArgumentError
from vireid.evaluation.results import Results, TerminalTable, latex_table, markdown_table, percent, stamp_lines

SHOWN = ("R1", "mAP")  # of a cell
OWN = "*"  # marks the data that a run was trained on
UNTESTED = "not tested"


@dataclass(frozen=True)
class Cell:
    """One run on one test set under one protocol."""

    run: str  # how the table calls the run
    trained_on: str  # and its training data
    data: str  # and the test set
    protocol: str
    own: bool  # whether the test set belongs to the training data
    ms: float  # milliseconds to embed one picture
    results: Results | None = field(repr=False)  # of its trials; None where the run cannot be tested on this data
    reason: str = ""  # why not

    @property
    def mean(self) -> dict[str, float]:
        """Fractions by metric, {} where not tested."""
        return self.results.mean if self.results else {}

    @property
    def figures(self) -> str:
        """Rank 1 and mAP in percent."""
        return " / ".join(percent(self.mean[column]) for column in SHOWN) if self.results else UNTESTED


@dataclass(frozen=True)
class TransferMatrix:
    """Every run on every test set; ArgumentError where a cell is missing or is there twice."""

    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        places = [(c.run, c.trained_on, c.data, c.protocol) for c in self.cells]
        if len(set(places)) != len(places) or len(places) != len(self.rows) * len(self.columns):
            raise ArgumentError(
                f"{len(self.rows)} runs and {len(self.columns)} test sets need one cell each, got {len(places)} cells"
            )

    @cached_property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """(trained on, run) of every row, in the order of the cells."""
        return tuple(dict.fromkeys((c.trained_on, c.run) for c in self.cells))

    @cached_property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(data, protocol) of every column, in the order of the cells."""
        return tuple(dict.fromkeys((c.data, c.protocol) for c in self.cells))

    def row(self, trained_on: str, run: str) -> list[Cell]:
        """The cells of one row in the order of the columns."""
        by_column = {(c.data, c.protocol): c for c in self.cells if (c.trained_on, c.run) == (trained_on, run)}
        return [by_column[column] for column in self.columns]

    def markdown(self) -> str:
        """The table in percent, followed by the stamps."""
        return markdown_table(*self._cells(), self._notes())

    def latex(self) -> str:
        """The table as a LaTeX tabular, the stamps as comments."""
        return latex_table(*self._cells(), self._notes())

    def __rich__(self) -> TerminalTable:
        return TerminalTable(*self._cells(), self._notes())

    def csv(self) -> str:
        """One line per cell, fractions."""
        text = io.StringIO()
        records = self._records()
        names = dict.fromkeys(name for record in records for name in record)
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def json(self) -> str:
        """The records of `csv` with the stamps."""
        records = [{**r, "stamp": self._stamp(c)} for r, c in zip(self._records(), self.cells, strict=True)]
        return json.dumps(records, indent=1, ensure_ascii=False) + "\n"

    def _records(self) -> list[dict[str, object]]:
        records: list[dict[str, object]] = []
        for c in self.cells:
            named = {"trained_on": c.trained_on, "run": c.run, "data": c.data, "protocol": c.protocol, "own": c.own}
            untested = {} if c.results else {"reason": c.reason}
            records.append({**named, **c.mean, "ms_per_picture": round(c.ms, 3), **untested})
        return records

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = ["trained on", "run", *(f"{data} ({protocol})" for data, protocol in self.columns), "ms per picture"]
        lines = []
        for trained_on, run in self.rows:
            cells = self.row(trained_on, run)
            texts = [f"{cell.figures} {OWN}" if cell.own else cell.figures for cell in cells]
            lines.append([trained_on, run, *texts, f"{cells[0].ms:.2f}"])
        return header, lines

    def _notes(self) -> list[str]:
        ordered = [cell for row in self.rows for cell in self.row(*row)]
        untested = dict.fromkeys(f"{c.run} on {c.data}: {UNTESTED}: {c.reason}" for c in ordered if not c.results)
        return [
            *stamp_lines([self._stamp(cell) for cell in ordered]),
            *untested,
            f"percent, {' / '.join(SHOWN)}; numbers in brackets count the cells row by row; {OWN}: test people of the "
            "data that the run was trained on; ms per picture: to embed it, reading the file not counted",
        ]

    def _stamp(self, cell: Cell) -> dict[str, str]:
        return cell.results.rows[0].stamp if cell.results else {}
