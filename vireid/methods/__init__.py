"""Methods: one file per paper, found by its file's name. Listing them imports nothing; finding one imports its file."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.errors import ArgumentError
from vireid.own_files import import_file, only_subclass

if TYPE_CHECKING:  # the names are listed by commands that must not wait for torch
    from vireid.method import Method


def names() -> list[str]:
    """The methods of this package, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def find(name_or_path: str | Path) -> type[Method]:
    """The Method subclass of a method by name ("agw") or by file ("./mine.py", which is executed).

    Raises ValueError for an unknown name (with the closest one), a missing file, or a file that does not define
    exactly one Method.
    """
    from vireid.method import Method

    text = str(name_or_path)
    if text.endswith(".py") or "/" in text or "\\" in text:
        return only_subclass(import_file(Path(text)), Method)
    if text not in names():
        close = difflib.get_close_matches(text.lower(), names(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "give one of them, or the path of your own file (./mine.py)"
        raise ArgumentError(f"no method is called {text!r}; there are {', '.join(names())}: {hint}")
    return only_subclass(importlib.import_module(f"vireid.methods.{text}"), Method)
