"""Stripes: maps cut into equal horizontal bands, each pooled and reduced by weights of its own.

Sun, Zheng, Yang, Tian, Wang: "Beyond Part Models: Person Retrieval with Refined Part Pooling", ECCV 2018 (PCB):

    maps (N, C, h, w) -> S bands of h/S rows -> pooled (N, C) each -> 1x1 convolution, batch norm, ReLU = part (N, d)

On a pooled vector a 1x1 convolution is a linear layer; its bias is left out, because the batch norm subtracts it again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vireid.errors import ArgumentError
from vireid.layers.pooling import Pooling, pool


class Stripes(nn.Module):
    """Maps (N, channels, h, w) to one vector per stripe from top to bottom, (N, parts, dim), none of them negative.

    Raises ValueError for fewer than one part or dimension, and for maps whose rows the parts do not divide.
    """

    def __init__(self, channels: int, parts: int, dim: int, pooling: Pooling = "average") -> None:
        super().__init__()
        if parts < 1 or dim < 1:
            raise ArgumentError(
                f"stripes need parts and a dimension of 1 or more, got {parts} parts of dimension {dim}"
            )
        self.parts, self.dim = parts, dim
        self.pool = pool(pooling)
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU()) for _ in range(parts)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:
        parts = zip(self.reduce, bands(maps, self.parts), strict=True)
        return torch.stack([reduce(self.pool(band)) for reduce, band in parts], dim=1)


def bands(maps: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Maps (N, C, h, w) cut into `parts` bands (N, C, h / parts, w) from the top down; ValueError if h does not fit."""
    rows = maps.shape[2]
    if rows % parts:
        raise ArgumentError(
            f"maps of {rows} rows cannot be cut into {parts} equal stripes; choose an image height that is a "
            f"multiple of {16 * parts} (where a row stands for 16 pixels) or another number of parts"
        )
    return maps.chunk(parts, dim=2)
