"""`vireid figures` and `vireid report` of several runs: open the run folders, draw, write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid.declaration import configured
from vireid.errors import ArgumentError
from vireid.evaluation.results import Results
from vireid.figures.style import save
from vireid.types import Language
from vireid.workflows.figures import cmc_figures, figures_of
from vireid.workflows.options import FigureOptions
from vireid.workflows.report import write_report
from vireid.workflows.run import Run
from vireid.workflows.side_by_side import results_of

FOLDER = "figures"  # of a run
log = logging.getLogger(__name__)


def draw_figures(
    runs: Sequence[str | Path],
    to: str | Path = "runs/figures",
    options: FigureOptions | None = None,
    **words: Any,
) -> list[Path]:
    """Draw the figures of each run into RUN/figures, and the CMC curves of several runs into `to`; returns the files.

    `words` are the fields of FigureOptions. A figure that a run cannot serve is left out with a note, unless it was
    named in `only`. Raises RunError, DataError, ArgumentError, MissingPackage.
    """
    options = configured(FigureOptions, options, words)
    opened = [Run.open(run) for run in runs]
    if not opened:
        raise ArgumentError("name at least one run folder whose figures are to be drawn")
    files: list[Path] = []
    for run in opened:
        for name, figure in figures_of(run, options):
            files += save(figure, run.path / FOLDER / name, options.formats)
            log.info("drew %s", name)
    if len(opened) > 1 and (not options.only or "cmc" in options.only):
        for name, figure in cmc_figures(results_of([run.path for run in opened]), options):
            files += save(figure, Path(to) / name, options.formats)
            log.info("drew %s", name)
    return files


def report(
    runs: Sequence[str | Path], to: str | Path | None = None, lang: Language = "en", results: Results | None = None
) -> Path:
    """Write one page about a run, by default RUN/report.html, or about several, by default runs/report.html.

    `results` is the table of the page, by default that of the runs: it may have further lines, such as HOG's.
    Raises RunError, ArgumentError, and DataError where a run was not evaluated.
    """
    opened = [Run.open(run) for run in runs]
    if not opened:
        raise ArgumentError("name at least one run folder to report on")
    return write_report(opened, None if to is None else Path(to), lang, results)
