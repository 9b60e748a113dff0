"""Image translation: the blocks of which encoders, decoders and discriminators of images are built.

Liu, Breuel, Kautz: "Unsupervised Image-to-Image Translation Networks", NeurIPS 2017; Hi-CMD and D2RL build on these
blocks. Written from a specification and recorded arrays, not from released code.

    ConvBlock            pad -> convolution with bias -> norm -> activation
    ResidualBlock(s)     x + two 3x3 ConvBlocks, the second without activation
    layer norm           y = gamma_c (x - mu) / (sigma + eps) + beta_c     mu, sigma over (C, H, W), sigma unbiased
    adaptive instance    y = w x^ + b                                      x^ over (H, W), biased variance
    Upsample             nearest x2, then a 5x5 ConvBlock
    MultiScale           one network per scale, 3x3 average pooling between scales

Huang, Belongie: "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", ICCV 2017, for the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.errors import ArgumentError

Padding = Literal["reflect", "zero"]
Norm = Literal["none", "instance", "layer", "adain"]
Activation = Literal["none", "relu", "leaky"]


class SampleNorm(nn.Module):
    """Maps (N, C, H, W) normalized per sample over C, H and W, then scaled and shifted per channel.

    The standard deviation is the unbiased one and eps is added to it, not to the variance: torch's own layer and group
    norms do neither. `weight` starts uniform in [0, 1), `bias` at 0.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        mean, std = flat.mean(1).view(-1, 1, 1, 1), flat.std(1).view(-1, 1, 1, 1)
        return (x - mean) / (std + self.eps) * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def adain(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Maps (N, C, H, W) with each channel's mean and deviation replaced: `weight` and `bias` are (N, C).

    The weight is used as it is: where it is 0, nothing of x is left.
    """
    expected = x.shape[:2]
    if weight.shape != expected or bias.shape != expected:
        raise ArgumentError(
            f"adain needs weight and bias (N, C) = {tuple(expected)} for maps {tuple(x.shape)}, got "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    return weight[..., None, None] * F.instance_norm(x, eps=eps) + bias[..., None, None]


class ConvBlock(nn.Module):
    """Maps (N, channels, H, W) to (N, out, H', W'): pad by `pad` on each side, convolve with bias, norm, activation.

    kernel, stride, dilation: of the convolution. padding: "reflect" or "zero" (reflect needs maps larger than `pad`).
    norm: "none", "instance" (no parameters), "layer" (SampleNorm) or "adain", whose `weight` and `bias` (N, out) are
    then given to forward. activation: "none", "relu" or "leaky" with `slope`.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        dilation: int = 1,
        padding: Padding = "reflect",
        norm: Norm = "none",
        activation: Activation = "relu",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("padding", padding, ("reflect", "zero")),
            ("norm", norm, ("none", "instance", "layer", "adain")),
            ("activation", activation, ("none", "relu", "leaky")),
        ):
            if value not in known:
                raise ArgumentError(f"{name} of a ConvBlock is one of {', '.join(known)}, got {value!r}")
        self.pad, self.padding, self.norm_kind = pad, padding, norm
        self.activation, self.slope = activation, slope
        self.conv = nn.Conv2d(channels, out, kernel, stride=stride, dilation=dilation)
        self.norm = SampleNorm(out) if norm == "layer" else None

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        if self.pad:
            if self.padding == "reflect" and min(x.shape[-2:]) <= self.pad:
                raise ArgumentError(
                    f"reflection by {self.pad} needs maps larger than that, got {tuple(x.shape[-2:])}; "
                    "take larger images, a smaller dilation or zero padding"
                )
            mode = "reflect" if self.padding == "reflect" else "constant"
            x = F.pad(x, (self.pad,) * 4, mode=mode)
        x = self.normalized(self.conv(x), weight, bias)
        if self.activation == "relu":
            return F.relu(x)
        return F.leaky_relu(x, self.slope) if self.activation == "leaky" else x

    def normalized(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if self.norm_kind == "adain":
            if weight is None or bias is None:
                raise ArgumentError("a ConvBlock with norm 'adain' needs weight and bias (N, C) beside the maps")
            return adain(x, weight, bias)
        if weight is not None or bias is not None:
            raise ArgumentError(f"weight and bias are for norm 'adain', this ConvBlock has {self.norm_kind!r}")
        if self.norm_kind == "instance":
            return F.instance_norm(x, eps=1e-5)
        return x if self.norm is None else self.norm(x)


class ResidualBlock(nn.Module):
    """Maps (N, C, H, W) to the same size: x plus two 3x3 ConvBlocks, the second one without activation.

    With norm "adain", `weight` and `bias` are (N, 2 C): the first C numbers belong to the first convolution.
    """

    def __init__(
        self,
        channels: int,
        *,
        padding: Padding = "reflect",
        norm: Norm = "instance",
        activation: Activation = "relu",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.first = ConvBlock(
            channels, channels, 3, pad=1, padding=padding, norm=norm, activation=activation, slope=slope
        )
        self.second = ConvBlock(channels, channels, 3, pad=1, padding=padding, norm=norm, activation="none")

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        if weight is None or bias is None:
            return x + self.second(self.first(x))
        (w1, w2), (b1, b2) = weight.chunk(2, dim=1), bias.chunk(2, dim=1)
        return x + self.second(self.first(x, w1, b1), w2, b2)


def residual_blocks(
    count: int,
    channels: int,
    *,
    padding: Padding = "reflect",
    norm: Norm = "instance",
    activation: Activation = "relu",
    slope: float = 0.2,
) -> nn.Sequential:
    """`count` residual blocks, one behind the other; for norm "adain" call each with its own parameters."""
    return nn.Sequential(
        *(ResidualBlock(channels, padding=padding, norm=norm, activation=activation, slope=slope) for _ in range(count))
    )


class Upsample(nn.Module):
    """Maps (N, channels, H, W) to (N, out, 2 H, 2 W): every pixel four times, then a 5x5 ConvBlock."""

    def __init__(
        self,
        channels: int,
        out: int,
        *,
        padding: Padding = "reflect",
        norm: Norm = "layer",
        activation: Activation = "relu",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.block = ConvBlock(channels, out, 5, pad=2, padding=padding, norm=norm, activation=activation, slope=slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(F.interpolate(x, scale_factor=2, mode="nearest"))


class MultiScale(nn.Module):
    """Images (N, C, H, W) to one map (N, 1, h, w) per scale, the finest first.

    `networks` has one network per scale; between scales the images are halved by 3x3 average pooling with stride 2,
    whose padding is not counted in the mean.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise ArgumentError("a multi-scale discriminator needs one network per scale, got none")
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for place, network in enumerate(self.networks):
            if place:
                images = F.avg_pool2d(images, 3, stride=2, padding=1, count_include_pad=False)
            maps.append(network(images))
        return maps


def residual_critic(channels: int = 3, *, width: int = 32, blocks: int = 4, slope: float = 0.3) -> nn.Sequential:
    """Hi-CMD's network of one scale, images (N, channels, H, W) to (N, 1, H/4, W/4), without norms.

    1x1, 3x3, 3x3 stride 2, 3x3, 3x3 stride 2 to twice the width, `blocks` residual blocks, 1x1 to one channel.
    """

    def conv(a: int, b: int, kernel: int, stride: int = 1) -> ConvBlock:
        return ConvBlock(a, b, kernel, stride=stride, pad=kernel // 2, activation="leaky", slope=slope)

    return nn.Sequential(
        conv(channels, width, 1),
        conv(width, width, 3),
        conv(width, width, 3, 2),
        conv(width, width, 3),
        conv(width, 2 * width, 3, 2),
        *residual_blocks(blocks, 2 * width, norm="none", activation="leaky", slope=slope),
        nn.Conv2d(2 * width, 1, 1),
    )


def strided_critic(channels: int = 3, *, width: int = 64, layers: int = 4, slope: float = 0.2) -> nn.Sequential:
    """UNIT's network of one scale, images (N, channels, H, W) to (N, 1, H/2^layers, W/2^layers), without norms.

    `layers` 4x4 convolutions of stride 2, the width doubling from `width`, then 1x1 to one channel.
    """
    counts = [channels, *(width * 2**i for i in range(layers))]
    down = (ConvBlock(a, b, 4, stride=2, pad=1, activation="leaky", slope=slope) for a, b in pairwise(counts))
    return nn.Sequential(*down, nn.Conv2d(counts[-1], 1, 1))


def init_kaiming(module: nn.Module) -> None:
    """Start every convolution and linear layer: normal with variance 2 / fan-in, biases at 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", a=0)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Start every convolution and linear layer: normal with deviation `std`, biases at 0 (discriminators)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
