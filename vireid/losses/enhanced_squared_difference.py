"""Enhanced squared difference: WRT with a signed square, so that violations weigh more and satisfied anchors less.

Ye, Ruan, Du, Shou: "Channel Augmented Joint Learning for Visible-Infrared Recognition", ICCV 2021 (CAJL); checked
against its released code, mangye16/Cross-Modal-Re-ID-baseline, ICCV21_CAJ/loss.py.

With mu_i the weighted positive minus the weighted negative distance of anchor i (losses/weighted_triplet.py, weights
of exp(+-alpha d)):

    v_i = sign(mu_i) min(gamma mu_i^2, 88)        square=False: v_i = gamma mu_i
    L   = mean_i log(1 + exp(v_i))

The 88 keeps exp(v) finite in float32. It also ends the gradient: from mu = sqrt(88 / gamma) on (9.38 for gamma 1) an
anchor contributes a constant. `beyond="linear"` continues v with the slope it has there; the loss is the same below.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vireid.errors import ArgumentError
from vireid.losses.weighted_triplet import Softmax, soft_margin, weighted_distances

LIMIT = 88.0  # just below the largest x with a finite exp(x) in float32
Beyond = Literal["clamp", "linear"]


class EnhancedSquaredDifference(NamedTuple):
    loss: Tensor  # ()
    saturated: Tensor  # () share of anchors on the wrong side at or beyond the limit
    lost: Tensor  # () share of anchors whose negative weights sum below 0.5
    correct: Tensor  # () share of anchors whose weighted negatives are at least as far as their positives


def enhanced_squared_difference(
    x: Tensor,
    label: Tensor,
    *,
    square: bool = True,
    gamma: float = 1.0,
    alpha: float = 1.0,
    softmax: Softmax = "official",
    beyond: Beyond = "clamp",
) -> EnhancedSquaredDifference:
    """The loss over pooled vectors x (N, D), not normalized, with label (N,), and three counters for the log.

    Rows of all processes take part. Raises ValueError for a word that is not an option or a gamma that is not positive.

    >>> x, label = torch.tensor([[0.0], [1.0], [2.0], [3.5]]), torch.tensor([0, 0, 1, 1])
    >>> [round(enhanced_squared_difference(x, label, square=s).loss.item(), 4) for s in (False, True)]
    [0.3795, 0.3565]
    """
    if beyond not in ("clamp", "linear"):
        raise ArgumentError(f"beyond is 'clamp' or 'linear', got {beyond!r}")
    if gamma <= 0:
        raise ArgumentError(f"gamma must be positive, got {gamma}")
    w = weighted_distances(x, label, alpha, softmax)
    mu = w.mu
    v = signed_square(mu, gamma, beyond) if square else gamma * mu
    at_limit = (v >= LIMIT) & square  # without the square nothing is limited
    saturated, correct = at_limit.to(mu.dtype).mean(), (mu <= 0).to(mu.dtype).mean()
    return EnhancedSquaredDifference(soft_margin(v).mean(), saturated, w.lost, correct)


def signed_square(mu: Tensor, gamma: float, beyond: Beyond) -> Tensor:
    """sign(mu) gamma mu^2, elementwise, limited to 88 or continued with its slope from there."""
    size = gamma * mu.square()
    if beyond == "clamp":
        size = size.clamp(max=LIMIT)
    else:
        slope = 2 * math.sqrt(LIMIT * gamma)  # d(gamma mu^2)/d mu where gamma mu^2 = 88
        size = torch.where(size <= LIMIT, size, LIMIT + slope * (mu.abs() - math.sqrt(LIMIT / gamma)))
    return torch.where(mu > 0, size, -size)
