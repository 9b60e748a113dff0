"""Tables of text as spreadsheets and programs write them, and the values in their cells.

Commas, semicolons or tabs between the cells (also named by Excel's first line `sep=;`); UTF-8 with or without a mark,
or UTF-16 with one; any line ends, also inside of quotes; empty cells behind the last column. Digits are those of ASCII
alone: what Python's `int` and `float` take beyond them (`1_0`, full-width digits, `nan`) is refused, since two
different texts must not become one number.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vireid.errors import VireidError

Camera = TypeVar("Camera", int, str)  # a number in data sets, a name in lists
SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = ",;\t"
SEPARATOR = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)  # Excel's first line
NO_NAME = re.compile(r"[^\w.-]")  # where it is the only one: other delimiters, a title
INVISIBLE = "\ufeff\u200b\u2060"  # marks that programs leave around a cell
EXCEL_ERROR = re.compile(r"#(N/A|REF!|VALUE!|NAME\?|NUM!|NULL!|DIV/0!)")  # a cell, and no comment
NOT_TABLES = {  # by their first bytes
    b"PK\x03\x04": "a workbook of Excel, or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel",
    b"\x1f\x8b": "packed by gzip",
    b"PAR1": "a file of Parquet",
    b"%PDF": "a PDF",
}
INTEGER = re.compile(r"-?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # of a path on Windows
INT64 = 1 << 63
INT64_DIGITS = 18  # that always fit


@dataclass
class TextTable:
    """A table of text: its header, and its lines, which are given once. Errors are of the class `error`."""

    path: Path
    header: list[str]
    first: int  # line of the header
    _records: Iterator[tuple[int, list[str]]]
    _error: type[VireidError]

    def lines(self) -> Iterator[tuple[int, list[str]]]:
        """The number of each line in the file and its cells, as many as the header has, without spaces around them."""
        for number, cells in self._records:
            if not any(cells[len(self.header) :]):
                cells = cells[: len(self.header)]
            if len(cells) != len(self.header):
                above = f"; {self.words} is taken for the header" if number == self.first + 1 else ""
                raise self._error(
                    f"{self.path}, line {number}: expected {len(self.header)} cells like the header, "
                    f"came {len(cells)}{above}; put a cell that holds the delimiter in quotes"
                )
            yield number, cells

    @property
    def words(self) -> str:
        """The header as a message shows it, with its line."""
        names = ", ".join(f"`{name[:40]}`" for name in self.header[:12])
        return f"line {self.first} ({names}{', ...' if len(self.header) > 12 else ''})"

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """The number of each line in the file and its cells by column."""
        for number, cells in self.lines():
            yield number, dict(zip(self.header, cells, strict=True))


def read_table(path: Path, error: type[VireidError], comments: bool = False) -> TextTable:
    """The table in a file; with `comments` lines that begin with # are left out.

    Raises `error` for a file that cannot be read, is empty or not text, for two columns of one name, and while its
    lines are read for a line of another length and for broken quotes.
    """
    records = _records(path, _text(path, error), error, comments)
    header = next(records, None)
    if header is None:
        raise error(f"{path} is empty; expected a header and a line for each row")
    names = header[1]
    while not names[-1]:  # a record has a cell that is not blank
        names.pop()
    table = TextTable(path, names, header[0], records, error)
    if len(names) == 1 and NO_NAME.search(names[0]):
        raise error(
            f"{path}, {table.words} is not a header; expected names with commas, semicolons or tabs between them in "
            "the first line"
        )
    if twice := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise error(f"{path}, {table.words}: column `{twice[0]}` stands twice; remove one of them")
    return table


def headless(path: Path, error: type[VireidError]) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line of a table without a header; lines that begin with # are left out.

    Spaces may stand between the cells.
    """
    return _records(path, _text(path, error), error, comments=True, blanks=True)


def _text(path: Path, error: type[VireidError]) -> str:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise error(f"{path} cannot be read ({fault.strerror or fault})") from None
    if kind := next((kind for magic, kind in NOT_TABLES.items() if data.startswith(magic)), ""):
        raise error(f"{path} is {kind}, expected a table of text; save it as CSV in UTF-8")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        said = encoding.removesuffix("-sig").upper()
        raise error(f"{path}, line {line}: this is not text in {said}; save it as CSV in UTF-8") from None
    if "\0" in text:
        raise error(f"{path} holds NUL characters, as UTF-16 without a mark does; save it as CSV in UTF-8")
    if text.lstrip()[:1] in ("{", "<") or text.lstrip()[:2] in ("[{", "[["):
        kind = "HTML or XML" if text.lstrip()[0] == "<" else "JSON"
        raise error(f"{path} is {kind}, expected a table of text; save it as CSV in UTF-8")
    return text


@dataclass
class _Lines:
    """Lines of a text, of which `first` is the number of the first one that the present record has."""

    text: io.StringIO
    comments: bool
    number: int = 0
    first: int = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        for line in self.text:
            self.number += 1
            if self.comments and not self.first and line.startswith("#") and not EXCEL_ERROR.match(line):
                continue
            self.first = self.first or self.number
            return line
        raise StopIteration


