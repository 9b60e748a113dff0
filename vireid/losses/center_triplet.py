"""Center triplet: each person's center in one modality near that in the other, and away from all of other people.

Liu, Tan, Zhou: "Parameter Sharing Exploration and Hetero-Center Triplet Loss for Visible-Thermal Person
Re-Identification", TMM 2021, the L_Tri of CM-LSP-GE (Wang, Li, Ma, arXiv 2022); written from the latter's equation.

With v_i and t_i the mean vectors of person i over its visible and its infrared rows, P people:

    L = sum_i [m + |v_i - t_i| - min_{j != i} min(|v_i - v_j|, |v_i - t_j|)]_+
      + sum_i [m + |t_i - v_i| - min_{j != i} min(|t_i - v_j|, |t_i - t_j|)]_+          m = 0.3

as printed (reduction="sum"); divided by the 2P centers it is the "mean", as in the released code of the former. That
code cuts the batch into equal pieces for its centers; here people are found by their label, in any order and number.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.losses.batch_centers import batch_centers
from vireid.losses.hard_triplet import hardest

Reduction = Literal["mean", "sum"]


def center_triplet(
    x: Tensor, label: Tensor, modality: Tensor, margin: float = 0.3, reduction: Reduction = "mean"
) -> Tensor:
    """The loss (scalar) over x (N, D), not normalized, with label (N,) and modality (N,); rows of all processes count.

    With one person in the batch it is 0. Raises ValueError for lengths that differ, another reduction, and a person
    with rows in one modality only.

    >>> x, label = torch.tensor([[0.0], [1.0], [4.0], [4.0]]), torch.tensor([0, 0, 1, 1])
    >>> center_triplet(x, label, torch.tensor([0, 1, 0, 1]), margin=3).item()  # mean of 3 + 1 - 4, 3 + 1 - 3, 0, 0
    0.25
    """
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"reduction is 'mean' or 'sum', got {reduction!r}")
    if not len(x) == len(label) == len(modality):
        raise ArgumentError(f"one label and modality per row: {len(x)} rows, {len(label)} and {len(modality)} given")
    x, label, modality = gather(x), gather(label), gather(modality)
    centers, _, keys = batch_centers(x, torch.stack([label, modality], dim=1))
    person, kind = keys.unbind(1)
    same = person[:, None] == person[None, :]
    counterpart = same & (kind[:, None] != kind[None, :])
    if not bool((counterpart.sum(1) == 1).all()):
        alone = person[counterpart.sum(1) != 1].unique().tolist()
        raise ArgumentError(
            f"a center triplet needs every person in both modalities of the batch; labels {alone} are not"
        )
    # differences and not products: |a|^2 + |b|^2 - 2ab loses distances below the margin between long vectors
    with torch.autocast(x.device.type, enabled=False):
        distance = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")  # (2P, 2P)
    positive, negative = hardest(distance, counterpart, ~same)
    hinged = (margin + positive - negative).clamp(min=0)
    return hinged.mean() if reduction == "mean" else hinged.sum()
