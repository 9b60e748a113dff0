"""Results: one row per protocol and trial with the stamp that says under which conditions it was measured.

Rows that differ in nothing but the trial (or in the partition: RegDB trains one network for each of its ten) are
averaged. The standard deviation is that of a sample (divided by n - 1, since the trials are draws out of many possible
ones) and is left out for a single trial.
"""

from __future__ import annotations

import csv
import io
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from vireid.errors import ArgumentError, DataError
from vireid.evaluation.publication import PAPER_COLUMNS, publication_lines, publication_table, word
from vireid.evaluation.rows import AVERAGED_OVER, COLUMNS, LONGEST_RANK, NAME, Row
from vireid.system import replacing

FORMAT = "vireid results 1"
MAX_WIDTH = 10_000  # of a terminal, to measure what a table needs
Translation = Callable[[str], str]  # a word, a value or a phrase in the language of the reader


@dataclass(frozen=True)
class Summary:
    """Trials of one protocol under one stamp; `mean` and `std` are fractions by column, `std` None for one trial."""

    protocol: str
    stamp: dict[str, str]
    trials: int
    mean: dict[str, float]
    std: dict[str, float] | None
    num_queries: str  # one number, or the smallest and the largest where the trials differ
    num_valid: str
    num_gallery: str


@dataclass(frozen=True)
class _File:
    __pydantic_config__ = ConfigDict(extra="forbid")

    format: Literal["vireid results 1"]
    rows: tuple[Row, ...]
    floors: tuple[Row, ...] = ()


