"""Options of the command line from a settings class: one declaration, the same names, ranges and lines of help."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from vireid.declaration import documentation, faults_of
from vireid.errors import SettingsError

SIMPLE = (str, int, float, bool, Path)


def takes(kind: type, names: Mapping[str, str] | None = None, skip: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Give a command an option for each field of the settings class `kind`, in place of its parameter `options`.

    `names` are option names that differ from `--field-name`; `skip` are fields that get no option and keep their
    default. The field `progress` becomes `--quiet`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        hints, lines = typing.get_type_hints(kind, include_extras=True), documentation(kind)
        fields = [field for field in dataclasses.fields(kind) if field.name not in skip]
        made = [parameter(field, hints[field.name], lines[field.name], names or {}) for field in fields]

        @functools.wraps(command)
        def run(**words: Any) -> None:
            values = {field.name: value_of(field, words.pop(field.name)) for field in fields}
            command(**words, options=checked(kind, values, names or {}))

        before = [p for p in own.values() if p.name != "options"]
        positional = [p for p in before if p.default is inspect.Parameter.empty]
        others = [p for p in before if p.default is not inspect.Parameter.empty]
        ordered = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*positional, *others, *made)]
        run.__dict__["__signature__"] = inspect.Signature(ordered)
        run.__annotations__ = {p.name: p.annotation for p in ordered}
        return run

    return decorate


def checked(kind: type, values: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """An object of the settings class; SettingsError that names the options whose values are refused."""
    try:
        return kind(**values)
    except ValidationError as error:
        faults = faults_of(error, kind, values, null=False).items()
        options = [fault.replace(f"`{name}`", flag_of(name, names)) if name else fault for name, fault in faults]
        raise SettingsError(options) from None


def flag_of(name: str, names: Mapping[str, str]) -> str:
    """The option of a field."""
    return names.get(name, "--" + name.replace("_", "-"))


def parameter(field: Any, hint: Any, line: str, names: Mapping[str, str]) -> inspect.Parameter:
    """The parameter from which Typer makes the option of a field."""
    flag = flag_of(field.name, names)
    simple, limits = simplified(hint)
    if field.name == "progress":
        annotation: Any = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
        default: Any = False
    elif simple is bool:
        switch = f"{flag}/--no-{flag.removeprefix('--')}" if field.default else flag
        annotation, default = Annotated[bool, typer.Option(switch, help=line)], field.default
    else:
        annotation = Annotated[simple, typer.Option(flag, help=line, **limits)]
        default = list(field.default) if isinstance(field.default, tuple) else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def value_of(field: Any, value: Any) -> Any:
    """The value of a field from that of its option."""
    if field.name == "progress":
        return not value
    return tuple(value) if isinstance(value, list) else value


def simplified(hint: Any) -> tuple[Any, dict[str, Any]]:
    """The annotation that Typer understands and its limits: of a union the first kind that can be typed as text."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        marks = [mark for one in inner[1:] for mark in getattr(one, "metadata", [one])]
        bounds = {"min": "ge", "max": "le"}
        limits = {name: getattr(m, bound) for m in marks for name, bound in bounds.items() if hasattr(m, bound)}
        return simplified(inner[0])[0], limits
    if origin in (typing.Union, types.UnionType):
        kinds = [simplified(one) for one in inner if one is not type(None)]
        simple, limits = next(
            (k, lim) for k, lim in kinds if k in SIMPLE or typing.get_origin(k) in (Literal, list, tuple)
        )
        return (simple | None if type(None) in inner else simple), limits
    if origin is tuple and inner[-1] is Ellipsis:
        simple = simplified(inner[0])[0]  # Typer takes no list of choices; the settings class checks them
        return list[str if typing.get_origin(simple) is Literal else simple], {}
    if origin is tuple:
        return tuple[tuple(simplified(one)[0] for one in inner)], {}
    return (str | None if hint is Any else hint), {}
