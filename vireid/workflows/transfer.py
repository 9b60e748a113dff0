"""`vireid compare --transfer`: every run on every test set, as a table and a picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid.data import datasets
from vireid.data.table import Table
from vireid.declaration import configured
from vireid.errors import ArgumentError, VireidError
from vireid.evaluation.results import Results
from vireid.evaluation.transfer_matrix import Cell, TransferMatrix
from vireid.figures.transfer import draw_transfer
from vireid.system import replacing
from vireid.workflows.compare import labels, protocols
from vireid.workflows.cost import ms_per_picture
from vireid.workflows.options import EvaluateOptions, TransferOptions
from vireid.workflows.run import Run
from vireid.workflows.run_rows import belongs, load_table

FILES = {"transfer.md": "markdown", "transfer.csv": "csv", "transfer.json": "json", "transfer.tex": "latex"}
FIGURE = "transfer.png"
log = logging.getLogger(__name__)


def transfer(
    runs: Sequence[str | Path],
    data: Sequence[str | Path] = (),
    folder: str | Path = "runs/transfer",
    options: TransferOptions | None = None,
    **words: Any,
) -> TransferMatrix:
    """Evaluate every run on every test set and write FOLDER/transfer.md, .csv, .json, .tex and .png.

    The results of the runs themselves stay as they are; embeddings are kept in their folders.

    `data` are NAME=PATH or paths; by default the data that the runs were trained on. `words` are the fields of
    TransferOptions. Figures on data that are not a run's own are stamped with what it was trained on. Where a
    run cannot be tested (SPOT without poses) its cells hold the reason; where none can be, the first error is raised.
    Raises RunError, DataError, ArgumentError.
    """
    options = configured(TransferOptions, options, words)
    opened = [Run.open(run) for run in runs]
    if not opened:
        raise ArgumentError("name at least one run folder to test")
    paths = [run.path.resolve() for run in opened]
    if twice := [str(path) for path in dict.fromkeys(paths) if paths.count(path) > 1]:
        raise ArgumentError(f"{', '.join(twice)} is given twice; name each run once")
    tables = given_tables(opened, data, options) if data else own_tables(opened, options)
    chosen = {label: chosen_protocols(table, options) for label, table in tables.items()}
    cells: list[Cell] = []
    errors: list[VireidError] = []
    for run, name in zip(opened, names(opened), strict=True):
        ms = ms_per_picture(run, options.device)
        for label, table in tables.items():
            log.info("%s on %s", run.path, label)
            measured = figures(run, table, chosen[label], options)
            if isinstance(measured, VireidError):
                log.warning("%s cannot be tested on %s: %s", run.path, label, measured)
                errors.append(measured)
            about = (name, trained_on(run, tables), label)
            cells += cells_of(about, chosen[label], belongs(run.record, table), ms, measured)
    if len(errors) == len(opened) * len(tables):
        raise errors[0]
    matrix = TransferMatrix(tuple(cells))
    write(matrix, Path(folder))
    return matrix


# --- rows and columns -------------------------------------------------------------------------------------------------


def own_tables(runs: Sequence[Run], options: TransferOptions) -> dict[str, Table]:
    """The data that the runs were trained on, each once, by the name of its folder."""
    tables: dict[str, Table] = {}
    for run in runs:
        if any(belongs(run.record, table) for table in tables.values()):
            continue
        table = load_table(run.folder, None, options.trial)
        label = data_label(table.source)
        if label in tables:
            label = f"{label} ({table.partition or run.path.name})"
        tables[label] = table
    return tables


def given_tables(runs: Sequence[Run], data: Sequence[str | Path], options: TransferOptions) -> dict[str, Table]:
    """The named data sets; RegDB in the split of the run that was trained on it, where none is given."""
    tables: dict[str, Table] = {}
    for label, spec in labels([str(spec) for spec in data]).items():
        name, path = datasets.split_spec(spec)
        kind = datasets.find(name).name
        mine = [run for run in runs if run.record.dataset == kind and run.record.source.trial is not None]
        trial = options.trial if options.trial is not None else next((r.record.source.trial for r in mine), None)
        tables[label] = datasets.load(f"{name}={path}", **({} if trial is None else {"trial": trial}))
    return tables


def chosen_protocols(table: Table, options: TransferOptions) -> tuple[str, ...]:
    """The named protocols of this data set, or its main one."""
    if options.protocols:
        return protocols(table, options.protocols)
    dataset = datasets.find(table.dataset)
    return (dataset.selection_protocol or next(iter(dataset.protocols)),)


def names(runs: Sequence[Run]) -> list[str]:
    """What the table calls the runs: their methods, with as much of the folder as tells apart two of the same."""
    methods = [run.record.method for run in runs]
    parts = [run.path.resolve().parts for run in runs]

    def name(at: int) -> str:
        others = [parts[n] for n, method in enumerate(methods) if method == methods[at] and n != at]
        tails = (parts[at][-count:] for count in range(1, len(parts[at]) + 1))
        tail = next(tail for tail in tails if all(other[-len(tail) :] != tail for other in others))
        return f"{methods[at]} ({'/'.join(tail)})" if others else methods[at]

    return [name(at) for at in range(len(runs))]


def trained_on(run: Run, tables: dict[str, Table]) -> str:
    """What the table calls the training data of a run: as the column where it is one, else by its folder."""
    own = next((label for label, table in tables.items() if belongs(run.record, table)), None)
    source = run.record.source.data
    return own or (data_label(source) if source else run.record.trained_on_name)


def data_label(source: str) -> str:
    """The name of the folder of NAME=PATH."""
    path = Path(source.partition("=")[2]).resolve()
    return path.parent.name if path.suffix else path.name


# --- cells ------------------------------------------------------------------------------------------------------------


def figures(run: Run, table: Table, chosen: Sequence[str], options: TransferOptions) -> Results | VireidError:
    """The run on one data set under all protocols, or why it cannot be tested there."""
    words = {"device": options.device, "batch_size": options.batch_size, "progress": options.progress}
    try:
        return run.measured(EvaluateOptions(data=table, cross=True, protocols=tuple(chosen), **words))[0].results
    except VireidError as error:
        return error


def cells_of(
    about: tuple[str, str, str], chosen: Sequence[str], own: bool, ms: float, measured: Results | VireidError
) -> list[Cell]:
    """The cells of a run on one data set, one for each protocol; `about`: run, training data, test data."""
    run, trained, data = about
    if isinstance(measured, VireidError):
        return [Cell(run, trained, data, protocol, own, ms, None, str(measured)) for protocol in chosen]
    rows = {protocol: tuple(row for row in measured.rows if row.protocol == protocol) for protocol in chosen}
    return [Cell(run, trained, data, protocol, own, ms, Results(rows[protocol])) for protocol in chosen]


def write(matrix: TransferMatrix, folder: Path) -> None:
    """The files of the matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, form in FILES.items():
        with replacing(folder / name) as partial:
            partial.write_text(getattr(matrix, form)(), encoding="utf-8")
    draw_transfer(matrix, folder / FIGURE)
    log.info("wrote %s, .csv, .json, .tex and %s", folder / "transfer.md", FIGURE)
