"""Networks of MPANet: a backbone that both modalities share, with gated instance norms and pattern maps.

Wu, Dai, Chen, Lin, Wu, Huang, Zhong, Ji: "Discover Cross-Modality Nuances for Visible-Infrared Person
Re-Identification", CVPR 2021 (MPANet); checked against its released code, DoubtedSteam/MPANet.

    images (N, 3, H, W) -> stem -> layer1..layer3 -> gate -> layer4 (stride 1) -> gate = maps F (N, C, h, w)
    M = sigmoid(1x1 convolution of F)                        masks (N, K, h, w), one per pattern
    pooled = [mean(M_1 F), ..., mean(M_K F), mean(F)]        means over all positions; the global vector stands last
    embedding = BN neck of pooled                            (N, (K + 1) C), 14,336 numbers at the published size
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.declaration import Index, NoSwitch, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.backbone import Backbone
from vireid.layers.backbones.choice import BackboneSettings
from vireid.layers.backbones.resnet import init_resnet
from vireid.layers.embedder import Embedder
from vireid.layers.pooling import at_least_float32
from vireid.layers.weights import fill, new_names

REDUCTION = 16  # channels of a gate's inner layer: one for each 16 of its input's
EPS = 1e-5  # of the instance norm's variance

PLACES = {"stem.": ("trunk.stem.",), "layer": ("trunk.layer",)}  # of the backbone's parts in PatternNet

# Names in a checkpoint of the released code -> names here; its classifiers are the method's.
OFFICIAL = (
    (r"backbone\.(conv1|bn1)\.", r"trunk.stem.\1."),
    (r"backbone\.(layer[1-4])\.", r"trunk.\1."),
    (r"backbone\.MAM([34])\.channel_attention\.0\.", r"trunk.gate\1.squeeze."),
    (r"backbone\.MAM([34])\.channel_attention\.2\.", r"trunk.gate\1.excite."),
    (r"spatial_attention\.", r"patterns."),
    (r"bn_neck\.", r"neck."),
)


@settings
class PatternSettings(BackboneSettings):
    """The published network's values."""

    parts: Index = 6
    """Pattern maps K; 0 leaves the global vector alone."""
    gates: Annotated[Literal[0, 1, 2], NoSwitch] = 2
    """Gates with instance norm: 0 none, 1 behind layer3, 2 behind layer4 too."""


