"""Part triplet: batch-hard, stripe by stripe, or by the shortest path through the stripes of two images.

Wang, Li, Ma: "Cross-modal Local Shortest Path and Global Enhancement for Visible-Thermal Person Re-Identification",
arXiv 2022 (CM-LSP-GE); written from the published equations, no code was released.

With f_aj stripe j of image a, positives p (other images of the same person) and negatives n (of other people):

    L_PA   = sum_a sum_j [m + max_p |f_aj - f_pj| - min_n |f_aj - f_nj|]_+          m = 0.3      part_triplet
    L_path = sum_a [m + max_p S_ap / d - min_n S_an / d]_+     S: layers/shortest_path.py        path_triplet

L_PA as printed lacks the hinge [.]_+, without which it has no lower bound. "sum" is the printed sum over anchors a,
"mean" their mean; stripes are added up in both. L_path is the reading of AlignedReID; S grows with the d channels of a
stripe, so it is divided by d, which leaves numbers of 2 to 3 for which a margin of 0.3 means something. An anchor is
never its own positive, since its path to itself is not 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.layers.pooling import at_least_float32
from vireid.layers.stripe_path import path_distance
from vireid.losses.center_triplet import Reduction
from vireid.losses.hard_triplet import hardest

Candidates = Literal["both", "cross"]


def part_triplet(
    stripes: Tensor,
    label: Tensor,
    modality: Tensor,
    *,
    margin: float = 0.3,
    candidates: Candidates = "both",
    reduction: Reduction = "mean",
) -> Tensor:
    """L_PA (scalar) of stripes (N, S, d) with label (N,) and modality (N,); rows of all processes take part.

    Positives and negatives come from "both" modalities, or from the other one alone ("cross"). An anchor without a
    positive or a negative counts 0. Raises ValueError for shapes that do not fit and for another word.

    >>> x = torch.tensor([[[0.0]], [[1.0]], [[1.5]], [[2.0]]])
    >>> round(part_triplet(x, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])).item(), 4)
    0.275
    """
    check(stripes, label, modality, candidates, reduction)
    x = at_least_float32(gather(stripes)).transpose(0, 1)  # (S, N, d)
    with torch.autocast(x.device.type, enabled=False):  # differences: products lose the distance of similar stripes
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")  # (S, N, N)
    each = batch_hard(distance, gather(label), gather(modality), margin, candidates).sum(0)
    return each.mean() if reduction == "mean" else each.sum()


def path_triplet(
    stripes: Tensor,
    label: Tensor,
    modality: Tensor,
    *,
    margin: float = 0.3,
    candidates: Candidates = "both",
    reduction: Reduction = "mean",
    scale: float | None = None,
) -> Tensor:
    """L_path (scalar); arguments and errors as `part_triplet`, and the number S is divided by, by default d."""
    check(stripes, label, modality, candidates, reduction)
    x = gather(stripes)
    distance = path_distance(x, x) / (scale or x.shape[2])  # (N, N)
    each = batch_hard(distance, gather(label), gather(modality), margin, candidates)
    return each.mean() if reduction == "mean" else each.sum()


def batch_hard(distance: Tensor, label: Tensor, modality: Tensor, margin: float, candidates: Candidates) -> Tensor:
    """Hinges (..., N) of every anchor, of distances (..., N, N) with label (N,) and modality (N,)."""
    same = label[:, None] == label[None, :]
    itself = torch.eye(len(label), dtype=torch.bool, device=label.device)
    candidate = ~itself if candidates == "both" else modality[:, None] != modality[None, :]
    positive, negative = hardest(distance, same & candidate, ~same & candidate)
    return (margin + positive - negative).clamp(min=0)


def check(stripes: Tensor, label: Tensor, modality: Tensor, candidates: str, reduction: str) -> None:
    if candidates not in ("both", "cross") or reduction not in ("mean", "sum"):
        raise ArgumentError(
            f"candidates is 'both' or 'cross' and reduction 'mean' or 'sum', got {candidates!r} and {reduction!r}"
        )
    if stripes.dim() != 3 or not len(stripes) == len(label) == len(modality):
        raise ArgumentError(
            f"stripes (N, S, d), label (N,) and modality (N,) are needed, got {tuple(stripes.shape)}, "
            f"{tuple(label.shape)} and {tuple(modality.shape)}"
        )
