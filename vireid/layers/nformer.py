"""NFormer's network: a small transformer whose tokens are images, each attending to its mutual neighbors.

Wang, Shen, Liu, Gao, Gavves: "NFormer: Robust Person Re-Identification with Neighbor Transformer", CVPR 2022; checked
against arrays recorded from its released code, haochenheheda/NFormer.

    M          mutual neighbors by the cosine of the input, once for all layers and heads    layers/neighbors.py
    [q|k|v]    = h W + b, cut into heads of d_h columns each
    A_ij       = (q_i k_L^T) (q_L k_j^T) / sqrt(d_h),  L: l landmark images, so A has rank l at most
    P_ij       = M_ij exp(A_ij) / sum_t M_it exp(A_it)
    u          = LN(h + dropout(concat(P v) W_o + b_o))
    h'         = LN(u + dropout(W_2 GELU(W_1 u + b_1) + b_2))
    refined    = BN(h of the last layer), shift frozen at 0

P exists on the pairs of M alone, as lists of m neighbors: N m numbers per head where a matrix has N N.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, normalize

from vireid.declaration import BelowOne, Count, Index, Integer, settings
from vireid.errors import ArgumentError
from vireid.layers.neighbors import nearest, reciprocal
from vireid.layers.pooling import at_least_float32
from vireid.layers.refiner import Apart, Refiner
from vireid.types import MODALITIES

BLOCK_BYTES = 1 << 26  # of gathered values at a time


class WeightedSum(torch.autograd.Function):
    """sum_j p_ij v_j over the neighbors j of i: p (N, H, m), v (N, H, d), neighbors (N, m) -> (N, H, d).

    Both ways in blocks of rows, so that the gathered v (N, m, H, d) never exists; p must be 0 where neighbors is -1.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, v: Tensor, neighbors: Tensor) -> Tensor:
        ctx.save_for_backward(p, v, neighbors)
        out = torch.empty_like(v)
        for rows in _blocks(v, neighbors):
            out[rows] = torch.einsum("nhm,nmhd->nhd", p[rows], v[neighbors[rows].clamp(min=0)])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        p, v, neighbors = ctx.saved_tensors
        grad_p, grad_v = torch.empty_like(p), torch.zeros_like(v)
        for rows in _blocks(v, neighbors):
            at = neighbors[rows].clamp(min=0)
            grad_p[rows] = torch.einsum("nhd,nmhd->nhm", grad[rows], v[at])
            grad_v.index_add_(0, at.flatten(), torch.einsum("nhm,nhd->nmhd", p[rows], grad[rows]).flatten(0, 1))
        return grad_p, grad_v, None


