"""Network of CM-LSP-GE: AGW's two-stream network whose neck is the global enhancement, and horizontal stripes.

Wang, Li, Ma: "Cross-modal Local Shortest Path and Global Enhancement for Visible-Thermal Person Re-Identification",
arXiv 2022; written from the published text, which does not define the enhancement or the widths.

    maps (N, 2048, h, w) -> GeM = g (N, 2048) -> BN = eg (N, 2048), the enhanced global vector
                         -> 6 stripes (N, 256) each (layers/stripes.py)
    embedding: [eg, stripe 1 .. stripe 6], each scaled as its share in the cosine demands
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from vireid.declaration import Count, Index, Number, settings
from vireid.layers.neck import bn_neck
from vireid.layers.pooling import Pooling
from vireid.layers.stripes import Stripes
from vireid.layers.two_stream import TwoStream, TwoStreamSettings

Enhancement = Literal["bn", "bn_weight"]


@settings
class GlobalAndStripesSettings(TwoStreamSettings):
    """AGW's network with enhancement and stripes; the paper leaves most of them open."""

    ge: Enhancement = "bn"
    """Global enhancement eg: batch norm of g (bn), or g gated by its batch norm (bn_weight)."""
    parts: Index = 6
    """Stripes, which must divide the rows of the maps; 0 is the global model."""
    part_dim: Count = 256
    """Dimension of a stripe."""
    stripe_pooling: Pooling = "gem"
    """Pooling of the stripes."""
    stripe_share: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Share of the stripes in the cosine of the deployed embedding."""


class BatchNormGate(nn.Module):
    """g (N, dim) to sigmoid(w BN(g)) g, with w = |weight of the BN| / its sum over channels (as in NAM attention)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bn = bn_neck(dim)

    def forward(self, pooled: Tensor) -> Tensor:
        weight = self.bn.weight.abs()
        return torch.sigmoid(weight / weight.sum() * self.bn(pooled)) * pooled


class GlobalAndStripes(TwoStream):
    """Maps images and modality to the deployed embedding and what it is made of, by layer name.

    {"joined": (N, D + parts part_dim), "neck": eg (N, D), "pooled": g (N, D), "stripes": (N, parts part_dim)}, D the
    channels of the maps. The cosine of joined vectors is (1 - stripe_share) times that of eg plus stripe_share times
    the mean of those of the stripes, each with its own. parts=0 leaves {"neck", "pooled"}.
    """

    Settings = GlobalAndStripesSettings
    settings: GlobalAndStripesSettings

    def __init__(self, settings: GlobalAndStripesSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        if s.ge == "bn_weight":
            self.neck = BatchNormGate(self.dim)
        self.stripes = Stripes(self.dim, s.parts, s.part_dim, s.stripe_pooling) if s.parts else None

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        maps, pooled, embedding = self.encode(images, modality)
        vectors = {"neck": embedding, "pooled": pooled}
        if self.stripes is None:
            return vectors
        stripes = self.stripes(maps)
        return {"joined": self.join(embedding, stripes), **vectors, "stripes": stripes.flatten(1)}

    def join(self, embedding: Tensor, stripes: Tensor) -> Tensor:
        """The embedding to deploy, (N, D + S d), of eg (N, D) and stripes (N, S, d)."""
        share = self.settings.stripe_share
        each = math.sqrt(share / stripes.shape[1])
        whole = math.sqrt(1 - share) * normalize(embedding, dim=1)
        return torch.cat([whole, each * normalize(stripes, dim=2).flatten(1)], dim=1)
