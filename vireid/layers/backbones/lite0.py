"""EfficientNet-Lite0: stem, inverted residual blocks and the classifying head, with weights of the public file.

Tan, Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variant (TPU
repository, 2020) has no squeeze-and-excite, ReLU6 in place of swish, and a stem and a head that are never scaled.
MobileNetV2's block (Sandler et al., CVPR 2018):

    x -> 1x1 convolution to e C channels, BN, ReLU6 -> k x k depthwise convolution, BN, ReLU6 -> 1x1 convolution, BN
    (+ x where stride and channels stay)

Two things of TensorFlow are part of the weights: SAME padding (at stride 2 an even side is padded at its end alone) and
the epsilon 1e-3 of the batch norms. Pixels were (p - 127) / 128; the stem converts from the values of Normalize.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.errors import ArgumentError
from vireid.layers.backbones.backbone import Backbone
from vireid.layers.weights import fill, new_names
from vireid.types import IMAGENET_MEAN, IMAGENET_STD

EPS = 1e-3  # of all batch norms
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0


class Group(NamedTuple):
    """Blocks of one shape; the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
BLOCKS = sum(group.repeats for group in GROUPS)  # 16

# Names in the public files (those of efficientnet_pytorch) -> names here.
PUBLIC = (
    (r"_conv_stem\.", "stem.conv."),
    (r"_bn0\.", "stem.bn."),
    (r"_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.0."),
    (r"_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.1."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.0."),
    (r"_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.1."),
    (r"_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.0."),
    (r"_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.1."),
    (r"_conv_head\.", "head.0."),
    (r"_bn1\.", "head.1."),
    (r"_fc\.", "classifier."),
)


class SameConv(nn.Conv2d):
    """Convolution without bias whose padding is TensorFlow's SAME: ceil(side / stride) rows and columns come out."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # At stride 1 both sides get (kernel - 1) / 2, which the convolution does itself.
        padding = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(channels, out, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.stride[0] > 1:
            (top, bottom), (left, right) = (
                same_padding(side, self.kernel_size[0], self.stride[0]) for side in input.shape[2:]
            )
            input = F.pad(input, (left, right, top, bottom))
        return super().forward(input)


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and behind a side.

    >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(64, 5, 2)
    ((0, 1), (1, 1), (1, 2))
    """
    total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    return total // 2, total - total // 2


class Lite0Stem(nn.Module):
    """Normalized images (N, channels, H, W) to maps (N, 32, ceil(H/2), ceil(W/2)): 3x3 convolution, batch norm, ReLU6.

    Channels beyond red, green and blue are normalized by the means of the statistics of these three.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = SameConv(channels, STEM_CHANNELS, 3, stride=2)
        self.bn = nn.BatchNorm2d(STEM_CHANNELS, eps=EPS)
        mean, std = (
            torch.tensor([*values, *[sum(values) / 3] * (channels - 3)]).view(1, channels, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.register_buffer("scale", 255 * std / PIXEL_SCALE, persistent=False)
        self.register_buffer("shift", (255 * mean - PIXEL_MEAN) / PIXEL_SCALE, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu6(self.bn(self.conv(images * self.scale + self.shift)))


class Block(nn.Module):
    """Inverted residual block (N, channels, H, W) to (N, out, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = conv_bn(channels, inner, 1) if expansion > 1 else None
        self.depthwise = conv_bn(inner, inner, kernel, stride, groups=inner)
        self.project = conv_bn(inner, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


def conv_bn(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm."""
    return nn.Sequential(SameConv(channels, out, kernel, stride, groups), nn.BatchNorm2d(out, eps=EPS))


def blocks(depth: int = BLOCKS, last_stride: int = 2) -> list[Block]:
    """The first `depth` blocks; `last_stride` is that of block 11, which halves the maps for the last time."""
    made: list[Block] = []
    channels, halvings = STEM_CHANNELS, 1
    for group in GROUPS:
        halvings += group.stride == 2
        for repeat in range(group.repeats):
            stride = 1 if repeat else last_stride if halvings == 5 and group.stride == 2 else group.stride
            made.append(Block(channels, group.channels, group.kernel, stride, group.expansion))
            channels = group.channels
    if not 1 <= depth <= len(made):
        raise ArgumentError(f"lite0 has {len(made)} blocks; expected a depth of 1 to {len(made)}, got {depth}")
    return made[:depth]


# The first block of each stage: layer1 ends at a fourth of the sides, the others halve them.
STAGES = (0, 3, 5, 11)


class Lite0Backbone(Backbone):
    """The first `depth` blocks; `last_stride` is that of layer4."""

    first: ClassVar[str] = "stem.conv.weight"
    expected: ClassVar[str] = "EfficientNet-Lite0 (_conv_stem.weight, _blocks.0...)"

    def __init__(self, depth: int = BLOCKS, last_stride: int = 1) -> None:
        self.depth, self.last_stride = depth, last_stride
        channels = [group.channels for group in GROUPS for _ in range(group.repeats)]
        self.stem_channels = STEM_CHANNELS
        self.widths = tuple(tuple(channels[a:b]) for a, b in self.bounds())
        halved = [block for block in (1, *STAGES[1:3]) if block < depth]
        self.stride = 2 * 2 ** len(halved) * (last_stride if depth > STAGES[3] else 1)

    def bounds(self) -> list[tuple[int, int]]:
        """First and last block (exclusive) of layer1 to layer4."""
        return [(min(a, self.depth), min(b, self.depth)) for a, b in itertools.pairwise((*STAGES, BLOCKS))]

    def stem(self, channels: int = 3) -> nn.Module:
        return Lite0Stem(channels)

    def stages(self) -> list[nn.Sequential]:
        made = blocks(self.depth, self.last_stride)
        return [nn.Sequential(*made[a:b]) for a, b in self.bounds()]

    def init(self, module: nn.Module) -> None:
        """Convolutions: normal with variance 2 / (kernel area x output channels / groups); batch norms as torch's."""
        for part in module.modules():
            if isinstance(part, SameConv):
                fan_out = math.prod(part.kernel_size) * part.out_channels // part.groups
                nn.init.normal_(part.weight, 0.0, math.sqrt(2 / fan_out))

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        if "_conv_stem.weight" not in state:
            return {}
        names = {key: self.placed(name) for key, name in public_names(state).items()}
        return {key: name for key, name in names.items() if name.startswith(("stem.", "layer"))}

    def placed(self, name: str) -> str:
        """`layer2.1.*` for `blocks.4.*`."""
        match = re.match(r"blocks\.(\d+)\.(.+)", name)
        if match is None:
            return name
        layer = sum(int(match[1]) >= first for first in STAGES)
        return f"layer{layer}.{int(match[1]) - STAGES[layer - 1]}.{match[2]}"


class Lite0(nn.Module):
    """Normalized images (N, 3, H, W) to logits (N, classes) of the whole classifier."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = Lite0Stem()
        self.blocks = nn.Sequential(*blocks())
        self.head = conv_bn(GROUPS[-1].channels, HEAD_CHANNELS, 1)
        self.classifier = nn.Linear(HEAD_CHANNELS, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu6(self.head(self.blocks(self.stem(images))))
        return self.classifier(maps.mean(dim=(2, 3)))


def load_lite0(network: Lite0, state: Mapping[str, Tensor]) -> list[str]:
    """Copy a public file into the whole classifier; returns the keys that were not used, which should be none."""
    named = public_names(state)
    unused = set(fill(network, {new: state[old] for old, new in named.items()}))
    return [key for key in state if key not in named or named[key] in unused]


def public_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names in a public file -> names in Lite0."""
    return new_names(state, PUBLIC)
