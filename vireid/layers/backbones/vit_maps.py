"""Vision transformer as a backbone: blocks without class token that work on maps, in four groups of one size.

Touvron et al.: "Training data-efficient image transformers & distillation through attention", ICML 2021 (DeiT), whose
public weights expect pixels normalized as this package does; the block is that of vit.py.

    images (N, C, H, W) -> 16 x 16 patches side by side = maps (N, D, H/16, W/16), + position code = stem
    layer1 .. layer4: a fourth of the blocks each; a last layer norm behind layer4

The position code is kept on the grid of the public weights, 14 x 14, and read between its places for maps of another
size, so that a network takes images of any size. Class token and classifier of a public file are not used.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.errors import ArgumentError
from vireid.layers.backbones.backbone import Backbone
from vireid.layers.backbones.vit import EPS, STD, Block, VisionTransformerSettings, position_grid
from vireid.layers.pooling import at_least_float32

PATCH, GRID = 16, 14
BLOCKS = 12
DROP_PATH = 0.1  # of the last block, as in TransReID and DeiT


class PatchStem(nn.Module):
    """Images (N, channels, H, W) to maps (N, dim, floor(H/16), floor(W/16)) with position code."""

    def __init__(self, dim: int, channels: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, PATCH, PATCH)
        self.positions = nn.Parameter(torch.zeros(1, dim, GRID, GRID))

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[2:]) < PATCH:
            raise ArgumentError(
                f"a vision transformer reads patches of {PATCH}x{PATCH} pixels, the images have "
                f"{images.shape[2]}x{images.shape[3]}; take a larger size"
            )
        maps = self.proj(images)
        code = F.interpolate(at_least_float32(self.positions), maps.shape[2:], mode="bilinear", align_corners=False)
        return maps + code.to(maps.dtype)


class MapBlock(Block):
    """A transformer's block on maps (N, dim, h, w), whose positions are its tokens."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = super().forward(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of maps (N, dim, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class VisionTransformerMaps(Backbone):
    """The first `depth` blocks of a vision transformer of 16 x 16 patches with `dim` channels."""

    first: ClassVar[str] = "stem.proj.weight"
    expected: ClassVar[str] = "timm's vision transformers (patch_embed.proj.weight, blocks.0...)"

    def __init__(self, dim: int, heads: int, depth: int = BLOCKS) -> None:
        self.settings = VisionTransformerSettings(dim=dim, heads=heads, depth=depth, drop_path=DROP_PATH)
        self.stem_channels, self.stride = dim, PATCH
        self.bounds = list(itertools.pairwise(depth * i // 4 for i in range(5)))
        self.widths = tuple((dim,) * (b - a) for a, b in self.bounds)

    def stem(self, channels: int = 3) -> nn.Module:
        return PatchStem(self.stem_channels, channels)

    def stages(self) -> list[nn.Sequential]:
        s = self.settings
        blocks = [MapBlock(s, s.drop_path * i / max(1, s.depth - 1)) for i in range(s.depth)]
        made = [nn.Sequential(*blocks[a:b]) for a, b in self.bounds]
        made[3].add_module("norm", MapNorm(s.dim, eps=EPS))
        return made

    def init(self, module: nn.Module) -> None:
        """Linear weights and position code: normal with deviation 0.02, cut off at 2; biases at 0; norms as torch's."""
        for part in module.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=STD)
                nn.init.zeros_(part.bias)
            elif isinstance(part, PatchStem):
                nn.init.trunc_normal_(part.positions, std=STD)

    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
            return {}
        names: dict[str, str] = {}
        for key in state:
            if match := re.match(r"blocks\.(\d+)\.(.+)", key):
                block = int(match[1])
                layer = next((i for i, (a, b) in enumerate(self.bounds) if a <= block < b), None)
                if layer is not None:
                    names[key] = f"layer{layer + 1}.{block - self.bounds[layer][0]}.{match[2]}"
            elif key.startswith("patch_embed.proj."):
                names[key] = f"stem.{key.removeprefix('patch_embed.')}"
            elif key == "pos_embed":
                names[key] = "stem.positions"
            elif key.startswith("norm."):
                names[key] = f"layer4.{key}"
        return names

    def adapted(self, name: str, tensor: Tensor) -> Tensor:
        """The position code without the class token's, as a grid of 14 x 14; other tensors as they are.

        The grid of the file is a square or twice as high as wide (16 x 8, of pictures of people); ArgumentError else.
        """
        if name != "stem.positions" or tensor.dim() != 3:
            return tensor
        rows = tensor.shape[1]
        before = next((n for n in (1, 2, 0) if position_grid(rows - n)), 0)  # class token, DeiT's second, neither
        own = position_grid(rows - before)
        if own is None:
            raise ArgumentError(
                f"expected a position code of 14 x 14 or 16 x 8 patches behind a class token (197 or 129 rows), got "
                f"{rows} rows"
            )
        grid = tensor[:, before:].transpose(1, 2).unflatten(2, own)
        if own == (GRID, GRID):
            return grid
        return F.interpolate(at_least_float32(grid), (GRID, GRID), mode="bilinear", align_corners=False)
