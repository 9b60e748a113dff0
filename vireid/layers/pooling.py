"""Pooling: maps (N, C, H, W) to pooled vectors (N, C), by generalized mean or plain average.

Generalized mean (Radenovic, Tolias, Chum: "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019):

    y_c = ( mean over positions of x_c^p )^(1/p)        p = 1 is the average, p -> infinity the maximum

Two readings exist in the code of AGW's authors: the visible-infrared code keeps p = 3 and adds 1e-12 after the mean;
their single-modality code (ReID-Survey) learns one scalar p, starting at 3, and clamps x at 1e-6 before the power.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vireid.errors import ArgumentError

Pooling = Literal["gem", "gem-learned", "average"]


def at_least_float32(x: Tensor) -> Tensor:
    """x, or x as float32 where it is half precision: a cube of bfloat16 keeps too few digits to be averaged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class GeM(nn.Module):
    """Generalized mean with a fixed exponent; negative values, which maps behind a ReLU have not, count as 0."""

    def __init__(self, p: float = 3.0, eps: float = 1e-12) -> None:
        super().__init__()
        self.p, self.eps = p, eps

    def forward(self, maps: Tensor) -> Tensor:
        x = at_least_float32(maps)
        return (x.clamp(min=0).pow(self.p).mean(dim=(2, 3)) + self.eps).pow(1 / self.p)


class LearnedGeM(nn.Module):
    """Generalized mean with one learned exponent for all channels."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.eps = eps

    def forward(self, maps: Tensor) -> Tensor:
        x = at_least_float32(maps)
        return x.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


class Average(nn.Module):
    """Mean over positions."""

    def forward(self, maps: Tensor) -> Tensor:
        return at_least_float32(maps).mean(dim=(2, 3))


def pool(kind: Pooling) -> nn.Module:
    """The layer by name: "gem" (p = 3, AGW and its followers), "gem-learned" (ReID-Survey) or "average"."""
    kinds = {"gem": GeM, "gem-learned": LearnedGeM, "average": Average}
    if kind not in kinds:
        raise ArgumentError(f"pooling is one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind]()
