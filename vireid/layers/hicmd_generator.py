"""Generator of Hi-CMD: the decoder, and all images that one step makes of a person's two pictures.

Choi, Lee, Kim, Kim, Kim: "Hi-CMD: Hierarchical Cross-Modality Disentanglement for Visible-Infrared Person
Re-Identification", CVPR 2020. Written from a specification and recorded arrays, never from the released networks.

    image = G(p; a)     prototype p (N, 256, h, w), code a (N, 2048) as AdaIN parameters of four residual blocks

With m a modality, o the other one, s the style of a code and e = [pose; illumination] the rest of it:

    y_m     = G(p_o; s_o, e_m)                   o's content in the modality of m
    z_m     = G(p_o; s_o, pose_o, light_m)       the same, with the pose of o as well
    same_m  = G(p_m; s_o, e_m)                   "paper": s_m
    cycle_m = G(E_p(y_o); s_o, e_m)              "paper": s of E_a(y_o), e of E_a(y_m)

s_o and s_m are of one person, so that exchanging them is to change nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vireid.layers.hicmd import GROUPS, SLOPE, STYLE_AND_POSE, PrototypeAttribute, exchange
from vireid.layers.image_translation import ConvBlock, Upsample, init_kaiming, residual_blocks
from vireid.types import INFRARED, VISIBLE

Source = Literal["code", "paper"]
BOTH = (VISIBLE, INFRARED)


class Decoder(nn.Module):
    """G: prototypes (N, channels, h, w) and codes (N, code) to normalized images (N, 3, 4 h, 4 w), without bounds.

    hidden: width inside the eight small networks that turn a group of the code into the scales, or the shifts, of the
    two adaptive instance norms of one residual block.
    """

    def __init__(self, channels: int = 256, code: int = 2048, hidden: int = 512) -> None:
        super().__init__()
        self.scales = nn.ModuleList(mlp(code // GROUPS, hidden, 2 * channels) for _ in range(GROUPS))
        self.shifts = nn.ModuleList(mlp(code // GROUPS, hidden, 2 * channels) for _ in range(GROUPS))
        self.blocks = residual_blocks(GROUPS, channels, norm="adain", activation="leaky", slope=SLOPE)
        half, quarter = channels // 2, channels // 4
        self.up = nn.Sequential(
            Upsample(channels, half, activation="leaky", slope=SLOPE),
            Upsample(half, quarter, activation="leaky", slope=SLOPE),
        )
        self.out = nn.Sequential(
            ConvBlock(quarter, quarter, 3, pad=1, activation="leaky", slope=SLOPE),
            ConvBlock(quarter, quarter, 3, pad=1, activation="leaky", slope=SLOPE),
            nn.Conv2d(quarter, 3, 1),
        )
        init_kaiming(self)

    def forward(self, prototypes: Tensor, code: Tensor) -> Tensor:
        x = prototypes
        for block, scale, shift, group in zip(
            self.blocks, self.scales, self.shifts, code.chunk(GROUPS, dim=1), strict=True
        ):
            x = block(x, scale(group), shift(group))
        return self.out(self.up(x))


def mlp(dim: int, hidden: int, out: int) -> nn.Sequential:
    """Three linear layers with leaky ReLUs between them."""
    act = nn.LeakyReLU(SLOPE)
    return nn.Sequential(nn.Linear(dim, hidden), act, nn.Linear(hidden, hidden), act, nn.Linear(hidden, out))


class Made(NamedTuple):
    """What the generator's losses act on, in lists by modality m; o is the other modality."""

    swapped: list[Tensor]  # y_m: content of o, modality and pose of m
    modality_only: list[Tensor]  # z_m: content and pose of o, illumination of m
    same: list[Tensor]  # m rebuilt
    cycle: list[Tensor]  # m rebuilt from y_o
    code: list[Tensor]  # of the images
    swapped_code: list[Tensor]  # of y_m


def translate(
    encode: PrototypeAttribute, decode: nn.Module, images: list[Tensor], rebuild: Source, cycle_codes: Source
) -> Made:
    """All that is made of normalized images (P, 3, H, W), listed by modality, row i of both showing one person.

    `rebuild` and `cycle_codes` choose the reading of same_m and of cycle_m.
    """
    prototype = [encode.prototypes[m](images[m]) for m in BOTH]
    code = [encode.attributes[m](images[m]) for m in BOTH]
    mixed = [exchange(code[m], code[1 - m]) for m in BOTH]  # style of the other image
    lit = [exchange(code[m], code[1 - m], STYLE_AND_POSE) for m in BOTH]
    own = mixed if rebuild == "code" else code
    contents = [prototype[1], prototype[0]] * 2 + prototype
    made = decode(torch.cat(contents), torch.cat(mixed + lit + own)).chunk(6)  # at once: rows do not see each other
    swapped = list(made[:2])
    again = [encode.prototypes[m](swapped[m]) for m in BOTH]
    swapped_code = [encode.attributes[m](swapped[m]) for m in BOTH]
    if cycle_codes == "paper":
        mixed = [exchange(swapped_code[m], swapped_code[1 - m]) for m in BOTH]
    cycle = list(decode(torch.cat([again[1], again[0]]), torch.cat(mixed)).chunk(2))
    return Made(swapped, list(made[2:4]), list(made[4:]), cycle, code, swapped_code)
