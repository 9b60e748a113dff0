"""Network of SPOT: a two-stream ResNet-50 whose maps are read where heat maps of the pose say, and soft body parts.

Chen, Ye, Qi, Wu, Jiang, Lin: "Structure-Aware Positional Transformer for Visible-Infrared Person Re-Identification",
TIP 2022; written from the published equations, no code was released.

    F_I = maps of the two-stream network (N, C, h, w), C = 2048;  n = h w positions
    F_S = relation network of the heat maps (N, C_S, h, w)
    F_S' = W_2 ReLU BN(W_1 [F_I; F_S])                                1x1 convolutions: the fused structure
    m    = softmax over j of K(F_S')_t . Q(F_S')_j                     (N, n, n), not scaled
    F_IS = F_A + BN(F_I),  F_A at j = sum over t of m_jt V(F_I)_t      attended structure representation (ASR)
    M    = sigmoid(W_theta F_S)                                        p part masks (N, p, h, w)
    f_i  = sum of M_i F_I / sum of M_i                                 part vectors (N, p, C)
    F_IP = mean over parts of Transformer(f + PE)                      transformer part interaction (TPI)
    F_IF = W_gamma [average of F_IS; F_IP]                             (N, C); behind a BN neck it is the embedding
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.errors import ArgumentError
from vireid.layers.pooling import Pooling, at_least_float32
from vireid.layers.two_stream import Encoded, TwoStream

Scale = Literal["none", "sqrt"]
PartNorm = Literal["mass", "area"]
STRIDE = 4  # pixels per cell of a heat map; the relation network halves it twice, to the 16 of the maps
EPS = 1e-6  # added to the mass of a mask
ATTENTION_STD = 0.005  # of K and Q at the start: with larger ones the softmax over positions begins saturated


def part_positions(parts: int, dim: int, base: float = 10000.0) -> Tensor:
    """Sinusoidal code (parts, dim): PE[t, 2k] = sin(t / base^(2k / dim)), PE[t, 2k + 1] = cos of the same; t from 0.

    An odd `dim` ends in a sine.

    >>> part_positions(2, 3).round(decimals=4).tolist()
    [[0.0, 1.0, 0.0], [0.8415, 0.5403, 0.0022]]
    """
    if parts < 1 or dim < 1 or base <= 0:
        raise ArgumentError(
            f"a code needs parts and dimensions of 1 or more and a base above 0, got {parts}, {dim}, {base}"
        )
    column = torch.arange(dim, dtype=torch.float64)
    even = column - column % 2
    angle = torch.arange(parts, dtype=torch.float64)[:, None] / base ** (even / dim)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def pool_parts(maps: Tensor, masks: Tensor, norm: PartNorm = "mass") -> Tensor:
    """Part vectors (N, p, C) of maps (N, C, h, w) under masks (N, p, h, w).

    norm: "mass", the mean weighted by the mask (+ 1e-6 in the divisor), or "area", the sum divided by h w.
    """
    maps, masks = at_least_float32(maps).flatten(2), at_least_float32(masks).flatten(2)
    total = masks @ maps.transpose(1, 2)
    return total / (masks.sum(-1, keepdim=True) + EPS) if norm == "mass" else total / maps.shape[-1]


def attend(keys: Tensor, queries: Tensor, values: Tensor, scale: Scale = "none") -> tuple[Tensor, Tensor]:
    """Attended maps (N, C, h, w) and attention m (N, n, n) of keys and queries (N, d, h, w) and values (N, C, h, w).

    m_tj is the softmax over j of key t times query j; place j of the result is the sum over t of m_jt value t.
    """
    scores = keys.flatten(2).transpose(1, 2) @ queries.flatten(2)  # (N, n, n)
    attention = torch.softmax(scores / math.sqrt(keys.shape[1]) if scale == "sqrt" else scores, dim=-1)
    attended = values.flatten(2) @ attention.transpose(1, 2).to(values)
    return attended.unflatten(2, values.shape[2:]), attention


def conv_bn(channels: int, out: int, size: int) -> nn.Sequential:
    """Convolution of `size` without bias (the batch norm has one), batch norm, ReLU."""
    layer = nn.Conv2d(channels, out, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())


class RelationNetwork(nn.Sequential):
    """Heat maps (N, points, 4h, 4w) to structure maps (N, channels[-1], h, w): four convolutions, two poolings."""

    def __init__(self, points: int, channels: tuple[int, ...]) -> None:
        if len(channels) != 4 or min(channels) < 1:
            raise ArgumentError(
                f"the relation network has four convolutions of 1 channel or more, got {tuple(channels)}"
            )
        sizes = [points, *channels]
        convolutions = [conv_bn(sizes[i], sizes[i + 1], 3) for i in range(4)]
        super().__init__(*convolutions[:2], nn.MaxPool2d(2), *convolutions[2:], nn.MaxPool2d(2))


class StructureFusion(nn.Module):
    """Appearance (N, C, h, w) and structure (N, C_S, h, w) to F_S' (N, C, h, w): W_2 ReLU BN(W_1 [F_I; F_S])."""

    def __init__(self, appearance: int, structure: int) -> None:
        super().__init__()
        both = appearance + structure
        self.first = nn.Conv2d(both, both, 1, bias=False)  # W_1
        self.bn = nn.BatchNorm2d(both)
        self.second = nn.Conv2d(both, appearance, 1, bias=False)  # W_2
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, appearance: Tensor, structure: Tensor) -> Tensor:
        return self.second(F.relu(self.bn(self.first(torch.cat([appearance, structure], dim=1)))))


