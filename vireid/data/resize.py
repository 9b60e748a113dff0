"""Resize: whole batches resampled on their device as Pillow resamples one picture, antialiased, Lanczos included."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Filter = Literal["bilinear", "bicubic", "lanczos"]


def _bilinear(x: float) -> float:
    return max(0.0, 1 - abs(x))


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    if abs(x) >= 3:
        return 0.0
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x / 3)


KERNELS = {"bilinear": (_bilinear, 1.0), "bicubic": (_bicubic, 2.0), "lanczos": (_lanczos, 3.0)}  # with their radius


@lru_cache(maxsize=32)
def resize_weights(source: int, target: int, filter: str) -> Tensor:
    """(target, source) float32: the weight of each source pixel in each target pixel, widened when shrinking."""
    kernel, radius = KERNELS[filter]
    scale = source / target
    stretch = max(scale, 1.0)  # shrinking averages over all pixels that fall together: no aliasing
    weights = torch.zeros(target, source, dtype=torch.float64)
    for place in range(target):
        center = (place + 0.5) * scale
        first = max(int(center - radius * stretch + 0.5), 0)
        last = min(int(center + radius * stretch + 0.5), source)
        row = [kernel((pixel - center + 0.5) / stretch) for pixel in range(first, last)]
        weights[place, first:last] = torch.tensor(row, dtype=torch.float64) / sum(row)
    return weights.float()


def resize(images: Tensor, size: tuple[int, int], filter: Filter = "bilinear") -> Tensor:
    """uint8 (N, C, h, w) to uint8 (N, C, *size), at most one gray level from Pillow's resize with the same filter.

    Two passes with rounding between them, the direction that shrinks more first, as Pillow 13 does (earlier ones always
    took the columns first). torch's own interpolation has no Lanczos filter.
    """
    (height, width), (h, w) = size, images.shape[-2:]
    values = images.float()

    def columns(values: Tensor) -> Tensor:
        return values if w == width else _rounded(values @ resize_weights(w, width, filter).to(values.device).T)

    def rows(values: Tensor) -> Tensor:
        return values if h == height else _rounded(resize_weights(h, height, filter).to(values.device) @ values)

    values = columns(rows(values)) if height * w < width * h else rows(columns(values))
    return values.to(torch.uint8)


def _rounded(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)  # halves go up, as in Pillow's fixed-point sums
