"""System: files that are written whole or not at all, locks, cores, memory, the device."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from vireid.errors import ArgumentError, DiskFull

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # of mallopt, in malloc.h of glibc
KEPT_BYTES = 2**31 - 1  # free memory at the end of the heap from which it is given back; the largest C int
SEPARATE_BYTES = 2**30  # size from which a block is mapped, and given back, by itself
STEP_BYTES = 2**26  # by which the heap grows
MALLOC_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of Linux: CUDA, ROCm, and both in WSL
SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota reached, file size limit


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that is flushed and renamed to `path` when the block succeeds and removed when it fails.

    Raises DiskFull where the file did not fit.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        if os.name != "nt":  # the rename itself has to reach the disk; Windows has no handle for a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException as error:
        for left in (partial, partial.with_name(f"{partial.name}.partial")):  # the second is save_embedder's own
            left.unlink(missing_ok=True)
        if no_space(error):
            raise DiskFull(path) from error
        raise


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left of `replacing` in this folder."""
    for left in folder.glob(".*.partial"):
        left.unlink(missing_ok=True)


def printable(name: str) -> str:
    """A file's name as text that can be logged: bytes that are not UTF-8 are shown as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def file_digest(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder, whatever other processes do to them meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.path.getsize(os.path.join(place, name))
    return size


def no_space(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that a file did not fit on the disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in SPACE_ERRORS:
            return True
        if any(f"(os error {number})" in str(error) for number in SPACE_ERRORS):  # how safetensors reports it
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all threads and processes that lock this path; the system releases the lock of a killed process.

    The file at `path` stays: removing it would let a third process lock a new file of the same name. Not reentrant.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process or thread that holds %s", path)
        lock.acquire(poll_interval=0.01)
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a thread or process is inside `locked(path)`. On Windows another one that asks may be taken for it."""
    try:
        import fcntl
    except ImportError:
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who ask do not see each other
    except BlockingIOError:
        return True
    except OSError:  # nobody locked it so far, or it is not for us to read
        return False
    return False


def available_cores() -> int:
    """The number of cores that this process may use, which a container or batch system may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def keep_freed_memory() -> bool:
    """Let this process use freed memory again instead of giving it back after every large tensor; whether it does.

    glibc (`man 3 mallopt`) returns large blocks to the system when they are freed, and the system clears every page of
    the next one: up to a third of the time of a network on the CPU. A process then holds as much as it needed at once,
    and up to KEPT_BYTES at the end of its heap when all is freed. Nothing changes without glibc, or where the user has
    set one of MALLOC_VARIABLES.
    """
    if sys.platform != "linux" or any(name in os.environ for name in MALLOC_VARIABLES):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    library.mallopt(M_TOP_PAD, STEP_BYTES)
    # some versions of glibc refuse a threshold above 32 MiB: there no block is mapped by itself
    return bool(library.mallopt(M_MMAP_THRESHOLD, SEPARATE_BYTES) or library.mallopt(M_MMAP_MAX, 0))


def fast_layout(images: torch.Tensor) -> torch.Tensor:
    """The same images (N, C, H, W), on a CPU laid out channels last: all that a network makes of them then is so too.

    A CPU's depthwise and grouped convolutions, and the gradients of all, are faster that way. Values do not change, but
    sums are taken in another order.
    """
    import torch

    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def has_gpu() -> bool:
    """Whether torch computes on a GPU here; on Linux without a driver of one torch is not imported to say so."""
    if sys.platform == "linux" and not any(map(os.path.exists, GPU_DEVICES)):
        try:
            ctypes.CDLL("libcuda.so.1")  # the driver's library, where a container hides the devices
        except OSError:
            return False
    import torch

    return torch.cuda.is_available()


def choose_device(name: str = "auto") -> torch.device:
    """The GPU where there is one and "auto" is given; ValueError for a device that is not here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises AssertionError
        reason = str(error).partition("\n")[0]
        raise ArgumentError(f"device {name!r} cannot be used here ({reason}); take cpu, cuda or auto") from error
    return device
