"""Euclidean distance between all pairs, as the triplet losses of the AGW code family compute it.

    d_ij = sqrt( max( |a_i|^2 + |b_j|^2 - 2 a_i . b_j , 1e-12 ) )

So equal vectors are 1e-6 apart and the root has a finite slope everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12  # of the squared distance


def pairwise_distance(a: Tensor, b: Tensor) -> Tensor:
    """Distances (N, M) between the rows of a (N, D) and b (M, D), in at least float32 even under autocast.

    >>> a = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> pairwise_distance(a, a)[0, 1].item()
    5.0
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    # Under autocast the product would be bfloat16, which loses small distances between long vectors.
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.to(dtype), b.to(dtype)
        squared = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * (a @ b.T)
        return squared.clamp(min=FLOOR).sqrt()


def distance_to(a: Tensor, b: Tensor) -> Tensor:
    """Distance (N,) of each row of a (N, D) to the row of b (N, D) beside it, with the same floor.

    >>> distance_to(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])).item()
    5.0
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return (a.to(dtype) - b.to(dtype)).square().sum(1).clamp(min=FLOOR).sqrt()
