"""RunRecord: what a training was, as recipe.json says it: method, settings, recipes, data, seed, versions."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vireid.errors import ArgumentError, RunError
from vireid.own_files import digest_of, file_of, is_own, qualified_name
from vireid.types import Deployment, ResizeFilter, Similarity, Size
from vireid.version import __version__

if TYPE_CHECKING:  # a record is read without torch
    from vireid.method import Method, Recipe

FORMAT = 1  # of recipe.json and the checkpoints
# what has to agree for a run to be resumed; the rest of recipe.json (versions, compile) may change
COMPARED = ("class", "num_pids", "camids", "settings", "recipes", "dataset", "partition", "data", "seed", "data_seed")
COMPARED += ("precision", "world", "init", "checkpoint", "base")
FORMER_NAMES = {  # by class: a setting's name in version 0.1 -> its name now
    "vireid.methods.d2rl.D2RL": {"smoothing": "label_smoothing"},
    "vireid.methods.nformer.NFormer": {"smoothing": "label_smoothing"},
}
FROM_SCRATCH = "from scratch"  # what `init` is without pretrained weights
STAMPED = ("method", "dataset", "partition", "data", "seed", "init", "checkpoint", "precision")


class Frozen(BaseModel):
    """Part of the record; names that this version does not know are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class RecipeRecord(Frozen):
    """One stage of a training; the sampler, views and optimizers are kept as plain values."""

    size: Size | None  # (height, width); None of a stage that reads no pictures
    epochs: int
    filter: ResizeFilter = "lanczos"
    thermal_range: tuple[float, float] | None = None
    similarity: Similarity = "cosine"
    ema: float = 0.0
    mix: float = 1.0
    pseudo_infrared: bool = False

    @property
    def weights(self) -> str:
        """Which weights are reported, where they are not just the trained ones."""
        averaged = f"averaged with decay {self.ema:g}" if self.ema else ""
        mixed = f"{self.mix:g} trained and {1 - self.mix:g} of the start" if self.mix < 1 else ""
        return ", ".join(filter(None, (averaged, mixed)))

    @field_validator("size", mode="before")
    @classmethod
    def of_version_0_1(cls, size: Any) -> Any:
        """0.1 recorded 0, 0 for a stage that reads no pictures."""
        return None if size in ([0, 0], (0, 0)) else size


class BaseRecord(Frozen):
    """The run, or the file of embeddings, that a refining method was trained on."""

    path: str
    method: str
    embedder: str  # digest of the embedder's file
    data: str  # fingerprint of the training rows
    dim: int
    file: str | None = None  # digest, where the base is a file of embeddings


class SourceRecord(Frozen):
    """Where the training rows came from: NAME=PATH as `--data` takes it, and the split of RegDB."""

    data: str | None = None
    trial: int | None = None
    sha256: str | None = None  # of the file of your own data set


class FileRecord(Frozen):
    """A Python file of the user as it was at the training."""

    path: str
    sha256: str


