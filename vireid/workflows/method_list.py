"""`vireid methods`: the methods there are, read from their files without importing them, and the settings of one."""

from __future__ import annotations

import ast
from pathlib import Path

from vireid import methods
from vireid.training.settings import Setting, describe


def summaries() -> dict[str, str]:
    """The first line of each method's file by name."""
    folder = Path(methods.__file__).parent
    return {name: _first_line(folder / f"{name}.py") for name in methods.names()}


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def settings(method: str, dataset: str = "sysu") -> dict[str, list[Setting]]:
    """Every setting of a method (name or file) for a data set, by group: network and losses, then each stage."""
    described = describe(methods.find(method), dataset)
    stages = {setting.stage for setting in described} - {None}
    groups: dict[str, list[Setting]] = {"network and losses": []}
    for setting in described:
        title = f"recipe for {dataset}" + (f", stage {setting.stage}" if len(stages) > 1 else "")
        groups.setdefault("network and losses" if setting.stage is None else title, []).append(setting)
    return groups
