"""Two-stream network: one stem per modality, a shared residual trunk with non-local blocks, pooling and a BN neck.

Ye, Shen, Lin, Xiang, Shao, Hoi: "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021 (AGW,
visible-infrared version); checked against its released code, mangye16/Cross-Modal-Re-ID-baseline. CAJL, MCLNet,
MSCLNet, SPOT and MAUM build on the same network.

    images (N, 3, H, W) -> stem of its modality (64) -> layer1 (256) -> layer2 (512) -> layer3 (1024)
    -> layer4 (2048, stride 1) = maps -> pooled -> BN neck = embedding

Non-local blocks stand behind the last two bottlenecks of layer2 and the last three of layer3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vireid.declaration import settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.resnet import EXPANSION, ResNetSettings, Stem, init_resnet, output_channels, stages
from vireid.layers.embedder import Embedder
from vireid.layers.neck import bn_neck
from vireid.layers.nonlocal_block import InnerWidth, NonLocalBlock
from vireid.layers.pooling import Pooling, pool
from vireid.types import INFRARED, VISIBLE


@settings
class TwoStreamSettings(ResNetSettings):
    """Settings of the two-stream network, the released code's values as defaults."""

    attention: bool = True
    """Whether layer2 and layer3 have non-local blocks."""
    nonlocal_width: InnerWidth = "one"
    """Inner channels of a non-local block: one (released code) or half of its channels (intended)."""
    pooling: Pooling = "gem"
    """Pooling of the maps: gem (p = 3), gem-learned (ReID-Survey) or average."""


class Encoded(NamedTuple):
    """What training losses act on."""

    maps: Tensor  # (N, C, h, w)
    pooled: Tensor  # (N, D), before the neck
    embedding: Tensor  # (N, D), behind the neck


class Trunk(nn.Module):
    """Maps of a stem (N, width, h, w) to maps of layer4 (N, 32 width, h/4, w/4); the part worth compiling."""

    def __init__(self, settings: TwoStreamSettings) -> None:
        super().__init__()
        blocks = settings.blocks
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(settings)
        init_resnet(self)
        # Shallow networks have fewer bottlenecks than non-local blocks: then each bottleneck is followed by one.
        two, three = (min(2, blocks[1]), min(3, blocks[2])) if settings.attention else (0, 0)
        inner, wide = settings.width * EXPANSION, settings.nonlocal_width
        self.nonlocal2 = nn.ModuleList(NonLocalBlock(2 * inner, wide) for _ in range(two))
        self.nonlocal3 = nn.ModuleList(NonLocalBlock(4 * inner, wide) for _ in range(three))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(x)
        x = attended(self.layer2, self.nonlocal2, x)
        x = attended(self.layer3, self.nonlocal3, x)
        return self.layer4(x)


def attended(layer: nn.Sequential, attention: nn.ModuleList, x: Tensor) -> Tensor:
    """Run the bottlenecks of a layer, the last ones each followed by its non-local block."""
    first = len(layer) - len(attention)
    for i, bottleneck in enumerate(layer):
        x = bottleneck(x)
        if i >= first:
            x = attention[i - first](x)
    return x


class TwoStream(Embedder):
    """Maps images and modality to {"neck": (N, D), "pooled": (N, D)}, D = 32 width; the neck's output is deployed."""

    Settings = TwoStreamSettings
    settings: TwoStreamSettings

    def __init__(self, settings: TwoStreamSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        width = self.settings.width
        self.visible, self.infrared = Stem(width), Stem(width)
        init_resnet(self.visible)
        self.infrared.load_state_dict(self.visible.state_dict())  # both streams start alike, with or without ImageNet
        self.trunk = Trunk(self.settings)
        self.pool = pool(self.settings.pooling)
        self.dim = output_channels(width)
        self.neck = bn_neck(self.dim)

    def stem(self, images: Tensor, modality: Tensor) -> Tensor:
        """Maps (N, width, H/4, W/4), each row from the stem of its modality.

        In training rows are split, so that the batch norm of a stem sees its own modality only. In evaluation both
        stems see all rows and the right one is selected, so that one exported graph serves any mixture.
        """
        if not self.training:
            visible = (modality == VISIBLE).view(-1, 1, 1, 1)
            return torch.where(visible, self.visible(images), self.infrared(images))
        rows = [(modality == m).nonzero().squeeze(1) for m in (VISIBLE, INFRARED)]
        if sum(map(len, rows)) != len(modality):
            values = modality.unique().tolist()
            raise ArgumentError(f"modality must be {VISIBLE} (visible) or {INFRARED} (infrared), got {values}")
        parts = [stem(images[r]) for stem, r in zip((self.visible, self.infrared), rows, strict=True) if len(r)]
        return torch.cat(parts)[torch.cat(rows).argsort()]  # back in the order of the batch

    def encode(self, images: Tensor, modality: Tensor) -> Encoded:
        """Maps, pooled and embedding of normalized float images (N, 3, H, W) with modality (N,)."""
        maps = self.trunk(self.stem(images, modality))
        pooled = self.pool(maps)
        return Encoded(maps, pooled, self.neck(pooled))

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        encoded = self.encode(images, modality)
        return {"neck": encoded.embedding, "pooled": encoded.pooled}
