"""Vision transformer: overlapping patches, class token, position code, pre-norm blocks; parameters named as in timm.

Dosovitskiy et al.: "An Image is Worth 16x16 Words", ICLR 2021; overlapping patches (stride < patch) and stochastic
depth as in He et al., "TransReID: Transformer-based Object Re-Identification", ICCV 2021, whose defaults these are.

    images (N, 3, H, W) -> convolution P x P with stride S -> n_y n_x = n tokens, row by row, behind the class token
    n_y = floor((H - P) / S) + 1,   n_x = floor((W - P) / S) + 1
    x_0 = tokens + position code (+ a vector of each image's own)          (N, 1 + n, D)
    x'  = x + attention(LN(x)),   x = x' + MLP(LN(x'))                     in every block; a last LN behind them

A file for ViT-B/16 in timm's names fills it: vit_weights.py. `stem="conv"` puts 3 x 3 convolutions of stride 2
where the patches are cut out, after Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021: for
small networks that start from random weights, which such files do not fit.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.declaration import BelowOne, Count, Positive, configured, settings
from vireid.errors import ArgumentError

EPS = 1e-6  # of every layer norm
STD = 0.02  # of the truncated normals from which linear weights, class token and position code are drawn
VitStem = Literal["patch", "conv"]


def token_grid(image_size: tuple[int, int], patch: int, stride: int, stem: VitStem = "patch") -> tuple[int, int]:
    """(n_y, n_x): patches in a column and in a row of an image (height, width).

    Raises ValueError where an image is smaller than a patch, the stride leaves pixels between patches unread, or
    stem="conv" cannot reach the stride by halving.

    >>> token_grid((256, 128), 16, 12), token_grid((96, 48), 8, 8, "conv")
    ((21, 10), (12, 6))
    """
    if stem == "conv":
        if patch != stride or stride < 2 or stride & (stride - 1):
            raise ArgumentError(
                f"stem='conv' halves the image again and again: patch and stride are one power of two, 2 or more, got "
                f"patch={patch} and stride={stride}"
            )
        return -(-image_size[0] // stride), -(-image_size[1] // stride)
    if stride > patch:
        raise ArgumentError(f"stride lies between 1 and patch={patch} (equal: patches do not overlap), got {stride}")
    if min(image_size) < patch:
        raise ArgumentError(
            f"images of {image_size[0]}x{image_size[1]} hold no patch of {patch} pixels; take a smaller one"
        )
    return (image_size[0] - patch) // stride + 1, (image_size[1] - patch) // stride + 1


def position_grid(rows: int) -> tuple[int, int] | None:
    """(n_y, n_x) of a position code of `rows` patches: a square, or twice as high as wide, as for pictures of people.

    None for other numbers.

    >>> position_grid(196), position_grid(128), position_grid(130)
    ((14, 14), (16, 8), None)
    """
    square, half = math.isqrt(rows), math.isqrt(rows // 2)
    if square * square == rows:
        return square, square
    return (2 * half, half) if 2 * half * half == rows else None


@settings
class VisionTransformerSettings:
    """Settings of a vision transformer; the defaults are ViT-B/16 with TransReID's overlapping patches."""

    image_size: tuple[Count, Count] = (256, 128)
    """Height and width of the images, for which the position code is made; the recipe's size again."""
    patch: Count = 16
    """Side of a patch in pixels."""
    stride: Count = 12
    """Pixels from one patch to the next; below `patch` they overlap."""
    stem: VitStem = "patch"
    """One convolution that cuts patches, or 3 x 3 convolutions of stride 2 (conv)."""
    dim: Count = 768
    """Numbers of a token."""
    depth: Count = 12
    """Blocks."""
    heads: Count = 12
    """Heads of the attention; they divide `dim`."""
    mlp_ratio: Positive = 4.0
    """Width inside a block's MLP over `dim`."""
    dropout: BelowOne = 0.0
    """Dropout behind the position code, the attention's output and both layers of the MLPs."""
    attention_dropout: BelowOne = 0.0
    """Dropout of the attention weights."""
    drop_path: BelowOne = 0.1
    """Stochastic depth of the last block; it rises to that from 0, block by block."""

    @model_validator(mode="after")
    def fits(self) -> VisionTransformerSettings:
        if self.dim % self.heads:
            raise ArgumentError(f"dim must be a multiple of heads, got dim={self.dim} and heads={self.heads}")
        token_grid(self.image_size, self.patch, self.stride, self.stem)
        return self


