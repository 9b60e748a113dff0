"""Data sets: one file each, found by its name; `load` makes a Table of a folder or manifest."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.errors import ArgumentError, DataError
from vireid.own_files import errors_of, import_file, only_subclass
from vireid.system import file_digest

if TYPE_CHECKING:  # the names are listed by commands that must not wait for numpy
    from vireid.data.dataset import Dataset
    from vireid.data.protocol import Protocol
    from vireid.data.table import Table

log = logging.getLogger(__name__)

OF_ALL = ("files", "ignore")  # modules in this folder that are not data sets
_own: dict[str, Dataset] = {}  # data sets of the user's files, by name: a Table says only the name


def names() -> list[str]:
    """The data sets of this package, sorted."""
    stems = [path.stem for path in Path(__file__).parent.glob("*.py")]
    return sorted(stem for stem in stems if not stem.startswith("_") and stem not in OF_ALL)


def find(name: str) -> Dataset:
    """The data set of this name ("sysu") or of your own file ("./mine.py", which is executed).

    Raises ArgumentError for an unknown name (with the closest one), OwnFileError where the file fails.
    """
    from vireid.data.dataset import Dataset, closest

    if name.endswith(".py"):
        return _find_own(Path(name).expanduser().resolve())
    if name in _own:
        return _own[name]
    if name not in names():
        raise ArgumentError(
            f"no data set is called {name!r}{closest(name, names())}; known are {', '.join(names())}, or the path of "
            "your own file (./mine.py=PATH)"
        )
    return only_subclass(importlib.import_module(f"vireid.data.datasets.{name}"), Dataset)(name)


def _find_own(file: Path) -> Dataset:
    from vireid.data.dataset import Dataset

    name = file.stem
    known = _own.get(name)
    if known is not None and known.file == file:
        return known
    if known is not None or name in names():
        other = "one of vireid's" if known is None else f"that of {known.file}"
        raise ArgumentError(f"{file}: the data set {name} is {other} already; give the file another name")
    module = import_file(file)
    with errors_of(file):
        _own[name] = only_subclass(module, Dataset)(name, file)
    return _own[name]


def load(spec: str | Path, **options: object) -> Table:
    """Load `sysu=PATH`, `manifest=FILE.csv`, `./mine.py=PATH` (your own file), or a bare PATH that is recognized.

    Options go to the loader (RegDB: trial=0..9). Raises DataError for bad data, ArgumentError for an unknown name or
    option.
    """
    from vireid.data.dataset import closest

    name, path = split_spec(spec)
    dataset = find(name)
    known = list(inspect.signature(dataset.load).parameters)[1:]
    for option in options:
        if option not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise ArgumentError(f"{dataset.name} has no option `{option}`{closest(option, known)}; it {takes}")
    source = f"{name}={path}"
    if dataset.file is None:
        return replace(dataset.load(path, **options), source=source)
    with errors_of(dataset.file):
        return replace(dataset.load(path, **options), dataset=dataset.name, source=source)


def split_spec(spec: str | Path) -> tuple[str, Path]:
    """(name, path) of `NAME=PATH` or of a bare path; the name of your own data set is the path of its file."""
    text = str(spec)
    name, equals, path = text.partition("=")
    if isinstance(spec, str) and equals and not Path(text).expanduser().exists():
        if not path:
            raise ArgumentError(f"{text!r}: a path must follow the equals sign")
        file = find(name).file
        return name if file is None else str(file), Path(path).expanduser()
    return detect(spec), Path(text).expanduser()


def recorded_file(name: str) -> dict[str, str]:
    """What a run stores of a data set from your own file beside NAME=PATH: the sha256 of its file; else nothing."""
    file = find(name).file
    return {} if file is None else {"sha256": file_digest(file)}


def recorded_spec(spec: str, sha256: str | None) -> str:
    """NAME=PATH as a run stored it, checked: DataError where the file of your own data set is missing.

    A file that changed since is logged: its rows are compared by their fingerprint, its protocols are not.
    """
    file = Path(spec.partition("=")[0])
    if sha256 is None:
        return spec
    if not file.is_file():
        raise DataError(
            f"the data set of this run is loaded by {file}, which is not there; pass --data ./{file.name}=PATH"
        )
    if file_digest(file) != sha256:
        log.warning("%s has changed since the training", file)
    return spec


def detect(root: str | Path) -> str:
    """Which layout stands at `root`; DataError that lists what each layout needs if it is none of them, or several."""
    root = Path(root).expanduser()
    if not root.exists():
        known = ", ".join(names())
        raise DataError(f"{root} does not exist; give a folder or a manifest, or NAME=PATH with NAME one of {known}")
    sets = [find(name) for name in names()]
    marks = {dataset.name: dataset.recognizes(root) for dataset in sets}
    best = [name for name, mark in marks.items() if mark and mark == max(marks.values())]
    if len(best) > 1:
        raise DataError(f"{root} may be {' or '.join(best)}; say which: {best[0]}={root}")
    if best:
        return best[0]
    needs = "\n".join(f"  {dataset.name}: {dataset.layout}" for dataset in sets)
    here = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    came = ", ".join(here[:8]) or ("a file" if root.is_file() else "an empty folder")
    raise DataError(f"{root} has none of the known layouts:\n{needs}\nfound: {came}. Give the folder that holds these")


def protocols_for(table: Table) -> dict[str, Protocol]:
    """The protocols of the table's data set, by name; a manifest's without ignore rules."""
    return dict(find(table.dataset).protocols)


def protocol(name: str, table: Table, ignore: Iterable[str] | str | None = None) -> Protocol:
    """The protocol of this name for this table.

    For a manifest, `ignore` names the rules (see manifest.protocols_with); the name may carry them instead:
    `manifest/visible-to-infrared/ignore-frame`. Every data set has those of the mixed gallery (mixed_gallery.py).
    Raises ArgumentError with the closest name, DataError for a missing column.
    """
    from vireid.data.mixed_gallery import STEM, is_mixed, mixed_protocol

    dataset, words = find(table.dataset), [ignore] if isinstance(ignore, str) else list(ignore or ())
    if not is_mixed(name):
        if STEM in name:
            raise ArgumentError(f"no protocol is called {name!r}; the mixed gallery is {dataset.name}/{STEM}")
        return dataset.protocol(name, table, words)
    words += [word for word in name.partition("/ignore-")[2].split("+") if word and word not in words]
    return mixed_protocol(name, dataset, dataset.ignore_rules(table, words))
