"""Center cluster: draw vectors to the batch center of their person, and push the centers of two people apart.

Wu, Dai, Chen, Lin, Wu, Huang, Zhong, Ji: "Discover Cross-Modality Nuances for Visible-Infrared Person
Re-Identification", CVPR 2021 (MPANet); checked against its released code, DoubtedSteam/MPANet.

    c_p  = mean of the vectors of person p in the batch, both modalities, P people; gradients flow through it
    pull = mean_i |x_i - c_{y_i}|
    push = mean_p mean_{q != p} max(0, m - |c_p - c_q|)        m = 0.7
    L    = pull + push                                          distances are not squared

The released code takes every K-th row for a center and so needs blocks of K rows of one person; here people are found
by their label, in any order and number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.layers.pooling import at_least_float32
from vireid.losses.batch_centers import batch_centers


class CenterCluster(NamedTuple):
    pull: Tensor  # ()
    push: Tensor  # ()

    @property
    def loss(self) -> Tensor:
        return self.pull + self.push


def center_cluster(x: Tensor, label: Tensor, margin: float = 0.7) -> CenterCluster:
    """Both terms over vectors x (N, D), not normalized, with label (N,); rows of all processes take part.

    With one person in the batch the push is 0. Raises ValueError for lengths that differ.

    >>> x, label = torch.tensor([[0.0], [1.0], [0.6], [1.0]]), torch.tensor([0, 0, 1, 1])
    >>> [round(v.item(), 4) for v in center_cluster(x, label)]
    [0.35, 0.4]
    """
    if len(x) != len(label):
        raise ArgumentError(f"one label per row is needed: {len(x)} rows, {len(label)} labels")
    x, label = at_least_float32(gather(x)), gather(label)
    centers, person, _ = batch_centers(x, label)
    pull = (x - centers[person]).norm(dim=1).mean()  # a vector that is its own center receives no gradient
    people = len(centers)
    # differences and not products: |a|^2 + |b|^2 - 2ab loses distances below the margin between long vectors
    apart = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")  # (P, P)
    other = 1 - torch.eye(people, dtype=x.dtype, device=x.device)
    push = ((margin - apart).clamp(min=0) * other).sum() / max(people * (people - 1), 1)
    return CenterCluster(pull, push)
