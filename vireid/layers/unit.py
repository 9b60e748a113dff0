"""UNIT: two variational autoencoders that exchange their decoders, and discriminators of both kinds of images.

Liu, Breuel, Kautz: "Unsupervised Image-to-Image Translation Networks", NeurIPS 2017, for visible and infrared images as
D2RL uses it. Written from a specification and a description of recorded arrays; no code was looked at.

    E_v, E_i   7x7 c->64, 4x4 stride 2 ->128, 4x4 stride 2 ->256, residual blocks; ReLU, instance norm = mean of z
    z          mean + n, n ~ N(0, I) in training; the mean itself at test
    G_v, G_i   residual blocks, twice nearest x2 and 5x5 (256->128->64, layer norm), 7x7 64->c, tanh
    D_v, D_i   per scale 4x4 stride 2 c->64->128->256->512, 1x1 ->1; leaky ReLU, no norm

Images are floats from -1 to 1; c is 3 for visible and 1 for infrared ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vireid import distributed
from vireid.errors import ArgumentError
from vireid.layers.image_translation import (
    ConvBlock,
    MultiScale,
    Upsample,
    init_kaiming,
    init_normal,
    residual_blocks,
    strided_critic,
)
from vireid.types import INFRARED, VISIBLE

CHANNELS = (3, 1)  # of a visible and of an infrared image

Pair = tuple[Tensor, Tensor]  # by modality


def own_channels(images: Tensor, modality: int) -> Tensor:
    """Images (N, 3, H, W) of one modality as their translator takes them: infrared ones as one channel, the mean."""
    return images if modality == VISIBLE else images.mean(1, keepdim=True)


class RoundTrip(NamedTuple):
    """What the translators make of visible and infrared images; every pair is by the modality it started from."""

    mean: Pair  # (N, 4 width, H/4, W/4)
    rebuilt: Pair  # G_v(z_v), G_i(z_i)
    translated: Pair  # G_i(z_v), G_v(z_i): the first looks infrared, the second visible
    mean_again: Pair  # E_i and E_v of these
    cycled: Pair  # and back: the first looks visible


class Translators(nn.Module):
    """Encoder and generator of each modality, by modality. width: channels at full resolution (64).

    blocks: residual blocks in each encoder and in each generator; share_latent: the encoders' last and the generators'
    first one is the same for both modalities (UNIT's shared latent space).
    """

    def __init__(self, width: int = 64, blocks: int = 4, share_latent: bool = False) -> None:
        super().__init__()
        self.latent = 4 * width
        own = blocks - share_latent
        self.encoders = nn.ModuleList(encoder(c, width, own) for c in CHANNELS)
        self.generators = nn.ModuleList(generator(c, width, own) for c in CHANNELS)
        self.last_encoding = residual_blocks(int(share_latent), self.latent)
        self.first_generating = residual_blocks(int(share_latent), self.latent)
        init_kaiming(self)

    def encode(self, images: Tensor, modality: int) -> Tensor:
        """Images (N, c, H, W) of a modality to the mean of z (N, latent, H/4, W/4); H and W are multiples of 4."""
        height, width = images.shape[-2:]
        if height % 4 or width % 4:
            raise ArgumentError(
                f"translated images need sides that are multiples of 4, got {height}x{width}; change size"
            )
        return self.last_encoding(self.encoders[modality](images))

    def generate(self, z: Tensor, modality: int) -> Tensor:
        """z (N, latent, h, w) to images (N, c, 4 h, 4 w) that look like the modality."""
        return self.generators[modality](self.first_generating(z))

    def translate(self, images: Tensor, modality: int) -> Tensor:
        """Images (N, c, H, W) of a modality as images of the other one, without noise."""
        return self.generate(self.encode(images, modality), 1 - modality)

    def noise(self, images: Pair, seed: int) -> list[Tensor]:
        """Noise (N, latent, H/4, W/4) for six z by turns of visible and infrared images, the same for the same seed.

        Every process draws that of the whole batch and takes its rows, so that several see what one sees.
        """
        generator = torch.Generator(images[VISIBLE].device)
        generator.manual_seed(seed)
        rank, world, latents = distributed.rank(), distributed.world(), []
        for x in (*images, *images, *images):
            n, _, height, width = x.shape
            shape = (world * n, self.latent, height // 4, width // 4)
            drawn = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
            latents.append(drawn[rank * n : (rank + 1) * n])
        return latents

    def translated(self, images: Pair, noise: Sequence[Tensor]) -> Pair:
        """Both translations of visible and infrared images; the noise is that of z_v and of z_i."""
        z = [self.encode(x, m) + noise[m] for m, x in enumerate(images)]
        return self.generate(z[VISIBLE], INFRARED), self.generate(z[INFRARED], VISIBLE)

    def round_trip(self, images: Pair, noise: Sequence[Tensor] | None = None) -> RoundTrip:
        """Everything made of visible (N, 3, H, W) and infrared (N, 1, H, W) images.

        `noise` (N, latent, H/4, W/4) is, in order, that of z of the visible and of the infrared images, and that of z
        of the translated visible and of the translated infrared ones; None for none.
        """
        mean = tuple(self.encode(x, m) for m, x in enumerate(images))
        z = mean if noise is None else tuple(x + n for x, n in zip(mean, noise[:2], strict=True))
        rebuilt = tuple(self.generate(x, m) for m, x in enumerate(z))
        translated = tuple(self.generate(x, 1 - m) for m, x in enumerate(z))
        again = tuple(self.encode(x, 1 - m) for m, x in enumerate(translated))
        z = again if noise is None else tuple(x + n for x, n in zip(again, noise[2:], strict=True))
        cycled = tuple(self.generate(x, m) for m, x in enumerate(z))
        return RoundTrip(mean, rebuilt, translated, again, cycled)  # pyright: ignore[reportArgumentType]


def encoder(channels: int, width: int, blocks: int) -> nn.Sequential:
    """Images (N, channels, H, W) to maps (N, 4 width, H/4, W/4)."""
    return nn.Sequential(
        ConvBlock(channels, width, 7, pad=3, norm="instance"),
        ConvBlock(width, 2 * width, 4, stride=2, pad=1, norm="instance"),
        ConvBlock(2 * width, 4 * width, 4, stride=2, pad=1, norm="instance"),
        residual_blocks(blocks, 4 * width),
    )


def generator(channels: int, width: int, blocks: int) -> nn.Sequential:
    """Maps (N, 4 width, h, w) to images (N, channels, 4 h, 4 w) from -1 to 1."""
    return nn.Sequential(
        residual_blocks(blocks, 4 * width),
        Upsample(4 * width, 2 * width),
        Upsample(2 * width, width),
        ConvBlock(width, channels, 7, pad=3, activation="none"),
        nn.Tanh(),
    )


class Discriminators(nn.ModuleList):
    """D_v and D_i, by modality. width: of the first layer (64); layers: 4x4 convolutions of each of the `scales`."""

    def __init__(self, width: int = 64, layers: int = 4, scales: int = 3) -> None:
        super().__init__(
            MultiScale([strided_critic(channels, width=width, layers=layers) for _ in range(scales)])
            for channels in CHANNELS
        )
        self.sizes = {"width": width, "layers": layers, "scales": scales}
        init_normal(self)

    def renew(self, seed: int) -> None:
        """First weights again, the same for the same seed on every process; torch's random state stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            fresh = Discriminators(**self.sizes)
        self.load_state_dict(fresh.state_dict())

    def check_size(self, height: int, width: int) -> None:
        """ValueError where the coarsest scale has no pixel left for one of its layers."""
        scales, layers = self.sizes["scales"], self.sizes["layers"]
        if -(-min(height, width) // 2 ** (scales - 1)) < 2**layers:
            raise ArgumentError(
                f"images of {height}x{width} are too small for discriminators of scales={scales} and "
                f"discriminator_layers={layers}: lower one of them, or take a larger size"
            )
