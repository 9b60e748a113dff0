"""Network of D2RL: images and their translations as four channels, and a ResNet-50 that sees them.

Wang, Wang, Zheng, Chuang, Satoh: "Learning to Reduce Dual-level Discrepancy for Infrared-Visible Person
Re-identification", CVPR 2019; written from a specification, as no code was released.

    unified    [x ; G_i(E_v(x))] of a visible x, [G_v(E_i(y)) ; y] of an infrared y: red, green, blue, infrared
    features   ResNet-50 whose first convolution takes four channels -> average -> BN neck

Images are floats from -1 to 1; the translators E, G are those of layers/unit.py, without noise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vireid.declaration import Count, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.choice import BackboneSettings
from vireid.layers.embedder import Embedder
from vireid.layers.neck import bn_neck
from vireid.layers.pooling import Pooling, pool
from vireid.layers.two_stream import Encoded, Trunk
from vireid.layers.unit import CHANNELS, Translators, own_channels
from vireid.layers.weights import fill
from vireid.types import IMAGENET_MEAN, IMAGENET_STD, INFRARED, VISIBLE

GRAY_MEAN, GRAY_STD = 0.449, 0.226  # the means of ImageNet's three, for the infrared channel
PLACES = {"stem.": ("stem.",), "layer": ("trunk.layer",)}  # of the backbone's parts in UnifiedResNet


@settings
class UnifiedResNetSettings(BackboneSettings):
    """Settings of D2RL's network: UNIT's for the translators, AGW's for the backbone, as the paper's are not known."""

    pooling: Pooling = "average"
    """Pooling of the backbone's maps: average, gem (p = 3) or gem-learned."""
    image_width: Count = 64
    """Channels of encoders and generators at full resolution."""
    image_blocks: Count = 4
    """Residual blocks of each encoder and of each generator."""
    share_latent: bool = False
    """Whether the encoders' last and the generators' first block are common to both modalities, as UNIT assumes."""
    zero_translated: bool = False
    """Whether the backbone sees 0 in place of translated channels, in training and at test: the control."""


class UnifiedResNet(Embedder):
    """Maps images and modality to {"neck", "pooled", "translated-zeroed"}: (N, D); the first is deployed.

    D is the number of channels of the backbone's last maps: 32 width of a ResNet.

    "translated-zeroed" is the control at test: the same network behind the neck, which sees 0, the mean, in place of
    every translated channel.
    """

    Settings = UnifiedResNetSettings
    settings: UnifiedResNetSettings

    channel_mean: Tensor  # (1, 4, 1, 1), of unified images from 0 to 1
    channel_std: Tensor

    def __init__(self, settings: UnifiedResNetSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        self.mean.fill_(0.5)  # so that normalize() gives -1 to 1, the transform Symmetric of the training views
        self.std.fill_(0.5)
        for name, values in (("mean", (*IMAGENET_MEAN, GRAY_MEAN)), ("std", (*IMAGENET_STD, GRAY_STD))):
            self.register_buffer(f"channel_{name}", torch.tensor(values).view(1, 4, 1, 1), persistent=False)
        self.translators = Translators(s.image_width, s.image_blocks, s.share_latent)
        self.backbone = s.chosen()
        self.stem = self.backbone.stem(sum(CHANNELS))
        self.backbone.init(self.stem)
        self.trunk = Trunk(self.backbone, attention=None)
        self.pool = pool(s.pooling)
        self.dim = self.backbone.dim
        self.neck = bn_neck(self.dim)

    def backbone_parts(self) -> list[list[nn.Module]]:
        return [[self.stem], *([layer] for layer in self.trunk.layers)]

    def unify(self, images: Tensor, modality: Tensor) -> Tensor:
        """Images (N, 3, H, W) from -1 to 1 and modality (N,) to unified images (N, 4, H, W), infrared last.

        Each row is translated once, by the translator of its modality. An exported graph computes both translations of
        every row and selects, so that it serves any mixture.
        """
        if torch.compiler.is_exporting():
            visible, gray = (own_channels(images, m) for m in (VISIBLE, INFRARED))
            rows = self.joined(visible, VISIBLE), self.joined(gray, INFRARED)
            return torch.where((modality == VISIBLE).view(-1, 1, 1, 1), *rows)
        rows = [(modality == m).nonzero().squeeze(1) for m in (VISIBLE, INFRARED)]
        if sum(map(len, rows)) != len(modality):
            values = modality.unique().tolist()
            raise ArgumentError(f"modality must be {VISIBLE} (visible) or {INFRARED} (infrared), got {values}")
        parts = [self.joined(own_channels(images[r], m), m) for m, r in enumerate(rows) if len(r)]
        return torch.cat(parts)[torch.cat(rows).argsort()]  # back in the order of the batch

    def joined(self, images: Tensor, modality: int) -> Tensor:
        """Images (N, c, H, W) of one modality with their translation: (N, 4, H, W), the visible channels first."""
        if self.settings.zero_translated:  # encode() will not look at them
            n, c, *size = images.shape
            made = images.new_zeros(n, sum(CHANNELS) - c, *size)
        else:
            made = self.translators.translate(images, modality)
        return torch.cat([images, made] if modality == VISIBLE else [made, images], dim=1)

    def encode(self, unified: Tensor, modality: Tensor, zeroed: bool = False) -> Encoded:
        """Maps, pooled and embedding of unified images (N, 4, H, W); `zeroed` blanks the translated channels."""
        x = ((unified + 1) / 2 - self.channel_mean) / self.channel_std
        if zeroed or self.settings.zero_translated:
            visible = (modality == VISIBLE)[:, None]
            real = torch.cat([visible] * CHANNELS[VISIBLE] + [~visible], dim=1)  # (N, 4)
            x = x * real[:, :, None, None]
        maps = self.trunk(self.stem(x))
        pooled = self.pool(maps)
        return Encoded(maps, pooled, self.neck(pooled))

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        unified = self.unify(images, modality)
        encoded = self.encode(unified, modality)
        vectors = {"neck": encoded.embedding, "pooled": encoded.pooled}
        if not self.settings.zero_translated:
            vectors["translated-zeroed"] = self.encode(unified, modality, zeroed=True).embedding
        return vectors

    def forward(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> Tensor:
        return self.encode(self.unify(self.normalize(images), modality), modality).embedding  # without the control


def widened(weight: Tensor) -> Tensor:
    """A first convolution (out, 3, k, k) for four channels: its weights and their mean, all times 3/4.

    Four like channels then give what three gave.
    """
    return torch.cat([weight, weight.mean(1, keepdim=True)], dim=1) * 0.75


def load_unified(network: UnifiedResNet, state: Mapping[str, Tensor]) -> list[str]:
    """Copy public weights into the network; returns the keys that were not used.

    A public file of the backbone fills stem and layer1..4 and leaves the translators and the neck as they are; an
    embedder file of this network fills everything. Raises ArgumentError for other weights.
    """
    backbone = network.backbone
    if named := backbone.named(state):
        unused = backbone.fill(network, state, PLACES, {backbone.first: widened(named[backbone.first])})
        return unused or []
    if any(re.match(r"translators\.", key) for key in state):
        return fill(network, state)
    raise ArgumentError(
        f"these weights are of no known kind: expected the names of {backbone.expected} "
        "or of a D2RL embedder (translators..., stem..., trunk...); the first names are "
        f"{', '.join(list(state)[:4]) or 'none at all'}"
    )
