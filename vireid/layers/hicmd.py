"""Networks of Hi-CMD: encoders of a person's shape and of the rest, and the embedder that matches both.

Choi, Lee, Kim, Kim, Kim: "Hi-CMD: Hierarchical Cross-Modality Disentanglement for Visible-Infrared Person
Re-Identification", CVPR 2020. Written from a specification and recorded arrays, never from the released networks.

    prototype p = E_p(x) (N, 256, H/4, W/4)      what the body looks like in outline
    code      a = E_a(x) (N, 2048)               the rest: style (clothes), pose, illumination
    joined      = [alpha e/|e| ; (1 - alpha) s/|s|]   e = average of layer3(layer2(p)), s = style of a
    f1          = BN(Linear(joined))             the embedding

A code has four equal groups, one per residual block of the decoder (layers/hicmd_generator.py); the first half of each
group is style, the next quarter pose, the last illumination. Pose and illumination together are "excluded": no identity
is to be read from them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.declaration import BelowOne, Count, Index, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.resnet import ResNetSettings, Stem, init_resnet, output_channels, stages
from vireid.layers.embedder import Embedder
from vireid.layers.image_translation import ConvBlock, init_kaiming, residual_blocks
from vireid.layers.weights import fill
from vireid.types import INFRARED, VISIBLE

GROUPS = 4  # of a code
SLOPE = 0.3  # of every leaky ReLU here
STYLE, STYLE_AND_POSE = 0.5, 0.75  # share of every group from its beginning


def style(code: Tensor) -> Tensor:
    """The clothes' half (N, D/2) of codes (N, D), in the order of the groups."""
    return _groups(code)[..., : code.shape[1] // GROUPS // 2].flatten(1)


def excluded(code: Tensor) -> Tensor:
    """Pose and illumination (N, D/2) of codes (N, D), in the order of the groups."""
    return _groups(code)[..., code.shape[1] // GROUPS // 2 :].flatten(1)


def exchange(code: Tensor, other: Tensor, share: float = STYLE) -> Tensor:
    """Codes (N, D) with the first `share` of every group (STYLE or STYLE_AND_POSE) taken from `other` (N, D)."""
    taken = int(code.shape[1] // GROUPS * share)
    return torch.cat([_groups(other)[..., :taken], _groups(code)[..., taken:]], dim=-1).flatten(1)


def _groups(code: Tensor) -> Tensor:
    if code.shape[1] % (4 * GROUPS):
        raise ArgumentError(f"a code has a multiple of {4 * GROUPS} dimensions, got {code.shape[1]}")
    return code.unflatten(1, (GROUPS, -1))


class Pyramid(nn.Module):
    """Maps (N, channels, h, w) to (N, 2 channels, h, w): a 1x1 branch and three dilated ones, joined by a 1x1 block."""

    def __init__(self, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        inner = channels // 2
        self.plain = conv(channels, inner, 1, act=False)
        self.dilated = nn.ModuleList(
            nn.Sequential(conv(channels, inner, 1), conv(inner, inner, 3, dilation=d, act=False)) for d in dilations
        )
        self.fuse = conv(inner * (1 + len(dilations)), 2 * channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([self.plain(x), *(branch(x) for branch in self.dilated)], dim=1))


def conv(channels: int, out: int, kernel: int, *, stride: int = 1, dilation: int = 1, act: bool = True) -> ConvBlock:
    """A reflecting block of the prototype encoder, instance-normalized."""
    return ConvBlock(
        channels,
        out,
        kernel,
        stride=stride,
        pad=kernel // 2 * dilation,
        dilation=dilation,
        norm="instance",
        activation="leaky" if act else "none",
        slope=SLOPE,
    )


class PrototypeEncoder(nn.Module):
    """E_p: normalized images (N, 3, H, W) to prototypes (N, 8 width, H/4, W/4).

    width: channels of the first convolution (32 published); blocks: residual blocks; dilations: of the pyramid, whose
    largest has to be smaller than H/4 and W/4. Instance norms without parameters, so rows do not see each other.
    """

    def __init__(self, width: int = 32, blocks: int = 4, dilations: Sequence[int] = (3, 6, 9)) -> None:
        super().__init__()
        self.dim = 8 * width
        self.down = nn.Sequential(
            conv(3, width, 3, stride=2),
            conv(width, 2 * width, 3),
            conv(2 * width, 2 * width, 3),
            conv(2 * width, 4 * width, 3, stride=2),
        )
        self.residual = residual_blocks(blocks, 4 * width, norm="instance", activation="leaky", slope=SLOPE)
        self.pyramid = Pyramid(4 * width, dilations)
        init_kaiming(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.pyramid(self.residual(self.down(images)))


class AttributeEncoder(nn.Module):
    """E_a: normalized images (N, 3, H, W) to codes (N, 32 width): a ResNet-50 and the average of its maps."""

    def __init__(self, settings: ResNetSettings) -> None:
        super().__init__()
        self.dim = output_channels(settings.width)
        self.stem = Stem(settings.width)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(settings)
        init_resnet(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        return maps.mean((2, 3))


class PrototypeTrunk(nn.Module):
    """Prototypes (N, 4 width, h, w) to vectors (N, 16 width): layer2 and layer3 of a ResNet-50 and the average."""

    def __init__(self, settings: ResNetSettings) -> None:
        super().__init__()
        _, self.layer2, self.layer3, _ = stages(settings)
        init_resnet(self)

    def forward(self, prototypes: Tensor) -> Tensor:
        return self.layer3(self.layer2(prototypes)).mean((2, 3))


class Balance(nn.Module):
    """Vectors e (N, A) of prototypes and styles s (N, B) to [alpha e/|e| ; (1 - alpha) s/|s|] (N, A + B).

    alpha is learned; it counts as 1 above 1, and 1 - alpha as 0 there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, prototype: Tensor, attribute: Tensor) -> Tensor:
        weights = self.alpha.clamp(max=1), (1 - self.alpha).clamp(min=0)
        parts = (F.normalize(prototype, dim=1), F.normalize(attribute, dim=1))
        return torch.cat([weight * part for weight, part in zip(weights, parts, strict=True)], dim=1)


class Neck(nn.Module):
    """Joined vectors (N, dim) to f1 (N, out): a linear layer, batch norm, and dropout in training; no ReLU."""

    def __init__(self, dim: int, out: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out)
        nn.init.kaiming_normal_(self.linear.weight, mode="fan_out")
        nn.init.zeros_(self.linear.bias)
        self.bn = nn.BatchNorm1d(out)
        nn.init.normal_(self.bn.weight, 1.0, 0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, joined: Tensor) -> Tensor:
        return self.dropout(self.bn(self.linear(joined)))


@settings
class PrototypeAttributeSettings(ResNetSettings):
    """Settings of Hi-CMD's encoders and matching branch, the released code's values; all sizes follow from `width`."""

    last_stride: Literal[2] = 2
    """Stride of layer4 in the attribute encoders; the matching branch has no layer4."""
    residual: Index = 4
    """Residual blocks of each prototype encoder and of each scale of a discriminator."""
    dilations: tuple[Count, ...] = (3, 6, 9)
    """Dilations of a prototype encoder's pyramid; the largest is smaller than a fourth of the image's sides."""
    dropout: BelowOne = 0.5
    """Dropout behind the neck."""

    @model_validator(mode="after")
    def halves(self) -> PrototypeAttributeSettings:
        if self.width % 2:
            raise ArgumentError(f"width must be an even number of 2 or more (64 for ResNet-50), got {self.width}")
        return self


class PrototypeAttribute(Embedder):
    """Maps images and modality to {"neck": f1 (N, 32 width), "joined": (N, 32 width)}; f1 is deployed.

    Lists are by modality.
    """

    Settings = PrototypeAttributeSettings
    settings: PrototypeAttributeSettings

    def __init__(self, settings: PrototypeAttributeSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        attribute = AttributeEncoder(s)
        prototype = PrototypeEncoder(s.width // 2, s.residual, s.dilations)
        self.attributes = twins(attribute)
        self.prototypes = twins(prototype)
        self.trunk = PrototypeTrunk(s)
        self.balance = Balance()
        self.dim = output_channels(s.width)
        self.neck = Neck(16 * s.width + attribute.dim // 2, self.dim, s.dropout)

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        prototypes = by_modality(self.prototypes, images, modality)
        codes = by_modality(self.attributes, images, modality)
        joined = self.balance(self.trunk(prototypes), style(codes))
        return {"neck": self.neck(joined), "joined": joined}


def twins(module: nn.Module) -> nn.ModuleList:
    """The module for visible images and a copy for infrared ones, which starts alike."""
    return nn.ModuleList([module, copy.deepcopy(module)])


def by_modality(modules: nn.ModuleList, images: Tensor, modality: Tensor) -> Tensor:
    """Rows of `images` through the module of their modality (N,), in their order.

    A graph that is exported computes both for all rows and selects, because its operations may not depend on values.
    """
    if torch.compiler.is_exporting():
        visible, infrared = modules[VISIBLE](images), modules[INFRARED](images)
        return torch.where((modality == VISIBLE).view(-1, *[1] * (visible.dim() - 1)), visible, infrared)
    rows = [(modality == m).nonzero().squeeze(1) for m in (VISIBLE, INFRARED)]
    if sum(map(len, rows)) != len(modality):
        values = modality.unique().tolist()
        raise ArgumentError(f"modality must be {VISIBLE} (visible) or {INFRARED} (infrared), got {values}")
    parts = [module(images[r]) for module, r in zip(modules, rows, strict=True) if len(r)]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def load_encoders(network: PrototypeAttribute, state: Mapping[str, Tensor]) -> list[str]:
    """Copy public weights into the network; returns the keys that were not used.

    A ResNet (torchvision's names) fills both attribute encoders and, from layer2 and layer3, the trunk; an embedder
    file of this project fills everything. Raises ValueError otherwise.
    """
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        named: dict[str, Tensor] = {}
        for key, value in state.items():
            if re.match(r"(conv1|bn1|layer[1-4])\.", key):
                inner = key if key.startswith("layer") else f"stem.{key}"
                named |= {f"attributes.{m}.{inner}": value for m in (VISIBLE, INFRARED)}
            if re.match(r"layer[23]\.", key):
                named[f"trunk.{key}"] = value
        fill(network, named, ("attributes.", "trunk."))
        return [key for key in state if not re.match(r"(conv1|bn1|layer[1-4])\.", key)]
    if "attributes.0.stem.conv1.weight" in state:
        return fill(network, state)
    raise ArgumentError(
        "these weights are of no known kind: expected the names of torchvision's resnet50 (conv1.weight, layer1.0...) "
        "or of an embedder of this project (attributes.0.stem.conv1.weight...); the first names are "
        f"{', '.join(list(state)[:4]) or 'none at all'}"
    )
