"""Methods: one file per paper, found by its file's name. Listing them imports nothing; finding one imports its file."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vireid.errors import ArgumentError

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
    text = str(name_or_path)
    if text.endswith(".py") or "/" in text or "\\" in text:
        return only_method(import_file(Path(text).expanduser()))
    if text not in names():
        close = difflib.get_close_matches(text.lower(), names(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "give one of them, or the path of your own file (./mine.py)"
        raise ArgumentError(f"no method is called {text!r}; there are {', '.join(names())}: {hint}")
    return only_method(importlib.import_module(f"vireid.methods.{text}"))


def import_file(path: Path) -> ModuleType:
    """Import a method file that lies outside the package, once per path."""
    path = path.resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ArgumentError(f"no method file at {path}; expected a Python file that defines one subclass of Method")
    name = f"vireid_method_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and annotations of the file look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def only_method(module: ModuleType) -> type[Method]:
    """The one Method that is defined in a module; imported ones do not count."""
    from vireid.method import Method

    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        have = ", ".join(c.__name__ for c in found) or "none"
        raise ArgumentError(
            f"{module.__file__} must define exactly one subclass of Method (vireid.method); it has {have}"
        )
    return found[0]
