"""Train a method on a data set into a run folder: method and data by name, settings, initial weights, selection."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from vireid import distributed, methods, models
from vireid.data import cache, datasets
from vireid.data.pipeline import TrainingData
from vireid.data.protocol import Protocol
from vireid.data.pseudo_infrared import sampled_rows
from vireid.data.table import Table
from vireid.declaration import configured
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import embed
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.frozen import Frozen
from vireid.evaluation.refine import RefinedBy
from vireid.images import GrayRule
from vireid.layers.refiner import Refiner
from vireid.method import Method, Progress, Recipe, Sampler
from vireid.system import choose_device
from vireid.training.loop import train as run_loop
from vireid.training.record import RunRecord
from vireid.training.run_folder import RECIPE, RunFolder
from vireid.training.selection import HELD_OUT, TEST_SET, Selection
from vireid.training.settings import resolve
from vireid.types import INFRARED, VISIBLE
from vireid.workflows.continuing import METHOD, contrast_words
from vireid.workflows.initial_weights import initial_weights
from vireid.workflows.options import TrainOptions
from vireid.workflows.repeat import method_of, recorded_settings
from vireid.workflows.run import Run
from vireid.workflows.run_rows import split_rows, training_splits

log = logging.getLogger(__name__)


OPTIONS = tuple(field.name for field in dataclasses.fields(TrainOptions))


def train(
    method: str | Path | type[Method[Any]] | None = None,
    data: str | Path | Table | None = None,
    run: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    **words: Any,
) -> Run:
    """Train a method (name, file or class) on a data set (table, NAME=PATH or folder) and return the run.

    The name of a model that comes with vireid continues that model: contrast on its network, from its weights.

    `run` is the folder to write, by default runs/DATASET/METHOD/DATE-TIME. `words` are the fields of TrainOptions and
    settings of the method by name (`epochs=60`, or `**{"sampler.pids": 4}` where a name has a dot); `overrides` are
    more of these as key=value texts. With `resume=True` method, data, settings and options are those of the run, where
    they are not given; a finished run continues where the last stage has more epochs than before.

    Raises SettingsError, DataError, RunError and what the loop raises.
    """
    options = configured(TrainOptions, None, {name: value for name, value in words.items() if name in OPTIONS})
    texts = [f"{name}={json.dumps(value)}" for name, value in words.items() if name not in OPTIONS]
    return train_with(method, data, run, options, [*overrides, *texts])


def train_with(
    method: str | Path | type[Method[Any]] | None,
    data: str | Path | Table | None,
    run: str | Path | None,
    options: TrainOptions,
    overrides: Sequence[str] = (),
    *,
    as_recorded: bool = True,
) -> Run:
    """As `train`, with the options as an object and the settings as key=value texts.

    Without `as_recorded` a run is resumed with what is given alone: one that was trained with other settings is an
    error.
    """
    former = former_record(run, options) if as_recorded else None
    continued = method if isinstance(method, str) and method in models.names() else None
    if continued is not None:
        method, overrides, options = METHOD, [*contrast_words(continued), *overrides], from_weights(continued, options)
    if former is not None:
        method, data = method or method_of(former), data if data is not None else former.source.data
        options = options_of(former, options)
    if method is None or data is None:
        raise ArgumentError("name a method and the data to train on, or give --resume and --run with a run to continue")
    kind = method if isinstance(method, type) else methods.find(method)
    table = data if isinstance(data, Table) else load_data(data, options.trial)
    given = [*recorded_settings(former, kind, overrides), *overrides] if former else overrides
    recipes, settings = resolve(kind, table.dataset, given, options.config)
    words = dataclasses.asdict(settings)
    rows, held_out = training_rows(table, options)
    place = distributed.start(choose_device(options.device))
    try:
        name = continued or (kind.__name__.lower() if isinstance(method, type) else Path(method).stem)
        folder = distributed.gather_objects(str(run or default_run(table.dataset, name)))[0]  # one process's clock
        torch.manual_seed(options.seed)
        model = kind(
            len(rows.pids), tuple(rows.camids.tolist()), **words
        )  # a method without settings has no `settings`
        stamp = {"settings": words, "source": source(table, options), **training_stamp(table, options, held_out)}
        stamp |= {"init": former.init} if former else initial_weights(model, recipes, options.weights)
        check_batches(kind, rows, recipes)
        if distributed.is_main():
            people = f"{len(rows)} images of {len(rows.pids)} people"
            log.info("%s on %s, %s; run folder %s", kind.__name__, people, place, folder)
        path = run_loop(
            model.to(place),
            training_data(rows, recipes, place, options),
            folder,
            options,
            recipes=recipes,
            select=selection(table, held_out, options.select, recipes[-1]),
            stamp=stamp,
        )
    finally:
        distributed.stop()
    return Run(RunFolder.open(path), kind if isinstance(method, type) else None)


def from_weights(model: str, options: TrainOptions) -> TrainOptions:
    """The options with the weights of a shipped model; ArgumentError where others are named."""
    if options.weights not in (None, model):
        raise ArgumentError(
            f"{model} is continued from its own weights; leave --weights {options.weights} out, or name a method"
        )
    return dataclasses.replace(options, weights=model)


# --- continuing a run -------------------------------------------------------------------------------------------------


def former_record(run: str | Path | None, options: TrainOptions) -> RunRecord | None:
    """The record of the run that is continued; None where training starts."""
    if not options.resume:
        return None
    if run is None:
        raise ArgumentError("--resume needs --run with the folder of the run to continue")
    return RunFolder.open(run).record if (Path(run) / RECIPE).is_file() else None


def options_of(record: RunRecord, options: TrainOptions) -> TrainOptions:
    """The options of the run, for those that are left at their defaults and that its record holds."""
    plain = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
    kept = {k: v for k, v in record.options.items() if k in plain and getattr(options, k) == plain[k]}
    return dataclasses.replace(options, **kept)


# --- the parts of a training ------------------------------------------------------------------------------------------


def load_data(data: str | Path, trial: int | None) -> Table:
    """The table of NAME=PATH or of a folder."""
    return datasets.load(data, **({} if trial is None else {"trial": trial}))


def training_data(rows: Table, recipes: Sequence[Recipe], place: torch.device, options: TrainOptions) -> TrainingData:
    """The rows with their pictures decoded; an unreadable picture stops here, before the run folder is made."""
    progress = options.progress and distributed.is_main()
    for recipe in (recipe for recipe in recipes if recipe.views and recipe.epochs):
        gray = GrayRule.of(recipe.thermal_range)
        cache.pixels(rows, recipe.picture_size, progress=progress, filter=recipe.filter, gray=gray)
    rank, world = distributed.rank(), distributed.world()
    return TrainingData(rows, device=place, seed=options.seed, rank=rank, world=world, progress=progress)


def training_rows(table: Table, options: TrainOptions) -> tuple[Table, Table | None]:
    """The rows to train on and, for select="heldout", those of the held-out people.

    The train rows are trained on, for SYSU-MM01 the val rows too (as for all published figures). With "heldout" the
    val rows are held out, or `holdout` people of the train rows drawn by the seed. Raises DataError where nothing is
    left, ArgumentError for options that do not fit.
    """
    holdout = options.holdout
    if holdout and options.select != "heldout":
        raise ArgumentError(f"--holdout belongs to --select heldout, got --holdout {holdout}")
    train_rows, val_rows = table.where("train"), table.where("val")
    if not len(train_rows):
        splits = ", ".join(sorted(set(table.split.tolist()))) or "none"
        raise DataError(f"training needs rows of split train, {table.root} has {splits}; check the split column")
    if options.select != "heldout":
        return table.where(training_splits(table)), None
    if holdout:
        if not holdout < len(train_rows.pids):
            raise ArgumentError(f"--holdout {holdout} leaves none of {len(train_rows.pids)} people; hold out fewer")
        held = np.random.RandomState(options.seed).permutation(train_rows.pids)[:holdout]
        out = np.isin(train_rows.pid, held)
        return train_rows[~out], train_rows[out]
    if not len(val_rows):
        raise ArgumentError(
            "--select heldout needs people that are not trained on: this data has no val split, so give --holdout N "
            "for N people of the train split"
        )
    return train_rows, val_rows


def selection(table: Table, held_out: Table | None, select: str, recipe: Recipe) -> Selection | None:
    """The rule by which the reported epoch is chosen, None for the last one: mAP on `held_out` or on the test rows."""
    if select == "last":
        return None
    if held_out is not None:
        if not (held_out.modality == INFRARED).any():
            raise DataError(
                "--select heldout looks for held-out people from infrared to visible, and they have no infrared "
                "picture; leave --select out"
            )
        rows, protocol, rule = held_out, _infrared_to_visible(), HELD_OUT
    else:
        rows = split_rows(table)
        dataset = datasets.find(table.dataset)
        name = dataset.selection_protocol or next(iter(dataset.protocols))
        protocol, rule = datasets.protocol(name, rows), TEST_SET

    def mean_precision(method: Method[Any], at: Progress) -> float:
        base = method.base_run()
        if isinstance(base, Frozen):
            embeddings, refine = base.embeddings(rows), RefinedBy(cast(Refiner, method.artifacts()["refiner"]))
        else:
            size, refine, gray = recipe.picture_size, None, GrayRule.of(recipe.thermal_range)
            embeddings = embed(method.embedder, rows, size, filter=recipe.filter, gray=gray, progress=False)
        return evaluate(embeddings, protocol, refine, similarity=recipe.similarity).mean["mAP"]

    return Selection(mean_precision, rule)


def _infrared_to_visible() -> Protocol:
    def trials(table: Table) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.flatnonzero(table.modality == INFRARED), np.flatnonzero(table.modality == VISIBLE))]

    return Protocol("held-out/infrared-to-visible", trials)


def check_batches(kind: type[Method], rows: Table, recipes: Sequence[Recipe]) -> None:
    """Draw one batch of every stage: rows or settings that give none stop here, before the run folder is made."""
    for recipe in recipes:
        if kind.batches is not Method.batches or not isinstance(recipe.sampler, Sampler) or not recipe.epochs:
            continue
        table = sampled_rows(rows, recipe.pseudo_infrared)[0]
        drawn = next(iter(recipe.sampler.epoch(table, np.random.RandomState(0))), None)
        if drawn is not None and drawn.shape[1] % distributed.world():
            raise ArgumentError(
                f"{drawn.shape[1]} images of a view cannot be shared evenly by {distributed.world()} processes; "
                "set sampler.pids to a multiple of the number of processes"
            )


def source(table: Table, options: TrainOptions) -> dict[str, Any]:
    """Where the data were read, so that evaluation finds them again; nothing of a table that was made in Python."""
    if not table.source:
        return {}
    name, path = datasets.split_spec(table.source)
    return {"data": f"{name}={path.resolve()}", "trial": options.trial, **datasets.recorded_file(name)}


def training_stamp(table: Table, options: TrainOptions, held_out: Table | None) -> dict[str, Any]:
    """Which rows were trained on and the options that a resumed training takes from the run."""
    splits = ("train",) if options.select == "heldout" else training_splits(table)
    held_out_pids = [] if held_out is None else held_out.pids.tolist()
    kept = {name: getattr(options, name) for name in ("trial", "seed", "precision", "select", "holdout")}
    return {"trained_on": splits, "held_out_pids": held_out_pids, "options": kept}


def default_run(dataset: str, method: str) -> Path:
    """runs/DATASET/METHOD/DATE-TIME."""
    return Path("runs") / dataset / method / time.strftime("%Y%m%d-%H%M%S")
