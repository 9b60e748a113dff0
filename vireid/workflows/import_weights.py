"""`vireid weights import`: released weights of a method as a run folder, to evaluate, export and report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid import methods
from vireid.data.table import Table
from vireid.errors import WeightsError
from vireid.layers.weights_file import read
from vireid.method import Method
from vireid.training.record import describe
from vireid.training.run_folder import EMBEDDER, RunFolder
from vireid.training.selection import AS_RELEASED
from vireid.training.settings import resolve
from vireid.workflows.initial_weights import file_of, label_of, load
from vireid.workflows.options import TrainOptions
from vireid.workflows.run import Run
from vireid.workflows.train import default_run, load_data, source, training_rows, training_stamp
from vireid.workflows.weights_check import method_fit

log = logging.getLogger(__name__)


def import_weights(
    weights: str | Path,
    method: str | type[Method[Any]],
    data: str | Path | Table,
    run: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    trial: int | None = None,
) -> Run:
    """Write a run folder that holds a method's network filled from released weights, and return the run.

    `data` says which people the weights were trained on, so that evaluation refuses those rows; `overrides` are
    settings as key=value texts, and `trial` is the split of RegDB that the weights belong to. Raises WeightsError where
    the weights fill less than the whole network, RunError where the folder holds a run, and what reading them raises.
    """
    kind = method if isinstance(method, type) else methods.find(method)
    name = kind.__name__.lower() if isinstance(method, type) else Path(method).stem
    table = data if isinstance(data, Table) else load_data(data, trial)
    recipes, settings = resolve(kind, table.dataset, list(overrides), None)
    file = read(file_of(weights))
    fit = method_fit(file, kind, overrides)
    if not fit.whole:
        raise WeightsError(
            fit.why_not
            or f"{file.path} fills the backbone of {name} alone, which is a start for a training: vireid train {name} "
            f"--weights {file.path}"
        )
    options = TrainOptions(trial=trial)
    rows, _ = training_rows(table, options)
    words = dataclasses.asdict(settings)
    model = kind(len(rows.pids), tuple(rows.camids.tolist()), **words)
    load(model, file)
    stamp = {"settings": words, "source": source(table, options), **training_stamp(table, options, None)}
    stamp["init"] = label_of(str(weights), file.path)
    record = describe(model, recipes, rows, stamp, checkpoint=AS_RELEASED)
    folder = RunFolder.begin(run or default_run(table.dataset, name), record)
    for network in model.artifacts().values():
        folder.save_artifact(network.eval())
    log.info("%s holds the network of %s in %s", folder.path, name, EMBEDDER)
    return Run.open(folder.path)
