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
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.declaration import BelowOne, Count, Index, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.backbone import Backbone
from vireid.layers.backbones.choice import BackboneSettings
from vireid.layers.embedder import Embedder
from vireid.layers.image_translation import ConvBlock, init_kaiming, residual_blocks
from vireid.layers.weights import fill
from vireid.types import INFRARED, VISIBLE

GROUPS = 4  # of a code
SLOPE = 0.3  # of every leaky ReLU here
STYLE, STYLE_AND_POSE = 0.5, 0.75  # share of every group from its beginning
LAYERS = ("layer1", "layer2", "layer3", "layer4")


# of the backbone's parts in PrototypeAttribute
PLACES = {"stem.": ("attributes.0.stem.", "attributes.1.stem.")}
PLACES |= {f"{layer}.": tuple(f"attributes.{m}.{layer}." for m in (VISIBLE, INFRARED)) for layer in LAYERS}
PLACES |= {f"{layer}.": (*PLACES[f"{layer}."], f"trunk.{layer}.") for layer in ("layer2", "layer3")}


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
    """E_a: normalized images (N, 3, H, W) to codes (N, C), 32 width of a ResNet: the backbone and its maps' average."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.dim = backbone.dim
        self.stem = backbone.stem()
        self.layer1, self.layer2, self.layer3, self.layer4 = backbone.stages()
        backbone.init(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        return maps.mean((2, 3))


class PrototypeTrunk(nn.Module):
    """Prototypes (N, dim, h, w) to vectors (N, C), 16 width of a ResNet: layer2, layer3 and the average.

    A ResNet's layer2 takes as many channels as a prototype has; before that of another backbone a 1x1 convolution
    stands between them.
    """

    def __init__(self, backbone: Backbone, dim: int) -> None:
        super().__init__()
        _, self.layer2, self.layer3, _ = backbone.stages()
        backbone.init(self)
        taken = backbone.channels[1]
        self.adapt = nn.Identity() if taken == dim else nn.Conv2d(dim, taken, 1)
        init_kaiming(self.adapt)

    def forward(self, prototypes: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.adapt(prototypes))).mean((2, 3))


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
class PrototypeAttributeSettings(BackboneSettings):
    """Settings of Hi-CMD's encoders and matching branch, the released code's values; sizes follow from `width`."""

    width_elsewhere: ClassVar[bool] = True

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
        if self.chosen().dim % (4 * GROUPS):
            raise ArgumentError(
                f"a code has a multiple of {4 * GROUPS} dimensions, the maps of backbone={self.backbone} have "
                f"{self.chosen().dim} channels; take another depth"
            )
        return self


class PrototypeAttribute(Embedder):
    """Maps images and modality to {"neck": f1 (N, D), "joined": (N, E)}; f1 is deployed.

    D is the number of channels of the backbone's last maps, E that of layer3's plus D / 2; both are 32 width of a
    ResNet. Lists are by modality.
    """

    Settings = PrototypeAttributeSettings
    settings: PrototypeAttributeSettings

    def __init__(self, settings: PrototypeAttributeSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        self.backbone = s.chosen()
        attribute = AttributeEncoder(self.backbone)
        prototype = PrototypeEncoder(s.width // 2, s.residual, s.dilations)
        self.attributes = twins(attribute)
        self.prototypes = twins(prototype)
        self.trunk = PrototypeTrunk(self.backbone, prototype.dim)
        self.balance = Balance()
        self.dim = attribute.dim
        self.neck = Neck(self.backbone.channels[3] + attribute.dim // 2, self.dim, s.dropout)

    def backbone_parts(self) -> list[list[nn.Module]]:
        parts: list[list[nn.Module]] = [
            [getattr(encoder, name) for encoder in self.attributes] for name in ("stem", *LAYERS)
        ]
        parts[2].append(self.trunk.layer2)
        parts[3].append(self.trunk.layer3)
        return parts

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

    A public file of the backbone fills both attribute encoders and, from layer2 and layer3, the trunk; an embedder
    file of this project fills everything. Raises ArgumentError otherwise.
    """
    public = network.backbone.fill(network, state, PLACES)
    if public is not None:
        return public
    if any(key.startswith("attributes.0.stem.") for key in state):
        return fill(network, state)
    raise ArgumentError(
        f"these weights are of no known kind: expected the names of {network.backbone.expected} "
        "or of an embedder of this project (attributes.0.stem.conv1.weight...); the first names are "
        f"{', '.join(list(state)[:4]) or 'none at all'}"
    )
