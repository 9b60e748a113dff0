"""Imports go one way: the rooms of docs/architecture.md, and no circle between files, also none of type hints."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vireid"
# from the ground up; rooms of one line may not import each other, but for those of NEIGHBORS
FLOORS = (
    ("errors", "version"),
    (
        *("types", "system", "distributed", "declaration", "arrays_file", "sqlite_file"),
        *("json_file", "table_file", "picture_kinds", "gray_levels", "wording"),
    ),
    ("images", "own_files"),
    ("method",),
    ("data", "synthetic"),
    ("layers", "losses"),
    ("training",),
    ("evaluation",),
    ("figures", "methods"),
    ("models", "deploy"),
    ("search",),
    ("ingest",),
    ("live",),
    ("server",),
    ("workflows",),
    ("cli",),
    ("__main__",),
)
NEIGHBORS = {("losses", "layers"), ("deploy", "models")}
ONLY_THESE_IMPORT_METHODS = ("workflows", "cli", "methods", "__init__")


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules of vireid that a module imports anywhere: at its top, in functions and for type hints."""
    known, names = modules(), set[str]()
    for node in ast.walk(ast.parse(known[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    packages = {name.removesuffix(".__init__"): name for name in known}
    return frozenset(packages[name] for name in names if name in packages) - {module, "vireid.__init__"}


def room(module: str) -> str:
    """`vireid.data.cache` stands in the room `data`, `vireid.system` in one of its own."""
    return module.split(".")[1]


def floor(module: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room(module) in rooms)


def test_every_room_stands_on_a_floor() -> None:
    assert {room(module) for module in modules()} - {"__init__"} == set(chain.from_iterable(FLOORS))


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_downwards(module: str) -> None:
    if module == "vireid.__init__":  # the public names, loaded on use
        return
    for other in imports_of(module):
        inside = room(module) == room(other)
        beside = (room(module), room(other)) in NEIGHBORS
        assert inside or beside or floor(other) < floor(module), f"{module} imports {other}, which stands above it"


@pytest.mark.parametrize("module", sorted(modules()))
def test_methods_are_imported_by_workflows_alone(module: str) -> None:
    methods = [other for other in imports_of(module) if room(other) == "methods"]
    assert not methods or room(module) in ONLY_THESE_IMPORT_METHODS, f"{module} imports {methods}"


def test_no_circle_between_files() -> None:
    graph = {module: imports_of(module) for module in modules() if module != "vireid.__init__"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")
