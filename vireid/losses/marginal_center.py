"""Marginal center aggregation: every row comes as near to its class's center as the nearest row of that class.

Hao, Zhao, Ye, Shen: "Cross-Modality Person Re-Identification via Modality Confusion and Center Aggregation", ICCV 2021
(MCLNet); checked against its released code, bitreidgroup/Modality-Confusion-Learning. A plain center loss also takes
away what differs between images of one person; here the nearest row marks how far the others are pulled.

With squared distances D_i = |x_i - c_{y_i}|^2, the nearest row's o_i = min_{j: y_j = y_i} D_j, n_i rows of class y_i in
the batch and e_i = min_{q != y_i} |c_{y_i} - c_q|^2 over all centers, in the batch or not:

    hinge="batch"    L = [ mean_i (D_i - w_i o_i) - sigma ]_+  +  [ rho - mean_i e_i ]_+       released code
    hinge="sample"   L = mean_i [ D_i - w_i o_i - sigma ]_+    +  mean_i [ rho - e_i ]_+       paper

w_i = 1. The released code has a fixed number of images per person instead of n_i: w_i = rows_per_class / n_i. The
nearest row keeps its gradient, so it is pushed away from the center while the others are pulled.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError

Hinge = Literal["batch", "sample"]


def marginal_center_aggregation(
    x: Tensor,
    label: Tensor,
    centers: Tensor,
    *,
    sigma: float = 8.0,
    rho: float = 4500.0,
    hinge: Hinge = "batch",
    rows_per_class: int | None = None,
) -> Tensor:
    """The loss (scalar) of x (N, D), not normalized, with label (N,) in 0..classes-1 and centers (classes, D).

    Rows of all processes take part. With both hinges closed it is a 0 whose gradient is 0; a single center has no
    other one to keep away from. Raises ValueError for a word that is not an option and for shapes that do not fit.

    >>> x, centers = torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([[0.0], [5.0]])
    >>> marginal_center_aggregation(x, torch.tensor([0, 0, 1]), centers, sigma=0, rho=27).item()  # 1/3 + (27 - 25)
    2.3333332538604736
    """
    if hinge not in ("batch", "sample"):
        raise ArgumentError(f"hinge is 'batch' or 'sample', got {hinge!r}")
    if len(x) != len(label) or x.shape[1:] != centers.shape[1:]:
        raise ArgumentError(
            f"x (N, D), label (N,) and centers (classes, D) are needed, got {tuple(x.shape)}, {tuple(label.shape)} "
            f"and {tuple(centers.shape)}"
        )
    x, label = gather(x), gather(label)
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, centers = x.to(dtype), centers.to(dtype)
    own = centers[label]
    distance = (x - own).square().sum(1)
    same = label[:, None] == label[None, :]
    nearest = distance[None, :].expand_as(same).masked_fill(~same, torch.inf).amin(1)
    if rows_per_class is not None:
        nearest = nearest * (rows_per_class / same.sum(1).to(dtype))
    pull = distance - nearest
    push = rho - nearest_center(own, label, centers)
    if hinge == "batch":
        pull, push = pull.mean(), push.mean()
    return (pull - sigma).clamp(min=0).mean() + push.clamp(min=0).mean()


def nearest_center(own: Tensor, label: Tensor, centers: Tensor) -> Tensor:
    """(N,) squared distance from each row's center `own` (N, D) to the nearest center of another class."""
    # Under autocast the product would be bfloat16. The difference of every pair would take N x classes x D numbers.
    with torch.autocast(own.device.type, enabled=False):
        squared = own.square().sum(1)[:, None] + centers.square().sum(1)[None, :] - 2 * (own @ centers.T)
    other = label[:, None] != torch.arange(len(centers), device=label.device)[None, :]
    return squared.clamp(min=0).masked_fill(~other, torch.inf).amin(1)
