"""Settings: `key=value` words and a YAML file over a method's defaults, checked together, every fault named at once.

A method's settings are its constructor's keywords and the fields of its recipe. Keys are dotted: `gamma=2` is a
keyword, `epochs=60`, `sampler.pids=4`, `optimizers.backbone.lr=0.02`, `views.0.transform.steps.0.pad=4` are of the
recipe. In a recipe of several stages a plain name changes every stage that has it, and `stages.1.epochs=5` one of
them. A file is read as plain data; nothing in it is executed.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from vireid.errors import SettingsError

if TYPE_CHECKING:  # this file is read by commands that must not wait for torch
    from vireid.method import Method, Recipe

GIVEN = ("self", "num_pids", "camids")  # constructor arguments that come from the data
FIXED = ("step",)  # recipe fields that belong to the method's code
NOTHING = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One thing that can be set: its dotted name, its annotation, its default and whether it belongs to the recipe."""

    name: str
    annotation: Any
    default: Any
    recipe: bool

    @property
    def type(self) -> str:
        """The kind of value in words, e.g. `whole number`."""
        return wording(self.annotation)


def resolve(
    method_class: type[Method], dataset: str, overrides: Sequence[str] = (), file: Path | None = None
) -> tuple[tuple[Recipe, ...], dict[str, Any]]:
    """The stages' recipes and all constructor keywords of a method after a YAML file and then `key=value` words.

    Raises SettingsError that lists every unknown name (with the closest existing ones) and every wrong value at once.
    """
    keywords = constructor(method_class)
    stages = recipes_of(method_class, dataset)
    faults: list[str] = []
    settings = {name: default for name, (_, default) in keywords.items() if default is not NOTHING}
    for source in (read_file(file, faults) if file else {}, read_words(overrides, faults)):
        changes: list[dict[str, Any]] = [{} for _ in stages]
        for key, value in sorted(source.items(), key=lambda item: item[0].startswith("stages.")):  # a stage's own wins
            if key in keywords:
                store(settings, key, keywords[key][0], value, faults)
            else:
                change_recipes(stages, changes, key, value, list(keywords), faults)
        stages = tuple(
            replaced(recipe, change, "" if len(stages) == 1 else f"stages.{index}.", faults)
            for index, (recipe, change) in enumerate(zip(stages, changes, strict=True))
        )
    missing = [name for name in keywords if name not in settings]
    if missing and not faults:
        faults += [f"`{name}` has no default: give {name}=({wording(keywords[name][0])})" for name in missing]
    if faults:
        raise SettingsError(list(dict.fromkeys(faults)))
    return stages, settings


def describe(method_class: type[Method], dataset: str) -> list[Setting]:
    """Every setting of a method with its default: constructor keywords first, then the recipe, stage by stage."""
    found = [Setting(name, kind, value, recipe=False) for name, (kind, value) in constructor(method_class).items()]
    stages = recipes_of(method_class, dataset)
    for index, recipe in enumerate(stages):
        prefix = "" if len(stages) == 1 else f"stages.{index}."
        found += [Setting(prefix + key, kind, value, recipe=True) for key, (kind, value) in leaves(recipe).items()]
    return found


# --- what can be set --------------------------------------------------------------------------------------------------


def constructor(method_class: type[Method]) -> dict[str, tuple[Any, Any]]:
    """(annotation, default) of each setting of the method's network and losses."""
    found: dict[str, tuple[Any, Any]] = {}
    if method_class.Settings.__name__ == "NoSettings":  # TO REMOVE: methods whose settings are still keywords
        return keywords_of(method_class)
    hints = typing.get_type_hints(method_class.Settings, include_extras=True)
    for field in dataclasses.fields(method_class.Settings):
        default = NOTHING if field.default is dataclasses.MISSING else field.default
        found[field.name] = (hints[field.name], default)
    return found


