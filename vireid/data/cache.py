"""Pixel cache: every picture of a table decoded and resized once, as one uint8 file that is mapped into memory.

For a table of R rows at size (H, W) the folder holds

    NAME.npy               uint8 (R, H, W, 3), RGB, rows in the table's order
    NAME.rows.npz          paths, and per row the source's bytes, modification time, height and width
    NAME.npy.partial, NAME.rows.partial, NAME.lock      while it is being built

NAME is made of the dataset, the size, the filter and a digest of the paths. The default folder is ROOT/.vireid-cache,
or $XDG_CACHE_HOME/vireid (~/.cache/vireid) when the dataset's folder cannot be written.

A build that was killed continues with the rows that are missing. A source whose bytes or modification time changed is
decoded again, it alone: all other rows are copied, from this file or from any other of the same dataset, size and
filter in the folder (the file of the whole dataset serves the file of its training rows). Two processes that want the
same file wait for each other. Pixels are exactly those of Pillow: open, convert to RGB, resize.

Threads do the work: Pillow releases Python's lock while it decodes and resizes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image

from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.system import available_cores, locked

FILTERS = {name: Image.Resampling[name.upper()] for name in ("lanczos", "bicubic", "bilinear")}
CHUNK = 32  # pictures per task of a thread
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quota error
FLUSH_S = 2.0  # seconds between two records of what is done: a kill loses at most the work of so long
BYTES, MTIME_NS, HEIGHT, WIDTH, DONE = range(5)  # columns of the row record


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


def cache_path(table: Table, size: tuple[int, int], folder: Path | None = None, filter: str = "lanczos") -> Path:
    """Where `pixels` keeps the array of this table at this size (height, width)."""
    folder = default_folder(table.root) if folder is None else Path(folder)
    return folder / f"{_family(table, size, folder, filter)}-{_digest(*map(str, table.path))}.npy"


def cache_info(table: Table, size: tuple[int, int], folder: Path | None = None, filter: str = "lanczos") -> CacheInfo:
    """The cache file of this table, whether or not it exists yet; opens no picture."""
    path = cache_path(table, size, folder, filter)
    stamps = _stamps(table)
    record = _finished(path)
    current = 0 if record is None else int(_same(record[1], stamps).sum())
    return CacheInfo(path, _file_bytes(len(table), size), len(table), current, 0 < current == len(table))


def pixels(
    table: Table,
    size: tuple[int, int],
    folder: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    filter: str = "lanczos",
) -> np.ndarray:
    """The table's pictures as a read-only memory map, uint8 (R, height, width, 3) RGB in row order.

    The first call decodes and resizes with `workers` processes (all cores by default); later calls only compare the
    sources' sizes and times. `filter` is Pillow's: "lanczos" (AGW and most of the field), "bicubic" (Hi-CMD) or
    "bilinear" (MPANet).
    Raises DataError for missing or unreadable pictures (all are listed) and OSError when the disk is full; neither
    leaves a partial file.
    """
    if len(size) != 2 or min(size) < 1:
        raise ArgumentError(f"size is (height, width) in pixels, both 1 or more, got {size}")
    if not len(table):
        raise DataError("the table has no rows, so there are no pictures to cache; choose a split that has images")
    path = cache_path(table, size, folder, filter)
    stamps = _stamps(table)
    if not _is_current(path, stamps):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot make the cache folder ({error.strerror}); name another one", str(path.parent)
            ) from error
        with locked(path.with_suffix(".lock")):
            if not _is_current(path, stamps):  # another process may have built it meanwhile
                _build(table, size, path, stamps, workers, progress, filter)
    return np.load(path, mmap_mode="r")


def source_sizes(
    table: Table, size: tuple[int, int], folder: Path | None = None, filter: str = "lanczos"
) -> np.ndarray:
    """(R, 2) int64 height and width of each picture before it was resized; `pixels` must have been called."""
    record = _finished(cache_path(table, size, folder, filter))
    if record is None:
        raise DataError("the pixel cache of this table does not exist yet; call vireid.data.cache.pixels first")
    return record[1][:, HEIGHT : WIDTH + 1]


# --- names and records ------------------------------------------------------------------------------------------------


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def _family(table: Table, size: tuple[int, int], folder: Path, filter: str) -> str:
    """Start of the names of all files that hold the same pictures in the same form."""
    if filter not in FILTERS:
        raise ArgumentError(f"filter is one of {', '.join(FILTERS)}, got {filter!r}")
    root = Path(table.root).resolve()
    # A folder inside the dataset moves with it; any other one may serve several datasets and must tell them apart.
    inside = folder.resolve().is_relative_to(root)
    dataset = "".join(letter if letter.isalnum() or letter in "_." else "_" for letter in table.dataset)
    return "-".join([dataset, f"{size[0]}x{size[1]}", filter] + ([] if inside else [_digest(str(root))]))


def _rows_file(path: Path) -> Path:
    return path.with_suffix(".rows.npz")


def _file_bytes(rows: int, size: tuple[int, int]) -> int:
    return rows * size[0] * size[1] * 3 + 128  # the header of an .npy file is padded to 128 bytes at these shapes


def _stamps(table: Table) -> np.ndarray:
    """(R, 2) int64: bytes and modification time of every source."""
    stamps = np.empty((len(table), 2), dtype=np.int64)
    faults: list[tuple[str, str]] = []
    root = os.fspath(table.root)
    for row, name in enumerate(table.path.tolist()):
        try:
            found = os.stat(os.path.join(root, name))
            stamps[row] = found.st_size, found.st_mtime_ns
        except OSError as error:
            faults.append((name, error.strerror or str(error)))
    if faults:
        raise DataError(_unreadable(faults, len(table), root))
    return stamps


def _unreadable(faults: list[tuple[str, str]], total: int, root: str) -> str:
    shown = "".join(f"\n  {name}: {reason}" for name, reason in faults[:5])
    more = f"\n  and {len(faults) - 5} more" if len(faults) > 5 else ""
    return (
        f"{len(faults)} of {total} pictures under {root} cannot be read:{shown}{more}\n"
        "Copy these files again from the dataset, or leave them out of the table; `vireid data check` lists all of them"
    )


def _same(record: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    return (record[:, BYTES] == stamps[:, 0]) & (record[:, MTIME_NS] == stamps[:, 1]) & (record[:, DONE] == 1)


def _finished(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Paths (R,) and row record (R, 5) of a finished file, or None."""
    try:
        with np.load(_rows_file(path), allow_pickle=False) as stored:
            paths, record = stored["path"], stored["record"]
        shape = np.load(path, mmap_mode="r").shape
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"the cache file {path} is damaged ({error}); delete it and run again") from error
    return (paths, record) if len(paths) == len(record) == shape[0] else None


