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

import dataclasses
import math
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vireid.data.pose.heatmaps import HeatMaps, Missing
from vireid.declaration import BelowOne, Count, NoSwitch, Number, Positive, settings
from vireid.errors import ArgumentError
from vireid.layers.pooling import Pooling, at_least_float32
from vireid.layers.two_stream import Encoded, TwoStream, TwoStreamSettings

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

    def __init__(self, points: int, channels: tuple[int, int, int, int]) -> None:
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


@settings
class StructureTwoStreamSettings(TwoStreamSettings):
    """Settings of SPOT's network; what the paper leaves open is a choice."""

    last_stride: Annotated[Literal[1], NoSwitch] = 1
    """Stride of layer4; the structure maps have a 16th of the image's sides, as its maps must."""
    attention: bool = False
    """Whether layer2 and layer3 have non-local blocks, as AGW has."""
    pooling: Pooling = "average"
    """Pooling of the base descriptor alone; the attended maps have negative values and are averaged."""
    points: Literal[18, 17] = 18
    """Key points with a heat map: OpenPose's 18 without background, or COCO's 17."""
    sigma: Positive = 2.0
    """Width of a heat map's peak in cells of the map; smaller for smaller images."""
    least: Annotated[Number, Field(gt=0, le=1)] = 0.05
    """Confidence of a key point below which its map stays empty."""
    missing: Missing = "error"
    """Stands for a pose that the data do not know: an error, empty maps, or one average upright person."""
    relation: tuple[Count, Count, Count, Count] = (64, 128, 256, 256)
    """Channels of the relation network's four convolutions."""
    attention_dim: Count | None = None
    """Channels of K and Q; null: an eighth of the maps' channels."""
    attention_scale: Scale = "none"
    """Divisor of the attention's scores: none as printed, or the root of the channels of K and Q."""
    parts: Count = 6
    """Soft body parts."""
    part_norm: PartNorm = "mass"
    """Divisor of a part vector: the mask's sum, or the number of positions."""
    tpi_layers: Count = 1
    """Layers of the transformer over the parts."""
    tpi_heads: Count = 8
    """Heads of its attention; they divide the channels of the maps."""
    tpi_ffn: Count | None = None
    """Inner width of its feed-forward half; null: as wide as a part vector."""
    tpi_dropout: BelowOne = 0.1
    """Dropout of its attention weights, of both halves and inside the feed-forward one."""
    tpi_base: Positive = 10000.0
    """Base of the wavelengths of its sinusoidal positions."""

    @model_validator(mode="after")
    def heads_divide(self) -> StructureTwoStreamSettings:
        dim = self.chosen().dim
        if dim % self.tpi_heads:
            raise ArgumentError(f"tpi_heads must divide the {dim} channels of a part vector, got {self.tpi_heads}")
        if self.chosen().stride != 4 * STRIDE:
            raise ArgumentError(
                f"a row of the structure maps stands for {4 * STRIDE} pixels, one of the maps of "
                f"backbone={self.backbone} for {self.chosen().stride}; take another depth or backbone"
            )
        return self


class StructureTwoStream(TwoStream):
    """Maps images, modality and heat maps (N, points, H/4, W/4) to {"neck", "pooled", "base", "structure", "parts"},
    each (N, D), D the channels of the maps: the fused descriptor behind (deployed) and before its neck, and the others.

    Raises ArgumentError for images whose sides are not multiples of 16 and for heat maps of another size.
    """

    inputs = ("heatmaps",)

    Settings = StructureTwoStreamSettings
    settings: StructureTwoStreamSettings

    def __init__(self, settings: StructureTwoStreamSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        self.maps = HeatMaps(s.points, s.sigma, STRIDE, s.least, s.missing)
        self.heatmaps = dataclasses.asdict(self.maps)
        self.relation = RelationNetwork(s.points, s.relation)
        self.fusion = StructureFusion(self.dim, s.relation[-1])
        self.asr = AttendedStructure(self.dim, s.attention_dim or max(self.dim // 8, 1), s.attention_scale)
        self.masks = PartMasks(s.relation[-1], s.parts)
        ffn = s.tpi_ffn or self.dim
        self.tpi = PartInteraction(s.parts, self.dim, s.tpi_layers, s.tpi_heads, ffn, s.tpi_dropout, s.tpi_base)
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
        parts = self.tpi(pool_parts(maps, self.masks(structure), self.settings.part_norm))
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
