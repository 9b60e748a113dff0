"""Reading file names: what the loaders share. No picture is opened here."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vireid.arrays_file import read_arrays
from vireid.data.table import Table
from vireid.errors import DataError
from vireid.images import SUFFIXES
from vireid.system import printable
from vireid.table_file import INT64_DIGITS, is_digits

KEYPOINTS_FILE = "keypoints.npz"


def existing_folder(root: Path | str, dataset: str) -> Path:
    """The folder as a Path; DataError if it is missing or not a folder."""
    root = Path(root).expanduser()
    if not root.is_dir():
        came = "a file" if root.is_file() else "nothing"
        raise DataError(f"{dataset}: expected a folder at {root}, found {came}; give the folder that holds the data")
    return root


def folders(parent: Path | str) -> Iterator[os.DirEntry[str]]:
    """Sub-folders in sorted order, hidden ones left out."""
    with os.scandir(parent) as entries:
        inner = sorted((e for e in entries if e.is_dir() and not e.name.startswith(".")), key=lambda e: e.name)
    check_names(parent, [entry.name for entry in inner])
    yield from inner


def pictures_in(folder: Path | str) -> list[str]:
    """Sorted names of the image files directly inside, hidden files and other kinds (Thumbs.db) left out."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_file()]
    names = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    check_names(folder, names)
    return names


def check_names(folder: Path | str, names: list[str]) -> None:
    """DataError for names that are not text, which no table and no file of results can hold."""
    if broken := [printable(name) for name in names if printable(name) != name]:
        raise DataError(f"{folder}: names that are not valid UTF-8: {some(broken)}; rename these files")


def read_text(path: Path, purpose: str) -> str:
    """Text of a small list file; DataError naming its purpose if it is missing or not text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {purpose}; copy it from the release") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} ({purpose}) cannot be read: {error}; copy it again from the release") from None


def read_ids(path: Path, purpose: str) -> list[int]:
    """Identities of a file that holds integers between commas."""
    text = read_text(path, purpose)
    words = [word for word in re.split(r"[,\s]+", text) if word]
    wrong = [word[:40] for word in words if not is_digits(word) or len(word) > INT64_DIGITS]
    if wrong or not words:
        came = f"{wrong[0]!r}" if wrong else "an empty file"
        raise DataError(f"{path}: expected integers between commas ({purpose}), came {came}; copy it from the release")
    return [int(word) for word in words]


def read_pairs(path: Path, purpose: str) -> tuple[list[str], list[int]]:
    """Paths (forward slashes) and labels of a file with one `PATH LABEL` a line, each picture once."""
    label_of: dict[str, int] = {}
    first: dict[str, int] = {}
    for number, line in enumerate(read_text(path, purpose).splitlines(), 1):
        if not line.strip():
            continue
        *words, label = line.strip().rsplit(maxsplit=1)
        if not words or not is_digits(label) or len(label) > INT64_DIGITS:
            raise DataError(
                f"{path}, line {number}: expected `PATH LABEL`, got {line[:200]!r}; copy it from the release"
            )
        name = posixpath.normpath(words[0].replace("\\", "/"))
        if name in label_of:
            raise DataError(
                f"{path}, line {number}: {name} is listed twice, first in line {first[name]}; a doubled picture would "
                "count twice in query and gallery: copy the list from the release"
            )
        label_of[name], first[name] = int(label), number
    if not label_of:
        raise DataError(f"{path} is empty: {purpose}; copy it from the release")
    return list(label_of), list(label_of.values())


def attach_keypoints(table: Table) -> Table:
    """The table with `extras["keypoints"]` (R, 17, 3) float32 when ROOT/keypoints.npz exists.

    A path that the file does not know gets NaN. The file holds `path` (K,) relative to ROOT and `keypoints` (K, 17, 3):
    x, y in pixels and visibility.
    """
    file = table.root / KEYPOINTS_FILE
    if not file.is_file():
        return table
    try:
        arrays = read_arrays(file)
        paths, points = np.atleast_1d(arrays["path"]), np.asarray(arrays["keypoints"], dtype=np.float32)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{file}: expected arrays `path` (K,) and `keypoints` (K, 17, 3), came {error}") from None
    if points.shape != (len(paths), 17, 3):
        raise DataError(f"{file}: expected keypoints of shape ({len(paths)}, 17, 3), came {points.shape}")
    rows = {str(path): row for row, path in enumerate(paths)}
    where = np.array([rows.get(str(path), -1) for path in table.path], dtype=np.int64)
    column = np.full((len(table), 17, 3), np.nan, dtype=np.float32)
    column[where >= 0] = points[where[where >= 0]]
    return replace(table, extras={**table.extras, "keypoints": column})


def some(values: Sequence[object] | np.ndarray, limit: int = 10) -> str:
    """The first values in words, with how many more there are."""
    shown = ", ".join(str(value) for value in list(values)[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")
