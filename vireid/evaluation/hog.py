"""HOG: histograms of oriented gradients of gray pictures, a description that nobody trained; what training must beat.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005. With g the square root of the gray
values:

    size, angle = length and direction of (dg/dx, dg/dy), the direction without its sign: 0 to 180 degrees
    cell        of 8 x 8 pixels: every pixel votes with its size for the two nearest of 9 directions, 20 degrees apart
    block       of 2 x 2 cells, one beginning at every cell: v -> v / sqrt(|v|^2 + e^2), cut at 0.2, and divided again
                (L2-Hys)

Deviation: pixels vote for their own cell alone and with equal weight, without the paper's interpolation between cells
and its Gaussian window over a block.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vireid.data import cache
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import Embeddings
from vireid.types import ResizeFilter, Size

CELL, BINS, CLIP, EPS = 8, 9, 0.2, 1e-3
SIZE: Size = (128, 64)
FILTER: ResizeFilter = "lanczos"
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # of red, green, blue: ITU-R BT.601
AT_ONCE = 128  # pictures, so that the arrays of a step stay small


def hog(gray: np.ndarray) -> np.ndarray:
    """Vectors (N, D) float32 of gray pictures (N, H, W), values 0 to 255; D is (H/8 - 1) (W/8 - 1) 36.

    Rows and columns that fill no cell are left out. ArgumentError for another shape and for pictures without a block.
    """
    if gray.ndim != 3 or min(gray.shape[1:]) < 2 * CELL:
        raise ArgumentError(f"expected gray pictures (N, H, W) of {2 * CELL} pixels or more a side, got {gray.shape}")
    rows, columns = gray.shape[1] // CELL, gray.shape[2] // CELL
    dy, dx = np.gradient(np.sqrt(gray.astype(np.float32)), axis=(1, 2))
    inside = np.s_[:, : rows * CELL, : columns * CELL]
    size, angle = np.hypot(dx, dy)[inside], (np.arctan2(dy, dx)[inside] % np.pi) * (BINS / np.pi)
    cells = np.empty((len(gray), rows, columns, BINS), dtype=np.float32)
    for direction in range(BINS):
        away = np.abs((angle - direction + BINS / 2) % BINS - BINS / 2)  # around the circle of directions
        votes = size * np.maximum(0, 1 - away)
        cells[..., direction] = votes.reshape(len(gray), rows, CELL, columns, CELL).sum(axis=(2, 4))
    corners = [cells[:, i : rows - 1 + i, j : columns - 1 + j] for i in (0, 1) for j in (0, 1)]
    blocks = _unit(np.minimum(_unit(np.concatenate(corners, axis=3)), CLIP))
    return blocks.reshape(len(gray), -1)


def hog_embeddings(table: Table, size: Size = SIZE, folder: Path | None = None, progress: bool = True) -> Embeddings:
    """HOG vectors of every picture of the table as embeddings, which any protocol measures.

    `folder` is that of the pixel cache. Raises DataError for a table without rows and for unreadable pictures.
    """
    if not len(table):
        raise DataError("the table has no rows to describe; check the split")
    pixels = cache.pixels(table, size, folder=folder, progress=progress, filter=FILTER)
    parts = [hog(pixels[start : start + AT_ONCE] @ LUMA) for start in range(0, len(table), AT_ONCE)]
    stamp = {"layer": "HOG", "flip": "none", "size": f"{size[0]}x{size[1]} {FILTER}"}
    return Embeddings(np.concatenate(parts), table, stamp)


def _unit(blocks: np.ndarray) -> np.ndarray:
    """Blocks (..., 36) divided by their length."""
    return blocks / np.sqrt(np.square(blocks).sum(axis=-1, keepdims=True) + EPS**2)
