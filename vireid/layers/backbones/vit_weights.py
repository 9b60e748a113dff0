"""Public weights of the vision transformer: a file in timm's names, its position code resized to the own grid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.errors import ArgumentError
from vireid.layers.backbones.vit import VisionTransformer, position_grid
from vireid.layers.embedder import Embedder
from vireid.layers.pooling import at_least_float32
from vireid.layers.weights import fill


def load_vit(network: Embedder, state: Mapping[str, Tensor]) -> list[str]:
    """Copy public weights into an embedder whose `trunk` is a VisionTransformer; returns the keys that were not used.

    Recognized by their names: timm's (patch_embed.proj.weight ...) fill the trunk alone, an embedder file of this
    project (trunk.patch_embed.proj.weight ...) fills everything. A classifier (head.*) and the second token of a
    distilled network (dist_token, with its position) are left over. Raises ValueError for other names or shapes.
    """
    if "trunk.patch_embed.proj.weight" in state:
        return fill(network, state)
    if "patch_embed.proj.weight" in state and "pos_embed" in state:
        trunk = network.trunk
        assert isinstance(trunk, VisionTransformer)
        positions = state["pos_embed"]
        if "dist_token" in state:  # its position stands behind that of the class token
            positions = torch.cat([positions[:, :1], positions[:, 2:]], 1)
        return fill(trunk, {**state, "pos_embed": resized_positions(positions, trunk.grid)})
    raise ArgumentError(
        "these weights are of no known kind: expected the names of timm's vision transformers (pos_embed, "
        "patch_embed.proj.weight, blocks.0.norm1.weight ...; `imagenet-vit` is one) or of an embedder of this project "
        f"(trunk.patch_embed.proj.weight ...); the first names are {', '.join(list(state)[:4]) or 'none at all'}"
    )


def resized_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position code (1, 1 + h w, D) of a square grid, or one of h = 2 w, for `grid` (n_y, n_x): (1, 1 + n_y n_x, D).

    Bilinear with half-pixel centers and without antialiasing, the class token's row copied, as TransReID's released
    code does it. Raises ArgumentError for another grid.
    """
    own = position_grid(positions.shape[1] - 1)
    if own is None:
        raise ArgumentError(
            "expected the position code of a class token and a square grid of patches, such as 1 + 14 x 14 = 197 "
            f"rows, or one twice as high as wide (1 + 16 x 8 = 129); got {positions.shape[1]} rows"
        )
    plane = at_least_float32(positions[:, 1:]).transpose(1, 2).unflatten(2, own)  # (1, D, h, w)
    plane = F.interpolate(plane, grid, mode="bilinear", align_corners=False, antialias=False)
    return torch.cat([positions[:, :1].to(plane.dtype), plane.flatten(2).transpose(1, 2)], 1)
