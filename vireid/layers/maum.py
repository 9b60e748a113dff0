"""Network of MAUM: the two-stream ResNet-50 with plain average pooling, without neck, and with stripes on request.

Liu, Sun, Zhu, Pei, Yang, Li: "Learning Memory-Augmented Unidirectional Metrics for Cross-Modality Person
Re-Identification", CVPR 2022; written from the published text, which does not describe the part model.

    maps (N, 2048, h, w) -> average = pooled (N, 2048), the embedding of the global model
                         -> 6 stripes (N, 512) each (layers/stripes.py); part model: [pooled, stripes], each of length 1
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vireid.errors import ArgumentError
from vireid.layers.pooling import Pooling
from vireid.layers.stripes import Stripes
from vireid.layers.two_stream import TwoStream


class StripedTwoStream(TwoStream):
    """Maps images and modality to the deployed embedding and what it is made of, by layer name.

    parts=0: {"pooled": (N, D)}, with neck=True {"neck": (N, D), "pooled": (N, D)}; D = 32 width.
    parts=S: first {"joined": (N, D + S part_dim)}, the global embedding and the stripes, each L2-normalized and then
    joined, so that their cosine is the mean of the cosines of its parts; then the above and "stripes" (N, S part_dim).
    with_global=False leaves the global embedding out of it. Raises ValueError for settings that contradict.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        last_stride: int = 1,
        pooling: Pooling = "average",
        neck: bool = False,
        parts: int = 0,
        part_dim: int = 512,
        with_global: bool = True,
    ) -> None:
        if parts < 0:
            raise ArgumentError(f"parts is the number of stripes, 0 for the global model, got {parts}")
        if not with_global and (neck or not parts):
            raise ArgumentError(
                "with_global=False needs parts, and leaves no global embedding for neck=True to stand behind"
            )
        super().__init__(width=width, blocks=blocks, last_stride=last_stride, attention=False, pooling=pooling)
        self.settings = {
            "width": width,
            "blocks": list(blocks),
            "last_stride": last_stride,
            "pooling": pooling,
            "neck": neck,
            "parts": parts,
            "part_dim": part_dim,
            "with_global": with_global,
        }
        if not neck:
            self.neck = nn.Identity()
        self.with_global = with_global
        self.stripes = Stripes(self.dim, parts, part_dim, pooling) if parts else None
        self.branch_dims = [self.dim] * with_global + [part_dim] * parts

    def branches(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """What the losses act on: the global embedding (N, D) if there is one, then the stripes (N, part_dim)."""
        maps, _, embedding = self.encode(images, modality)
        stripes = [] if self.stripes is None else list(self.stripes(maps).unbind(1))
        return [embedding] * self.with_global + stripes

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        maps, pooled, embedding = self.encode(images, modality)
        found = {"pooled": pooled} if isinstance(self.neck, nn.Identity) else {"neck": embedding, "pooled": pooled}
        if self.stripes is None:
            return found
        stripes = self.stripes(maps)
        parts = [normalize(embedding, dim=1)] * self.with_global + [normalize(stripes, dim=2).flatten(1)]
        return {"joined": torch.cat(parts, dim=1), **found, "stripes": stripes.flatten(1)}