def keywords_of(method_class: type[Method]) -> dict[str, tuple[Any, Any]]:
    """(annotation, default) of each constructor keyword, following **keywords up to the parent that names them."""
    found: dict[str, tuple[Any, Any]] = {}
    for parent in method_class.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters.values()
        hints = typing.get_type_hints(parent.__init__, include_extras=True)
        for parameter in parameters:
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and parameter.name not in GIVEN:
                kind = hints.get(parameter.name, kind_of(parameter.default))
                found.setdefault(parameter.name, (kind, parameter.default))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def recipes_of(method_class: type[Method], dataset: str) -> tuple[Recipe, ...]:
    """The method's stages for a dataset; a recipe field must not share its name with a constructor keyword."""
    recipe = method_class.recipe_for(dataset)
    stages = recipe if isinstance(recipe, tuple) else (recipe,)
    fields = {field.name for stage in stages for field in dataclasses.fields(stage)} | {"stages"}
    if both := sorted(fields & set(constructor(method_class))):
        raise SettingsError(
            [f"{method_class.__name__} names a constructor keyword `{n}` like a recipe field; rename it" for n in both]
        )
    return stages


def leaves(thing: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """(annotation, value) by dotted name of everything below a dataclass that can be set."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, kind, value in children(thing):
        if is_group(value):
            found.update(leaves(value, f"{prefix}{name}."))
        elif settable(kind, value):
            found[prefix + name] = (kind, value)
    return found


def groups(thing: Any, prefix: str = "") -> dict[str, Any]:
    """Everything below a dataclass that is not a single setting, by dotted name."""
    found: dict[str, Any] = {}
    for name, kind, value in children(thing):
        if is_group(value):
            found[prefix + name] = value
            found.update(groups(value, f"{prefix}{name}."))
        elif not settable(kind, value):
            found[prefix + name] = value
    return found


def children(thing: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, annotation, value) of the fields of a dataclass, the entries of a dict or the elements of a tuple."""
    if isinstance(thing, Mapping):
        yield from ((str(name), kind_of(value), value) for name, value in thing.items())
    elif isinstance(thing, tuple | list):
        yield from ((str(index), kind_of(value), value) for index, value in enumerate(thing))
    else:
        hints = typing.get_type_hints(type(thing), include_extras=True)
        for field in dataclasses.fields(thing):
            if field.init and field.name not in FIXED:
                yield field.name, hints[field.name], getattr(thing, field.name)


def is_group(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    if isinstance(value, tuple | list):
        return any(is_group(element) for element in value)
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def kind_of(value: Any) -> Any:
    """The annotation of a value that came without one."""
    if value is NOTHING or value is None:
        return Any
    if isinstance(value, tuple):
        return tuple[tuple(kind_of(element) for element in value)]
    return type(value)


def settable(kind: Any, value: Any) -> bool:
    """Whether text can stand for it: numbers, words, switches and lists of them."""
    if isinstance(value, tuple | list):
        return all(settable(Any, element) for element in value)
    return value is None or isinstance(value, bool | int | float | str | Path)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """A value as YAML read it and, from the command line, as it was typed."""

    value: Any
    text: str | None = None

    def __str__(self) -> str:
        return self.text if self.text is not None else repr(self.value)


class Loader(yaml.SafeLoader):
    """safe_load that refuses a key given twice; `<<: *anchor` may stand beside keys that win over it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = str(self.construct_object(key, deep=True))
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{name}` is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_words(words: Sequence[str], faults: list[str]) -> dict[str, Given]:
    """`key=value` words by key."""
    found: dict[str, Given] = {}
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not key or not text:
            faults.append(f"`{word}` is not a setting: expected key=value, e.g. epochs=60 or size=[144,72]")
            continue
        if key in found:
            faults.append(f"`{key}` is given twice, as {found[key]} and {text}; keep one")
            continue
        try:
            found[key] = Given(yaml.safe_load(text), text)
        except yaml.YAMLError:
            faults.append(f"`{word}` cannot be read: expected a number, a word or a list such as [144,72]")
    return found


def read_file(path: Path, faults: list[str]) -> dict[str, Given]:
    """The settings of a YAML file, nested or dotted, by dotted key."""
    try:
        content = read_yaml(path)
    except SettingsError as error:
        faults += error.faults
        return {}
    found: dict[str, Given] = {}
    for key, value in flat(content):
        if key in found:
            faults.append(f"`{key}` is given twice in {path}, nested and dotted; keep one")
        found[key] = Given(value)
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """The names and values of a YAML file, read as plain data; SettingsError says what is wrong with it."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader)  # Loader is a SafeLoader
    except FileNotFoundError:
        fault = f"no settings file at {path}; give the path of a YAML file or leave it out"
    except UnicodeDecodeError:
        fault = f"{path} is not a text file in UTF-8; expected YAML such as `epochs: 60`"
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        where = f"{path} line {mark.line + 1}" if mark else str(path)
        fault = f"{where}: {problem}; expected YAML such as `epochs: 60`"
    else:
        if content is None or isinstance(content, dict):
            return content or {}
        fault = f"{path} holds {kind_name(content)}, expected names and values such as `epochs: 60`"
    raise SettingsError([fault])


def flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, list) and content and all(isinstance(element, dict) for element in content):
        yield from flat(dict(enumerate(content)), prefix)
    else:
        yield prefix, content


# --- checking and changing --------------------------------------------------------------------------------------------


def change_recipes(
    stages: tuple[Recipe, ...],
    changes: list[dict[str, Any]],
    key: str,
    given: Given,
    keywords: list[str],
    faults: list[str],
) -> None:
    """Note a checked value for every stage that the key names, or the fault."""
    name, chosen = key, range(len(stages))
    head, _, rest = key.partition(".")
    if head == "stages":
        index, _, name = rest.partition(".")
        if not (index.isdecimal() and int(index) < len(stages)) or not name:
            numbers = "is only stage 0" if len(stages) == 1 else f"are stages 0 to {len(stages) - 1}"
            faults.append(f"`{key}`: expected e.g. stages.0.epochs; there {numbers}")
            return
        chosen = range(int(index), int(index) + 1)
    known = {index: leaves(stages[index]) for index in chosen}
    holders = [index for index in chosen if name in known[index]]
    for index in holders:
        store(changes[index], name, known[index][name][0], given, faults, key)
    if holders:
        return
    names = list(dict.fromkeys(leaf for index in chosen for leaf in known[index]))
    for index in chosen:
        if name in (inner := groups(stages[index])):
            below = [leaf for leaf in names if leaf.startswith(name + ".")]
            kind = type(inner[name]).__name__
            group = f"is a group ({kind}); set " + ", ".join(f"`{leaf}`" for leaf in below)
            faults.append(f"`{key}` {group if below else f'is a {kind} of the code and cannot be set as text'}")
            return
    if name in FIXED:
        faults.append(f"`{key}` names a function of the method and is not a setting; leave it out")
        return
    faults.append(f"`{key}` is unknown; {suggestion(key, name, keywords + names)}")


def suggestion(key: str, name: str, names: list[str]) -> str:
    """The closest existing names, by the whole dotted name first, then by its last part."""
    last = name.rpartition(".")[2]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    tails = {candidate: candidate.rpartition(".")[2] for candidate in names}
    similar = difflib.get_close_matches(last, sorted(set(tails.values())), n=2, cutoff=0.7)
    close += [name for tail in similar for name in names if tails[name] == tail and name not in close]
    if close:
        return "did you mean " + " or ".join(f"`{candidate}`" for candidate in close[:3]) + "?"
    return "`vireid methods NAME` lists every setting"


def store(
    into: dict[str, Any], name: str, kind: Any, given: Given, faults: list[str], shown: str | None = None
) -> None:
    """Check one value against its annotation and keep it, or note the fault."""
    tries = [given.value]
    if given.text is not None and not isinstance(given.value, list | dict | None):
        tries.append(given.text)  # YAML reads `on` as true and 2024 as a number where a word is meant
    faults_of: list[ValidationError] = []
    for value in tries:
        try:
            into[name] = adapter(kind).validate_python(value)
            return
        except ValidationError as error:
            faults_of.append(error)
    first = faults_of[0]
    reasons = [e["msg"].removeprefix("Value error, ") for e in first.errors() if is_range(e["type"])]
    because = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
    hint = ""
    if typing.get_origin(bare(kind)) in (tuple, list) and not isinstance(given.value, list):
        hint = f"; write a list, {shown or name}=[...]"
    faults.append(f"`{shown or name}`: expected {wording(kind)}, got {given} ({kind_name(given.value)}){because}{hint}")


def is_range(kind: str) -> bool:
    """Whether pydantic's words add something to the annotation's."""
    return kind in ("value_error", "finite", "greater_than", "greater_than_equal", "less_than", "less_than_equal")


def adapter(kind: Any) -> TypeAdapter[Any]:
    config = ConfigDict(arbitrary_types_allowed=True)
    try:
        return TypeAdapter(guarded(kind), config=config)
    except Exception as error:  # pydantic's own errors on an annotation have no common class
        raise TypeError(f"the annotation {kind} cannot be checked: {error}") from error


def guarded(kind: Any) -> Any:
    """The annotation with numbers that take neither true/false nor NaN and infinity."""
    if kind in (int, float):
        return Annotated[kind, BeforeValidator(real_number)]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return Annotated[(guarded(inner[0]), *inner[1:])]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(guarded(one) for one in inner)]  # noqa: UP007 (built from a list)
    if origin in (tuple, list, dict) and inner:
        inside = tuple(one if one is Ellipsis else guarded(one) for one in inner)
        return types.GenericAlias(origin, inside)
    return kind


