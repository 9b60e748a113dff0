"""How settings are declared: frozen dataclasses whose fields have a type, a range, a default and a line that explains.

    @settings
    class Options:
        width: Count = 64
        \"\"\"Channels of the stem.\"\"\"

pydantic checks every value when the object is made; what a type says is checked nowhere else. The command line reads
the same declaration (training/settings.py), and `vireid methods NAME` prints it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, PydanticUndefined

from vireid.errors import SettingsError

T = TypeVar("T")
REQUIRED = PydanticUndefined  # in place of the default of a field that has none
CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, field_specifiers=(Field, dataclasses.field))
def settings(kind: type[T]) -> type[T]:
    """Make a class with annotated fields a frozen dataclass that checks its values; unknown names are refused."""
    return typing.cast(type[T], pydantic.dataclasses.dataclass(frozen=True, config=CONFIG)(kind))


def not_a_switch(value: Any) -> Any:
    """Refuse true and false where a number is meant; Python counts them as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "true and false are not numbers")
    return value


# --- types of fields --------------------------------------------------------------------------------------------------

NoSwitch = BeforeValidator(not_a_switch)  # for a Literal of numbers
Integer = Annotated[int, NoSwitch]
Number = Annotated[float, NoSwitch]
Count = Annotated[int, Field(ge=1), NoSwitch]  # how many, 1 or more
Index = Annotated[int, Field(ge=0), NoSwitch]  # 0 or more
NonNegative = Annotated[float, Field(ge=0), NoSwitch]
Weight = NonNegative  # of a loss; 0 leaves it out
Rate = Weight  # a learning rate or a factor of it, 0 or more
Positive = Annotated[float, Field(gt=0), NoSwitch]


@dataclasses.dataclass(frozen=True)
class Words:
    """In an annotation: what is expected, where "number > 0" says too little."""

    text: str


Days = Annotated[float, Field(gt=0), NoSwitch, Words("a number of days above 0")]
Share = Annotated[float, Field(ge=0, le=1), NoSwitch]  # also a probability
BelowOne = Annotated[float, Field(ge=0, lt=1), NoSwitch]  # e.g. a dropout or the decay of a running mean


