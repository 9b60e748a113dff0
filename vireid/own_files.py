"""Python files of the user: a method or a data set outside the package, imported from its path."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from vireid.errors import ArgumentError, OwnFileError, VireidError

KindT = TypeVar("KindT")


def import_file(path: Path) -> ModuleType:
    """Import a Python file, once per path; its folder is put at the end of the import path, for its neighbors.

    Raises ArgumentError where there is no such file, OwnFileError with file and line where it fails.
    """
    path = path.expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ArgumentError(f"no Python file at {path}; check the path")
    name = f"vireid_own_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # dataclasses and annotations of the file look their module up
    try:
        with errors_of(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def only_subclass(module: ModuleType, kind: type[KindT]) -> type[KindT]:
    """The one subclass of `kind` that a module defines; imported ones do not count. ArgumentError for none or more."""
    defined = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, kind) and value.__module__ == module.__name__
    ]
    if len(defined) != 1:
        have = ", ".join(value.__name__ for value in defined) or "none"
        raise ArgumentError(
            f"{module.__file__} must define exactly one subclass of {kind.__name__} ({kind.__module__}); it has {have}"
        )
    return defined[0]


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn an error of the user's file, or of a neighbor, into OwnFileError; a VireidError that it raises stays."""
    try:
        yield
    except VireidError:
        raise
    except Exception as error:
        raise OwnFileError(f"{_place(error, path)}: {_message(error)}") from error


def _place(error: Exception, path: Path) -> str:
    """File and line of the innermost frame in the user's folder."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(path.parent)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else str(path)


def _message(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.text:
        return f"{type(error).__name__}: {error.msg}: {error.text.strip()}"
    return f"{type(error).__name__}: {error}"
