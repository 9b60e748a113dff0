"""Network of CM-LSP-GE: AGW's two-stream network whose neck is the global enhancement, and horizontal stripes.

Wang, Li, Ma: "Cross-modal Local Shortest Path and Global Enhancement for Visible-Thermal Person Re-Identification",
arXiv 2022; written from the published text, which does not define the enhancement or the widths.

    maps (N, 2048, h, w) -> GeM = g (N, 2048) -> BN = eg (N, 2048), the enhanced global vector
                         -> 6 stripes (N, 256) each (layers/stripes.py)
    embedding: [eg, stripe 1 .. stripe 6], each scaled as its share in the cosine demands
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vireid.errors import ArgumentError
from vireid.layers.neck import bn_neck
from vireid.layers.nonlocal_block import InnerWidth
from vireid.layers.pooling import Pooling
from vireid.layers.stripes import Stripes
from vireid.layers.two_stream import TwoStream

Enhancement = Literal["bn", "bn_weight"]


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

    {"joined": (N, D + parts part_dim), "neck": eg (N, D), "pooled": g (N, D), "stripes": (N, parts part_dim)}, with
    D = 32 width. The cosine of joined vectors is (1 - stripe_share) times that of eg plus stripe_share times the mean
    of those of the stripes, each with its own. parts=0 leaves {"neck", "pooled"}. ge: "bn", or "bn_weight" for the
    BatchNormGate. The height of the maps must be a multiple of parts. Raises ValueError for settings out of range.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        last_stride: int = 1,
        attention: bool = True,
        nonlocal_width: InnerWidth = "one",
        pooling: Pooling = "gem",
        ge: Enhancement = "bn",
        parts: int = 6,
        part_dim: int = 256,
        stripe_pooling: Pooling = "gem",
        stripe_share: float = 0.5,
    ) -> None:
        if ge not in ("bn", "bn_weight"):
            raise ArgumentError(f"ge is 'bn' or 'bn_weight', got {ge!r}")
        if parts < 0:
            raise ArgumentError(f"parts is the number of stripes, 0 for the global model, got {parts}")
        if not 0 < stripe_share < 1:
            raise ArgumentError(
                f"stripe_share lies between 0 and 1, got {stripe_share}; parts=0 leaves the stripes out"
            )
        super().__init__(
            width=width,
            blocks=blocks,
            last_stride=last_stride,
            attention=attention,
            nonlocal_width=nonlocal_width,
            pooling=pooling,
        )
        self.settings |= {
            "ge": ge,
            "parts": parts,
            "part_dim": part_dim,
            "stripe_pooling": stripe_pooling,
            "stripe_share": stripe_share,
        }
        if ge == "bn_weight":
            self.neck = BatchNormGate(self.dim)
        self.stripes = Stripes(self.dim, parts, part_dim, stripe_pooling) if parts else None
        self.share = stripe_share

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        maps, pooled, embedding = self.encode(images, modality)
        found = {"neck": embedding, "pooled": pooled}
        if self.stripes is None:
            return found
        stripes = self.stripes(maps)
        return {"joined": self.join(embedding, stripes), **found, "stripes": stripes.flatten(1)}

    def join(self, embedding: Tensor, stripes: Tensor) -> Tensor:
        """The embedding to deploy, (N, D + S d), of eg (N, D) and stripes (N, S, d)."""
        each = math.sqrt(self.share / stripes.shape[1])
        whole = math.sqrt(1 - self.share) * normalize(embedding, dim=1)
        return torch.cat([whole, each * normalize(stripes, dim=2).flatten(1)], dim=1)
