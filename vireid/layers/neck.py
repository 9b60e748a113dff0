"""BN neck: the batch norm between the pooled vector and the embedding, and the classifier behind it.

Luo, Gu, Liao, Lai, Jiang: "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPR workshops
2019: metric losses act on the pooled vector, the identity loss on its normalized version, whose shift is frozen at 0
so that class regions are cones around the origin. Initial values are those of AGW's released code.
"""

from __future__ import annotations

from torch import nn

from vireid.errors import ArgumentError


def bn_neck(dim: int) -> nn.BatchNorm1d:
    """Batch norm over (N, dim); weight drawn from N(1, 0.01), bias frozen at 0."""
    neck = nn.BatchNorm1d(dim)
    nn.init.normal_(neck.weight, 1.0, 0.01)
    nn.init.zeros_(neck.bias)
    neck.bias.requires_grad_(False)
    return neck


def classifier(dim: int, num_pids: int) -> nn.Linear:
    """Linear layer (N, dim) to logits (N, num_pids) without bias, weight drawn from N(0, 0.001).

    Raises ValueError when there is no identity to classify.
    """
    if num_pids < 1:
        raise ArgumentError(f"a classifier needs at least one training identity, got num_pids={num_pids}")
    layer = nn.Linear(dim, num_pids, bias=False)
    nn.init.normal_(layer.weight, 0.0, 0.001)
    return layer