@dataclass(frozen=True, repr=False)
class Results:
    """Rows of any protocols and runs; `a + b` joins two, and `summaries` averages over trials.

    `floors` are rows of what needs no training (chance, HOG) under the same protocols: they stand in the table beside
    the others and in no average. Each has a name in its stamp.

    `print(results)`, and its name at Python's prompt, show the table at the width of the terminal.
    """

    rows: tuple[Row, ...]
    floors: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        seen = set()
        for row in self.rows:
            key = _key(row)
            if key in seen:
                raise ArgumentError(
                    f"trial {row.trial} of {row.protocol} is there twice under one stamp, so a mean would count it "
                    f"twice; tell the two apart by a stamp entry such as {NAME!r}"
                )
            seen.add(key)

    def __add__(self, other: Results) -> Results:
        floors = {_key(row): row for row in (*other.floors, *self.floors)}
        return Results(self.rows + other.rows, tuple(floors.values()))

    @property
    def summaries(self) -> list[Summary]:
        """One Summary for each protocol and stamp, in the order of their first rows."""
        return summaries_of(self.rows)

    @property
    def mean(self) -> dict[str, float]:
        """Mean fractions by column name; ValueError where the rows are not one protocol under one stamp."""
        return self._only().mean

    @property
    def std(self) -> dict[str, float] | None:
        """Standard deviation over the trials by column name, None for one trial; ValueError as `mean`."""
        return self._only().std

    def _only(self) -> Summary:
        summaries = self.summaries
        if len(summaries) != 1:
            names = ", ".join(s.protocol for s in summaries) or "nothing"
            raise ArgumentError(f"a mean needs rows of one protocol and stamp, these are {names}; use `summaries`")
        return summaries[0]

    def markdown(self) -> str:
        """The table in percent, followed by the stamps."""
        return markdown_table(*self.cells(), self.notes())

    def latex(self, columns: Sequence[str] = PAPER_COLUMNS) -> str:
        """The table as LaTeX for a paper (booktabs): best bold, second underlined, the stamps as comments."""
        return publication_table(publication_lines(self.rows, self.floors), self.notes(), columns)

    def csv(self) -> str:
        """One line per trial, fractions, with every entry of the stamps as a column."""
        keys = list(dict.fromkeys(key for row in self.rows for key in row.stamp))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["protocol", "trial", *COLUMNS, "queries", "valid", "gallery", *keys])
        for row in self.rows:
            figures = [repr(figure(row.metrics)) for figure in COLUMNS.values()]
            counts = [row.metrics.num_queries, row.metrics.num_valid, row.num_gallery]
            writer.writerow([row.protocol, row.trial, *figures, *counts, *(row.stamp.get(key, "") for key in keys)])
        return text.getvalue()

    def json(self) -> str:
        """The rows with their stamps, as they lie in a results file."""
        return TypeAdapter(tuple[Row, ...]).dump_json(self.rows, indent=1).decode()

    def __rich__(self) -> TerminalTable:
        return TerminalTable(*self.cells(), self.notes())

    def __repr__(self) -> str:
        if not self.rows:
            return "Results(())"
        return self.__rich__().text(shutil.get_terminal_size().columns)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The header and the lines of the table as texts, floors above the lines of their protocol."""
        floors = sorted(summaries_of(self.floors), key=lambda floor: floor.mean["mAP"])
        named = bool(floors) or any(NAME in s.stamp for s in self.summaries)
        header = [*([NAME] if named else []), "protocol", *COLUMNS, "trials", "queries", "valid", "gallery", "stamp"]
        cells, protocols = [], set[str]()
        for number, s in enumerate(self.summaries, 1):
            above = [floor for floor in floors if floor.protocol == s.protocol not in protocols]
            protocols.add(s.protocol)
            for line, mark in (*((floor, "") for floor in above), (s, f"[{number}]")):
                name = [line.stamp.get(NAME) or line.stamp.get("model") or line.stamp.get("method", "")]
                figures = [percent(line.mean[c], None if line.std is None else line.std[c]) for c in COLUMNS]
                counts = [str(line.trials), line.num_queries, line.num_valid, line.num_gallery]
                cells.append([*(name if named else []), line.protocol, *figures, *counts, mark])
        return header, cells

    def notes(self, translated: Translation = str) -> list[str]:
        """What stands below the table; `translated` puts a word, a value or a phrase in the reader's language."""
        stamps = [{k: v for k, v in s.stamp.items() if k != NAME} for s in self.summaries]
        floors = {row.stamp[NAME]: row.stamp.get("layer", "") for row in self.floors}
        same = translated("under the same protocol")
        listed = "; ".join(f"{translated(name)}: {translated(layer)}, {same}" for name, layer in floors.items())
        how = translated("percent; mean ± standard deviation over the trials (n - 1)")
        return [*stamp_lines(stamps, translated), *([listed] if listed else []), how]

    def save(self, path: Path | str) -> Path:
        """Write the rows as JSON, whole or not at all; returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(TypeAdapter(_File).dump_json(_File(FORMAT, self.rows, self.floors), indent=1))
        return path

    @staticmethod
    def load(path: Path | str) -> Results:
        """Read what `save` wrote; DataError names every entry that is missing, unknown or of a wrong type."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"no results at {path}; write them with `vireid evaluate`")
        try:
            file = TypeAdapter(_File).validate_json(path.read_bytes())
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
            raise DataError(f"{path} is not a results file that vireid wrote: {faults}; evaluate again") from error
        if short := [row for row in (*file.rows, *file.floors) if len(row.metrics.cmc) < LONGEST_RANK]:
            raise DataError(
                f"{path}: expected a CMC of {LONGEST_RANK} ranks or more, {short[0].protocol} has "
                f"{len(short[0].metrics.cmc)}; evaluate again"
            )
        try:
            return Results(file.rows, file.floors)
        except ArgumentError as error:
            raise DataError(f"{path}: {error}; or evaluate again") from error


def summaries_of(rows: Sequence[Row]) -> list[Summary]:
    """One Summary for each protocol and stamp, in the order of their first rows."""
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [_summary(rows) for rows in groups.values()]


def _key(row: Row) -> object:
    """What no two rows of one table share."""
    return row.group, row.stamp.get(AVERAGED_OVER), row.trial


def _summary(rows: list[Row]) -> Summary:
    figures = {name: [figure(row.metrics) for row in rows] for name, figure in COLUMNS.items()}
    stamp = dict(rows[0].stamp)
    partitions = list(dict.fromkeys(row.stamp[AVERAGED_OVER] for row in rows if AVERAGED_OVER in row.stamp))
    if partitions:
        stamp[AVERAGED_OVER] = ", ".join(partitions)
    return Summary(
        protocol=rows[0].protocol,
        stamp=stamp,
        trials=len(rows),
        mean={name: statistics.fmean(values) for name, values in figures.items()},
        std={name: statistics.stdev(values) for name, values in figures.items()} if len(rows) > 1 else None,
        num_queries=_span([row.metrics.num_queries for row in rows]),
        num_valid=_span([row.metrics.num_valid for row in rows]),
        num_gallery=_span([row.num_gallery for row in rows]),
    )


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


