"""Settings: `key=value` words and a YAML file over a method's defaults, checked together, every fault reported at once.

A method's settings are the fields of its `Settings` class and those of its recipe. Keys are dotted: `gamma=2` is of the
class, `epochs=60`, `sampler.pids=4`, `optimizers.backbone.lr=0.02`, `views.0.transform.steps.0.pad=4` are of the
recipe, and `optimizers.backbone=adamw`, `schedule=cosine` choose kinds (kinds.py). In a recipe of several stages a
plain name changes every stage that has it, and `stages.1.epochs=5` one of them. A file is read as plain data; nothing
in it is executed.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from vireid.declaration import adapter, defaults, documentation, faults_of, suggestion, wording
from vireid.errors import SettingsError
from vireid.training.key_values import Given, read_file, read_words

if TYPE_CHECKING:  # this file is read by commands that must not wait for torch
    from vireid.method import Method, Recipe

GIVEN = ("num_pids", "camids", "settings")  # constructor arguments that are not settings
FIXED = ("step",)  # recipe fields that belong to the method's code


@dataclass(frozen=True)
class Setting:
    """One thing that can be set. `stage` is the number of its recipe, None where it is of network and losses."""

    name: str  # dotted
    annotation: Any
    default: Any  # declaration.REQUIRED where there is none
    documentation: str = ""
    stage: int | None = None
    is_kind: bool = False  # whether it names the kind of an optimizer or of a schedule

    @property
    def type(self) -> str:
        """The kind of value in words, e.g. `whole number >= 1`."""
        return wording(self.annotation)


def resolve(
    method_class: type[Method], dataset: str, overrides: Sequence[str] = (), file: Path | None = None
) -> tuple[tuple[Recipe, ...], Any]:
    """The stages' recipes and the settings object of a method after a YAML file and then `key=value` words.

    Raises SettingsError that lists every unknown name (with the closest existing ones) and every wrong value at once.
    """
    kind, stages = settings_class(method_class), recipes_of(method_class, dataset)
    faults: list[str] = []
    own: dict[str, Given] = {}
    sources = (read_file(file, faults) if file else {}, read_words(overrides, faults))
    given = [  # a stage's own wins
        item for source in sources for item in sorted(source.items(), key=lambda item: item[0].startswith("stages."))
    ]
    stages, given = with_kinds(stages, given, faults)
    changes: list[dict[str, Given]] = [{} for _ in stages]
    for key, value in given:
        if key in defaults(kind):
            own[key] = value
        else:
            place(key, value, stages, changes, list(defaults(kind)), faults)
    chosen = checked(kind, {}, own, "", faults)
    recipes = tuple(
        changed(recipe, change, "" if len(stages) == 1 else f"stages.{index}.", faults)
        for index, (recipe, change) in enumerate(zip(stages, changes, strict=True))
    )
    if faults:
        raise SettingsError(list(dict.fromkeys(faults)))
    return recipes, chosen


def describe(method_class: type[Method], dataset: str, kinds: Sequence[str] = ()) -> list[Setting]:
    """Every setting of a method with its default: network and losses first, then the recipe, stage by stage.

    `kinds` are words such as `optimizers.backbone=adamw`, whose settings then stand in place of the former kind's.
    """
    kind = settings_class(method_class)
    hints, lines = typing.get_type_hints(kind, include_extras=True), documentation(kind)
    described = [Setting(name, hints[name], value, lines[name]) for name, value in defaults(kind).items()]
    stages, _ = with_kinds(recipes_of(method_class, dataset), list(read_words(kinds, []).items()), [])
    for index, recipe in enumerate(stages):
        prefix = "" if len(stages) == 1 else f"stages.{index}."
        described += [dataclasses.replace(leaf, name=prefix + leaf.name, stage=index) for leaf in leaves(recipe)]
    return described


# --- what can be set --------------------------------------------------------------------------------------------------


def settings_class(method_class: type[Method]) -> type:
    """The class of a method's settings; SettingsError where a setting is declared in another way."""
    name, kind = method_class.__name__, method_class.Settings
    parameters = inspect.signature(method_class).parameters.values()
    words = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD and one.name not in GIVEN]
    if words or "__pydantic_fields__" not in vars(kind):
        wrong = f"has {', '.join(words)} as keywords of its constructor" if words else f"has {kind.__name__} undeclared"
        raise SettingsError(
            [
                f"{name} {wrong}: settings are declared as fields. Write a class with @vireid.declaration.settings, "
                f"say `Settings = {name}Settings` in {name} and give it the constructor (self, num_pids, camids=(), "
                "settings=None, **words); docs/learn/add-a-method.md shows one"
            ]
        )
    return kind


