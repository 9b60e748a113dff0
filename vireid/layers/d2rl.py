"""Networks of D2RL: two translators between visible and infrared images, and a ResNet-50 on the four channels of both.

Wang, Wang, Zheng, Chuang, Satoh: "Learning to Reduce Dual-level Discrepancy for Infrared-Visible Person
Re-identification", CVPR 2019; the translators after Liu, Breuel, Kautz: "Unsupervised Image-to-Image Translation
Networks", NeurIPS 2017 (UNIT). Written from a specification; no code was looked at.

    E_v, E_i   7x7 c->64, 4x4 stride 2 ->128, 4x4 stride 2 ->256, residual blocks; ReLU, instance norm = mean of z
    z          mean + n, n ~ N(0, I) in training; mean itself at test
    G_v, G_i   residual blocks, twice nearest x2 and 5x5 (256->128->64, layer norm), 7x7 64->c, tanh
    unified    [x ; G_i(E_v(x))] of a visible x, [G_v(E_i(y)) ; y] of an infrared y: red, green, blue, infrared
    features   ResNet-50 whose first convolution takes four channels -> average -> BN neck

Images are floats from -1 to 1; c is 3 for visible and 1 for infrared ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vireid.layers.embedder import IMAGENET_MEAN, IMAGENET_STD, Embedder
from vireid.layers.image_translation import ConvBlock, Upsample, init_kaiming, residual_blocks
from vireid.layers.neck import bn_neck
from vireid.layers.pooling import Pooling, pool
from vireid.layers.resnet import Stem, init_resnet, output_channels
from vireid.layers.two_stream import Encoded, Trunk
from vireid.method import INFRARED, VISIBLE
from vireid.weights import fill, new_names

CHANNELS = (3, 1)  # of a visible and of an infrared image: by modality, as is every Pair
GRAY_MEAN, GRAY_STD = 0.449, 0.226  # the means of ImageNet's three, for the infrared channel
FROM_RESNET = ((r"(conv1|bn1)\.", r"stem.\1."), (r"(layer[1-4])\.", r"trunk.\1."))

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
        if width < 1 or blocks < 1:
            raise ValueError(f"translators need image_width and image_blocks of 1 or more, got {width} and {blocks}")
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
            raise ValueError(f"translated images need sides that are multiples of 4, got {height}x{width}; change size")
        return self.last_encoding(self.encoders[modality](images))

    def generate(self, z: Tensor, modality: int) -> Tensor:
        """z (N, latent, h, w) to images (N, c, 4 h, 4 w) that look like the modality."""
        return self.generators[modality](self.first_generating(z))

    def translate(self, images: Tensor, modality: int) -> Tensor:
        """Images (N, c, H, W) of a modality as images of the other one, without noise."""
        return self.generate(self.encode(images, modality), 1 - modality)

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


class UnifiedResNet(Embedder):
    """Maps images and modality to {"neck", "pooled", "translated-zeroed"}: (N, D), D = 32 width; the first is deployed.

    "translated-zeroed" is the control: the same network behind the neck, which sees 0, the mean, in place of every
    translated channel. width, blocks: of the ResNet; image_width, image_blocks, share_latent: of the translators;
    zero_translated: the network sees 0 there in training and at test, as a control that is trained.
    """

    channel_mean: Tensor  # (1, 4, 1, 1), of unified images from 0 to 1
    channel_std: Tensor

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        last_stride: int = 1,
        pooling: Pooling = "average",
        image_width: int = 64,
        image_blocks: int = 4,
        share_latent: bool = False,
        zero_translated: bool = False,
    ) -> None:
        super().__init__(
            width=width,
            blocks=list(blocks),  # a list, as a file gives it back
            last_stride=last_stride,
            pooling=pooling,
            image_width=image_width,
            image_blocks=image_blocks,
            share_latent=share_latent,
            zero_translated=zero_translated,
        )
        self.mean.fill_(0.5)  # so that normalize() gives -1 to 1, the transform Symmetric of the training views
        self.std.fill_(0.5)
        for name, values in (("mean", (*IMAGENET_MEAN, GRAY_MEAN)), ("std", (*IMAGENET_STD, GRAY_STD))):
            self.register_buffer(f"channel_{name}", torch.tensor(values).view(1, 4, 1, 1), persistent=False)
        self.zero_translated = zero_translated
        self.translators = Translators(image_width, image_blocks, share_latent)
        self.stem = Stem(width, sum(CHANNELS))
        init_resnet(self.stem)
        self.trunk = Trunk(width, tuple(blocks), last_stride, attention=False, nonlocal_width="one")
        self.pool = pool(pooling)
        self.dim = output_channels(width)
        self.neck = bn_neck(self.dim)

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
            found = modality.unique().tolist()
            raise ValueError(f"modality must be {VISIBLE} (visible) or {INFRARED} (infrared), got {found}")
        parts = [self.joined(own_channels(images[r], m), m) for m, r in enumerate(rows) if len(r)]
        return torch.cat(parts)[torch.cat(rows).argsort()]  # back in the order of the batch

    def joined(self, images: Tensor, modality: int) -> Tensor:
        """Images (N, c, H, W) of one modality with their translation: (N, 4, H, W), the visible channels first."""
        if self.zero_translated:  # encode() will not look at them
            n, c, *size = images.shape
            made = images.new_zeros(n, sum(CHANNELS) - c, *size)
        else:
            made = self.translators.translate(images, modality)
        return torch.cat([images, made] if modality == VISIBLE else [made, images], dim=1)

    def encode(self, unified: Tensor, modality: Tensor, zeroed: bool = False) -> Encoded:
        """Maps, pooled and embedding of unified images (N, 4, H, W); `zeroed` blanks the translated channels."""
        x = ((unified + 1) / 2 - self.channel_mean) / self.channel_std
        if zeroed or self.zero_translated:
            visible = (modality == VISIBLE)[:, None]
            real = torch.cat([visible] * CHANNELS[VISIBLE] + [~visible], dim=1)  # (N, 4)
            x = x * real[:, :, None, None]
        maps = self.trunk(self.stem(x))
        pooled = self.pool(maps)
        return Encoded(maps, pooled, self.neck(pooled))

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        unified = self.unify(images, modality)
        encoded = self.encode(unified, modality)
        found = {"neck": encoded.embedding, "pooled": encoded.pooled}
        if not self.zero_translated:
            found["translated-zeroed"] = self.encode(unified, modality, zeroed=True).embedding
        return found

    def forward(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> Tensor:
        return self.encode(self.unify(self.normalize(images), modality), modality).embedding  # without the control


def widened(weight: Tensor) -> Tensor:
    """A first convolution (out, 3, 7, 7) for four channels: its weights and their mean, all times 3/4.

    Four like channels then give what three gave.
    """
    return torch.cat([weight, weight.mean(1, keepdim=True)], dim=1) * 0.75


def load_unified(network: UnifiedResNet, state: Mapping[str, Tensor]) -> list[str]:
    """Copy public weights into the network; returns the keys that were not used.

    A ResNet (torchvision's names) fills stem and layer1..4 and leaves the translators and the neck as they are; an
    embedder file of this network fills everything. Raises ValueError for other weights.
    """
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        named = new_names(state, FROM_RESNET)
        found = {new: state[old] for old, new in named.items()}
        found["stem.conv1.weight"] = widened(found["stem.conv1.weight"])
        fill(network, found, ("stem.", "trunk.layer"))
        return [key for key in state if key not in named]
    if any(re.match(r"translators\.", key) for key in state):
        return fill(network, state)
    raise ValueError(
        "these weights are of no known kind: expected the names of torchvision's resnet50 (conv1.weight, layer1.0...) "
        "or of a D2RL embedder (translators..., stem..., trunk...); the first names are "
        f"{', '.join(list(state)[:4]) or 'none at all'}"
    )