class Gate(nn.Module):
    """Modality alleviation: decides per image and channel how much instance norm (which removes style) to apply.

    m = sigmoid(W2 relu(W1 mean(x))), y = m x + (1 - m) (x - mean(x)) / sqrt(var(x) + 1e-5), mean and variance over the
    positions of each image and channel. There are no running statistics: training and evaluation compute the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.excite = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)  # (N, C, 1, 1)
        m = at_least_float32(torch.sigmoid(self.excite(F.relu(self.squeeze(mean.to(x.dtype))))))
        removed = (1 - m) * torch.rsqrt(variance + EPS)
        # both branches are affine in x, so the map is read once: y = (m + removed) x - removed mean
        return torch.addcmul(-removed * mean, wide, m + removed).to(x.dtype)


class GatedTrunk(nn.Module):
    """Images (N, 3, H, W) to maps: of a ResNet-50 (N, 2048, H/16, W/16)."""

    def __init__(self, backbone: Backbone, gates: int) -> None:
        super().__init__()
        self.stem = backbone.stem()
        self.layer1, self.layer2, self.layer3, self.layer4 = backbone.stages()
        *_, third, fourth = backbone.channels
        self.gate3 = Gate(third) if gates > 0 else nn.Identity()
        self.gate4 = Gate(fourth) if gates > 1 else nn.Identity()
        for part in (self.stem, self.layer1, self.layer2, self.layer3, self.layer4):
            backbone.init(part)
        for gate in (self.gate3, self.gate4):
            init_resnet(gate)  # the released code starts the gates as it does the ResNet

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(images)))
        return self.gate4(self.layer4(self.gate3(self.layer3(x))))


class Patterns(NamedTuple):
    """What training losses act on."""

    maps: Tensor  # (N, C, h, w)
    masks: Tensor  # (N, K, h, w), in 0..1
    pooled: Tensor  # (N, D), before the neck
    embedding: Tensor  # (N, D), behind the neck


class PatternNet(Embedder):
    """Maps images of either modality to {"neck": (N, D), "pooled": (N, D)}, D = (parts + 1) C.

    C is the number of channels of the backbone's last maps, 32 width of a ResNet. The modality is not used: every
    weight is shared.
    """

    Settings = PatternSettings
    settings: PatternSettings

    def __init__(self, settings: PatternSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        self.backbone = self.settings.chosen()
        self.trunk = GatedTrunk(self.backbone, self.settings.gates)
        channels, parts = self.backbone.dim, self.settings.parts
        self.patterns = nn.Conv2d(channels, parts, 1) if parts else None
        if self.patterns is not None:
            nn.init.zeros_(self.patterns.bias)  # pyright: ignore[reportArgumentType]
        self.dim = (parts + 1) * channels
        # Unlike AGW's neck the weight starts at exactly 1 (released code).
        self.neck = nn.BatchNorm1d(self.dim)
        self.neck.bias.requires_grad_(False)

    def backbone_parts(self) -> list[list[nn.Module]]:
        trunk = self.trunk
        return [[trunk.stem], [trunk.layer1], [trunk.layer2], [trunk.layer3], [trunk.layer4]]

    def pool(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (N, K, h, w) and pooled vectors (N, D) of maps (N, C, h, w)."""
        masks = maps[:, :0] if self.patterns is None else torch.sigmoid(self.patterns(maps))
        flat = at_least_float32(maps).flatten(2)  # (N, C, hw)
        weights = at_least_float32(masks).flatten(2)
        weights = torch.cat([weights, torch.ones_like(flat[:, :1])], 1)  # the global vector is a mask of ones, last
        # A mean in bfloat16 would keep three digits. The meta device, where costs are counted, knows no autocast.
        with nullcontext() if maps.is_meta else torch.autocast(maps.device.type, enabled=False):
            parts = torch.matmul(weights, flat.transpose(1, 2)) / flat.shape[2]  # (N, K + 1, C)
        return masks, parts.flatten(1)

    def encode(self, images: Tensor) -> Patterns:
        """Maps, masks, pooled and embedding of normalized float images (N, 3, H, W)."""
        maps = self.trunk(images)
        masks, pooled = self.pool(maps)
        return Patterns(maps, masks, pooled, self.neck(pooled))

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        encoded = self.encode(images)
        return {"neck": encoded.embedding, "pooled": encoded.pooled}


def load_pattern_net(network: PatternNet, state: Mapping[str, Tensor]) -> list[str]:
    """Copy public weights into the network, recognized by their names; returns the keys that were not used.

    A public file of the backbone fills stem and layer1..4; a checkpoint of MPANet's code or an embedder file of this
    project fills everything. Raises ArgumentError otherwise.
    """
    public = network.backbone.fill(network, state, PLACES)
    if public is not None:
        return public
    if "backbone.layer1.0.conv1.weight" in state:
        official = official_names(state)
        unused = set(fill(network, {new: state[old] for old, new in official.items()}))
        return [key for key in state if key not in official or official[key] in unused]
    if any(key.startswith("trunk.stem.") for key in state):
        return fill(network, state)
    raise ArgumentError(
        f"these weights are of no known kind: expected the names of {network.backbone.expected}, of a checkpoint of "
        "MPANet's released code (backbone.layer1.0...) or of an embedder that this method trained "
        f"(trunk.stem.conv1...); the first names are {', '.join(list(state)[:4]) or 'none at all'}"
    )


def official_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names in a checkpoint of the released code -> names in PatternNet, for the tensors that the network has."""
    return new_names(state, OFFICIAL)