class PatchEmbed(nn.Module):
    """Images (N, 3, H, W) to tokens (N, n, dim), row by row; a filter of `patch` x `patch` pixels each `stride`."""

    def __init__(self, patch: int, stride: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class ConvStem(nn.Module):
    """Images (N, 3, H, W) to tokens (N, n, dim): 3 x 3 convolutions of stride 2 until `stride`, then one of 1 x 1."""

    def __init__(self, stride: int, dim: int) -> None:
        super().__init__()
        halvings = stride.bit_length() - 1
        widths = [3, *(max(8, dim >> (halvings - i)) for i in range(1, halvings + 1))]
        self.convs = nn.Sequential()
        for into, out in itertools.pairwise(widths):
            self.convs.extend([nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()])
        self.proj = nn.Conv2d(widths[-1], dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(self.convs(images)).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention of tokens (N, T, dim) with scaled dot products in `heads` parts."""

    def __init__(self, dim: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        dropped = self.attention_dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped)  # (N, heads, T, d / heads)
        return self.dropout(self.proj(x.transpose(1, 2).reshape(n, t, d)))


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth: in training, the branch (N, ...) of an image is left out with probability `p`, else over 1 - p.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. Draws from torch's generator of the device, which a
    run saves, so that a resumed training drops the same branches.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * (kept / (1 - self.p)).to(x.dtype)


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and beside a shortcut."""

    def __init__(self, settings: VisionTransformerSettings, drop_path: float) -> None:
        super().__init__()
        s = settings
        self.norm1 = nn.LayerNorm(s.dim, eps=EPS)
        self.attn = Attention(s.dim, s.heads, s.dropout, s.attention_dropout)
        self.norm2 = nn.LayerNorm(s.dim, eps=EPS)
        self.mlp = MLP(s.dim, int(s.dim * s.mlp_ratio), s.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Normalized images (N, 3, H, W) of `image_size` to tokens (N, 1 + n, dim) behind the last layer norm.

    The class token is token 0. Raises SettingsError for settings that do not fit together.
    """

    def __init__(self, settings: VisionTransformerSettings | None = None, **words: Any) -> None:
        super().__init__()
        self.settings = s = configured(VisionTransformerSettings, settings, words)
        self.grid = token_grid(s.image_size, s.patch, s.stride, s.stem)
        self.patch_embed = PatchEmbed(s.patch, s.stride, s.dim) if s.stem == "patch" else ConvStem(s.stride, s.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, s.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], s.dim))
        self.dropout = nn.Dropout(s.dropout)
        rates = [s.drop_path * i / max(1, s.depth - 1) for i in range(s.depth)]
        self.blocks = nn.ModuleList(Block(s, rate) for rate in rates)
        self.norm = nn.LayerNorm(s.dim, eps=EPS)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=STD)
                nn.init.zeros_(module.bias)

    def tokens(self, images: Tensor, added: Tensor | None = None, on_cls: bool = True) -> Tensor:
        """The first block's input x_0 (N, 1 + n, dim); `added` (N, dim) goes to all tokens, or to all but class."""
        height, width = self.settings.image_size
        if tuple(images.shape[-2:]) != (height, width):
            raise ArgumentError(
                f"the position code is made for images of {height}x{width}, got "
                f"{images.shape[-2]}x{images.shape[-1]}: resize the images, or build the network with their image_size"
            )
        patches = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], 1) + self.pos_embed
        if added is None:
            return x
        if on_cls:
            return x + added[:, None]
        return torch.cat([x[:, :1], x[:, 1:] + added[:, None]], 1)

    def forward(self, images: Tensor, added: Tensor | None = None, on_cls: bool = True) -> Tensor:
        x = self.dropout(self.tokens(images, added, on_cls))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