def ascending(ends: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose first number is not below its second."""
    if not ends[0] < ends[1]:
        raise ValueError("LOW must be below HIGH")
    return ends


Range = Annotated[tuple[Number, Number], AfterValidator(ascending)]  # (low, high)


@settings
class NoSettings:
    """Of a method or a network without settings of its own."""


# --- making -----------------------------------------------------------------------------------------------------------


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """The checker of a settings class, of a plain dataclass or of a field's annotation."""
    own: Any = kind
    if not dataclasses.is_dataclass(kind):
        return TypeAdapter(own, config=CONFIG)
    if not hasattr(kind, "__pydantic_config__"):  # a user's part of a recipe that is a plain dataclass
        pydantic.with_config(CONFIG)(own)
    return TypeAdapter(own)


def configured(kind: type[T], given: object | None, words: Mapping[str, Any]) -> T:
    """An object of the settings class `kind`: `given`, or made from `words` over the defaults.

    Of a `given` object of a class that extends `kind` only the fields of `kind` are kept. Raises SettingsError for
    unknown names (with the closest ones), for values out of range, and where both are given.
    """
    if given is not None and words:
        raise SettingsError([f"{kind.__name__} is given as an object and as keywords {', '.join(words)}; keep one"])
    if type(given) is kind:
        return typing.cast(T, given)
    if given is not None:
        if not isinstance(given, kind):
            raise SettingsError([f"expected {kind.__name__}, got {type(given).__name__}"])
        names = [field.name for field in dataclasses.fields(typing.cast(Any, kind))]
        return kind(**{name: getattr(given, name) for name in names})
    try:
        return adapter(kind).validate_python(dict(words))
    except ValidationError as error:
        raise SettingsError(list(faults_of(error, kind, words).values())) from None


def faults_of(
    error: ValidationError, kind: type, given: Mapping[str, Any], prefix: str = "", *, null: bool = True
) -> dict[str, str]:
    """By field, one sentence for each fault that pydantic reports in the `given` values of a settings class.

    `prefix` is written before the names. The fault of a check across fields stands under "". Without `null` the
    sentences leave out that a value may be null, which nobody can write as an option of the command line.
    """
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    hints = typing.get_type_hints(kind, include_extras=True)
    faults: dict[str, str] = {}
    for one in error.errors():
        name = str(one["loc"][0]) if one["loc"] else ""
        if name not in fields:
            reason = one["msg"].removeprefix("Value error, ")
            reason = f"`{prefix.removesuffix('.')}`: {reason}" if prefix else reason
            faults[name] = f"`{prefix}{name}` is unknown; {suggestion(name, list(fields))}" if name else reason
        elif one["type"] == "missing" and len(one["loc"]) == 1:  # deeper: a list that is too short
            faults[name] = f"`{prefix}{name}` has no default: give {prefix}{name}=({wording(hints[name])})"
        elif name not in faults:
            reason = reason_of(one["type"], one["msg"])
            value = given.get(name, one["input"])
            value = repr(value) if isinstance(value, str | float) else value_text(value)
            expected = wording(hints[name]) if null else wording(hints[name]).removesuffix(" or null")
            faults[name] = f"`{prefix}{name}`: expected {expected}, got {value}{reason}"
    return faults


def reason_of(kind: str, message: str) -> str:
    """pydantic's words where they add something to the annotation's."""
    own = ("value_error", "finite_number", "number_type", "greater_than", "greater_than_equal", "less_than",
           "less_than_equal")  # fmt: skip
    return f" ({message.removeprefix('Value error, ')})" if kind in own else ""


def suggestion(name: str, names: Sequence[str]) -> str:
    """The closest existing names, by the whole dotted name first, then by its last part."""
    last = name.rpartition(".")[2]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    tails = {candidate: candidate.rpartition(".")[2] for candidate in names}
    similar = difflib.get_close_matches(last, sorted(set(tails.values())), n=2, cutoff=0.7)
    close += [candidate for tail in similar for candidate in names if tails[candidate] == tail]
    close = list(dict.fromkeys(close))
    if close:
        return "did you mean " + " or ".join(f"`{candidate}`" for candidate in close[:3]) + "?"
    return "`vireid methods NAME` lists every setting"


# --- reading a declaration --------------------------------------------------------------------------------------------


def documentation(kind: type) -> dict[str, str]:
    """The line of documentation of each field of a settings class."""
    lines: dict[str, str] = {}
    for parent in reversed(kind.__mro__):  # pydantic reads the lines of a class's own fields alone
        declared: Mapping[str, Any] = vars(parent).get("__pydantic_fields__", {})
        lines |= {
            name: " ".join((field.description or lines.get(name, "")).split()) for name, field in declared.items()
        }
    return lines


def defaults(kind: type) -> dict[str, Any]:
    """The default of each field of a settings class, `REQUIRED` where it has none."""
    declared: Mapping[str, Any] = vars(kind)["__pydantic_fields__"]
    return {name: field.get_default(call_default_factory=True) for name, field in declared.items()}


def value_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return "[" + ",".join(value_text(item) for item in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def wording(kind: Any) -> str:
    """An annotation in words, e.g. `whole number >= 1`."""
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
        if own := [mark.text for mark in inner[1:] if isinstance(mark, Words)]:
            return own[0]
        limits = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        marks = [mark for one in inner[1:] for mark in getattr(one, "metadata", [one])]
        bounds = ((sign, getattr(mark, name, None)) for mark in marks for name, sign in limits.items())
        limits_in_words = " and ".join(f"{sign} {limit}" for sign, limit in bounds if limit is not None)
        return f"{wording(inner[0])} {limits_in_words}".rstrip()
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(wording(one) for one in inner)
    if origin is Mapping:
        return "names and values"
    if origin in (tuple, list) and inner:
        words = [wording(one) for one in inner if one is not Ellipsis]
        if origin is list or inner[-1] is Ellipsis:
            return f"list of {plural(words[0])}"
        if len(set(words)) == 1:
            return f"list of {len(words)} {plural(words[0]) if len(words) > 1 else words[0]}"
        return "list of " + ", ".join(words)
    return getattr(kind, "__name__", str(kind))


def plural(words: str) -> str:
    """`whole numbers >= 1` for `whole number >= 1`."""
    return words.replace("number", "numbers", 1)
