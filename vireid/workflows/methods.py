"""`vireid methods`: the methods there are, read from their files without importing them, and the settings of one."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from vireid import methods
from vireid.training.settings import NOTHING, describe


def summaries() -> dict[str, str]:
    """The first line of each method's file by name."""
    folder = Path(methods.__file__).parent
    return {name: _first_line(folder / f"{name}.py") for name in methods.names()}


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def settings(method: str, dataset: str = "sysu") -> list[dict[str, Any]]:
    """name, type, default and whether it belongs to the recipe, of every setting of a method for a dataset."""
    found = describe(methods.find(method), dataset)
    return [
        {"name": s.name, "type": s.type, "default": "required" if s.default is NOTHING else value_text(s.default),
         "recipe": s.recipe}
        for s in found
    ]  # fmt: skip


def value_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return "[" + ",".join(value_text(item) for item in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
