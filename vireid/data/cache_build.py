"""Building of the pixel cache: its records, and pictures decoded by threads straight into the half-built file.

    NAME.npy.partial, NAME.rows.partial     while it is being built; a killed build resumes with them

What is done is recorded row by row with the number of the reader that decoded it, so rows of an earlier reader, or by
another range of gray values, are decoded again. A source is unchanged when bytes, modification time and change time
are. Where the change time alone differs (the data set was copied, or files of equal size and time changed places) its
content is compared.
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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from vireid.data.table import Table
from vireid.errors import DataError, PictureError
from vireid.images import STRETCH, GrayRule, read, resize
from vireid.system import available_cores
from vireid.types import Size

CHUNK = 32  # pictures per task of a thread
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quota error
FLUSH_S = 2.0  # seconds between two records of what is done: a kill loses at most the work of so long
BYTES, MTIME_NS, CTIME_NS, HEIGHT, WIDTH, DONE, DIGEST = range(7)  # columns of the row record
COLUMNS = 7
READER = 3  # what DONE holds for a row that is there; 1 did not apply the EXIF orientation, 2 kept no digest


@dataclass(frozen=True)
class Form:
    """The form in which pictures are kept: (height, width), Pillow's filter and the rule for gray of many bits."""

    size: Size
    filter: str = "lanczos"
    gray: GrayRule = STRETCH


# --- records ----------------------------------------------------------------------------------------------------------


def rows_file(path: Path) -> Path:
    """The record beside a cache file."""
    return path.with_suffix(".rows.npz")


def file_bytes(rows: int, size: Size) -> int:
    """Bytes of a finished file."""
    return rows * size[0] * size[1] * 3 + 128  # the header of an .npy file is padded to 128 bytes at these shapes


def stamps_of(table: Table) -> np.ndarray:
    """(R, 4) int64: bytes, modification time and change time of every source, and its reader."""
    stamps = np.empty((len(table), 4), dtype=np.int64)
    stamps[:, 3] = readers_of(table)
    faults: list[str] = []
    root = os.fspath(table.root)
    for row, name in enumerate(table.path.tolist()):
        try:
            status = os.stat(os.path.join(root, name))
            stamps[row, :3] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        except OSError as error:
            faults.append(f"{name}: {error.strerror or error}")
    if faults:
        raise DataError(_unreadable(faults, len(table), root))
    return stamps


def readers_of(table: Table) -> np.ndarray:
    """(R,) int64: what DONE holds for each row: READER, and another number for each range of a row's own."""
    readers = np.full(len(table), READER, dtype=np.int64)
    if table.thermal_ranges is not None:
        own = np.flatnonzero(~np.isnan(table.thermal_ranges[:, 0]))
        words = [f"{READER} {ends}" for ends in table.thermal_ranges[own].tolist()]
        digests = {word: hashlib.sha256(word.encode()).digest()[:8] for word in set(words)}
        readers[own] = [int.from_bytes(digests[word], "big", signed=True) for word in words]
    return readers


def _unreadable(faults: list[str], total: int, root: str) -> str:
    shown = "".join(f"\n  {fault}" for fault in faults[:5])
    more = f"\n  and {len(faults) - 5} more" if len(faults) > 5 else ""
    return (
        f"{len(faults)} of {total} pictures under {root} cannot be read:{shown}{more}\n"
        "Mend these files, or leave them out of the table; `vireid data check` lists all of them"
    )


