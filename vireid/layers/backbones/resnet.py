"""ResNet: stem, bottleneck and stages of the residual network, with torchvision's parameter names.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016. The stride of a stage stands in its
first 3x3 convolution, as in torchvision. Names (conv1, bn1, layer1..4, downsample.0/.1) are torchvision's, so its
weights load by key. `width` is the number of stem channels (64 in the paper); every other count scales with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vireid.declaration import Count, NoSwitch, settings
from vireid.layers.backbones.backbone import Backbone, stage_names

EXPANSION = 4  # output channels of a bottleneck per inner channel


@settings
class ResNetSettings:
    """Settings of a residual network; the defaults are those of ResNet-50 in re-identification."""

    width: Count = 64
    """Channels of the stem; 64 is ResNet-50."""
    blocks: tuple[Count, Count, Count, Count] = (3, 4, 6, 3)
    """Bottlenecks of layer1 to layer4; 3, 4, 6, 3 is ResNet-50."""
    last_stride: Annotated[Literal[1, 2], NoSwitch] = 1
    """Stride of layer4: 1 in re-identification, 2 in the paper."""


class Stem(nn.Module):
    """Images (N, channels, H, W) to maps (N, width, H/4, W/4): 7x7 convolution, batch norm, ReLU, 3x3 max pooling."""

    def __init__(self, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """Residual block (N, channels, H, W) to (N, 4 inner, H/stride, W/stride): 1x1, 3x3 and 1x1 convolutions."""

    def __init__(self, channels: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        out = inner * EXPANSION
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def stage(channels: int, inner: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` bottlenecks, the first of which takes `channels` and has the stride."""
    rest = (Bottleneck(inner * EXPANSION, inner) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(channels, inner, stride), *rest)


def stages(settings: ResNetSettings) -> list[nn.Sequential]:
    """The four stages layer1..layer4."""
    width, strides = settings.width, (1, 2, 2, settings.last_stride)
    channels = [width] + [width * 2**i * EXPANSION for i in range(3)]
    return [stage(channels[i], width * 2**i, settings.blocks[i], strides[i]) for i in range(4)]


def init_resnet(module: nn.Module) -> None:
    """Start the ResNet parts in `module` as the public implementations do when no pretrained weights are loaded.

    Convolutions without bias: normal with variance 2 / (kernel area x output channels). Batch norms keep torch's
    default (weight 1, bias 0). Convolutions with a bias are not part of a ResNet and are left alone.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.bias is None:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class ResNet(Backbone):
    """A residual network by its settings."""

    first: ClassVar[str] = "stem.conv1.weight"
    expected: ClassVar[str] = "torchvision's resnet50 (conv1.weight, layer1.0...)"

    def __init__(self, settings: ResNetSettings) -> None:
        self.settings = settings
        self.stem_channels = settings.width
        self.widths = tuple((settings.width * 2**i * EXPANSION,) * blocks for i, blocks in enumerate(settings.blocks))
        self.stride = 16 * settings.last_stride

    def stem(self, channels: int = 3) -> nn.Module:
        return Stem(self.settings.width, channels)

    def stages(self) -> list[nn.Sequential]:
        return stages(self.settings)

    def init(self, module: nn.Module) -> None:
        init_resnet(module)

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        if "conv1.weight" not in state or "layer1.0.conv1.weight" not in state:
            return {}
        return stage_names(state, r"(conv1|bn1)\.")
