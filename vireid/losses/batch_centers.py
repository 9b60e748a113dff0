"""Batch centers: the mean vector of every class that occurs in the batch, with gradients through it.

Used by the center cluster of MPANet and the center cascade of MSCLNet.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.errors import ArgumentError
from vireid.layers.pooling import at_least_float32


class BatchCenters(NamedTuple):
    centers: Tensor  # (P, D) means of the P classes in the batch
    row: Tensor  # (N,) which of them each row of x belongs to
    keys: Tensor  # (P,) or (P, k), the classes' labels, ascending


def batch_centers(x: Tensor, label: Tensor) -> BatchCenters:
    """Centers of x (N, D) by label: whole numbers (N,), or (N, k) where k of them together name a class.

    Raises ValueError for lengths that differ. Rows of other processes are the caller's to gather.

    >>> batch_centers(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([7, 3, 3])).centers.tolist()
    [[1.5], [0.0]]
    """
    if len(x) != len(label):
        raise ArgumentError(f"one label per row is needed: {len(x)} rows, {len(label)} labels")
    keys, row = label.unique(return_inverse=True, dim=0)
    x = at_least_float32(x)
    belongs = F.one_hot(row, len(keys)).to(x.dtype)  # (N, P)
    with torch.autocast(x.device.type, enabled=False):  # centers in bfloat16 would lose the distances between them
        return BatchCenters((belongs / belongs.sum(0)).T @ x, row, keys)