class RunRecord(Frozen):
    """recipe.json, read and written."""

    format: int = FORMAT
    method: str
    class_name: str = Field(alias="class")
    num_pids: int
    camids: tuple[int, ...] = ()
    dataset: str
    partition: str = ""
    data: str  # fingerprint of the training rows
    recipes: tuple[RecipeRecord, ...]
    versions: dict[str, str] = {}
    git: str | None = None
    seed: int = 0
    data_seed: int = 0
    precision: str = "float32"
    compile: bool = False
    world: int = 1
    checkpoint: str = "last epoch"
    settings: dict[str, Any] = {}
    init: str = FROM_SCRATCH
    base: BaseRecord | None = None
    source: SourceRecord = SourceRecord()
    method_file: FileRecord | None = None  # of a method of your own, where it stands in a file
    trained_on: tuple[str, ...] | None = None  # splits; None where the record does not say
    held_out_pids: tuple[int, ...] = ()
    continued_from: tuple[int, ...] = ()  # epochs of the last stage before more were added; the schedule was of these
    options: dict[str, Any] = {}  # of the training, for those that a resumed training takes from the run

    @model_validator(mode="before")
    @classmethod
    def of_former_names(cls, content: Any) -> Any:
        """Settings of methods of this package that had another name when the run was recorded."""
        if not isinstance(content, Mapping):
            return content
        names, settings = FORMER_NAMES.get(str(content.get("class"))), content.get("settings", {})
        if names is None or not isinstance(settings, Mapping):
            return content
        return {**content, "settings": {names.get(k, k): v for k, v in settings.items()}}

    @property
    def last_recipe(self) -> RecipeRecord:
        """The recipe of the last stage, whose pictures the run reports on."""
        return self.recipes[-1]

    @property
    def deployment(self) -> Deployment:
        """How pictures are prepared for the run's embedder and how its vectors are compared."""
        recipe = self.last_recipe
        if recipe.size is None:
            raise RunError(f"a run of {self.method} reads no pictures; how they are prepared is recorded in its base")
        return Deployment(recipe.size, recipe.filter, recipe.similarity, recipe.thermal_range)

    @property
    def stamp(self) -> dict[str, str]:
        """What every figure computed from this run is printed with."""
        stamp = {name: str(getattr(self, name)) for name in STAMPED if getattr(self, name) not in (None, "")}
        if self.backbone:
            stamp["backbone"] = self.backbone
        if self.last_recipe.weights:
            stamp["weights"] = self.last_recipe.weights
        if self.last_recipe.pseudo_infrared:
            stamp["infrared in training"] = "made of visible pictures"
        if not any(recipe.epochs for recipe in self.recipes):
            stamp["checkpoint"] = "the start, not trained"
        if self.continued_from:
            stamp["continued"] = "after epoch " + " and ".join(map(str, self.continued_from))
        return stamp

    @property
    def by_shortest_path(self) -> bool:
        """Whether figures are of the stripes' shortest path too: cmlspge with test_distance=global_local."""
        return self.settings.get("test_distance") == "global_local"

    @property
    def backbone(self) -> str:
        """The backbone, where it is not the ResNet-50 that the published figures are of."""
        name, depth = self.settings.get("backbone", "resnet50"), self.settings.get("depth")
        if name == "resnet50":
            return ""
        return f"{name}, {depth} blocks" if depth else str(name)

    @property
    def trained_on_name(self) -> str:
        """The training data in words: data set and partition."""
        return data_name(self.dataset, self.partition)

    def plain(self) -> dict[str, Any]:
        """The content of recipe.json: plain values under the names it was made of."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def differences(self, other: RunRecord) -> list[str]:
        """One line `name: this -> other` for each value that has to agree for this run to be resumed as `other`."""
        had, now = self.plain(), other.plain()
        return differences({key: had.get(key) for key in COMPARED}, {key: now.get(key) for key in COMPARED})

    def completed(self, defaults: Mapping[str, Any], recipes: Sequence[Recipe] = ()) -> RunRecord:
        """This record, in which settings that did not exist when it was written have their defaults.

        `defaults` are those of the method's settings; those of its recipes are in the classes of `recipes`.
        """
        new = {name: to_jsonable(value) for name, value in defaults.items() if name not in self.settings}
        stages = self.recipes
        if len(recipes) == len(stages):
            plain = (with_defaults(old.model_dump(), recipe) for old, recipe in zip(stages, recipes, strict=True))
            stages = tuple(RecipeRecord.model_validate(one) for one in plain)
        return self.model_copy(update={"settings": {**self.settings, **new}, "recipes": stages})

    def is_longer(self, other: RunRecord) -> bool:
        """Whether `other` is this training with more epochs in its last stage and nothing else changed."""
        if len(self.recipes) != len(other.recipes) or not other.last_recipe.epochs > self.last_recipe.epochs:
            return False
        last = self.last_recipe.model_copy(update={"epochs": other.last_recipe.epochs})
        return not self.model_copy(update={"recipes": (*self.recipes[:-1], last)}).differences(other)


def data_name(dataset: str, partition: str) -> str:
    """Data set and partition in words, e.g. `regdb trial 1`."""
    return partition if partition.startswith(dataset) else f"{dataset} {partition}".strip()


def describe(
    method: Method[Any], recipes: tuple[Recipe, ...], table: Any, stamp: Mapping[str, Any], **more: Any
) -> RunRecord:
    """The record of a training; `stamp` may hold `settings`, `init` and names of your own."""
    kind = type(method)
    content = {
        "format": FORMAT,
        "method": kind.__name__,
        "class": qualified_name(kind),
        "num_pids": method.num_pids,
        "camids": method.camids,
        "dataset": table.dataset,
        "partition": table.partition,
        "data": table.fingerprint,
        "recipes": recipes,
        "versions": versions(),
        "git": git_commit(),
        **more,
    }
    taken = sorted(set(stamp) & set(content))
    if taken:
        raise ArgumentError(f"stamp names {taken}, which train() records itself; leave them out")
    if (file := file_of(kind)) is not None and is_own(kind):
        content["method_file"] = {"path": str(file), "sha256": digest_of(file)}
    base = method.base_run()
    content |= {"init": FROM_SCRATCH} if base is None else {"base": base.record, "init": base.init}
    return RunRecord.model_validate(to_jsonable({**content, "settings": {}, **stamp}))


def to_jsonable(value: Any) -> Any:
    """Plain JSON values: a dataclass or object becomes a dict whose `class` is its name, a function its dotted name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "tolist"):  # an array or number of numpy, a tensor
        return value.tolist()
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "__dict__"):
        fields = {name: item for name, item in vars(value).items() if not name.startswith("_")}
    else:
        raise TypeError(f"a {type(value).__name__} cannot be written to recipe.json; use a dataclass or plain values")
    return {"class": type(value).__name__, **to_jsonable(fields)}


