"""Every setting of the package has a line of documentation, and every number in it refuses true and false."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator

from vireid import declaration, methods
from vireid.declaration import documentation, not_a_switch
from vireid.training.settings import children, recipes_of, settings_class

ROOMS = ("data", "layers", "live", "method", "methods", "training")
DATASETS = ("sysu", "regdb", "llcm", "manifest")


def declared() -> dict[str, type]:
    """Every class of the rooms that is made with declaration.settings, by its dotted name."""
    found: dict[str, type] = {}
    for room in ROOMS:
        first = importlib.import_module(f"vireid.{room}")
        inner = pkgutil.walk_packages(getattr(first, "__path__", ()), f"vireid.{room}.")
        for module in (first, *(importlib.import_module(one.name) for one in inner)):
            for name, kind in vars(module).items():
                if isinstance(kind, type) and kind.__module__ == module.__name__ and is_declared(kind):
                    found[f"{module.__name__}.{name}"] = kind
    return found


def is_declared(kind: type) -> bool:
    return "__pydantic_fields__" in vars(kind) and dataclasses.is_dataclass(kind)


def unguarded(kind: Any) -> bool:
    """Whether a number in an annotation takes true and false."""
    if kind in (int, float, complex):
        return True
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        guards = [mark for mark in inner[1:] if isinstance(mark, BeforeValidator) and mark.func is not_a_switch]
        return not guards and unguarded(inner[0])
    if origin is Literal:
        return any(value in (0, 1) and not isinstance(value, bool) for value in inner)
    return any(unguarded(one) for one in inner)


def parts(node: Any) -> Iterator[Any]:
    """The dataclasses in a recipe."""
    if dataclasses.is_dataclass(node):
        yield node
    for _, value in children(node).values():
        yield from parts(value)


CLASSES = declared()


def test_the_rooms_hold_the_parts_of_recipes_and_the_settings_of_methods() -> None:
    known = set(CLASSES.values())
    for name in methods.names():
        method = methods.find(name)
        assert settings_class(method) in known, name
        for dataset in DATASETS:
            for recipe in recipes_of(method, dataset):
                assert {type(part) for part in parts(recipe)} <= known, (name, dataset)


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_has_a_line_of_documentation(name: str) -> None:
    lines = documentation(CLASSES[name])
    for field in dataclasses.fields(CLASSES[name]):
        line = lines[field.name]
        assert line.endswith(".") and len(line) <= 120, f"{field.name}: {line!r}"


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_refuses_true_and_false(name: str) -> None:
    hints = typing.get_type_hints(CLASSES[name], include_extras=True)
    bare = [field.name for field in dataclasses.fields(CLASSES[name]) if unguarded(hints[field.name])]
    assert not bare, f"declare {bare} with Count, Index, Number, ... of vireid/declaration.py"


def test_what_is_looked_for() -> None:
    assert len(CLASSES) > 20
    positive = declaration.Positive | None
    guarded = (declaration.Count, tuple[declaration.Share, ...], positive, Literal[17, 18], bool, str)
    assert not any(map(unguarded, guarded))
    assert all(map(unguarded, (int, float | None, tuple[int, int], dict[str, float], Literal[1, 2])))
