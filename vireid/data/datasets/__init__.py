"""Data sets: `load` a folder or manifest into a Table, and the protocols that belong to it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vireid.errors import ArgumentError

if TYPE_CHECKING:
    from vireid.data.protocol import Protocol
    from vireid.data.table import Table

NAMES = ("sysu", "regdb", "llcm", "manifest")
LAYOUTS = {
    "sysu": "folders cam1 ... cam6 with PPPP/IIII.jpg, and exp/train_id.txt, val_id.txt, test_id.txt",
    "regdb": "folders Visible and Thermal, and idx/train_visible_1.txt and its 39 sisters",
    "llcm": "folders vis and nir, and idx/train_vis.txt, train_nir.txt, test_vis.txt, test_nir.txt",
    "manifest": "a CSV or Parquet file, a folder with manifest.csv, or folders train/visible/PID/*.jpg and so on",
}


def find(name: str) -> ModuleType:
    """The module of a data set; ValueError with the closest name if there is none."""
    if name not in NAMES:
        raise ArgumentError(f"no data set is called {name!r}{_closest(name, NAMES)}; known are {', '.join(NAMES)}")
    return importlib.import_module(f"vireid.data.datasets.{name}")


def load(spec: str | Path, **options: object) -> Table:
    """Load `sysu=PATH`, `regdb=PATH`, `llcm=PATH`, `manifest=FILE.csv`, or a bare PATH whose layout is detected.

    Options go to the loader (RegDB: trial=0..9). Raises DataError for bad data, ValueError for an unknown name or
    option.
    """
    name, path = split_spec(spec)
    loader = find(name).load
    known = list(inspect.signature(loader).parameters)[1:]
    for option in options:
        if option not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise ArgumentError(f"{name} has no option `{option}`{_closest(option, known)}; it {takes}")
    return dataclasses.replace(loader(path, **options), source=f"{name}={path}")


def split_spec(spec: str | Path) -> tuple[str, Path]:
    """(name, path) of `NAME=PATH` or of a bare path."""
    text = str(spec)
    name, equals, path = text.partition("=")
    if isinstance(spec, str) and equals and not Path(text).expanduser().exists():
        if not path:
            raise ArgumentError(f"{text!r}: a path must follow the equals sign")
        find(name)
        return name, Path(path).expanduser()
    return detect(spec), Path(text).expanduser()


def detect(root: str | Path) -> str:
    """Which layout stands at `root`; DataError that lists what each layout needs if it is none of them."""
    from vireid.errors import DataError

    root = Path(root).expanduser()
    if not root.exists():
        raise DataError(f"{root} does not exist; give a folder or a manifest, or NAME=PATH with NAME one of {NAMES}")
    here = {path.name for path in root.iterdir()} if root.is_dir() else set()
    idx = {path.name for path in (root / "idx").iterdir()} if (root / "idx").is_dir() else set()
    if root.is_file() and root.suffix.lower() in (".csv", ".parquet"):
        return "manifest"
    if here & {"manifest.csv", "manifest.parquet"}:
        return "manifest"
    if any((root / f"cam{camera}").is_dir() for camera in range(1, 7)):
        return "sysu"
    if {"Visible", "Thermal"} <= here or "train_visible_1.txt" in idx:
        return "regdb"
    if {"vis", "nir"} <= here or "train_vis.txt" in idx:
        return "llcm"
    if any(
        (root / s / m).is_dir() for s in ("train", "val", "test", "query", "gallery") for m in ("visible", "infrared")
    ):
        return "manifest"
    needs = "\n".join(f"  {name}: {what}" for name, what in LAYOUTS.items())
    came = ", ".join(sorted(here)[:8]) or ("a file" if root.is_file() else "an empty folder")
    raise DataError(f"{root} has none of the known layouts:\n{needs}\nfound: {came}. Give the folder that holds these")


def protocols_for(table: Table) -> dict[str, Protocol]:
    """The protocols of the table's data set, by name; a manifest's without ignore rules."""
    module = find(table.dataset)
    return module.protocols() if table.dataset == "manifest" else dict(module.protocols)


def protocol(name: str, table: Table, ignore: Iterable[str] | str | None = None) -> Protocol:
    """The protocol of this name for this table.

    For a manifest, `ignore` names the rules (see manifest.protocols); the name may carry them instead:
    `manifest/visible-to-infrared/ignore-frame`. Raises ValueError with the closest name, DataError for a missing
    column.
    """
    from vireid.data.table import COLUMNS
    from vireid.errors import DataError

    if table.dataset == "manifest":
        from vireid.data.datasets import manifest

        stem, mark, words = name.partition("/ignore-")
        rules = words.split("+") if mark else []
        if ignore is not None:
            rules += [word for word in ([ignore] if isinstance(ignore, str) else ignore) if word not in rules]
        known = manifest.protocols(rules)
        for word in rules:
            column = word.removeprefix("same:")
            if word not in ("none", "same-pid-and-camera") and column not in (*COLUMNS, *table.extras):
                have = [*COLUMNS, *table.extras, "same-pid-and-camera"]
                raise DataError(f"ignore rule {word!r} needs a column `{column}`{_closest(column, have)}; "
                                f"there are {', '.join(have[:-1])}")  # fmt: skip
        wanted = next((p for key, p in known.items() if key.partition("/ignore-")[0] == stem), None)
        if wanted is not None:
            return wanted
        stems = [key.partition("/ignore-")[0] for key in known]
        raise ArgumentError(f"no protocol is called {name!r}{_closest(stem, stems)}; a manifest has {', '.join(stems)}")
    if ignore is not None:
        raise ArgumentError(f"`ignore` belongs to manifest protocols; those of {table.dataset} are fixed")
    known = protocols_for(table)
    if name not in known:
        raise ArgumentError(
            f"{table.dataset} has no protocol {name!r}{_closest(name, list(known))}; it has {', '.join(known)}"
        )
    return known[name]


def _closest(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