def _is_current(path: Path, stamps: np.ndarray) -> bool:
    record = _finished(path)
    return record is not None and len(record[1]) == len(stamps) and bool(_same(record[1], stamps).all())


# --- building ---------------------------------------------------------------------------------------------------------


def _build(
    table: Table,
    size: tuple[int, int],
    path: Path,
    stamps: np.ndarray,
    workers: int | None,
    progress: bool,
    filter: str,
) -> None:
    partial, record_file = path.with_suffix(".npy.partial"), path.with_suffix(".rows.partial")
    shape = (len(table), *size, 3)
    try:
        array, record = _open_partial(partial, record_file, shape)
        missing = ~_same(record, stamps)
        family = path.name.rpartition("-")[0]
        _copy_known(table, path.parent, family, stamps, array, record, missing)
        rows = np.flatnonzero(missing)
        record[rows, DONE] = 0
        faults = _decode_all(table, rows, size, filter, array, record, stamps, workers, progress)
        if faults:
            raise DataError(_unreadable(faults, len(table), os.fspath(table.root)))
        array.flush()
        rows_partial = path.with_suffix(".rows.npz.partial")
        with open(rows_partial, "wb") as file:
            np.savez(file, path=table.path.astype(np.str_), record=np.array(record))
        del array, record  # Windows renames no file that is mapped
        partial.replace(path)
        rows_partial.replace(_rows_file(path))
        record_file.unlink()
    except (DataError, OSError) as error:
        for leftover in (partial, record_file, path.with_suffix(".rows.npz.partial")):
            leftover.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise _disk_full(path.parent, _file_bytes(len(table), size)) from error
        raise


def _disk_full(folder: Path, need: int) -> OSError:
    free = shutil.disk_usage(folder).free
    return OSError(
        errno.ENOSPC,
        f"the pixel cache needs {need / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
        "free some space or name a cache folder on another disk",
        str(folder),
    )


def _open_partial(partial: Path, record_file: Path, shape: tuple[int, ...]) -> tuple[np.memmap, np.memmap]:
    """The half-built file and its record, as a killed build left them or new."""
    need = _file_bytes(shape[0], (shape[1], shape[2]))
    try:
        array, record = np.load(partial, mmap_mode="r+"), np.load(record_file, mmap_mode="r+")
        if array.shape == shape and array.dtype == np.uint8 and record.shape == (shape[0], 5):
            _set_aside(partial)
            return array, record
    except (FileNotFoundError, ValueError, EOFError):
        pass  # nothing there, or killed while the two were being made: start anew
    partial.unlink(missing_ok=True)
    record_file.unlink(missing_ok=True)
    if shutil.disk_usage(partial.parent).free < need:
        raise _disk_full(partial.parent, need)
    array = open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    _set_aside(partial)
    record = open_memmap(record_file, mode="w+", dtype=np.int64, shape=(shape[0], 5))
    return array, record


