"""Pixel cache: every picture of a table decoded and resized once, as one uint8 file that is mapped into memory.

For a table of R rows at size (H, W) the folder holds

    NAME.npy               uint8 (R, H, W, 3), RGB, rows in the table's order
    NAME.rows.npz          paths, and per row the source's bytes, times, height, width and a digest
    NAME.npy.partial, NAME.rows.partial, NAME.lock      while it is being built

NAME is made of the dataset, the size, the filter, the gray rule where it has a range, and a digest of the paths. The
default folder is ROOT/.vireid-cache, or $XDG_CACHE_HOME/vireid (~/.cache/vireid) when the dataset's folder cannot be
written.

A build that was killed continues with the rows that are missing. A source that changed (its bytes, or one of its times
and its content) is decoded again, it alone: all other rows are copied, from this file or from any other of the same
dataset, size and filter in the folder (the file of the whole dataset serves the file of its training rows). Two
processes that want the same file wait for each other. Pixels are those of vireid.images: `read`, then `resize`. A file
of an earlier version is made again.

Threads do the work: Pillow releases Python's lock while it decodes and resizes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vireid.data.cache_build import HEIGHT, WIDTH, Form, build, file_bytes, finished, stamps_of, unchanged
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.images import STRETCH, GrayRule, check_filter
from vireid.system import locked
from vireid.types import Size


@dataclass(frozen=True)
class CacheInfo:
    """What `vireid data cache` prints: the file, its size and how many of its rows are current."""

    path: Path
    bytes: int  # of the finished file
    rows: int
    current: int  # rows that are decoded and whose source has not changed since
    complete: bool


def default_folder(root: Path) -> Path:
    """ROOT/.vireid-cache when the dataset's folder can be written, otherwise the user's cache folder."""
    root = Path(root)
    inside = root / ".vireid-cache"
    if os.access(inside if inside.exists() else root, os.W_OK):
        return inside
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vireid"


def cache_path(
    table: Table, size: Size, folder: Path | None = None, filter: str = "lanczos", gray: GrayRule = STRETCH
) -> Path:
    """Where `pixels` keeps the array of this table at this size (height, width)."""
    folder = default_folder(table.root) if folder is None else Path(folder)
    return folder / f"{_family(table, Form(size, filter, gray), folder)}-{_digest(*map(str, table.path))}.npy"


def cache_info(
    table: Table, size: Size, folder: Path | None = None, filter: str = "lanczos", gray: GrayRule = STRETCH
) -> CacheInfo:
    """The cache file of this table, whether or not it exists yet; opens no picture."""
    path = cache_path(table, size, folder, filter, gray)
    stamps = stamps_of(table)
    record = finished(path)
    current = 0 if record is None else int(unchanged(record[1], stamps).sum())
    return CacheInfo(path, file_bytes(len(table), size), len(table), current, 0 < current == len(table))


def pixels(
    table: Table,
    size: Size,
    folder: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    filter: str = "lanczos",
    gray: GrayRule = STRETCH,
) -> np.ndarray:
    """The table's pictures as a read-only memory map, uint8 (R, height, width, 3) RGB in row order.

    The first call decodes and resizes with `workers` threads (all cores by default); later calls only compare the
    sources' sizes and times. `filter` is Pillow's: "lanczos" (AGW and most of the field), "bicubic" (Hi-CMD) or
    "bilinear" (MPANet); `gray` says how pictures of 16 bits become 8.
    Raises DataError for missing or unreadable pictures (all are listed) and OSError when the disk is full; neither
    leaves a partial file.
    """
    if len(size) != 2 or min(size) < 1:
        raise ArgumentError(f"size is (height, width) in pixels, both 1 or more, got {size}")
    if not len(table):
        raise DataError("the table has no rows, so there are no pictures to cache; choose a split that has images")
    path = cache_path(table, size, folder, filter, gray)
    stamps = stamps_of(table)
    if not _is_current(path, stamps):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot make the cache folder ({error.strerror}); name another one", str(path.parent)
            ) from error
        with locked(path.with_suffix(".lock")):
            if not _is_current(path, stamps):  # another process may have built it meanwhile
                build(table, Form(size, filter, gray), path, stamps, workers, progress)
    return np.load(path, mmap_mode="r")


def source_sizes(
    table: Table, size: Size, folder: Path | None = None, filter: str = "lanczos", gray: GrayRule = STRETCH
) -> np.ndarray:
    """(R, 2) int64 height and width of each upright picture before it was resized; `pixels` must have been called."""
    record = finished(cache_path(table, size, folder, filter, gray))
    if record is None:
        raise DataError("the pixel cache of this table does not exist yet; call vireid.data.cache.pixels first")
    return record[1][:, HEIGHT : WIDTH + 1]


# --- names ------------------------------------------------------------------------------------------------------------


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def _family(table: Table, form: Form, folder: Path) -> str:
    """Start of the names of all files that hold the same pictures in the same form."""
    root = Path(table.root).resolve()
    # A folder inside the dataset moves with it; any other one may serve several datasets and must tell them apart.
    inside = folder.resolve().is_relative_to(root)
    dataset = "".join(letter if letter.isalnum() or letter in "_." else "_" for letter in table.dataset)
    words = [dataset, f"{form.size[0]}x{form.size[1]}", check_filter(form.filter)]
    if form.gray != STRETCH:
        words.append(f"gray{form.gray.low:g}to{form.gray.high:g}")
    return "-".join(words + ([] if inside else [_digest(str(root))]))


def _is_current(path: Path, stamps: np.ndarray) -> bool:
    record = finished(path)
    return record is not None and len(record[1]) == len(stamps) and bool(unchanged(record[1], stamps).all())
