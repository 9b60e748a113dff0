"""Batch-hard triplet: each anchor's farthest positive must be nearer than its nearest negative by a margin.

Hermans, Beyer, Leibe: "In Defense of the Triplet Loss for Person Re-Identification", arXiv 2017; the `base` setting of
AGW's released code, mangye16/Cross-Modal-Re-ID-baseline, loss.py.

    L = mean_i max(0, m + max_{P_i} d_ij - min_{N_i} d_ij)        m = 0.3, distances of losses/distance.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.losses.distance import distance_to, pairwise_distance

BLOCK_BYTES = 1 << 28  # of distances at a time


def batch_hard_triplet(x: Tensor, label: Tensor, margin: float = 0.3) -> Tensor:
    """The loss (scalar) over x (N, D) with label (N,); rows of all processes take part.

    Raises ValueError for lengths that differ. In a batch of one person there is no negative and the loss is 0.

    >>> x = torch.tensor([[0.0], [1.0], [1.5], [2.0]])
    >>> round(batch_hard_triplet(x, torch.tensor([0, 0, 1, 1])).item(), 4)
    0.275
    """
    if len(x) != len(label):
        raise ArgumentError(f"one label per row is needed: {len(x)} rows, {len(label)} labels")
    x, label = gather(x), gather(label)
    d = pairwise_distance(x, x)
    same = label[:, None] == label[None, :]
    positive, negative = hardest(d, same, ~same)
    return (margin + positive - negative).clamp(min=0).mean()


def batch_hard_triplet_in_blocks(x: Tensor, label: Tensor, margin: float = 0.3) -> Tensor:
    """batch_hard_triplet for thousands of rows: distances are mined in blocks and N x N of them never exist at a time.

    Gradients are the same but where two rows are equally hard: here the first of them has it all.

    >>> x = torch.tensor([[0.0], [1.0], [1.5], [2.0]])
    >>> round(batch_hard_triplet_in_blocks(x, torch.tensor([0, 0, 1, 1])).item(), 4)
    0.275
    """
    if len(x) != len(label):
        raise ArgumentError(f"one label per row is needed: {len(x)} rows, {len(label)} labels")
    x, label = gather(x), gather(label)
    places: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for rows in torch.arange(len(x), device=x.device).split(max(1, BLOCK_BYTES // (8 * max(1, len(x))))):
            d = pairwise_distance(x[rows], x)
            same = label[rows, None] == label[None, :]
            places.append((d.masked_fill(~same, -torch.inf).argmax(1), d.masked_fill(same, torch.inf).argmin(1)))
    positive, negative = (torch.cat(parts) for parts in zip(*places, strict=True))
    gap = margin + distance_to(x, x[positive]) - distance_to(x, x[negative])
    return torch.where(label == label[negative], 0, gap.clamp(min=0)).mean()  # a row without a negative has no loss


def hardest(distance: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """The largest distance of each row to a positive and the smallest to a negative, both (..., N).

    Of distances (..., N, M) and masks (N, M). A row without a positive has -inf there, one without a negative inf:
    a hinge over both is then closed.
    """
    return distance.masked_fill(~positive, -torch.inf).amax(-1), distance.masked_fill(~negative, torch.inf).amin(-1)