def _blocks(v: Tensor, neighbors: Tensor) -> list[slice]:
    step = max(1, BLOCK_BYTES // (v.element_size() * v[0].numel() * max(1, neighbors.shape[1])))
    return [slice(start, start + step) for start in range(0, len(v), step)]


def landmark_affinity(q: Tensor, k: Tensor, neighbors: Tensor, landmarks: Tensor) -> Tensor:
    """A (S N, H, m) on the neighbors (S N, m) of q, k (S, N, H, d_h), through landmarks (S, l) of each set."""
    sets = torch.arange(len(q), device=q.device)[:, None]
    to_keys = torch.einsum("snhd,slhd->snhl", q, k[sets, landmarks]).flatten(0, 1)
    to_queries = torch.einsum("snhd,slhd->snhl", k, q[sets, landmarks]).flatten(0, 1)
    return torch.einsum("nhl,nmhl->nhm", to_keys, to_queries[neighbors.clamp(min=0)]) / math.sqrt(q.shape[-1])


def neighbor_softmax(affinity: Tensor, v: Tensor, neighbors: Tensor) -> Tensor:
    """sum_j P_ij v_j (N, H, d) with P the softmax of affinity (N, H, m) over the neighbors (N, m) that there are."""
    attention = affinity.masked_fill(neighbors[:, None] < 0, -torch.inf).softmax(2)
    with torch.autocast(v.device.type, enabled=False):
        return WeightedSum.apply(at_least_float32(attention), at_least_float32(v), neighbors)  # pyright: ignore


class NeighborLayer(nn.Module):
    """One layer: h (S, N, dim), neighbors (S N, m) of flattened rows, landmarks (S, l) -> (S, N, dim)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.attention_norm, self.norm = nn.LayerNorm(dim, eps=1e-5), nn.LayerNorm(dim, eps=1e-5)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.qkv, self.out, self.widen, self.narrow):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, neighbors: Tensor, landmarks: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (S, N, H, d_h) each
        attended = neighbor_softmax(landmark_affinity(q, k, neighbors, landmarks), v.flatten(0, 1), neighbors)
        u = self.attention_norm(h + self.dropout(self.out(attended.reshape(h.shape))))
        return self.norm(u + self.dropout(self.narrow(gelu(self.widen(u), approximate="tanh"))))


class Transformed(NamedTuple):
    tokens: Tensor  # (S, N, dim) behind the last layer: the metric losses act on them
    refined: Tensor  # (S, N, dim) behind the batch norm: what is classified and compared


class NeighborTransformer(nn.Module):
    """x (S, N, dim), neighbors (S N, m), landmarks (depth, S, l) or (depth, l) -> Transformed; layers start alike."""

    def __init__(self, dim: int = 256, heads: int = 2, depth: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        first = NeighborLayer(dim, heads, dropout)
        self.layers = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(depth - 1))])
        self.neck = unshifted_norm(dim)

    def forward(self, x: Tensor, neighbors: Tensor, landmarks: Tensor) -> Transformed:
        if len(landmarks) != len(self.layers):
            raise ArgumentError(f"each of {len(self.layers)} layers needs landmarks of its own, got {len(landmarks)}")
        h = x
        for layer, chosen in zip(self.layers, landmarks, strict=True):
            h = layer(h, neighbors, chosen.expand(len(x), -1))
        return Transformed(h, self.neck(h.flatten(0, 1)).view_as(h))


def unshifted_norm(dim: int) -> nn.BatchNorm1d:
    """Batch norm with weight 1 and its shift frozen at 0, as the released code starts it."""
    neck = nn.BatchNorm1d(dim)
    neck.bias.requires_grad_(False)
    return neck


@settings
class RefinementSettings:
    """Settings of NFormer's network beside the length of the vectors that it takes; the released code's values."""

    width: Count = 256
    """Numbers of a refined vector; where the base's vectors are as long the projection is left out."""
    heads: Count = 2
    """Heads of the attention; they divide `width`."""
    depth: Count = 4
    """Layers of the transformer."""
    landmarks: Count = 5
    """Images that the affinity of a layer goes through."""
    stratified: bool = True
    """Whether half of the landmarks are of each modality, or all are drawn from any."""
    k: Count = 20
    """Nearest images of which those that are neighbors of each other are kept."""
    k_cross: Index | None = 10
    """How many of them are of the other modality; null: the k nearest of any, as published."""
    dropout: BelowOne = 0.1
    """Dropout behind the attention and behind the feed-forward half of a layer."""
    draws: Count = 1
    """Draws of landmarks that refined vectors are averaged over at test."""
    landmark_seed: Integer = 0
    """Seed of the landmarks at test, which are the same at every call on the same images."""

    @model_validator(mode="after")
    def fits(self) -> RefinementSettings:
        if self.width % self.heads:
            raise ArgumentError(f"width must be a multiple of heads, got {self.width} and {self.heads}")
        if self.k_cross is not None and self.k_cross >= self.k:
            raise ArgumentError(f"k_cross is from 0 to k - 1 or null, got {self.k_cross} and k={self.k}")
        return self


@settings
class NFormerRefinerSettings(RefinementSettings):
    """Settings of NFormer's network."""

    dim: Count = field(kw_only=True)
    """Numbers of a vector that is refined."""


class NFormerRefiner(Refiner):
    """Projects the vectors (N, dim) of a base to `width`, makes them length 1, and lets each look at its neighbors.

    The projection is a linear layer, left out where dim is the width, and a batch norm.
    """

    name = "nformer"

    Settings = NFormerRefinerSettings
    settings: NFormerRefinerSettings

    def __init__(self, settings: NFormerRefinerSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        s = self.settings
        self.dim, self.min_images = s.dim, s.landmarks
        self.projection = nn.Identity() if s.dim == s.width else nn.Linear(s.dim, s.width)
        self.projection_neck = unshifted_norm(s.width)
        self.transformer = NeighborTransformer(s.width, s.heads, s.depth, s.dropout)

    def project(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, width) before and behind the batch norm of the projection."""
        before = self.projection(vectors)
        return before, self.projection_neck(before)

    def tokens(self, vectors: Tensor) -> Tensor:
        """What the transformer is given at test: projected vectors (N, width) of length 1."""
        if vectors.dim() != 2 or vectors.shape[1] != self.dim:
            raise ArgumentError(
                f"this refiner was trained on vectors of {self.dim} numbers, got {tuple(vectors.shape)}; refine the "
                "run that it was trained on, or one whose embedding is as long"
            )
        return normalize(self.project(vectors)[1], dim=1)

    def draw(self, modality: Tensor, generator: torch.Generator) -> Tensor:
        """Landmarks (depth, l): different rows for every layer, half of them of each modality if `stratified`.

        Of an odd number the modalities take turns in having one more; where one has too few the other fills up.
        """
        count = len(modality)
        if count < self.settings.landmarks:
            raise ArgumentError(f"{self.settings.landmarks} landmarks need as many images, got {count}")
        drawn = []
        for layer in range(self.settings.depth):
            order = torch.randperm(count, generator=generator)
            if self.settings.stratified:
                kinds = modality.cpu()[order]
                turn = (torch.arange(len(MODALITIES)) + layer) % len(MODALITIES)  # whose turn it is to come first
                place = torch.empty(count, dtype=torch.int64)
                for kind in range(len(MODALITIES)):
                    mine = kinds == kind
                    place[mine] = torch.arange(int(mine.sum())) * len(MODALITIES) + turn[kind]
                order = order[place.argsort()]
            drawn.append(order[: self.settings.landmarks])
        return torch.stack(drawn).to(modality.device)

    def draws_of(self, modality: Tensor) -> list[Tensor]:
        """The landmarks of every draw for a set of images with these modalities (N,)."""
        first, draws = self.settings.landmark_seed, self.settings.draws
        return [self.draw(modality, torch.Generator().manual_seed(seed)) for seed in range(first, first + draws)]

    def transform(self, tokens: Tensor, neighbors: Tensor, draws: list[Tensor]) -> Tensor:
        """Refined vectors (N, width) of length 1, the mean over draws of landmarks (depth, l)."""
        refined = [self.transformer(tokens[None], neighbors, landmarks).refined[0] for landmarks in draws]
        return normalize(torch.stack(refined).mean(0) if len(refined) > 1 else refined[0], dim=1)

    def forward(self, vectors: Tensor, modality: Tensor, apart: Apart | None = None) -> Tensor:
        tokens = self.tokens(vectors)
        neighbors = reciprocal(nearest(tokens, self.settings.k, self.settings.k_cross, modality, apart).rows)
        return self.transform(tokens, neighbors, self.draws_of(modality))


RELEASED = (
    (r"h\.(\d+)\.attn\.c_attn\.", r"transformer.layers.\1.qkv."),
    (r"h\.(\d+)\.attn\.c_proj\.", r"transformer.layers.\1.out."),
    (r"h\.(\d+)\.ln_1\.", r"transformer.layers.\1.attention_norm."),
    (r"h\.(\d+)\.mlp\.c_fc\.", r"transformer.layers.\1.widen."),
    (r"h\.(\d+)\.mlp\.c_proj\.", r"transformer.layers.\1.narrow."),
    (r"h\.(\d+)\.ln_2\.", r"transformer.layers.\1.norm."),
    (r"bottleneck\.", "transformer.neck."),
    (r"backbone\.projection\.", "projection."),
    (r"backbone\.bottleneck\.", "projection_neck."),
)
LEAVES = {"w": "weight", "g": "weight", "b": "bias"}


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the released code's NFormer (or of its whole model) under the names of NFormerRefiner.

    Its linear layers hold (in, out) under `w` and `b`, its layer norms `g` and `b`. Other keys keep their names.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("nformer.")
        for pattern, own in RELEASED:
            if re.match(pattern, name):
                name = re.sub("^" + pattern, own, name)
                break
        if name.startswith("transformer.layers."):
            stem, _, last = name.rpartition(".")
            name = f"{stem}.{LEAVES.get(last, last)}"
            value = value.T.contiguous() if last == "w" else value
        renamed[name] = value
    return renamed
