"""ResNet: stem, bottleneck and stages of the residual network, with torchvision's parameter names.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016. The stride of a stage stands in its
first 3x3 convolution, as in torchvision. Names (conv1, bn1, layer1..4, downsample.0/.1) are torchvision's, so its
weights load by key. `width` is the number of stem channels (64 in the paper); every other count scales with it.

Pan, Luo, Shi, Tang: "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net", ECCV 2018, put
instance norms in, which remove what differs between looks of the same thing (lighting, style) from shallow layers:

    a   the first norm of every block of layer1 to layer3 is an instance norm for half of the channels
    b   the stem's norm is an instance norm, and one follows the addition in the last block of layer1 and of layer2

Their names (bn1.IN, bn1.BN, IN) are those of the released code, XingangPan/IBN-Net.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.declaration import Count, NoSwitch, settings
from vireid.layers.backbones.backbone import Backbone, stage_names

EXPANSION = 4  # output channels of a bottleneck per inner channel
Variant = Literal["plain", "ibn-a", "ibn-b"]


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
    """Images (N, channels, H, W) to maps (N, width, H/4, W/4): 7x7 convolution, norm, ReLU, 3x3 max pooling."""

    def __init__(self, width: int = 64, channels: int = 3, variant: Variant = "plain") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.InstanceNorm2d(width, affine=True) if variant == "ibn-b" else nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)


class HalfInstanceNorm(nn.Module):
    """Maps (N, C, H, W): instance norm of the first half of the channels, batch norm of the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cut = channels // 2
        self.IN = nn.InstanceNorm2d(self.cut, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.cut)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.IN(x[:, : self.cut]), self.BN(x[:, self.cut :])], dim=1)


class Bottleneck(nn.Module):
    """Residual block (N, channels, H, W) to (N, 4 inner, H/stride, W/stride): 1x1, 3x3 and 1x1 convolutions.

    half: whether the first norm is half an instance norm; last: whether an instance norm follows the addition.
    """

    def __init__(self, channels: int, inner: int, stride: int = 1, half: bool = False, last: bool = False) -> None:
        super().__init__()
        out = inner * EXPANSION
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = HalfInstanceNorm(inner) if half else nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
        self.IN = nn.InstanceNorm2d(out, affine=True) if last else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y if self.IN is None else self.IN(y))


def stages(settings: ResNetSettings, variant: Variant = "plain") -> list[nn.Sequential]:
    """The four stages layer1..layer4; the first block of a stage has its stride."""
    channels, made = settings.width, []
    for layer, (blocks, stride) in enumerate(zip(settings.blocks, (1, 2, 2, settings.last_stride), strict=True)):
        inner = settings.width * 2**layer
        stage = nn.Sequential()
        for block in range(blocks):
            half = variant == "ibn-a" and layer < 3
            last = variant == "ibn-b" and layer < 2 and block + 1 == blocks
            stage.append(Bottleneck(channels, inner, 1 if block else stride, half, last))
            channels = inner * EXPANSION
        made.append(stage)
    return made


def init_resnet(module: nn.Module) -> None:
    """Start the ResNet parts in `module` as the public implementations do when no pretrained weights are loaded.

    Convolutions without bias: normal with variance 2 / (kernel area x output channels). Batch norms keep torch's
    default (weight 1, bias 0). Convolutions with a bias are not part of a ResNet and are left alone.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.bias is None:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class ResNet(Backbone):
    """A residual network by its settings, or its variant with instance norms."""

    first: ClassVar[str] = "stem.conv1.weight"
    expected: ClassVar[str] = "torchvision's resnet50 (conv1.weight, layer1.0...)"

    def __init__(self, settings: ResNetSettings, variant: Variant = "plain") -> None:
        self.settings = settings
        self.variant: Variant = variant
        self.stem_channels = settings.width
        self.widths = tuple((settings.width * 2**i * EXPANSION,) * blocks for i, blocks in enumerate(settings.blocks))
        self.stride = 16 * settings.last_stride

    def stem(self, channels: int = 3) -> nn.Module:
        return Stem(self.settings.width, channels, self.variant)

    def stages(self) -> list[nn.Sequential]:
        return stages(self.settings, self.variant)

    def init(self, module: nn.Module) -> None:
        init_resnet(module)

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        if "conv1.weight" not in state or "layer1.0.conv1.weight" not in state:
            return {}
        return stage_names(state, r"(conv1|bn1)\.")
