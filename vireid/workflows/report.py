"""`vireid report`: collect what the page shows of the runs, and write it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError, MissingPackage, PictureError, RunError, VireidError
from vireid.evaluation.paired_table import PairedTable
from vireid.evaluation.queries import NEAREST, read_queries
from vireid.evaluation.results import Results
from vireid.figures.report import Failure, Report, Reported, Thumbnail, page, webp
from vireid.figures.report_words import WORDS, figure_title
from vireid.figures.style import inline_svg
from vireid.images import read, resize
from vireid.system import choose_device, replacing
from vireid.training.log_file import read_log
from vireid.training.run_folder import RunFolder
from vireid.types import MODALITIES, Language
from vireid.workflows.cost import Deployed, bytes_of, ms_per_picture, parameters_of
from vireid.workflows.figures import Drawable, cmc_figures, figures_of
from vireid.workflows.options import FigureOptions, RunOptions
from vireid.workflows.paired import paired_of
from vireid.workflows.repeat import command_of
from vireid.workflows.run_outputs import QUERIES, RESULTS
from vireid.workflows.side_by_side import named_runs, results_of

REPORT: dict[Language, str] = {"en": "report.html", "zh": "report.zh.html"}
FAILURES, FAILURES_OF_SEVERAL = 8, 3  # hardest queries of a run
THUMBNAIL, QUALITY = (128, 64), 60  # of their pictures
log = logging.getLogger(__name__)


class ReportedRun(Drawable, Deployed, Protocol):
    """What is needed of a run (workflows/run.py)."""

    def table(self, options: RunOptions) -> Table: ...


def write_report(
    runs: Sequence[ReportedRun], to: Path | None = None, lang: Language = "en", results: Results | None = None
) -> Path:
    """Write the page about the runs: RUN/report.html of one, runs/report.html of several, or `to`.

    `results` is the table, and of several runs what the curves are drawn from, where it has more lines than the runs.
    What a run cannot serve (pictures that have been moved, figures without the extra) is left out with a note. Raises
    DataError where a run was not evaluated, ArgumentError.
    """
    if results is None:
        results = Results.load(runs[0].path / RESULTS) if len(runs) == 1 else results_of([run.path for run in runs])
    figures, reason = figures_for(runs, results, lang)
    names = [name for name, _ in named_runs([run.path for run in runs])]
    if len(set(names)) < len(names):  # seeds of one method
        names = [f"{name} ({run.path.name})" for name, run in zip(names, runs, strict=True)]
    report = Report(
        [reported(run, name, lang, len(runs) > 1) for run, name in zip(runs, names, strict=True)],
        results,
        figures,
        reason,
        paired_for(runs),
        str(choose_device("auto")),
        lang,
    )
    path = to or (runs[0].path if len(runs) == 1 else Path("runs")) / REPORT[lang]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(page(report), encoding="utf-8")
    return path


def figures_for(runs: Sequence[ReportedRun], results: Results, lang: Language) -> tuple[list[tuple[str, str]], str]:
    """Name and <svg> of the figures, of several runs the CMC curves alone; and why there are none."""
    options = FigureOptions(lang=lang, progress=False)
    try:
        drawn = list(figures_of(runs[0], options) if len(runs) == 1 else cmc_figures(results, options))
    except (MissingPackage, RunError, DataError, PictureError) as error:
        log.warning("the report has no figures: %s", error)
        return [], str(error)
    labels = [figure_title(name, lang) for name, _ in drawn]
    return [
        (name, inline_svg(figure, f"f{number}", label))
        for number, ((name, figure), label) in enumerate(zip(drawn, labels, strict=True))
    ], ""


def paired_for(runs: Sequence[ReportedRun]) -> PairedTable | None:
    """Paired tests of several methods, where their queries.csv allow them."""
    if len(runs) == 1:
        return None
    try:
        return paired_of([run.path for run in runs])
    except (ArgumentError, DataError) as error:
        log.warning("the report has no paired tests: %s", error)
        return None


def reported(run: ReportedRun, name: str, lang: Language, several: bool) -> Reported:
    """What the page says of one run."""
    failures, protocol = failures_of(run, lang, FAILURES_OF_SEVERAL if several else FAILURES)
    ranked = () if several else tuple(sorted((run.path / "figures").glob("ranked-*.png")))
    return Reported(run.folder, name, command_of(run.folder.record), cost_of(run), failures, protocol, ranked)


def cost_of(run: ReportedRun) -> dict[str, str]:
    """Cells of the table of costs; none where the network cannot be opened."""
    try:
        parameters, ms = parameters_of(run), ms_per_picture(run)
    except VireidError as error:
        log.warning("%s: its cost is not known: %s", run.path, error)
        return {}
    return {
        "parameters": f"{parameters:,}",
        "MB": f"{bytes_of(run) / 1e6:.1f}",
        "ms per picture": f"{ms:.2f}",
        "training s": training_seconds(run.folder),
    }


def training_seconds(run: RunFolder) -> str:
    """Of the run's log, as text; nothing where it has no finished epoch."""
    seconds = [record["elapsed_s"] for record in read_log(run.path) if "elapsed_s" in record]
    return f"{seconds[-1]:,.0f}" if seconds else ""


# --- hardest queries --------------------------------------------------------------------------------------------------


def failures_of(run: ReportedRun, lang: Language, count: int) -> tuple[tuple[Failure, ...], str]:
    """The queries of the first protocol with the lowest average precision, of different people, and that protocol."""
    try:
        lines = [line for line in read_queries(run.path / QUERIES) if line["trial"] == "0" and line["AP"]]
        protocol, rerank = (lines[0]["protocol"], lines[0]["rerank"]) if lines else ("", "")
        mine = [line for line in lines if (line["protocol"], line["rerank"]) == (protocol, rerank)]
        table = run.table(RunOptions(cross=True)) if mine else None
        hardest: dict[str, dict[str, str]] = {}
        for line in sorted(mine, key=lambda line: float(line["AP"])):
            hardest.setdefault(line["pid"], line)
        chosen = list(hardest.values())[:count]
        return tuple(failure(line, table, lang) for line in chosen if table is not None), protocol
    except (DataError, RunError, PictureError) as error:
        log.warning("%s: its hardest queries are left out: %s", run.path, error)
        return (), ""


def failure(line: dict[str, str], table: Table, lang: Language) -> Failure:
    """One query with its nearest pictures; DataError where the data no longer hold one of them."""
    words, place = WORDS[lang], {path: row for row, path in enumerate(table.path.tolist())}
    paths = [line["query"], *(line[f"nearest_{k}"] for k in range(1, NEAREST + 1) if line[f"nearest_{k}"])]
    if lost := [path for path in paths if path not in place]:
        raise DataError(f"{table.root} no longer holds {lost[0]}; evaluate again")
    pictures = []
    for rank, path in enumerate(paths):
        row = place[path]
        kind = "query" if rank == 0 else "same" if str(table.pid[row]) == line["pid"] else "other"
        title = words["query"] if rank == 0 else words["hit"].format(rank=rank, kind=words[kind])
        modality = words[MODALITIES[int(table.modality[row])]]
        where = words["camera"].format(camera=table.camid[row], modality=modality)
        small = Image.fromarray(np.asarray(resize(read(table.full_path(row)), THUMBNAIL)))
        pictures.append(Thumbnail(webp(small, QUALITY), kind, (title, where)))
    ap = f"{100 * float(line['AP']):.1f}"
    return Failure(words["failure"].format(query=line["query"], ap=ap, rank=line["first_rank"]), tuple(pictures))
