"""NFormer's transformer with N x N matrices, written from its equations, for comparison."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vireid.layers.nformer import NeighborLayer, NeighborTransformer


def dense(lists: Tensor, columns: int) -> Tensor:
    """Lists (N, m), -1 behind shorter ones, as a mask (N, columns)."""
    mask = torch.zeros(len(lists), columns + 1, dtype=torch.bool)
    mask.scatter_(1, torch.where(lists >= 0, lists, columns), True)
    return mask[:, :columns]


def dense_form(network: NeighborTransformer, x: Tensor, mask: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """The transformer with N x N matrices, written from the equations; x (N, d), mask (N, N), landmarks (depth, l)."""
    h = x
    for layer, chosen in zip(network.layers, landmarks, strict=True):
        assert isinstance(layer, NeighborLayer)
        q, k, v = (h @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, 1)
        size, outs = x.shape[1] // layer.heads, []
        for head in range(layer.heads):
            own = slice(head * size, (head + 1) * size)
            a = (q[:, own] @ k[chosen, own].T) @ (q[chosen, own] @ k[:, own].T) / math.sqrt(size)
            weight = torch.where(mask, (a - a.max()).exp(), 0.0)
            outs.append(weight / weight.sum(1, keepdim=True) @ v[:, own])
        u = norm(h + torch.cat(outs, 1) @ layer.out.weight.T + layer.out.bias, layer.attention_norm)
        t = u @ layer.widen.weight.T + layer.widen.bias
        t = 0.5 * t * (1 + torch.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3)))
        h = norm(u + t @ layer.narrow.weight.T + layer.narrow.bias, layer.norm)
    neck = network.neck
    assert neck.running_mean is not None and neck.running_var is not None
    return h, (h - neck.running_mean) / (neck.running_var + neck.eps).sqrt() * neck.weight + neck.bias


def norm(x: Tensor, by: torch.nn.LayerNorm) -> Tensor:
    centered = x - x.mean(1, keepdim=True)
    return centered / (centered.square().mean(1, keepdim=True) + 1e-5).sqrt() * by.weight + by.bias
