"""Publication tables: LaTeX with booktabs, a line for each method and a group of columns for each protocol.

In every column the best figure is bold and the second one underlined; of equal figures, as they are printed, all are.
Floors (chance, HOG) stand above the methods and are not ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vireid.errors import ArgumentError
from vireid.evaluation.lines import average, lines_of
from vireid.evaluation.rows import COLUMNS, Row

LETTERS = {"\\": r"\textbackslash{}", "±": r"$\pm$", **{letter: "\\" + letter for letter in "_%&#${}"}}
PAPER_COLUMNS = ("R1", "R10", "R20", "mAP", "mINP")  # those of most papers


@dataclass(frozen=True)
class Figures:
    """Mean fractions by column, and their standard deviation where there are several trials or seeds."""

    mean: Mapping[str, float]
    std: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Line:
    """One line: its name and its figures by protocol; `floor` where it needs no training."""

    name: str
    by_protocol: Mapping[str, Figures]
    floor: bool = False


def publication_lines(rows: Sequence[Row], floors: Sequence[Row] = ()) -> list[Line]:
    """The lines of these rows and of floors; runs that differ in their seed alone are one line."""
    both: dict[tuple[str, bool], dict[str, Figures]] = {}
    for some, floor in ((floors, True), (rows, False)):
        for protocol in dict.fromkeys(row.protocol for row in some):
            for name, own in lines_of(some, protocol).items():
                mean, std, _ = average(own, lambda metrics: [figure(metrics) for figure in COLUMNS.values()])
                by_column = dict(zip(COLUMNS, mean.tolist(), strict=True))
                deviation = None if std is None else dict(zip(COLUMNS, std.tolist(), strict=True))
                both.setdefault((name, floor), {})[protocol] = Figures(by_column, deviation)
    return [Line(name, by_protocol, floor) for (name, floor), by_protocol in both.items()]


def publication_table(lines: Sequence[Line], notes: Sequence[str], columns: Sequence[str] = PAPER_COLUMNS) -> str:
    """The table as LaTeX that needs \\usepackage{booktabs}; `notes` are comments below it.

    Raises ArgumentError for a column that the lines do not have.
    """
    protocols = list(dict.fromkeys(protocol for line in lines for protocol in line.by_protocol))
    known = next((list(f.mean) for line in lines for f in line.by_protocol.values()), [])
    if unknown := [column for column in columns if known and column not in known]:
        raise ArgumentError(f"there are no columns {', '.join(unknown)}; a table has {', '.join(known)}")
    groups = [rf"\multicolumn{{{len(columns)}}}{{c}}{{{word(protocol)}}}" for protocol in protocols]
    rules = [rf"\cmidrule(lr){{{2 + i * len(columns)}-{1 + (i + 1) * len(columns)}}}" for i in range(len(protocols))]
    ranked = {(p, c): _ranks(lines, p, c) for p in protocols for c in columns}
    body: list[str] = []
    floors = sorted((line for line in lines if line.floor), key=lambda line: _first(line, columns))
    ordered = [*floors, *(line for line in lines if not line.floor)]
    for number, line in enumerate(ordered):
        if number and ordered[number - 1].floor and not line.floor:
            body.append(r"\midrule")
        cells = [
            _cell(line, protocol, column, ranked[protocol, column]) for protocol in protocols for column in columns
        ]
        body.append(" & ".join([word(line.name), *cells]) + r" \\")
    return "\n".join([
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) * len(protocols))}}}",
        r"\toprule",
        " & ".join(["", *groups]) + r" \\",
        "".join(rules),
        " & ".join(["Method", *map(word, list(columns) * len(protocols))]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {line}" for note in notes for line in note.splitlines()),
        "",
    ])  # fmt: skip


def word(text: str) -> str:
    """Text with the letters that LaTeX reads as commands written out.

    >>> print(word("k1_20 & 5 %"))
    k1\\_20 \\& 5 \\%
    """
    return "".join(LETTERS.get(letter, letter) for letter in text)


def _first(line: Line, columns: Sequence[str]) -> float:
    """What floors are ordered by: the first figure."""
    return next(iter(line.by_protocol.values())).mean[columns[0]]


def _ranks(lines: Sequence[Line], protocol: str, column: str) -> dict[str, int]:
    """Place, from 0, of each printed mean of a column among the methods."""
    means = {
        f"{100 * line.by_protocol[protocol].mean[column]:.2f}"
        for line in lines
        if protocol in line.by_protocol and not line.floor
    }
    return {text: place for place, text in enumerate(sorted(means, key=float, reverse=True))}


def _cell(line: Line, protocol: str, column: str, ranks: Mapping[str, int]) -> str:
    """One figure in percent, marked where it is the best or the second; -- where the line has none."""
    if protocol not in line.by_protocol:
        return "--"
    figures = line.by_protocol[protocol]
    text = f"{100 * figures.mean[column]:.2f}"
    marks = {0: r"\textbf{%s}", 1: r"\underline{%s}"} if len(ranks) > 1 and not line.floor else {}
    marked = marks.get(ranks.get(text, 2), "%s") % text
    return marked if figures.std is None else rf"{marked} $\pm$ {100 * figures.std[column]:.2f}"
