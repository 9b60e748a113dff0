"""Unidirectional metric: vectors of one modality against frozen identity proxies of the other modality.

Liu, Sun, Zhu, Pei, Yang, Li: "Learning Memory-Augmented Unidirectional Metrics for Cross-Modality Person
Re-Identification", CVPR 2022 (MAUM); written from the published equation, no code was released.

With x a vector of one modality, u_1..u_N the stored proxies of its identity in the other modality and v_1..v_M those
of all other identities there, all L2-normalized, scale alpha and margin delta:

    L(x) = log[ 1 + sum_j sum_i exp( alpha (v_j.x - u_i.x + delta) ) ]

The double sum is a product of two sums, so with LSE the logarithm of a sum of exponentials

    L(x) = log(1 + exp( LSE_j(alpha v_j.x) + LSE_i(-alpha u_i.x) + alpha delta ))

which takes N + M terms in place of N M and cannot overflow; the sum as printed can from alpha = 40 on in float32. The
N M pairs act like a further margin of ln(N M) / alpha: choose alpha with the number of proxies in mind.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vireid.errors import ArgumentError
from vireid.losses.weighted_triplet import soft_margin

EPS = 1e-12  # smallest length of a proxy that is divided by, as torch's normalize has it for x


def unidirectional(
    x: Tensor, label: Tensor, proxies: Tensor, *, alpha: float = 32.0, delta: float = 0.2, valid: Tensor | None = None
) -> Tensor:
    """L (N,) of every row of x (N, D) with label (N,), in at least float32; its mean is the objective.

    `proxies` (S, C, D) are S proxies of each of C identities, row c of every one belonging to label c; those of which
    `valid` (S,) is false are left out, and without a valid one L is 0 with gradient 0. Proxies receive no gradient;
    neither they nor x need to be normalized. Raises ValueError for shapes that do not fit, for fewer than two
    identities and for an alpha that is not positive.

    >>> x, proxies = torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> round(unidirectional(x, torch.tensor([0]), proxies, alpha=1, delta=0).item(), 4)  # log(1 + exp(0 - 1))
    0.3133
    """
    if proxies.dim() != 3 or x.shape[1:] != proxies.shape[2:] or label.shape != x.shape[:1]:
        raise ArgumentError(
            f"x (N, D), label (N,) and proxies (S, C, D) are needed, got {tuple(x.shape)}, {tuple(label.shape)} and "
            f"{tuple(proxies.shape)}"
        )
    if len(proxies) < 1 or proxies.shape[1] < 2:
        raise ArgumentError(f"one proxy each of two or more identities is needed, got proxies {tuple(proxies.shape)}")
    if alpha <= 0:
        raise ArgumentError(f"alpha must be positive, got {alpha}")
    if valid is None:
        valid = torch.ones(len(proxies), dtype=torch.bool, device=proxies.device)
    dtype = torch.promote_types(x.dtype, torch.float32)
    # Under autocast the product would be bfloat16, whose cosines are off by 0.004: times alpha that is a margin.
    with torch.autocast(x.device.type, enabled=False):
        proxies = proxies.detach().to(dtype)
        length = torch.linalg.vector_norm(proxies, dim=2).clamp(min=EPS)  # (S, C)
        cosine = (normalize(x.to(dtype), dim=1) @ proxies.flatten(0, 1).T).unflatten(1, length.shape) / length
    # A finite number in place of -inf: it weighs exactly 0 beside any cosine, and all of it gives no NaN.
    never = torch.finfo(dtype).min / 4
    out = ~valid[None, :, None]
    own = label[:, None, None].expand(-1, len(proxies), 1)  # (N, S, 1)
    positive = (-alpha * cosine.gather(2, own)).masked_fill(out, never).flatten(1)  # (N, S)
    negative = (alpha * cosine).scatter(2, own, never).masked_fill(out, never).flatten(1)  # (N, S C), own ones out
    return soft_margin(negative.logsumexp(1) + positive.logsumexp(1) + alpha * delta)
