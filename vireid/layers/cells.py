"""Cells: a two-stream network whose maps are averaged over a grid of cells, joined to one long vector.

    maps (N, C, h, w) -> mean of each of the R x K cells = pooled (N, C R K) -> BN neck = embedding

Maps of several layers can be read, each with a grid of its own: early ones see edges and their places, late ones parts
of clothing. The vector of each layer is then brought to the length sqrt(C R K), so that it counts by its size.

People stand upright in their crops, so that a cell holds the same part of the body in both pictures: what PCB (Sun et
al., ECCV 2018) does with stripes, without weights of its own. So a pretrained backbone serves before any training.
With `instance_norm` every channel of the maps first loses its mean over the positions of the picture and gets unit
variance (Ulyanov, Vedaldi, Lempitsky, "Instance Normalization", 2016): where a thing is then counts, not how much of it
the modality shows.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vireid.declaration import Count, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.choice import BackboneName
from vireid.layers.neck import bn_neck
from vireid.layers.pooling import at_least_float32
from vireid.layers.two_stream import Encoded, TwoStream, TwoStreamSettings

EPS = 1e-3  # added to the variance of a channel


Grid = tuple[Annotated[Count, Field(le=4)], Count, Count]  # layer, rows, columns


@settings
class CellsSettings(TwoStreamSettings):
    """EfficientNet-Lite0 up to its eleventh block, 8 x 2 cells of the last maps."""

    backbone: BackboneName = "lite0"
    """Pretrained network that the maps come from."""
    depth: Count | None = 11
    """Blocks that are kept of lite0 (16) or of a vision transformer (12); null: all."""
    attention: bool = False
    """Whether layer2 and layer3 have non-local blocks."""
    pooling: Literal["average"] = "average"
    """Pooling inside a cell."""
    cells: tuple[Grid, ...] = ((4, 8, 2),)
    """Layer whose maps are read, rows and columns of its cells, for each grid; layer 4 is the last."""
    instance_norm: bool = False
    """Whether each channel of a picture's maps is brought to mean 0 and variance 1 first."""


class Cells(nn.Module):
    """Maps (N, C, h, w) to the means of a grid (N, C rows columns); ArgumentError where it does not divide the maps."""

    def __init__(self, rows: int, columns: int, instance_norm: bool) -> None:
        super().__init__()
        self.rows, self.columns, self.instance_norm = rows, columns, instance_norm

    def forward(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[2:]
        if height % self.rows or width % self.columns:
            raise ArgumentError(
                f"maps of {height} x {width} cannot be cut into {self.rows} x {self.columns} equal cells; choose "
                "`cells`, or a size of the pictures, so that rows and columns divide them"
            )
        maps = at_least_float32(maps)
        if self.instance_norm:
            variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0, keepdim=True)
            maps = (maps - mean) * torch.rsqrt(variance + EPS)
        return F.avg_pool2d(maps, (height // self.rows, width // self.columns)).flatten(1)


class CellNetwork(TwoStream):
    """Maps images and modality to {"neck": (N, D), "pooled": (N, D)}.

    D is the sum over the grids of channels x rows x columns.
    """

    Settings = CellsSettings
    settings: CellsSettings

    def __init__(self, settings: CellsSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        self.read = nn.ModuleList(Cells(rows, columns, s.instance_norm) for _, rows, columns in s.cells)
        self.dim = sum(self.backbone.channels[layer] * rows * columns for layer, rows, columns in s.cells)
        self.neck = bn_neck(self.dim)

    def encode(self, images: Tensor, modality: Tensor) -> Encoded:
        """The last maps, pooled and embedding of normalized float images (N, 3, H, W) with modality (N,)."""
        maps = self.trunk.maps(self.stem(images, modality))
        vectors = [cells(maps[grid[0] - 1]) for cells, grid in zip(self.read, self.settings.cells, strict=True)]
        if len(vectors) > 1:
            vectors = [F.normalize(vector, dim=1) * math.sqrt(vector.shape[1]) for vector in vectors]
        pooled = torch.cat(vectors, dim=1)
        return Encoded(maps[-1], pooled, self.neck(pooled))
