"""Network of MAUM: the two-stream ResNet-50 with plain average pooling, without neck, and with stripes on request.

Liu, Sun, Zhu, Pei, Yang, Li: "Learning Memory-Augmented Unidirectional Metrics for Cross-Modality Person
Re-Identification", CVPR 2022; written from the published text, which does not describe the part model.

    maps (N, 2048, h, w) -> average = pooled (N, 2048), the embedding of the global model
                         -> 6 stripes (N, 512) each (layers/stripes.py); part model: [pooled, stripes], each of length 1
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.functional import normalize

from vireid.declaration import Count, Index, settings
from vireid.layers.pooling import Pooling
from vireid.layers.stripes import Stripes
from vireid.layers.two_stream import TwoStream, TwoStreamSettings


@settings
class StripedTwoStreamSettings(TwoStreamSettings):
    """The global model without neck, as published; what the part model holds beyond its stripes is our choice."""

    attention: bool = False
    """Whether layer2 and layer3 have AGW's non-local blocks; the published network has none."""
    pooling: Pooling = "average"
    """Pooling of the maps and of the stripes: average as published, gem (p = 3) or gem-learned."""
    neck: bool = False
    """Whether a BN neck stands behind the pooled vector; false as published."""
    parts: Index = 0
    """Stripes of the part model, e.g. 6, which must divide the rows of the maps; 0 is the global model."""
    part_dim: Count = 512
    """Dimension of a stripe."""
    with_global: bool = True
    """Whether the part model keeps the global vector."""

    @model_validator(mode="after")
    def check_global(self) -> StripedTwoStreamSettings:
        if not self.with_global and (self.neck or not self.parts):
            raise ValueError(
                "with_global=False needs parts, and leaves no global embedding for neck=True to stand behind"
            )
        return self


class StripedTwoStream(TwoStream):
    """Maps images and modality to the deployed embedding and what it is made of, by layer name.

    parts=0: {"pooled": (N, D)}, with neck=True {"neck": (N, D), "pooled": (N, D)}; D the channels of the maps.
    parts=S: first {"joined": (N, D + S part_dim)}, the global embedding and the stripes, each L2-normalized and then
    joined, so that their cosine is the mean of the cosines of its parts; then the above and "stripes" (N, S part_dim).
    with_global=False leaves the global embedding out of it.
    """

    Settings = StripedTwoStreamSettings
    settings: StripedTwoStreamSettings

    def __init__(self, settings: StripedTwoStreamSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        if not s.neck:
            self.neck = nn.Identity()
        self.stripes = Stripes(self.dim, s.parts, s.part_dim, s.pooling) if s.parts else None
        self.branch_dims = [self.dim] * s.with_global + [s.part_dim] * s.parts

    def branches(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """What the losses act on: the global embedding (N, D) if there is one, then the stripes (N, part_dim)."""
        maps, _, embedding = self.encode(images, modality)
        stripes = [] if self.stripes is None else list(self.stripes(maps).unbind(1))
        return [embedding] * self.settings.with_global + stripes

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        maps, pooled, embedding = self.encode(images, modality)
        vectors = {"pooled": pooled} if isinstance(self.neck, nn.Identity) else {"neck": embedding, "pooled": pooled}
        if self.stripes is None:
            return vectors
        stripes = self.stripes(maps)
        parts = [normalize(embedding, dim=1)] * self.settings.with_global + [normalize(stripes, dim=2).flatten(1)]
        return {"joined": torch.cat(parts, dim=1), **vectors, "stripes": stripes.flatten(1)}