def _set_aside(file: Path) -> None:
    """Take all blocks of the file: a full disk must be an error now, not a signal at a later write to the map."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot set blocks aside
                    raise


def _copy_known(
    table: Table,
    folder: Path,
    family: str,
    stamps: np.ndarray,
    array: np.memmap,
    record: np.memmap,
    missing: np.ndarray,
) -> None:
    """Fill rows from finished files of the same pictures in the same form; clears them in `missing`."""
    paths = table.path.tolist()
    for sibling in sorted(folder.glob(f"{family}-*.npy")):
        if not missing.any():
            return
        known = None if sibling.name.rpartition("-")[0] != family else _finished(sibling)
        if known is None:
            continue
        place = {name: row for row, name in enumerate(known[0].tolist())}
        wanted = [(row, place[paths[row]]) for row in np.flatnonzero(missing).tolist() if paths[row] in place]
        if not wanted:
            continue
        here, there = np.array(wanted).T
        same = _same(known[1][there], stamps[here])
        here, there = here[same], there[same]
        stored = np.load(sibling, mmap_mode="r")
        for start in range(0, len(here), 1024):
            array[here[start : start + 1024]] = stored[there[start : start + 1024]]
        array.flush()
        record[here] = known[1][there]
        missing[here] = False


def _decode_all(
    table: Table,
    rows: np.ndarray,
    size: tuple[int, int],
    filter: str,
    array: np.memmap,
    record: np.memmap,
    stamps: np.ndarray,
    workers: int | None,
    progress: bool,
) -> list[tuple[str, str]]:
    """Decode these rows; returns (path, reason) of each picture that could not be read."""
    faults: list[tuple[str, str]] = []
    pending: list[Decoded] = []
    flushed = time.monotonic()

    def record_done() -> None:
        array.flush()  # first the pixels, then the word that they are there
        for decoded in pending:
            done = decoded.rows
            record[done, :2] = stamps[done]
            record[done, HEIGHT : WIDTH + 1] = decoded.sizes
            record[done, DONE] = 1
        record.flush()
        pending.clear()

    chunks = [rows[start : start + CHUNK].tolist() for start in range(0, len(rows), CHUNK)]
    pool = ThreadPoolExecutor(available_cores() if workers is None else max(workers, 1))
    with _bar(len(rows), progress) as advance, pool:
        tasks = [pool.submit(_decode, table, chunk, size, filter, array) for chunk in chunks]
        for task in as_completed(tasks):
            try:
                decoded = task.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            pending.append(decoded)
            faults += [(str(table.path[row]), reason) for row, reason in decoded.faults]
            advance(len(decoded.rows) + len(decoded.faults))
            if time.monotonic() - flushed > FLUSH_S:
                record_done()
                flushed = time.monotonic()
    record_done()
    return faults


@dataclass
class Decoded:
    """What became of one task: rows written with their sources' (height, width), and rows that could not be read."""

    rows: list[int]
    sizes: np.ndarray
    faults: list[tuple[int, str]]


def _decode(table: Table, rows: list[int], size: tuple[int, int], filter: str, array: np.memmap) -> Decoded:
    """Decode the pictures of one task straight into the half-built file."""
    done, sizes, faults = [], [], []
    for row in rows:
        file = os.fspath(table.full_path(row))
        try:  # Pillow raises any of these on a damaged file
            picture, source_size = decode(file, size, filter)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            faults.append((row, str(error).replace(file, "the file").replace(repr(file), "the file")))
            continue
        array[row] = picture
        done.append(row)
        sizes.append(source_size)
    return Decoded(done, np.array(sizes, dtype=np.int64).reshape(-1, 2), faults)


def decode(file: str | Path, size: tuple[int, int], filter: str = "lanczos") -> tuple[np.ndarray, tuple[int, int]]:
    """One picture as uint8 (height, width, 3) RGB, and the (height, width) it had before the resize."""
    with Image.open(file) as image:
        return fit(image, size, filter), (image.height, image.width)


def fit(image: Image.Image, size: tuple[int, int], filter: str = "lanczos") -> np.ndarray:
    """An open picture as uint8 (height, width, 3) RGB; ValueError where it holds more than 8 bits a channel."""
    if image.mode.startswith(("I", "F")):
        # Pillow would cut such values at 255 without a word
        raise ArgumentError(f"holds more than 8 bits a channel (mode {image.mode}); convert it to 8 bits first")
    return np.asarray(image.convert("RGB").resize((size[1], size[0]), FILTERS[filter]))


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error when that is a terminal; yields the function that moves it."""
    if not (progress and total and sys.stderr.isatty()):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("decode and resize"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task, drawn = bar.add_task("", total=total), 0.0

        def advance(count: int) -> None:
            nonlocal drawn
            bar.advance(task, count)
            if time.monotonic() - drawn > 0.1:
                bar.refresh()
                drawn = time.monotonic()

        yield advance
        bar.refresh()
