"""Center cascade: rows to the center of their sub-class, sub-classes to that of their identity, identities apart.

Zhang, Zhao, Kang, Shen: "Modality Synergy Complement Learning with Cascaded Aggregation for Visible-Infrared Person
Re-identification", ECCV 2022 (MSCLNet), equations 10 to 12; written from the paper, no code was released.

N rows f_i of identity y_i; a sub-class s is what one camera sees of an identity; C are the means of the batch:

    L_sub   = 1/N sum_i |f_i - C_{s_i}|^2
    L_intra = 1/N sum_i sum_{s of y_i} |C_s - C_{y_i}|^2                    over the sub-classes that occur
    L_inter = - 2 / (P (P - 1)) sum_{p < q} |u_p - u_q|^2                   inter="bounded": u = C / |C|, P identities
    L_inter = - 2 / (N (N - 1)) sum_i sum_{j != i} |C_{y_i} - C_{y_j}|^2    inter="literal", as printed

As printed L_inter has no lower bound, so the longest vectors win, it counts every pair of rows twice and weighs an
identity by its number of rows. The bounded one lies between -2 P / (P - 1) (so -4 at P = 2) and 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.losses.batch_centers import batch_centers

Inter = Literal["bounded", "literal"]


class CenterCascade(NamedTuple):
    sub: Tensor  # ()
    intra: Tensor  # ()
    inter: Tensor  # ()


def center_cascade(x: Tensor, label: Tensor, part: Tensor, inter: Inter = "bounded") -> CenterCascade:
    """The three terms of x (N, D) with label (N,); label and `part` (N, k), e.g. cameras, together name the sub-class.

    Rows of all processes take part. With one identity L_inter is 0. Raises ValueError for lengths or words that do not
    fit.

    >>> x, label = torch.tensor([[0.0], [2.0], [4.0], [-1.0]]), torch.tensor([0, 0, 0, 1])
    >>> [round(v.item(), 4) for v in center_cascade(x, label, torch.tensor([[1], [1], [2], [1]]))]
    [0.5, 3.75, -4.0]
    """
    if inter not in ("bounded", "literal"):
        raise ArgumentError(f"inter is 'bounded' or 'literal', got {inter!r}")
    if not len(x) == len(label) == len(part) or part.dim() != 2:
        raise ArgumentError(
            f"x (N, D), label (N,) and part (N, k) are needed, got {tuple(x.shape)}, {tuple(label.shape)} and "
            f"{tuple(part.shape)}"
        )
    x, label, part = gather(x), gather(label), gather(part)
    identity = batch_centers(x, label)
    sub = batch_centers(x, torch.cat([label[:, None], part], dim=1))
    to_sub = (x - sub.centers[sub.row]).square().sum(1).mean()
    rows = F.one_hot(identity.row).sum(0).to(x.dtype)  # (P,) rows of each identity
    owner = torch.searchsorted(identity.keys, sub.keys[:, 0].contiguous())  # (subs,) whose sub-class it is
    spread = (sub.centers - identity.centers[owner]).square().sum(1)
    intra = (rows[owner] * spread).sum() / len(x)
    if inter == "literal":
        centers, weight, count = identity.centers, rows[:, None] * rows[None, :], len(x)
    else:  # every pair of identities stands twice in the sum below
        centers, weight, count = F.normalize(identity.centers, dim=1), 0.5, len(rows)
    # differences and not products, which would lose the small distances between long centers
    apart = (centers[:, None] - centers[None, :]).square().sum(2)  # (P, P)
    return CenterCascade(to_sub, intra, -(weight * apart).sum() / max(count * (count - 1) / 2, 1))
