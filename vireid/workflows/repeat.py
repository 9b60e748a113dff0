"""What a finished training was given, from its record: to continue it, and as the command that repeats it."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from typing import Any

from vireid import methods
from vireid.errors import RunError
from vireid.method import Method
from vireid.training.record import RunRecord, to_jsonable
from vireid.training.settings import describe
from vireid.workflows.options import TrainOptions


def method_of(record: RunRecord) -> str:
    """The name of the run's method; RunError for a method of your own file, which has to be given."""
    module, _, _ = record.class_name.rpartition(".")
    if not module.startswith("vireid.methods."):
        raise RunError(f"this run was trained with a method of your own, {record.class_name}; name its file")
    return module.rpartition(".")[2]


def recorded_settings(record: RunRecord, kind: type[Method[Any]], overrides: Sequence[str]) -> list[str]:
    """The run's settings as key=value texts, but for those that `overrides` name, in one stage or in all."""
    given = {word.partition("=")[0].strip() for word in overrides}
    recorded = {**record.settings, **recorded_recipes(record, kind)}
    return [
        f"{name}={json.dumps(value)}" for name, value in recorded.items() if not given & {name, of_all_stages(name)}
    ]


def of_all_stages(name: str) -> str:
    """The name that sets a setting in every stage: `epochs` for `stages.1.epochs`."""
    return name.split(".", 2)[2] if name.startswith("stages.") else name


def recorded_recipes(record: RunRecord, kind: type[Method[Any]]) -> dict[str, Any]:
    """The values of the recipes' settings in the record, by dotted name."""
    stages = [recipe.model_dump(mode="json") for recipe in record.recipes]
    values: dict[str, Any] = {}
    for setting in describe(kind, record.dataset):
        if setting.stage is not None:
            value: Any = stages[setting.stage]
            for part in setting.name.removeprefix(f"stages.{setting.stage}.").split("."):
                value = value[int(part)] if isinstance(value, list) else value[part]
            values[setting.name] = value
    return values


def command_of(record: RunRecord) -> str:
    """The command line that repeats a training; settings at their defaults are left out.

    Of your own method all recorded settings are named, since its file, and so its defaults, are not at hand.
    """
    own = not record.class_name.startswith("vireid.methods.")
    name = "./" + record.class_name.partition(":")[0] if own else method_of(record)
    words = ["vireid", "train", name, "--data", str(record.source.data or f"{record.dataset}=PATH")]
    plain = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
    for option, value in record.options.items():
        if option in plain and value != plain[option]:
            words += [f"--{option}", str(value)]
    if record.base is None and record.init != "from scratch":
        words += ["--weights", record.init.partition(" (sha256")[0]]
    if own:
        values = record.settings
    else:
        kind = methods.find(name)
        recorded = {**record.settings, **recorded_recipes(record, kind)}
        defaults = {setting.name: to_jsonable(setting.default) for setting in describe(kind, record.dataset)}
        values = {key: value for key, value in recorded.items() if value != defaults.get(key)}
    words += [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
    return shlex.join(words)