class AttendedStructure(nn.Module):
    """ASR: appearance F_I (N, C, h, w), read where the fused structure F_S' (N, C, h, w) says, as F_IS (N, C, h, w).

    K and Q project F_S' to `inner` channels, V projects F_I. Q has no bias: one number more for all j of a row, which
    the softmax takes away again.
    """

    def __init__(self, channels: int, inner: int, scale: Scale = "none") -> None:
        super().__init__()
        if inner < 1:
            raise ArgumentError(f"attention_dim is 1 channel or more, got {inner}")
        if scale not in ("none", "sqrt"):
            raise ArgumentError(f"attention_scale is 'none' or 'sqrt', got {scale!r}")
        self.scale: Scale = scale
        self.key = nn.Conv2d(channels, inner, 1)
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.normal_(self.key.weight, 0.0, ATTENTION_STD)
        nn.init.normal_(self.query.weight, 0.0, ATTENTION_STD)
        nn.init.kaiming_normal_(self.value.weight, nonlinearity="linear")
        for layer in (self.key, self.value):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, appearance: Tensor, structure: Tensor) -> Tensor:
        attended, _ = attend(self.key(structure), self.query(structure), self.value(appearance), self.scale)
        return attended + self.bn(appearance)


class PartMasks(nn.Module):
    """Structure maps (N, C_S, h, w) to soft masks (N, p, h, w) in 0..1: sigmoid of a 1x1 convolution W_theta."""

    def __init__(self, structure: int, parts: int) -> None:
        super().__init__()
        if parts < 1:
            raise ArgumentError(f"parts is the number of body parts, 1 or more, got {parts}")
        self.theta = nn.Conv2d(structure, parts, 1)

    def forward(self, structure: Tensor) -> Tensor:
        return torch.sigmoid(self.theta(structure))


class TransformerLayer(nn.Module):
    """Encoder layer over tokens (N, p, dim), normalized behind each of its halves, as Vaswani et al. (2017) have it."""

    def __init__(self, dim: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.inner, self.outer = nn.Linear(dim, ffn), nn.Linear(ffn, dim)
        self.norm1, self.norm2, self.dropout = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv.weight)  # this and the biases as torch's own layer begins
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, p, d) each
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        x = self.norm1(x + self.dropout(self.out((self.dropout(weights) @ v).transpose(1, 2).flatten(2))))
        return self.norm2(x + self.dropout(self.outer(self.dropout(F.relu(self.inner(x))))))


class PartInteraction(nn.Module):
    """TPI: part vectors (N, p, dim) to their mean (N, dim) after they have seen one another and their places."""

    positions: Tensor

    def __init__(
        self, parts: int, dim: int, layers: int, heads: int, ffn: int, dropout: float, base: float = 10000.0
    ) -> None:
        super().__init__()
        if layers < 1 or ffn < 1 or not 0 <= dropout < 1:
            raise ArgumentError(
                f"TPI needs 1 layer, 1 ffn unit, dropout in 0..1 at least, got {layers}, {ffn}, {dropout}"
            )
        if heads < 1 or dim % heads:
            raise ArgumentError(f"tpi_heads must divide the {dim} channels of a part vector, got {heads}")
        self.register_buffer("positions", part_positions(parts, dim, base).float(), persistent=False)
        self.layers = nn.Sequential(*(TransformerLayer(dim, heads, ffn, dropout) for _ in range(layers)))

    def forward(self, parts: Tensor) -> Tensor:
        return self.layers(parts + self.positions).mean(1)


class Branches(NamedTuple):
    """What the losses act on, each (N, C)."""

    base: Tensor  # B, pooled F_I
    structure: Tensor  # IS, averaged F_IS
    parts: Tensor  # IP
    fused: Tensor  # IF, before its neck