def real_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "true and false are no numbers")
    if isinstance(value, str):  # PyYAML leaves 1e-3 as text
        try:
            value = float(value)
        except ValueError:
            return value  # pydantic refuses it
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite", "the number must be finite")
    return value


def replaced(thing: Any, changes: Mapping[str, Any], prefix: str, faults: list[str]) -> Any:
    """A copy of a dataclass, dict or tuple with the dotted changes made; a refusal of the dataclass is a fault."""
    if not changes:
        return thing
    own: dict[str, Any] = {key: value for key, value in changes.items() if "." not in key}
    below: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        head, dot, rest = key.partition(".")
        if dot:
            below.setdefault(head, {})[rest] = value
    current = {name: value for name, _, value in children(thing)}
    own |= {name: replaced(current[name], change, f"{prefix}{name}.", faults) for name, change in below.items()}
    if isinstance(thing, Mapping):
        return {name: own.get(str(name), value) for name, value in thing.items()}
    if isinstance(thing, tuple | list):
        return type(thing)(own.get(str(index), value) for index, value in enumerate(thing))
    try:
        return dataclasses.replace(thing, **own)
    except ValueError as error:
        faults.append(f"`{prefix}{'` and `'.join(own)}`: {error}")
        return thing


# --- words for people -------------------------------------------------------------------------------------------------


def bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def wording(kind: Any) -> str:
    """An annotation in words."""
    simple: dict[Any, str] = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        Path: "path",
        Any: "value",
    }
    if kind in simple:
        return simple[kind]
    if kind in (None, type(None)):
        return "null"
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        limits = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        marks = [mark for one in inner[1:] for mark in getattr(one, "metadata", [one])]
        found = ((sign, getattr(mark, name, None)) for mark in marks for name, sign in limits.items())
        said = [f"{sign} {limit}" for sign, limit in found if limit is not None]
        return " ".join([wording(inner[0]), *said])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(wording(one) for one in inner)
    if origin in (tuple, list) and inner:
        words = [wording(one) for one in inner if one is not Ellipsis]
        if origin is list or inner[-1] is Ellipsis:
            return f"list of {plural(words[0])}"
        if len(set(words)) == 1:
            return f"list of {len(words)} {plural(words[0]) if len(words) > 1 else words[0]}"
        return "list of " + ", ".join(words)
    return getattr(kind, "__name__", str(kind))


def plural(words: str) -> str:
    noun, space, rest = words.partition(" number")
    if space:
        return f"{noun} numbers{rest}"
    return words.replace("number", "numbers", 1) if words.startswith("number") else words


def kind_name(value: Any) -> str:
    """What kind of value came, in words."""
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", list: "list"}
    return {type(None): "null", dict: "names and values", **names}.get(type(value), type(value).__name__)