# --- how tables look --------------------------------------------------------------------------------------------------


def percent(mean: float, std: float | None = None) -> str:
    """A fraction in percent with two decimals, with its standard deviation if there is one."""
    return f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def stamp_lines(stamps: list[dict[str, str]], translated: Translation = str) -> list[str]:
    """What all lines of a table share, then what each, numbered from 1, has of its own."""
    shared = {k: v for k, v in (stamps[0] if stamps else {}).items() if all(s.get(k) == v for s in stamps)}
    lines = [_stamp_text(translated("all lines"), shared, translated)] if shared else []
    for number, stamp in enumerate(stamps, 1):
        own = {k: v for k, v in stamp.items() if k not in shared}
        lines += [_stamp_text(f"[{number}]", own, translated)] if own else []
    return lines


def markdown_table(header: list[str], cells: list[list[str]], notes: list[str]) -> str:
    """A Markdown table with lines of text below it; these alone where it has no columns."""
    if not header:
        return "\n".join([*notes, ""])
    lines = ["| " + " | ".join(row) + " |" for row in (header, *cells)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:], "", *notes, ""])


def latex_table(header: list[str], cells: list[list[str]], notes: list[str]) -> str:
    """A LaTeX tabular, the notes as comments."""
    body = [" & ".join(map(word, row)) + r" \\" for row in (header, *cells)]
    begin, end = rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\end{tabular}"
    return "\n".join([begin, body[0], r"\hline", *body[1:], end, *("% " + note for note in notes), ""])


@dataclass(frozen=True)
class TerminalTable:
    """A table for the terminal that never breaks a number, the notes below it.

    Where the window is too narrow, columns that say the same in every line move into the notes; where that is not
    enough, every line of the table becomes a block with one value a line.
    """

    header: list[str]
    cells: list[list[str]]
    notes: list[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, notes = list(range(len(self.header))), list(self.notes)
        table = self.lying(columns)
        wide = options.update_width(MAX_WIDTH)
        if console.measure(table, options=wide).maximum > options.max_width:
            same = [
                at for at in columns[1:] if self.header[at] not in COLUMNS and len({r[at] for r in self.cells}) == 1
            ]
            table = self.lying([at for at in columns if at not in same])
            if console.measure(table, options=wide).maximum <= options.max_width:
                shared = ", ".join(f"{self.header[at]}: {self.cells[0][at]}" for at in same if self.cells[0][at])
                notes = [f"all lines: {shared}", *notes] if shared else notes
            else:
                table = self.upright()
        yield table
        yield Text("\n".join(notes), style="italic dim")

    def text(self, width: int) -> str:
        """The table as plain text of at most `width` columns, without colors."""
        console = Console(width=width, file=io.StringIO(), color_system=None, force_terminal=False, force_jupyter=False)
        with console.capture() as shown:
            console.print(self)
        return "\n".join(line.rstrip() for line in shown.get().splitlines())

    def lying(self, columns: list[int]) -> RichTable:
        """One line for each row, of these columns."""
        table = RichTable()
        for at in columns:
            table.add_column(self.header[at], no_wrap=True)
        for row in self.cells:
            table.add_row(*(Text(row[at]) for at in columns))
        return table

    def upright(self) -> RichTable:
        """One block for each row, of name and value."""
        table = RichTable(show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")  # a long path is folded; a number is shorter than any window
        for row in self.cells:
            for name, cell in zip(self.header, row, strict=True):
                if cell:
                    table.add_row(name, Text(cell))
            table.add_section()
        return table


def _stamp_text(name: str, stamp: dict[str, str], translated: Translation) -> str:
    return f"{name}: " + ", ".join(f"{translated(key)}: {translated(value)}" for key, value in sorted(stamp.items()))