def unchanged(record: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    """(R,) whether a row was decoded by this reader and its source has not changed since."""
    return _alike(record, stamps) & (record[:, CTIME_NS] == stamps[:, 2])


def _alike(record: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    """(R,) whether a row was decoded by this reader and its source has the bytes and the modification time of then."""
    return (
        (record[:, BYTES] == stamps[:, 0]) & (record[:, MTIME_NS] == stamps[:, 1]) & (record[:, DONE] == stamps[:, 3])
    )


def _content(file: Path) -> int:
    """A digest of what a file holds, as the record keeps it."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def finished(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Paths (R,) and row record (R, COLUMNS) of a finished file, or None; None too for that of an earlier reader."""
    try:
        with np.load(rows_file(path), allow_pickle=False) as stored:
            paths, record = stored["path"], stored["record"]
        shape = np.load(path, mmap_mode="r").shape
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"the cache file {path} is damaged ({error}); delete it and run again") from error
    return (paths, record) if record.shape == (len(paths), COLUMNS) and len(paths) == shape[0] else None


# --- building ---------------------------------------------------------------------------------------------------------


def build(table: Table, form: Form, path: Path, stamps: np.ndarray, workers: int | None, progress: bool) -> None:
    """Make or complete the file of a table; the caller holds its lock. Errors as of `cache.pixels`."""
    partial, record_file = path.with_suffix(".npy.partial"), path.with_suffix(".rows.partial")
    shape = (len(table), *form.size, 3)
    try:
        array, record = _open_partial(partial, record_file, shape)
        missing = ~unchanged(record, stamps)
        family = path.name.rpartition("-")[0]
        _copy_known(table, path.parent, family, stamps, array, record, missing)
        rows = np.flatnonzero(missing)
        record[rows, DONE] = 0
        faults = _decode_all(table, rows, form, array, record, stamps, workers, progress)
        if faults:
            raise DataError(_unreadable(faults, len(table), os.fspath(table.root)))
        array.flush()
        rows_partial = path.with_suffix(".rows.npz.partial")
        with open(rows_partial, "wb") as file:
            np.savez(file, path=table.path.astype(np.str_), record=np.array(record))
        del array, record  # Windows renames no file that is mapped
        partial.replace(path)
        rows_partial.replace(rows_file(path))
        record_file.unlink()
    except (DataError, OSError) as error:
        for leftover in (partial, record_file, path.with_suffix(".rows.npz.partial")):
            leftover.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise _disk_full(path.parent, file_bytes(len(table), form.size)) from error
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
    need = file_bytes(shape[0], (shape[1], shape[2]))
    try:
        array, record = np.load(partial, mmap_mode="r+"), np.load(record_file, mmap_mode="r+")
        if array.shape == shape and array.dtype == np.uint8 and record.shape == (shape[0], COLUMNS):
            _set_aside(partial)
            return array, record
    except (FileNotFoundError, ValueError, EOFError):
        pass  # nothing there, or killed while the two were being made: start again
    partial.unlink(missing_ok=True)
    record_file.unlink(missing_ok=True)
    if shutil.disk_usage(partial.parent).free < need:
        raise _disk_full(partial.parent, need)
    array = open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    _set_aside(partial)
    record = open_memmap(record_file, mode="w+", dtype=np.int64, shape=(shape[0], COLUMNS))
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
        known = None if sibling.name.rpartition("-")[0] != family else finished(sibling)
        if known is None:
            continue
        place = {name: row for row, name in enumerate(known[0].tolist())}
        wanted = [(row, place[paths[row]]) for row in np.flatnonzero(missing).tolist() if paths[row] in place]
        if not wanted:
            continue
        here, there = np.array(wanted).T
        same = unchanged(known[1][there], stamps[here])
        for at in np.flatnonzero(_alike(known[1][there], stamps[here]) & ~same).tolist():
            same[at] = known[1][there[at], DIGEST] == _content(table.full_path(int(here[at])))
        here, there = here[same], there[same]
        stored = np.load(sibling, mmap_mode="r")
        for start in range(0, len(here), 1024):
            array[here[start : start + 1024]] = stored[there[start : start + 1024]]
        array.flush()
        record[here] = known[1][there]
        record[here, CTIME_NS] = stamps[here, 2]
        missing[here] = False


def _decode_all(
    table: Table,
    rows: np.ndarray,
    form: Form,
    array: np.memmap,
    record: np.memmap,
    stamps: np.ndarray,
    workers: int | None,
    progress: bool,
) -> list[str]:
    """Decode these rows; returns what is wrong with each picture that could not be read."""
    faults: list[str] = []
    pending: list[Decoded] = []
    flushed = time.monotonic()

    def record_done() -> None:
        array.flush()  # first the pixels, then the word that they are there
        for decoded in pending:
            done = decoded.rows
            record[done, :3] = stamps[done, :3]
            record[done, HEIGHT : WIDTH + 1] = decoded.sizes
            record[done, DIGEST] = decoded.digests
            record[done, DONE] = stamps[done, 3]
        record.flush()
        pending.clear()

    chunks = [rows[start : start + CHUNK].tolist() for start in range(0, len(rows), CHUNK)]
    pool = ThreadPoolExecutor(available_cores() if workers is None else max(workers, 1))
    with _bar(len(rows), progress) as advance, pool:
        tasks = [pool.submit(_decode, table, chunk, form, array) for chunk in chunks]
        for task in as_completed(tasks):
            try:
                decoded = task.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            pending.append(decoded)
            faults += decoded.faults
            advance(len(decoded.rows) + len(decoded.faults))
            if time.monotonic() - flushed > FLUSH_S:
                record_done()
                flushed = time.monotonic()
    record_done()
    return faults


@dataclass
class Decoded:
    """What became of one task: rows written with their sources' (height, width), and what is wrong with the others."""

    rows: list[int]
    sizes: np.ndarray
    digests: list[int]
    faults: list[str]


def _decode(table: Table, rows: list[int], form: Form, array: np.memmap) -> Decoded:
    """Decode the pictures of one task straight into the half-built file."""
    done, sizes, digests, faults = [], [], [], []
    for row in rows:
        try:
            own = replace(form, gray=table.gray(row, form.gray))
            array[row], source_size = decode(table.full_path(row), str(table.path[row]), own)
        except PictureError as error:
            faults.append(str(error))
            continue
        done.append(row)
        sizes.append(source_size)
        digests.append(_content(table.full_path(row)))
    return Decoded(done, np.array(sizes, dtype=np.int64).reshape(-1, 2), digests, faults)


def decode(file: Path, name: str, form: Form) -> tuple[np.ndarray, Size]:
    """One picture as uint8 (height, width, 3) RGB, and the (height, width) it had before the resize."""
    picture = read(file, name, gray=form.gray)
    return resize(picture, form.size, form.filter), (picture.height, picture.width)


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
