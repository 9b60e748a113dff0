"""Triplet on cosines, with two squared terms that draw positives to 1 and negatives to -1 and never vanish.

Choi, Lee, Kim, Kim, Kim: "Hi-CMD: Hierarchical Cross-Modality Disentanglement for Visible-Infrared Person
Re-Identification", CVPR 2020; checked against arrays recorded from its released code, bismex/HiCMD.

    p_i = least cosine of anchor i with a target of its identity        n_i = largest with a target of another identity
    L   = mean_i max(0, n_i - p_i + m) + mean_i (1 + n_i)^2 + mean_i (1 - p_i)^2                                 m = 0.5
"""

from __future__ import annotations

from torch import Tensor, inf

from vireid.distributed import gather
from vireid.errors import ArgumentError

EPS = 1e-8  # added to every length


def cosine_triplet(
    anchors: Tensor, anchor_label: Tensor, targets: Tensor, target_label: Tensor, margin: float = 0.5
) -> Tensor:
    """The loss (scalar) of anchors (N, D) against targets (M, D) of all processes, both with their labels.

    Anchors may stand among the targets, then an anchor's own row is a positive of it. Raises ValueError where an anchor
    has no positive or no negative.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> cosine_triplet(x, torch.tensor([0, 1]), x, torch.tensor([0, 1]))  # nothing is left to learn
    tensor(0.)
    """
    targets, target_label = gather(targets), gather(target_label)
    cosine = unit(anchors) @ unit(targets).T
    same = anchor_label[:, None] == target_label[None, :]
    if not bool(same.any(1).all() and (~same).any(1).all()):
        raise ArgumentError(
            f"every anchor needs a target of its identity and one of another; anchors have labels "
            f"{anchor_label.tolist()}, targets {target_label.tolist()}"
        )
    positive = cosine.masked_fill(~same, inf).amin(1)
    negative = cosine.masked_fill(same, -inf).amax(1)
    hinge = (negative - positive + margin).clamp(min=0).mean()
    return hinge + (1 + negative).square().mean() + (1 - positive).square().mean()


def unit(x: Tensor) -> Tensor:
    """Rows (N, D) with length 1."""
    return x / (x.norm(dim=1, keepdim=True) + EPS)