def _records(
    path: Path, text: str, error: type[VireidError], comments: bool, blanks: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the number of its first line; `blanks` may stand between cells."""
    lines = _Lines(io.StringIO(text, newline=""), comments)
    first = next((line for line in lines if line.strip(",;\t \r\n")), "")
    if named := SEPARATOR.fullmatch(first):
        delimiter, lines.first = named[1], 0
    else:
        bare = re.sub(r'"[^"]*"', "", first)
        delimiter = max(DELIMITERS, key=bare.count)
        if blanks and delimiter not in bare:
            delimiter = " "
        lines.text.seek(0)
        lines.number = lines.first = 0
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=delimiter == " ")
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield lines.first, [cell.strip().strip(INVISIBLE) for cell in cells]
            lines.first = 0
    except csv.Error as fault:
        raise error(f"{path}, line {lines.first}: not a CSV ({fault}); check the quotes there") from None


# --- columns ----------------------------------------------------------------------------------------------------------


def nearest(name: str, columns: Iterable[str], cutoff: float = 0.5) -> str:
    """The one of the columns that may be meant by a name, whatever its capitals are; "" where none is."""
    by_lower = {column.lower(): column for column in columns}
    close = difflib.get_close_matches(name.lower(), by_lower, 1, cutoff)
    return by_lower[close[0]] if close else ""


# --- cells ------------------------------------------------------------------------------------------------------------


def is_digits(text: str) -> bool:
    """Whether a text is a whole number in the digits 0 to 9 and nothing else."""
    return text.isascii() and text.isdigit()


def integer(text: str) -> int:
    """A whole number of at most 64 bits in plain digits; ValueError for every other text.

    >>> integer("0017"), integer("-1")
    (17, -1)
    """
    if not INTEGER.fullmatch(text) or not -INT64 <= int(text) < INT64:
        raise ValueError(f"expected a whole number of at most 64 bits in plain digits, got {text[:40]!r}")
    return int(text)


def number(text: str) -> float:
    """A finite number in plain digits with a decimal point; ValueError for every other text.

    >>> number("1.5e3"), number("-2")
    (1500.0, -2.0)
    """
    value = float(text) if NUMBER.fullmatch(text) else float("inf")
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"expected a number with a decimal point, got {text[:40]!r}")
    return value


def value_range(low: str, high: str) -> tuple[float, float]:
    """Two numbers of which the first is lower; ValueError for other texts.

    >>> value_range("7000", "9000.5")
    (7000.0, 9000.5)
    """
    ends = number(low), number(high)
    if not ends[0] < ends[1]:
        raise ValueError(f"expected a lower and a higher number, got {low[:40]!r} and {high[:40]!r}")
    return ends


def camera_ranges(
    rows: Iterable[tuple[Camera, str, str, int]], columns: Sequence[str], path: Path, error: type[VireidError]
) -> dict[Camera, tuple[float, float]]:
    """The range of each camera for which a row gives one, from (camera, low, high, line) of the rows of a file.

    `columns` are the names of low and high. Raises `error` for a bad range, and for two ranges of one camera.
    """
    ranges: dict[Camera, tuple[float, float]] = {}
    for camera, low, high, line in rows:
        if not low and not high:
            continue
        try:
            ends = value_range(low, high)
        except ValueError as fault:
            raise error(f"{path}, line {line}: {' and '.join(columns)}: {fault}") from None
        if (first := ranges.setdefault(camera, ends)) != ends:
            raise error(
                f"{path}, line {line}: camera {camera!r} has the range {ends[0]:g} to {ends[1]:g} here and "
                f"{first[0]:g} to {first[1]:g} before; a camera has one"
            )
    return ranges


def file_path(text: str) -> str:
    """A path with forward slashes; ValueError for none, for an address, and for a drive of Windows elsewhere."""
    if ADDRESS.match(text):
        raise ValueError(f"expected a path, got the address {text[:80]!r}; copy the file to this machine")
    if not text or (DRIVE.match(text) and os.name != "nt"):
        raise ValueError(f"expected a path relative to this file, got {text[:80]!r}")
    return text.replace("\\", "/")


@dataclass
class ListedFiles:
    """Which files were listed, whatever the spelling: `./a.png`, `x/../a.png`, an absolute path and a link to it."""

    root: Path
    _first: dict[str, int] = field(default_factory=dict)
    _folders: dict[str, str] = field(default_factory=dict)

    def first_line(self, path: str, number: int) -> int:
        """The line that listed this file first; `number` where it is this one."""
        return self._first.setdefault(self._key(os.path.join(self.root, path)), number)

    def _key(self, path: str) -> str:
        folder, name = os.path.split(path)
        if os.path.islink(path) or name in ("", ".", ".."):
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.normcase(os.path.join(self._folders[folder], name))
