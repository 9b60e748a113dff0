"""Modality-aware enhancement (CMTR): embeddings without their modality's part meet at the identity's center.

Liang et al.: "CMTR: Cross-modality Transformer for Visible-infrared Person Re-identification",
arXiv 2021; written from the published equations. With the cleaned embedding g_i, identity y_i and center c:

    L_MAC  = sum_i log(1 + exp D(g_i, c_{y_i}))            printed; `reduction="mean"` is the mean over the rows
    L_MAID = sum_i cross-entropy(W g_i, y_i)
    c_y    = mean of the g of identity y, over both modalities (center="identity")
    c_y^m  = mean over those of modality m only (center="modality")

The second center is the printed one; with it nothing in L_MAC joins the modalities, which the text says it does. D is
not defined: |g - c| ("euclidean"), its square ("squared"), or |g - c| after every g is made length 1 ("normalized").
A row at its center costs log 2, the smallest value.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.layers.pooling import at_least_float32
from vireid.losses.batch_centers import batch_centers
from vireid.losses.weighted_triplet import soft_margin

Center = Literal["identity", "modality"]
Distance = Literal["euclidean", "squared", "normalized"]
Reduction = Literal["mean", "sum"]
FLOOR = 1e-12  # of the squared distance: the root keeps a slope at 0


def modality_aware_center(
    cleaned: Tensor,
    label: Tensor,
    modality: Tensor,
    *,
    center: Center = "identity",
    distance: Distance = "euclidean",
    reduction: Reduction = "mean",
) -> Tensor:
    """L_MAC (scalar) of cleaned embeddings (N, D), not normalized, with label (N,) and modality (N,).

    Rows of all processes take part; centers keep their gradient. Raises ValueError for another word.

    >>> g, label = torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1])
    >>> round(modality_aware_center(g, label, torch.tensor([0, 1, 0]), reduction="sum").item(), 4)  # D = 1, 1 and 0
    3.3197
    """
    if center not in ("identity", "modality"):
        raise ArgumentError(f"center is 'identity' or 'modality', got {center!r}")
    if distance not in ("euclidean", "squared", "normalized"):
        raise ArgumentError(f"distance is 'euclidean', 'squared' or 'normalized', got {distance!r}")
    g, label, modality = gather(at_least_float32(cleaned)), gather(label), gather(modality)
    if distance == "normalized":
        g = F.normalize(g)
    grouped = batch_centers(g, label if center == "identity" else torch.stack([label, modality], 1))
    squared = (g - grouped.centers[grouped.row]).square().sum(1)
    return reduced(soft_margin(squared if distance == "squared" else (squared + FLOOR).sqrt()), reduction)


def modality_aware_identity(
    logits: Tensor, label: Tensor, reduction: Reduction = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """L_MAID (scalar) of the logits (N, num_pids) of cleaned embeddings with label (N,), over all processes."""
    each = F.cross_entropy(logits, label, reduction="none", label_smoothing=label_smoothing)
    return reduced(gather(each), reduction)


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Mean or sum of (N,)."""
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"reduction is 'mean' or 'sum', got {reduction!r}")
    return values.mean() if reduction == "mean" else values.sum()