def recipes_of(method_class: type[Method], dataset: str) -> tuple[Recipe, ...]:
    """The method's stages for a dataset; a recipe field must not share its name with a setting of the class."""
    recipe = method_class.recipe_for(dataset)
    stages = recipe if isinstance(recipe, tuple) else (recipe,)
    fields = {field.name for stage in stages for field in dataclasses.fields(stage)} | {"stages"}
    if both := sorted(fields & set(defaults(settings_class(method_class)))):
        raise SettingsError(
            [f"{method_class.__name__} names its setting `{name}` like a recipe field; rename it" for name in both]
        )
    return stages


def children(node: Any) -> dict[str, tuple[Any, Any]]:
    """(annotation, value) by name of a dataclass's fields, a dict's entries or a tuple's parts; {} of plain values."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        hints = typing.get_type_hints(type(node), include_extras=True)
        return {f.name: (hints[f.name], getattr(node, f.name)) for f in dataclasses.fields(node) if f.init}
    if isinstance(node, Mapping):
        return {str(name): (type(value), value) for name, value in node.items()}
    if isinstance(node, tuple | list) and any(children(part) for part in node):
        return {str(index): (type(part), part) for index, part in enumerate(node)}
    return {}


def leaves(node: Any, prefix: str = "") -> Iterator[Setting]:
    """What can be set in a recipe or a part of it."""
    from vireid.training.kinds import kind_name, kinds_of

    lines = documentation(type(node))
    for name, (kind, value) in children(node).items():
        if known := kinds_of(prefix + name, value):
            own = kind_name(type(value).__name__)
            words = Literal[tuple(dict.fromkeys((*known, own)))]  # pyright: ignore[reportInvalidTypeForm]
            line = f"Kind of {'schedule' if (prefix + name).startswith('schedule') else 'optimizer'}."
            yield Setting(prefix + name, words, own, line, is_kind=True)
        if children(value):
            yield from leaves(value, f"{prefix}{name}.")
        elif is_plain(value) and prefix + name not in FIXED:
            yield Setting(prefix + name, kind, value, lines.get(name, ""))


def is_plain(value: Any) -> bool:
    """Whether text can stand for it: numbers, words, switches and lists of them."""
    if isinstance(value, tuple | list):
        return all(is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str | Path)


# --- checking and changing --------------------------------------------------------------------------------------------


def chosen_stages(key: str, count: int) -> tuple[range, str] | None:
    """The stages that a key is for and its name in them; None for a stage that does not exist."""
    head, _, rest = key.partition(".")
    if head != "stages":
        return range(count), key
    index, _, name = rest.partition(".")
    if not (index.isdecimal() and int(index) < count) or not name:
        return None
    return range(int(index), int(index) + 1), name


def with_kinds(
    stages: Sequence[Recipe], given: Sequence[tuple[str, Given]], faults: list[str]
) -> tuple[tuple[Recipe, ...], list[tuple[str, Given]]]:
    """The recipes with the kinds of optimizer and schedule that are given by name, and what else is given."""
    from vireid.training.kinds import kind_name, kinds_of, part_at, with_kind

    recipes, rest = list(stages), []
    for key, value in given:
        indices, name = chosen_stages(key, len(recipes)) or (range(0), key)
        parts = {index: part_at(recipes[index], name) for index in indices}
        choices = {index: known for index, part in parts.items() if (known := kinds_of(name, part))}
        if not choices:
            rest.append((key, value))
            continue
        for index, known in choices.items():
            own = kind_name(type(parts[index]).__name__)
            if isinstance(value.value, str) and value.value in known:
                recipes[index] = with_kind(recipes[index], name, known[value.value])
            elif value.value != own:
                words = " or ".join(dict.fromkeys((*known, own)))
                faults.append(f"{value.where}`{key}`: expected {words}, got {value}")
    return tuple(recipes), rest


def place(
    key: str,
    value: Given,
    stages: Sequence[Recipe],
    changes: list[dict[str, Given]],
    own: list[str],
    faults: list[str],
) -> None:
    """Note a value for every stage that has what the key names, or a fault where none has it."""
    place_of = chosen_stages(key, len(stages))
    if place_of is None:
        numbers = "is only stage 0" if len(stages) == 1 else f"are stages 0 to {len(stages) - 1}"
        faults.append(f"{value.where}`{key}`: expected e.g. stages.0.epochs; there {numbers}")
        return
    chosen, name = place_of
    known = {index: [leaf.name for leaf in leaves(stages[index])] for index in chosen}
    holders = [index for index in chosen if name in known[index]]
    for index in holders:
        changes[index][name] = value
    if not holders:
        names = list(dict.fromkeys(leaf for index in chosen for leaf in known[index]))
        parts = [part for index in chosen for part in parts_at(stages[index], name)]
        faults.append(f"{value.where}`{key}` {refusal(name, parts, names, own)}")


def parts_at(node: Any, name: str) -> Iterator[Any]:
    """What stands at a dotted name, where that exists and is not a plain value."""
    for head in name.split("."):
        if head not in (inner := children(node)):
            return
        node = inner[head][1]
    if children(node) or not is_plain(node):
        yield node


def refusal(name: str, parts: Sequence[Any], names: list[str], own: list[str]) -> str:
    """Why a name cannot be set: it is a group, a part of the code, or unknown."""
    if name in FIXED:
        return "names a function of the method and is not a setting; leave it out"
    if not parts:
        return f"is unknown; {suggestion(name, own + names)}"
    kind = type(parts[0]).__name__
    if below := [leaf for leaf in names if leaf.startswith(name + ".")]:
        return f"is a group ({kind}); set " + ", ".join(f"`{leaf}`" for leaf in below)
    return f"is a {kind} of the code and cannot be set as text"


def changed(node: Any, changes: Mapping[str, Given], prefix: str, faults: list[str]) -> Any:
    """A copy of a dataclass, dict or tuple with the dotted changes made; unchanged where one of them is a fault."""
    if not changes:
        return node
    own: dict[str, Given] = {}
    below: dict[str, dict[str, Given]] = {}
    for key, value in changes.items():
        head, dot, rest = key.partition(".")
        if dot:
            below.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    values = {name: value for name, (_, value) in children(node).items()}
    values |= {name: changed(values[name], inner, f"{prefix}{name}.", faults) for name, inner in below.items()}
    if isinstance(node, Mapping):
        return values | {name: one.value for name, one in own.items()}  # checked with the dataclass that holds it
    if isinstance(node, tuple | list):
        return type(node)(values.values())
    new = checked(type(node), values, own, prefix, faults)
    return node if new is None else new


def checked(
    kind: type, values: Mapping[str, Any], given: Mapping[str, Given], prefix: str, faults: list[str]
) -> Any | None:
    """An object of the dataclass `kind` with `values` and over them what is given; None where that is a fault."""
    read = {name: one.value for name, one in given.items()}
    try:
        return adapter(kind).validate_python({**values, **read})
    except ValidationError as error:
        wrong = given.keys() & {str(one["loc"][0]) for one in error.errors() if one["loc"]}
    # YAML reads 2024 as a number also where a word is meant: what does not fit is tried once more as it is written
    read |= {name: given[name].text for name in wrong if given[name].text is not None}
    try:
        return adapter(kind).validate_python({**values, **read})
    except ValidationError as error:
        for name, fault in faults_of(error, kind, given, prefix).items():
            faults.append(given[name].where + fault if name in given else fault)
    return None