class StructureTwoStream(TwoStream):
    """Maps images, modality and heat maps (N, points, H/4, W/4) to {"neck", "pooled", "base", "structure", "parts"},
    each (N, D), D = 32 width: the fused descriptor behind (deployed) and before its neck, and the other branches.

    points, sigma, least, missing: how heat maps are drawn (vireid.data.pose.heatmaps.HeatMaps); relation: channels of
    the relation network; attention_dim: channels of K and Q (None: D/8), attention_scale: "none" or "sqrt"; parts and
    part_norm: masks; tpi_layers, tpi_heads, tpi_ffn (None: D), tpi_dropout, tpi_base: transformer; pooling: of F_I
    alone, as F_IS has negative values. Image sides are multiples of 16. ValueError for settings out of range.
    """

    inputs = ("heatmaps",)

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        attention: bool = False,
        pooling: Pooling = "average",
        points: int = 18,
        sigma: float = 2.0,
        least: float = 0.05,
        missing: str = "error",
        relation: tuple[int, ...] = (64, 128, 256, 256),
        attention_dim: int | None = None,
        attention_scale: Scale = "none",
        parts: int = 6,
        part_norm: PartNorm = "mass",
        tpi_layers: int = 1,
        tpi_heads: int = 8,
        tpi_ffn: int | None = None,
        tpi_dropout: float = 0.1,
        tpi_base: float = 10000.0,
    ) -> None:
        if part_norm not in ("mass", "area"):
            raise ArgumentError(f"part_norm is 'mass' or 'area', got {part_norm!r}")
        super().__init__(width=width, blocks=blocks, attention=attention, pooling=pooling)
        self.settings = {
            "width": width,
            "blocks": list(blocks),
            "attention": attention,
            "pooling": pooling,
            "points": points,
            "sigma": sigma,
            "least": least,
            "missing": missing,
            "relation": list(relation),
            "attention_dim": attention_dim,
            "attention_scale": attention_scale,
            "parts": parts,
            "part_norm": part_norm,
            "tpi_layers": tpi_layers,
            "tpi_heads": tpi_heads,
            "tpi_ffn": tpi_ffn,
            "tpi_dropout": tpi_dropout,
            "tpi_base": tpi_base,
        }
        self.heatmaps = {"points": points, "sigma": sigma, "stride": STRIDE, "least": least, "missing": missing}
        self.part_norm: PartNorm = part_norm
        self.relation = RelationNetwork(points, tuple(relation))
        self.fusion = StructureFusion(self.dim, relation[-1])
        inner = max(self.dim // 8, 1) if attention_dim is None else attention_dim
        self.asr = AttendedStructure(self.dim, inner, attention_scale)
        self.masks = PartMasks(relation[-1], parts)
        ffn = self.dim if tpi_ffn is None else tpi_ffn
        self.tpi = PartInteraction(parts, self.dim, tpi_layers, tpi_heads, ffn, tpi_dropout, tpi_base)
        self.gamma = nn.Linear(2 * self.dim, self.dim, bias=False)

    def branches(self, images: Tensor, modality: Tensor, heatmaps: Tensor) -> tuple[Tensor, Branches]:
        """F_IS (N, C, h, w) and the four descriptors of normalized float images."""
        maps = self.trunk(self.stem(images, modality))
        structure = self.relation(heatmaps)
        if structure.shape[2:] != maps.shape[2:]:
            raise ArgumentError(
                f"heat maps of {tuple(heatmaps.shape[2:])} give structure maps of {tuple(structure.shape[2:])}, images "
                f"of {tuple(images.shape[2:])} give maps of {tuple(maps.shape[2:])}: heat maps have a fourth of the "
                "image's sides, which must be multiples of 16"
            )
        attended = self.asr(maps, self.fusion(maps, structure))
        averaged = at_least_float32(attended).mean((2, 3))
        parts = self.tpi(pool_parts(maps, self.masks(structure), self.part_norm))
        fused = self.gamma(torch.cat([averaged, parts], dim=1))
        return attended, Branches(self.pool(maps), averaged, parts, fused)

    def encode(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> Encoded:
        """F_IS, the fused descriptor and the embedding; `inputs` are the heat maps."""
        maps, branches = self.branches(images, modality, *inputs)
        return Encoded(maps, branches.fused, self.neck(branches.fused))

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        _, b = self.branches(images, modality, *inputs)
        return {
            "neck": self.neck(b.fused),
            "pooled": b.fused,
            "base": b.base,
            "structure": b.structure,
            "parts": b.parts,
        }
