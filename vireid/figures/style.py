"""Style of the figures: colors, sizes, the language of the labels, and how a figure is saved.

Every figure is drawn inside `sheet(lang)`. Colors are those of Okabe and Ito ("Color Universal Design", 2008), which
readers with any of the common kinds of color blindness can tell apart; lines differ in their dashes too.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vireid.errors import ArgumentError, MissingPackage
from vireid.figures.fonts import INSTALL, chinese_file
from vireid.system import replacing
from vireid.types import Language

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

Format = Literal["png", "svg", "pdf"]
Words = Mapping[str, Mapping[str, str]]  # language -> name -> text
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5A5A5A")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))
INK, FAINT, GRID = "#1c2026", "#68707a", "#d6dadf"
DPI = 200  # of PNG files
COLUMN = 7.0  # inches: the width of a figure across a page
MAP = "cividis"  # of matrices: its brightness grows all the way, and it reads the same with color blindness
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "vireid",  # names inside an SVG are the same in every run
}


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn with: the language of its labels and matplotlib."""

    lang: Language

    def words(self, words: Words) -> Mapping[str, str]:
        """The labels in the language of this sheet."""
        return words[self.lang]

    def figure(self, width: float, height: float) -> Figure:
        """An empty figure of this size in inches, which belongs to no window."""
        from matplotlib.figure import Figure

        return Figure(figsize=(width, height))

    def axes(self, width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> Grid:
        """A figure with a grid of axes."""
        figure = self.figure(width, height)
        return Grid(figure, figure.subplots(rows, columns, squeeze=False, **keywords).ravel().tolist())


@dataclass(frozen=True)
class Grid:
    """A figure and its axes, row by row."""

    figure: Figure
    axes: list[Axes]


@contextmanager
def sheet(lang: Language = "en") -> Iterator[Sheet]:
    """Draw in the house style with labels in this language.

    The labels are English where this machine has no Chinese font, and a warning says so. Raises MissingPackage without
    the extra `figures`, ArgumentError for an unknown language.
    """
    if lang not in ("en", "zh"):
        raise ArgumentError(f"the labels are in English (en) or Chinese (zh), got {lang!r}")
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"figures need matplotlib and scikit-learn, {error.name} is missing: pip install 'vireid[figures]'"
        ) from error
    families = ["DejaVu Sans"]
    if lang == "zh":
        chinese = chinese_file()
        if chinese is None:
            log.warning("the labels are in English: no Chinese font was found; %s", INSTALL)
            lang = "en"
        else:
            families = [*families, _add_font(chinese)]
    cycle = matplotlib.cycler(color=COLORS)  # pyright: ignore[reportAttributeAccessIssue]
    style: Any = {**STYLE, "axes.prop_cycle": cycle, "font.family": families}
    with matplotlib.rc_context(style):
        yield Sheet(lang)


def _add_font(path: Path) -> str:
    """Make the font of a file known to matplotlib as one of normal weight, and return its family."""
    from matplotlib import font_manager

    known = font_manager.fontManager.ttflist
    if all(entry.fname != str(path) for entry in known):
        font_manager.fontManager.addfont(str(path))
    place = next(place for place, entry in enumerate(known) if entry.fname == str(path))
    known[place] = replace(known[place], weight=400)  # of one that says medium: matplotlib would warn at each text
    return known[place].name


def save(figure: Figure, path: Path | str, formats: Sequence[Format] = ("png",)) -> list[Path]:
    """Write the figure as PATH.png, PATH.svg and PATH.pdf, as `formats` say, and return the files.

    The same figure gives the same bytes: no date is written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in formats:
        file = path.with_name(f"{path.name}.{kind}")
        with replacing(file) as partial:
            _write(figure, partial, kind)
        files.append(file)
    return files


def _write(figure: Figure, file: Path | io.BytesIO, kind: Format, **keywords: Any) -> None:
    import matplotlib

    none = {"png": ("Software",), "svg": ("Date", "Creator"), "pdf": ("CreationDate", "Creator", "Producer")}
    with matplotlib.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"], **keywords.pop("style", {})}):
        metadata = dict.fromkeys(none[kind])
        figure.savefig(file, format=kind, dpi=DPI, metadata=metadata, **keywords)


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element of a page: its ink follows the page's colors, `label` is its text alternative.

    `name` begins the ids inside it, so that several figures stand on one page. Texts stay texts.
    """
    data = io.BytesIO()
    _write(figure, data, "svg", transparent=True, style={"svg.fonttype": "none"})
    text = data.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for color, variable in ((INK, "--ink"), (FAINT, "--faint"), (GRID, "--line")):
        text = re.sub(color, f"var({variable})", text, flags=re.IGNORECASE)
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{escape(label)}" class="figure" ', text, count=1)
