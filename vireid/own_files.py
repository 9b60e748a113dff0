"""Python files of the user: a method or a data set outside the package, imported from its path.

A file imports the files and packages beside it by name: `import mine_layers` in mine.py takes mine_layers.py of the
same folder. Every folder is a package of its own, vireid_own_DIGEST, so two folders may hold files of equal names, and
what lies in one is not seen from the other or by other packages. Names of the standard library mean the library.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from vireid.errors import ArgumentError, OwnFileError, VireidError
from vireid.system import file_digest

KindT = TypeVar("KindT")
Code = str | Path | type  # the file of a method or network of the user, or a class that is imported already
PREFIX = "vireid_own_"  # of the packages that folders of the user are
LIBRARIES = (Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))
_digests: dict[str, str] = {}  # sha256 of imported files as they were then, by path


def import_file(path: Path) -> ModuleType:
    """Import a Python file, once per path.

    Raises ArgumentError where there is no such file, OwnFileError with file and line where it fails.
    """
    path = path.expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ArgumentError(f"no Python file at {path}; check the path")
    name = f"{_package_of(path.parent)}.{path.stem if path.stem.isidentifier() else 'file_' + _short(path.stem)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and annotations of the file look their module up
    importlib.invalidate_caches()  # files beside it may be new
    try:
        with errors_of(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def module_of(code: Code) -> ModuleType:
    """The module of a file, which is imported, or of a class."""
    return sys.modules[code.__module__] if isinstance(code, type) else import_file(Path(code))


# --- a folder as a package --------------------------------------------------------------------------------------------


def _package_of(folder: Path) -> str:
    """The name of the package that a folder of the user is; made where it is new."""
    name = PREFIX + _short(str(folder))
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
    return name


class _Loader(SourceFileLoader):
    """Loads a file of the user, whose imports look beside it first."""

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__.partition(".")[0]

        def import_name(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
            if level == 0 and _lies_in(package, name.partition(".")[0]):
                return builtins.__import__(name, {"__package__": package}, None, fromlist, 1)
            return builtins.__import__(name, globals, locals, fromlist, level)

        # what a module finds there its functions use too, so an import inside of a function is the same
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": import_name}
        _digests[self.path] = file_digest(Path(self.path))
        super().exec_module(module)


class _Finder:
    """Finds the files of packages of the user for the import system."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name.startswith(PREFIX) and path is not None else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def _lies_in(package: str, name: str) -> bool:
    """Whether an absolute import of `name` means a file or folder beside the user's file.

    A folder without __init__.py is one of other files (runs, data) where a package of that name is installed.
    """
    if f"{package}.{name}" in sys.modules:
        return True
    spec = PathFinder.find_spec(name, sys.modules[package].__path__)
    if spec is None or name in sys.stdlib_module_names:
        return False
    loaded = sys.modules.get(name)
    if spec.origin is None:
        return loaded is None and importlib.util.find_spec(name) is None
    return loaded is None or getattr(loaded, "__file__", None) != spec.origin


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# --- where a class stands ---------------------------------------------------------------------------------------------


def is_own(kind: type) -> bool:
    """Whether a class is none of vireid's."""
    return kind.__module__.partition(".")[0] != "vireid"


def file_of(kind: type) -> Path | None:
    """The file that defines a class; None for one that was typed at a prompt or in a notebook."""
    try:
        path = Path(inspect.getfile(kind)).resolve()
    except (TypeError, OSError):
        return None
    return path if path.is_file() else None


def digest_of(path: Path) -> str:
    """The sha256 of a Python file as it was imported, or as it is where it was not."""
    return _digests.get(str(path)) or file_digest(path)


def qualified_name(kind: type) -> str:
    """`module.Class` inside vireid; `file.py:Class` for a user's own, whose module may be called anything."""
    if not is_own(kind):
        return f"{kind.__module__}.{kind.__qualname__}"
    path = file_of(kind)
    return f"{path.name if path else kind.__module__}:{kind.__qualname__}"


def class_in(code: Code, name: str, kind: type[KindT]) -> type[KindT] | None:
    """The class `file.py:Class` that a file of the user defines or imports; None where it has none of this kind.

    A class of a file that it imports from its own folder counts too, one of another folder of the user does not.
    Raises ArgumentError, OwnFileError.
    """
    file, _, qualname = name.rpartition(":")
    module = module_of(code)
    package = module.__name__.partition(".")[0] + "."
    imported = [
        one
        for key, one in sorted(sys.modules.items(), key=lambda item: not item[0].startswith(package))
        if (key.startswith(package) or not key.startswith(PREFIX))
        and Path(vars(one).get("__file__") or "").name == file
    ]
    for place in (module, *imported):
        value: Any = place
        for part in qualname.split("."):
            value = getattr(value, part, None)
        if inspect.isclass(value) and issubclass(value, kind):
            return value
    return None


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
    folders = [one.__path__ for name, one in sys.modules.items() if name.startswith(PREFIX) and "." not in name]
    place = _place(error, [Path(folder) for (folder,) in folders])
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
