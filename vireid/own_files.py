"""Python files of the user: a method or a data set outside the package, imported from its path."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from vireid.errors import ArgumentError, OwnFileError, VireidError

KindT = TypeVar("KindT")
PREFIX = "vireid_own_"  # of the module names of imported files
LIBRARIES = (Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))


def import_file(path: Path) -> ModuleType:
    """Import a Python file, once per path; its folder is put at the end of the import path, for its neighbors.

    Raises ArgumentError where there is no such file, OwnFileError with file and line where it fails.
    """
    path = path.expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ArgumentError(f"no Python file at {path}; check the path")
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
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
        raise OwnFileError(f"{_place(error, [path.parent]) or path}: {_message(error)}") from error


def own_error(error: BaseException) -> str | None:
    """`FILE, line N: KIND: message` of an error that passed through an imported file of the user; None for any other.

    The file is the innermost one: that of the user, or a neighbor of it.
    """
    files = [module.__file__ for name, module in sys.modules.items() if name.startswith(PREFIX)]
    place = _place(error, {Path(file).parent for file in files if file is not None})
    return place and f"{place}: {_message(error)}"


def _place(error: BaseException, folders: Iterable[Path]) -> str | None:
    """File and line of the innermost frame in one of the user's folders."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    own = [frame for frame in frames if any(_stands_in(Path(frame[0]), folder) for folder in folders)]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else None


def _stands_in(file: Path, folder: Path) -> bool:
    """Whether a file is one of the user's folder, and not of an environment or of vireid that lies in it too."""
    libraries = [path for path in LIBRARIES if not folder.is_relative_to(path)]
    return file.is_relative_to(folder) and not any(file.is_relative_to(path) for path in libraries)


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.text:
        return f"{type(error).__name__}: {error.msg}: {error.text.strip()}"
    return f"{type(error).__name__}: {error}"
