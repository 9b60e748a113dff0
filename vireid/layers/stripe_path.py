"""Local shortest path: the distance of two images whose stripes may be shifted against each other.

Wang, Li, Ma: "Cross-modal Local Shortest Path and Global Enhancement for Visible-Thermal Person Re-Identification",
arXiv 2022 (CM-LSP-GE); written from the published equations, no code was released. The recurrence is that of
AlignedReID (Zhang et al., arXiv 2017), which has other cells.

    u     = (f - mean f) / (max f - min f)                               of each stripe f, over its d channels
    c_ij  = sum |u_i - u'_j|                                             stripe i of one image, j of the other
    S_11  = c_11,  S_ij = min(S_i,j-1, S_i-1,j) + c_ij                   on the border the one neighbor there is
    S_hh  = the distance

S_hh is the cheapest way from the top left to the bottom right of the table by steps to the right and down, 2h - 1 cells
of which none is above d: S_hh / ((2h - 1) d) lies from 0 to 1. It is symmetric, and blind to a scale and a shift of
each stripe; but it is not a metric: an image is not at distance 0 from itself, as no step goes along the diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vireid.errors import ArgumentError
from vireid.layers.pooling import at_least_float32

FLOOR = 1e-12  # a stripe whose channels differ by less is constant: its u is 0


def range_normalized(x: Tensor) -> Tensor:
    """u of vectors x (..., d): of mean 0, and 1 from the smallest to the largest channel; in at least float32.

    >>> range_normalized(torch.tensor([1.0, 2.0, 3.0, 6.0])).tolist()
    [-0.4000000059604645, -0.20000000298023224, 0.0, 0.6000000238418579]
    """
    x = at_least_float32(x)
    x = x - x.amin(-1, keepdim=True)  # before the mean, whose rounding would be all there is of a constant stripe
    width = x.amax(-1, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / torch.where(width > FLOOR, width, 1)


def stripe_costs(a: Tensor, b: Tensor) -> Tensor:
    """c (..., N, M, h, k) of normalized stripes a (..., N, h, d) and b (..., M, k, d)."""
    with torch.autocast(a.device.type, enabled=False):
        costs = torch.cdist(a.flatten(-3, -2), b.flatten(-3, -2), p=1)  # (..., N h, M k)
    return costs.unflatten(-1, b.shape[-3:-1]).unflatten(-3, a.shape[-3:-1]).transpose(-3, -2)


def path_table(cost: Tensor) -> Tensor:
    """S (..., h, k) of cells (..., h, k); the gradient of a tie goes to both ways in equal parts.

    Raises ValueError for a table without cells.

    >>> path_table(torch.tensor([[1.0, 9.0], [2.0, 3.0]])).tolist()
    [[1.0, 10.0], [3.0, 6.0]]
    """
    if cost.dim() < 2 or 0 in cost.shape[-2:]:
        raise ArgumentError(f"a table of one or more cells (..., h, k) is needed, got {tuple(cost.shape)}")
    above, *below = cost.unbind(-2)
    rows = [above.cumsum(-1)]
    for cells in below:
        first, *others = cells.unbind(-1)
        row = [rows[-1][..., 0] + first]
        for j, cell in enumerate(others, start=1):
            row.append(torch.minimum(row[-1], rows[-1][..., j]) + cell)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def path_distance(a: Tensor, b: Tensor) -> Tensor:
    """S_hh (..., N, M) between images by their stripes a (..., N, h, d) and b (..., M, k, d), not normalized.

    Differentiable, in at least float32 even under autocast. Raises ValueError for shapes that do not fit.

    >>> x = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])  # one image of two stripes
    >>> path_distance(x, x).tolist()  # c_12 = 2, or c_21, on the way from c_11 = 0 to c_22 = 0
    [[2.0]]
    """
    if a.dim() < 3 or b.dim() < 3 or a.shape[-1] != b.shape[-1]:
        raise ArgumentError(f"stripes (N, h, d) and (M, k, d) are needed, got {tuple(a.shape)} and {tuple(b.shape)}")
    return path_table(stripe_costs(range_normalized(a), range_normalized(b)))[..., -1, -1]
