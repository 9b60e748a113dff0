"""Two-stream network: one stem per modality, a shared trunk with non-local blocks, pooling and a BN neck.

Ye, Shen, Lin, Xiang, Shao, Hoi: "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021 (AGW,
visible-infrared version); checked against its released code, mangye16/Cross-Modal-Re-ID-baseline. CAJL, MCLNet,
MSCLNet, SPOT and MAUM build on the same network.

    images (N, 3, H, W) -> stem of its modality (64) -> layer1 (256) -> layer2 (512) -> layer3 (1024)
    -> layer4 (2048, stride 1) = maps -> pooled -> BN neck = embedding

Non-local blocks stand behind the last two bottlenecks of layer2 and the last three of layer3. The numbers are those of
ResNet-50; `backbone` chooses another network (backbones/choice.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vireid.declaration import settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.backbone import Backbone
from vireid.layers.backbones.choice import BackboneSettings
from vireid.layers.embedder import Embedder
from vireid.layers.neck import bn_neck
from vireid.layers.nonlocal_block import InnerWidth, NonLocalBlock
from vireid.layers.pooling import Pooling, pool
from vireid.types import INFRARED, VISIBLE


@settings
class TwoStreamSettings(BackboneSettings):
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
    """Maps of a stem to maps of layer4: of a ResNet-50 (N, 64, H/4, W/4) to (N, 2048, H/16, W/16).

    The part worth compiling. `attention` says how wide the non-local blocks are; None leaves them out.
    """

    def __init__(self, backbone: Backbone, attention: InnerWidth | None) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3, self.layer4 = backbone.stages()
        backbone.init(self)
        # Shallow networks have fewer blocks than non-local ones: then each block is followed by one.
        two, three = (backbone.widths[1][-2:], backbone.widths[2][-3:]) if attention else ((), ())
        self.nonlocal2 = nn.ModuleList(NonLocalBlock(channels, attention or "one") for channels in two)
        self.nonlocal3 = nn.ModuleList(NonLocalBlock(channels, attention or "one") for channels in three)

    @property
    def layers(self) -> list[nn.Sequential]:
        """layer1 to layer4."""
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What layer1 to layer4 make of the maps of a stem."""
        one = self.layer1(x)
        two = attended(self.layer2, self.nonlocal2, one)
        three = attended(self.layer3, self.nonlocal3, two)
        return one, two, three, self.layer4(three)


def attended(layer: nn.Sequential, attention: nn.ModuleList, x: Tensor) -> Tensor:
    """Run the blocks of a layer, the last ones each followed by its non-local block."""
    first = len(layer) - len(attention)
    for i, block in enumerate(layer):
        x = block(x)
        if i >= first:
            x = attention[i - first](x)
    return x


class TwoStream(Embedder):
    """Maps images and modality to {"neck": (N, D), "pooled": (N, D)}; the neck's output is deployed.

    D is the number of channels of the backbone's last maps: 32 width of a ResNet.
    """

    Settings = TwoStreamSettings
    settings: TwoStreamSettings

    def __init__(self, settings: TwoStreamSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        self.backbone = s.chosen()
        self.visible, self.infrared = self.backbone.stem(), self.backbone.stem()
        self.backbone.init(self.visible)
        self.infrared.load_state_dict(self.visible.state_dict())  # both streams start alike, with or without ImageNet
        self.trunk = Trunk(self.backbone, s.nonlocal_width if s.attention else None)
        self.pool = pool(s.pooling)
        self.dim = self.backbone.dim
        self.neck = bn_neck(self.dim)

    def backbone_parts(self) -> list[list[nn.Module]]:
        return [[self.visible, self.infrared], *([layer] for layer in self.trunk.layers)]

    def stem(self, images: Tensor, modality: Tensor) -> Tensor:
        """Maps of the stem (N, C, h, w), each row from the stem of its modality.

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
