"""What a finished training was given, from its record: to continue it, and as the command that repeats it."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid import methods
from vireid.errors import RunError
from vireid.method import Method
from vireid.training.kinds import kind_name
from vireid.training.record import RunRecord, to_jsonable
from vireid.training.selection import AS_RELEASED
from vireid.training.settings import Setting, describe
from vireid.workflows.options import TrainOptions


def method_of(record: RunRecord) -> str:
    """The name of the run's method, or its file where it is your own; RunError where that is not known or missing."""
    module, _, _ = record.class_name.rpartition(".")
    if module.startswith("vireid.methods."):
        return module.rpartition(".")[2]
    file = record.method_file
    if file is None or not Path(file.path).is_file():
        lost = "" if file is None else f" of {file.path}, which is not there"
        raise RunError(f"this run was trained with a method of your own, {record.class_name}{lost}; name its file")
    return file.path


def recorded_settings(record: RunRecord, kind: type[Method[Any]], overrides: Sequence[str]) -> list[str]:
    """The run's settings as key=value texts, but for those that `overrides` name, in one stage or in all."""
    given = {word.partition("=")[0].strip() for word in overrides}
    recorded = {**record.settings, **recorded_recipes(record, kind)}
    return [f"{name}={json.dumps(value)}" for name, value in recorded.items() if not given & set(covering(name))]


def covering(name: str) -> list[str]:
    """The names that decide over a setting: it, the part of the recipe that it is in, and these for all stages."""
    names = [name, of_all_stages(name)]
    return [*names, *(one.rpartition(".")[0] for one in names)]


def of_all_stages(name: str) -> str:
    """The name that sets a setting in every stage: `epochs` for `stages.1.epochs`."""
    return name.split(".", 2)[2] if name.startswith("stages.") else name


def recorded_recipes(record: RunRecord, kind: type[Method[Any]]) -> dict[str, Any]:
    """The values of the recipes' settings in the record, by dotted name; defaults of those it was written without."""
    stages = [recipe.model_dump(mode="json") for recipe in record.recipes]
    values: dict[str, Any] = {}
    for setting in described(record, kind):
        if setting.stage is not None:
            name = setting.name.removeprefix(f"stages.{setting.stage}.")
            value = recorded_value(stages[setting.stage], name, to_jsonable(setting.default))
            values[setting.name] = value
    return values


def described(record: RunRecord, kind: type[Method[Any]]) -> list[Setting]:
    """The method's settings, those of the recorded kinds of optimizer and schedule."""
    words = []
    for setting in describe(kind, record.dataset):
        if setting.is_kind:
            recipe = record.recipes[setting.stage or 0].model_dump(mode="json")
            name = setting.name.removeprefix(f"stages.{setting.stage}.")
            words.append(f"{setting.name}={recorded_value(recipe, name, setting.default)}")
    return describe(kind, record.dataset, words)


def recorded_value(recipe: Any, name: str, default: Any) -> Any:
    """The value at a dotted name of a recorded recipe; of an optimizer or a schedule the name of its kind."""
    value = recipe
    for part in name.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError):
            return default
    return kind_name(value["class"]) if isinstance(value, dict) and "class" in value else value


def weights_of(record: RunRecord) -> str:
    """What the run started from, as `--weights` takes it."""
    return record.init.partition(" (sha256")[0]


def command_of(record: RunRecord) -> str:
    """The command line that repeats a training; settings at their defaults are left out.

    Of your own method all recorded settings are named, since its file is not read.
    """
    own = not record.class_name.startswith("vireid.methods.")
    file = record.method_file.path if record.method_file else "./" + record.class_name.partition(":")[0]
    name = file if own else method_of(record)
    released = record.checkpoint == AS_RELEASED
    words = ["vireid", *(("weights", "import", weights_of(record)) if released else ("train",)), name]
    words += ["--data", str(record.source.data or f"{record.dataset}=PATH")]
    plain = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
    for option, value in record.options.items():
        if option in plain and value != plain[option]:
            words += [f"--{option}", str(value)]
    if record.base is None and record.init != "from scratch" and not released:
        words += ["--weights", weights_of(record)]
    if own:
        values = record.settings
    else:
        kind = methods.find(name)
        recorded = {**record.settings, **recorded_recipes(record, kind)}
        defaults = {one.name: to_jsonable(one.default) for one in described(record, kind)}
        defaults |= {one.name: to_jsonable(one.default) for one in describe(kind, record.dataset)}
        values = {key: value for key, value in recorded.items() if value != defaults.get(key)}
    words += [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
    return shlex.join(words)
