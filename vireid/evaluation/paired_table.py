"""The table of paired tests: each method against the first one, for each protocol that both were evaluated under."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass

from vireid.evaluation.paired import PairedDifference
from vireid.evaluation.publication import word
from vireid.evaluation.results import TerminalTable, Translation, latex_table, markdown_table

HEADER = ["protocol", "method", "against", "difference in mAP", "95 % interval", "p", "queries", "people", "seeds"]


@dataclass(frozen=True)
class PairedLine:
    """One comparison: `method` against `reference` under a protocol."""

    protocol: str
    method: str
    reference: str
    difference: PairedDifference


@dataclass(frozen=True)
class PairedTable:
    """Comparisons with what was computed; it prints as results do."""

    lines: tuple[PairedLine, ...]
    conditions: tuple[str, ...] = ()  # in which methods were measured otherwise than the first one

    def markdown(self) -> str:
        """The table in points of mAP, the test named below it."""
        return markdown_table(HEADER, self.cells(), self.notes())

    def latex(self) -> str:
        """The table as LaTeX, the test as a comment."""
        return latex_table([word(name) for name in HEADER], self.cells(), self.notes())

    def csv(self) -> str:
        """One line per comparison, fractions."""
        text = io.StringIO()
        records = self._records()
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def json(self) -> str:
        """The records of `csv`."""
        return json.dumps(self._records(), indent=1, ensure_ascii=False) + "\n"

    def __rich__(self) -> TerminalTable:
        return TerminalTable(HEADER, self.cells(), self.notes())

    def _records(self) -> list[dict[str, object]]:
        return [
            {"protocol": line.protocol, "method": line.method, "against": line.reference, **asdict(line.difference)}
            for line in self.lines
        ]

    def cells(self) -> list[list[str]]:
        """The lines of the table as texts."""
        cells = []
        for line in self.lines:
            d = line.difference
            figures = [f"{100 * d.mean:+.2f}", f"{100 * d.low:+.2f} to {100 * d.high:+.2f}", f"{d.p:.4f}"]
            counts = [str(d.queries), str(d.people), str(d.seeds)]
            cells.append([line.protocol, line.method, line.reference, *figures, *counts])
        return cells

    def notes(self, translated: Translation = str) -> list[str]:
        """What stands below the table; `translated` puts a phrase in the reader's language."""
        tests = dict.fromkeys(line.difference.test for line in self.lines)
        points = "points of mAP; a query's average precision is its mean over the trials"
        return [translated(points), *map(translated, tests), *self.conditions]
