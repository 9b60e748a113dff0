"""Imported packages are named in pyproject.toml: those of vireid in any extra, those of the tests in `test`."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SUPPORT = {path.stem for path in (ROOT / "tests/support").glob("*.py")}
# Packages named otherwise than their distribution, or brought by it.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "pydantic_core": "pydantic", "anyio": "starlette"}
DISTRIBUTIONS |= {
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "paho": "paho-mqtt",
    "mlflow": "mlflow-skinny",
    "faiss": "faiss-cpu",
}
BY_HAND = {"websockets"}  # for pages in Firefox (CONTRIBUTING.md); in an extra it would change how uvicorn serves


def named(extra: str = "") -> set[str]:
    """The distributions that an extra names, or the core, with those of the extras of vireid that it includes."""
    names = set[str]()
    for line in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        name, extras = re.findall(r"^([\w.-]+)(?:\[([^]]*)\])?", line)[0]
        if name == PROJECT["name"]:
            names = names.union(*(named(inner.strip()) for inner in extras.split(",")))
        else:
            names.add(name.lower().replace("_", "-"))
    return names


def imported(source: str) -> set[str]:
    """The packages of others that a module imports anywhere, also by pytest.importorskip."""
    names = set[str]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
            case ast.Call(func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=str(module)), *_]):
                names.add(module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - SUPPORT - {"vireid"}


@pytest.mark.parametrize(("folder", "extras"), [("tests", ["test"]), ("vireid", PROJECT["optional-dependencies"])])
def test_imported_packages_are_named(folder: str, extras: list[str]) -> None:
    known = named().union(*map(named, extras), BY_HAND)
    for path in sorted((ROOT / folder).rglob("*.py")):
        packages = [DISTRIBUTIONS.get(name, name) for name in imported(path.read_text("utf-8"))]
        missing = {name.lower().replace("_", "-") for name in packages} - known
        assert not missing, f"{path} imports {missing}; name it in pyproject.toml"


def test_packages_are_found_wherever_they_are_imported() -> None:
    source = (
        "import os, httpx.api\ndef f():\n    from not_there.x import y\npytest.importorskip('PIL.Image', reason='')"
    )
    assert imported(source) == {"httpx", "not_there", "PIL"} and "httpx" not in named("test")
    assert {"fastapi", "hypothesis", "lancedb", "playwright"} <= named("test") and "torch" in named()
