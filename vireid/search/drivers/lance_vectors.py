"""Vectors of a segment (lance_segment.py), 20 bits a number: steps of the row, 16 bits and 4 in files of their own.

A row's step is its largest number divided by 2^19 - 1. The upper 16 bits order candidates, all 20 give the similarity:
the error of a number is at most half a step, together some 1e-7 in the product with a unit vector, where float32 itself
leaves 6e-8. Half precision would leave 1e-5, float32 would take 2 KB a row of 512 numbers in place of 1.3.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HIGH, LOW, STEP = "high", "low", "step"  # file names
LOW_BITS = 4
LARGEST = (1 << 19) - 1  # steps
Rows = np.ndarray | slice  # numbers of rows, (n,) int64


@dataclass(frozen=True)
class Packed:
    """`high` (n, D) int16 and `low` (n, (D + 1) // 2) uint8, two numbers' bits in each; `step` (n,) float32."""

    high: np.ndarray
    low: np.ndarray
    step: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Packed:
        """Vectors (n, D) float32."""
        step = (np.abs(vectors).max(1, initial=np.finfo(np.float32).tiny) / LARGEST).astype(np.float32)
        steps = np.rint(vectors / step[:, None]).astype(np.int32)
        low = (steps & ((1 << LOW_BITS) - 1)).astype(np.uint8)
        if low.shape[1] % 2:
            low = np.pad(low, ((0, 0), (0, 1)))
        return cls((steps >> LOW_BITS).astype(np.int16), low[:, ::2] | low[:, 1::2] << LOW_BITS, step)

    @classmethod
    def mapped(cls, folder: Path, rows: int, dim: int) -> Packed:
        """The files of a folder; OSError or ValueError where they are missing or not as long as they should be."""
        high = _mapped(folder / HIGH, np.dtype(np.int16), (rows, dim), ahead=True)
        low = _mapped(folder / LOW, np.dtype(np.uint8), (rows, (dim + 1) // 2))
        return cls(high, low, np.array(_mapped(folder / STEP, np.dtype(np.float32), (rows,))))

    def __getitem__(self, rows: Rows) -> Packed:
        return Packed(self.high[rows], self.low[rows], self.step[rows])

    @property
    def vectors(self) -> np.ndarray:
        """(n, D) float32."""
        steps = self.high.astype(np.int32)
        steps <<= LOW_BITS
        pairs = np.stack([self.low & ((1 << LOW_BITS) - 1), self.low >> LOW_BITS], 2)
        steps |= pairs.reshape(len(pairs), -1)[:, : steps.shape[1]]
        return steps.astype(np.float32) * self.step[:, None]

    def rough(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Products (n,) of some rows by their upper bits with a unit vector (D,), off by at most `slack`."""
        products = np.einsum("nd,d->n", np.take(self.high, rows, 0).astype(np.float32), query)
        return (products + query.sum() / 2) * self.step[rows] * (1 << LOW_BITS)

    @property
    def slack(self) -> float:
        steps = float(self.step.max(initial=0)) * (1 << LOW_BITS) / 2
        return steps * self.high.shape[1] ** 0.5


class Writer:
    """Writes the files of a folder, some rows after the other."""

    def __init__(self, folder: Path) -> None:
        self._files = [(folder / name).open("wb") for name in (HIGH, LOW, STEP)]

    def write(self, packed: Packed) -> None:
        for file, numbers in zip(self._files, (packed.high, packed.low, packed.step), strict=True):
            numbers.tofile(file)

    def close(self) -> None:
        """Everything is on the disk afterwards."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()


def slices(rows: int, size: int) -> Iterator[slice]:
    """All rows, `size` at a time."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _mapped(path: Path, kind: np.dtype, shape: tuple[int, ...], ahead: bool = False) -> np.ndarray:
    """A file of numbers, whose pages are read one by one; `ahead`: the system begins with all now.

    Without `ahead` the first searches wait for hundreds of pages each.
    """
    expected = kind.itemsize * int(np.prod(shape))
    if path.stat().st_size != expected:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, expected {expected}")
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        if ahead:
            pages.madvise(mmap.MADV_WILLNEED)
        pages.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(pages, kind).reshape(shape)
