"""`vireid train`: from a method's name, a data set and settings to a finished run folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vireid import distributed, methods
from vireid.data import cache, datasets
from vireid.data.pipeline import TrainingData
from vireid.data.protocol import Protocol
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import embed
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.frozen import Frozen
from vireid.evaluation.refine import RefinedBy
from vireid.layers.weights import load_state, locate
from vireid.method import Method, Progress, Recipe
from vireid.system import choose_device
from vireid.training.loop import train
from vireid.training.selection import HELD_OUT, TEST_SET, Selection
from vireid.training.settings import resolve
from vireid.types import INFRARED, VISIBLE

Select = Literal["last", "heldout", "test"]
SCRATCH = (
    "no --weights: training starts from scratch (random weights), which costs much accuracy. Published figures start "
    "from ImageNet: --weights imagenet, or the path of resnet50-19c8e357.pth"
)


def train_run(
    method: str,
    data: str,
    *,
    trial: int | None = None,
    run: Path | None = None,
    weights: str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    compile: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
    config: Path | None = None,
    select: Select = "last",
    holdout: int = 0,
    settings: Sequence[str] = (),
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Path:
    """Train a method (name or file) on a data set (NAME=PATH) and return the run folder.

    `settings` are key=value words over the YAML file `config`; `select` and `holdout` as `training_rows` and
    `selection`. `say` receives notes for the user. Raises SettingsError, DataError, RunError and what train() raises.
    """
    kind = methods.find(method)
    table = datasets.load(data, **({} if trial is None else {"trial": trial}))
    recipes, keywords = resolve(kind, table.dataset, settings, config)
    rows, held_out = training_rows(table, select, holdout, seed)
    place = distributed.start(choose_device(device))
    main = distributed.is_main()
    tell = say if main else _silent
    try:
        torch.manual_seed(seed)
        model = kind(len(rows.pids), tuple(rows.camids.tolist()), **keywords)
        stamp: dict[str, Any] = {
            "settings": keywords,
            "source": source(data, trial),
            **training_stamp(table, select, held_out),
        }
        if weights is None and any(recipe.views for recipe in recipes):
            tell(f"warning: {SCRATCH}")
        elif weights is not None:
            stamp["init"] = load_initial(model, weights, tell, progress) if main else weights
        folder = run or default_run(table.dataset, Path(method).stem)
        folder = distributed.gather_objects(str(folder))[0]  # the clock of one process names it
        if resume and run is None:
            raise ArgumentError("--resume needs --run with the folder of the run that goes on")
        check_batches(kind, rows, recipes)
        tell(f"{kind.__name__} on {len(rows)} images of {len(rows.pids)} people, {place}; run folder {folder}")
        training = TrainingData(
            rows,
            device=place,
            seed=seed,
            rank=distributed.rank(),
            world=distributed.world(),
            progress=progress and main,
        )
        for recipe in (r for r in recipes if r.views):  # an unreadable picture stops here, before the folder is made
            cache.pixels(rows, recipe.size, progress=progress and main, filter=recipe.filter)
        chosen = selection(table, held_out, select, recipes[-1])
        return train(
            model.to(place),
            training,
            folder,
            recipes=recipes,
            seed=seed,
            precision=precision,
            compile=compile,
            resume=resume,
            select=chosen,
            progress=progress,
            tensorboard=tensorboard,
            stamp=stamp,
        )
    finally:
        distributed.stop()


def training_rows(table: Table, select: Select, holdout: int, seed: int) -> tuple[Table, Table | None]:
    """The rows to train on and, for select="heldout", those of the held-out people.

    The train rows are trained on, for SYSU-MM01 the val rows too (as for all published figures). With "heldout" the
    val rows are held out, or `holdout` people of the train rows drawn by the seed. Raises DataError where nothing is
    left, ValueError for options that do not fit.
    """
    if select not in ("last", "heldout", "test"):
        raise ArgumentError(f"--select is last, heldout or test, got {select!r}")
    if holdout < 0 or (holdout and select != "heldout"):
        raise ArgumentError(f"--holdout is a number of people and belongs to --select heldout, got {holdout}")
    train_rows, val_rows = table.where("train"), table.where("val")
    if not len(train_rows):
        splits = ", ".join(sorted(set(table.split.tolist()))) or "none"
        raise DataError(f"training needs rows of split train, {table.root} has {splits}; check the split column")
    if select != "heldout":
        return table.where(training_splits(table)), None
    if holdout:
        if not holdout < len(train_rows.pids):
            raise ArgumentError(f"--holdout {holdout} leaves nobody of {len(train_rows.pids)} people; hold out fewer")
        held = np.random.RandomState(seed).permutation(train_rows.pids)[:holdout]
        out = np.isin(train_rows.pid, held)
        return train_rows[~out], train_rows[out]
    if not len(val_rows):
        raise ArgumentError(
            "--select heldout needs people that are not trained on: this data has no val split, so give --holdout N "
            "for N people of the train split"
        )
    return train_rows, val_rows


def selection(table: Table, held_out: Table | None, select: Select, recipe: Recipe) -> Selection | None:
    """The rule by which the reported epoch is chosen, None for the last one: mAP on `held_out` or on the test rows."""
    if select == "last":
        return None
    if held_out is not None:
        rows, protocol, rule = held_out, _infrared_to_visible(), HELD_OUT
    else:
        rows = test_rows(table)
        dataset = datasets.find(table.dataset)
        name = dataset.selection_protocol or next(iter(dataset.protocols))
        protocol, rule = datasets.protocol(name, rows), TEST_SET

    def mean_precision(method: Method, at: Progress) -> float:
        if isinstance(base := getattr(method, "base", None), Frozen):
            embeddings, refine = base.embeddings(rows), RefinedBy(method.refiner)  # pyright: ignore
        else:
            embeddings, refine = embed(method.embedder, rows, recipe.size, filter=recipe.filter, progress=False), None
        return evaluate(embeddings, protocol, refine, similarity=recipe.similarity).mean["mAP"]

    return Selection(mean_precision, rule)


def _infrared_to_visible() -> Protocol:
    def trials(table: Table) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.flatnonzero(table.modality == INFRARED), np.flatnonzero(table.modality == VISIBLE))]

    return Protocol("held-out/infrared-to-visible", trials)


def check_batches(kind: type[Method], rows: Table, recipes: Sequence[Recipe]) -> None:
    """Draw one batch of every stage: rows or settings that give none stop here, before the run folder is made."""
    for recipe in recipes:
        if kind.batches is not Method.batches:
            continue
        drawn = next(iter(recipe.sampler.epoch(rows, np.random.RandomState(0))), None)
        if drawn is not None and drawn.shape[1] % distributed.world():
            raise ArgumentError(
                f"{drawn.shape[1]} images of a view cannot be shared evenly by {distributed.world()} processes; "
                "set sampler.pids to a multiple of the number of processes"
            )


def test_rows(table: Table, split: str = "test") -> Table:
    """The rows of a split; "test" stands for query and gallery as well."""
    rows = table.where(("test", "query", "gallery") if split == "test" else split)
    if not len(rows):
        splits = ", ".join(sorted(set(table.split.tolist()))) or "no rows"
        raise DataError(f"{table.root} has no rows of split {split}, it has {splits}; check the split column")
    return rows


def load_initial(model: Method, weights: str, say: Callable[[str], None], progress: bool) -> str:
    """Load public weights into a method and return how they are called in the stamp: name and start of the sha256."""
    path = locate(weights, progress)
    unused = model.load_weights(load_state(path))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    if unused:
        say(f"{path.name}: {len(unused)} tensors were not used ({', '.join(unused[:3])}{' ...' if unused[3:] else ''})")
    return f"{weights if weights == 'imagenet' else path.name} (sha256 {digest})"


def source(data: str, trial: int | None) -> dict[str, Any]:
    """Where the data were read, so that evaluation finds them again."""
    name, path = datasets.split_spec(data)
    return {"data": f"{name}={path.resolve()}", "trial": trial, **datasets.recorded_file(name)}


def training_splits(table: Table) -> tuple[str, ...]:
    """The splits that are trained on unless people are held out."""
    return datasets.find(table.dataset).training_splits


def training_stamp(table: Table, select: Select, held_out: Table | None) -> dict[str, Any]:
    """Which rows were trained on, so that evaluation can tell the run's own data."""
    splits = ("train",) if select == "heldout" else training_splits(table)
    return {"trained_on": splits, "held_out_pids": [] if held_out is None else held_out.pids.tolist()}


def default_run(dataset: str, method: str) -> Path:
    """runs/DATASET/METHOD/DATE-TIME."""
    return Path("runs") / dataset / method / time.strftime("%Y%m%d-%H%M%S")


def _silent(text: str) -> None:
    """Only the first process speaks."""