def with_defaults(recorded: Any, part: Any) -> Any:
    """The recorded values of a part of a recipe, with the defaults of the fields that they lack."""
    if isinstance(recorded, Mapping) and isinstance(part, Mapping):
        return {key: with_defaults(value, part.get(key)) for key, value in recorded.items()}
    if isinstance(recorded, list | tuple) and isinstance(part, list | tuple) and len(recorded) == len(part):
        return [with_defaults(value, one) for value, one in zip(recorded, part, strict=True)]
    if not isinstance(recorded, Mapping) or recorded.get("class") != type(part).__name__:
        return recorded
    values = dict(recorded)
    for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
        if field.name in values:
            values[field.name] = with_defaults(values[field.name], getattr(part, field.name))
        elif field.default is not dataclasses.MISSING:
            values[field.name] = to_jsonable(field.default)
    return values


def differences(had: Any, now: Any, name: str = "") -> list[str]:
    """One line `name: had -> now` for each value that differs between two JSON values."""
    if isinstance(had, dict) and isinstance(now, dict):
        keys = [*had, *(key for key in now if key not in had)]
        inner = ((f"{name}.{k}" if name else k, had.get(k, "nothing"), now.get(k, "nothing")) for k in keys)
    elif isinstance(had, list) and isinstance(now, list) and len(had) == len(now):
        inner = ((f"{name}.{i}", a, b) for i, (a, b) in enumerate(zip(had, now, strict=True)))
    else:
        return [] if had == now else [f"{name}: {had} -> {now}"]
    return [line for key, a, b in inner for line in differences(a, b, key)]


def versions() -> dict[str, str]:
    """Versions of what decides a training's numbers."""
    import torch

    numbers = {"vireid": __version__, "python": platform.python_version(), "torch": torch.__version__}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and torch.cuda.is_initialized() else ""
    return {**numbers, "numpy": np.__version__, "device": gpu or "cpu"}


def git_commit() -> str | None:
    """Commit of the checkout that vireid is imported from, `+changes` where files differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "-uno"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or no commit yet: the record then says null
        return None
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
