"""Weighted regularized triplet (WRT): a triplet loss without margin whose pairs are weighted by their difficulty.

Ye, Shen, Lin, Xiang, Shao, Hoi: "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021 (AGW);
checked against its released code, mangye16/Cross-Modal-Re-ID-baseline, loss.py.

Over the whole batch, both modalities mixed, with distances d_ij (losses/distance.py), positives P_i (the same person)
and negatives N_i (other people) of anchor i:

    w_ij^p = exp(d_ij) / sum_{P_i} exp(d_ij)          the farther a positive, the heavier
    w_ij^n = exp(-d_ij) / sum_{N_i} exp(-d_ij)        the nearer a negative, the heavier
    mu_i   = sum_{P_i} w_ij^p d_ij - sum_{N_i} w_ij^n d_ij
    L      = mean_i log(1 + exp(mu_i))

The released code adds 1e-6 to both sums, shifts d by its maximum over the positives but leaves the negatives
unshifted. When every negative is farther than about ln(1e6 |N_i|) (18 for 56 negatives) the 1e-6 outweighs the sum,
the weights of the negatives vanish and their mean distance reads as 0: the loss then only pulls positives together.
`softmax="exact"` is the printed equation. Both count the anchor among its own positives (at distance 1e-6), as the
code does; `own_positive=False` leaves it out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.losses.distance import pairwise_distance

Softmax = Literal["official", "exact"]
EPS = 1e-6  # added to the sums of weights in the released code


class WeightedDistances(NamedTuple):
    """Per anchor: weighted distances to positives and negatives, and the sum of the negatives' weights (1 if exact)."""

    positive: Tensor  # (N,)
    negative: Tensor  # (N,)
    negative_mass: Tensor  # (N,), without gradient

    @property
    def mu(self) -> Tensor:
        """(N,) positive minus negative: above 0 the anchor is on the wrong side."""
        return self.positive - self.negative

    @property
    def lost(self) -> Tensor:
        """() share of anchors whose negative weights sum below 0.5: they no longer push anyone away."""
        return (self.negative_mass < 0.5).to(self.mu.dtype).mean()


class WeightedTriplet(NamedTuple):
    loss: Tensor  # ()
    lost: Tensor  # () see WeightedDistances.lost
    correct: Tensor  # () share of anchors whose weighted negatives are at least as far as their positives


def weighted_distances(
    x: Tensor, label: Tensor, alpha: float = 1.0, softmax: Softmax = "official", own_positive: bool = True
) -> WeightedDistances:
    """Weighted distances of every row of x (N, D) with label (N,); `alpha` multiplies distances inside the exponent.

    Rows of all processes take part. With softmax="exact" an anchor without a positive or a negative gives NaN.
    Raises ValueError for another softmax or for lengths that differ.
    """
    if softmax not in ("official", "exact"):
        raise ArgumentError(f"softmax is 'official' or 'exact', got {softmax!r}")
    if len(x) != len(label):
        raise ArgumentError(f"one label per row is needed: {len(x)} rows, {len(label)} labels")
    x, label = gather(x), gather(label)
    d = pairwise_distance(x, x)
    same = label[:, None] == label[None, :]
    itself = torch.eye(len(label), dtype=torch.bool, device=label.device)
    positive, negative = (same if own_positive else same & ~itself), ~same
    # -inf before the exponential: an excluded pair weighs exactly 0 and cannot overflow
    near = (alpha * d).masked_fill(~positive, -torch.inf)
    far = (-alpha * d).masked_fill(~negative, -torch.inf)
    if softmax == "exact":
        wp, wn = near.softmax(1), far.softmax(1)
    else:
        shift = torch.where(positive, alpha * d, 0).amax(1, keepdim=True)
        wp = torch.exp(near - shift)
        wp = wp / (wp.sum(1, keepdim=True) + EPS)
        wn = torch.exp(far)
        wn = wn / (wn.sum(1, keepdim=True) + EPS)
    return WeightedDistances((wp * d).sum(1), (wn * d).sum(1), wn.detach().sum(1))


def weighted_regularized_triplet(
    x: Tensor, label: Tensor, softmax: Softmax = "official", own_positive: bool = True
) -> WeightedTriplet:
    """The loss over pooled vectors x (N, D), not normalized, with label (N,), and two counters for the log.

    >>> x = torch.tensor([[0.0], [1.0], [9.0], [9.5]])
    >>> out = weighted_regularized_triplet(x, torch.tensor([0, 0, 1, 1]), softmax="exact")
    >>> round(out.loss.item(), 4), out.correct.item()
    (0.0003, 1.0)
    """
    w = weighted_distances(x, label, softmax=softmax, own_positive=own_positive)
    correct = (w.mu.detach() <= 0).to(w.mu.dtype).mean()
    return WeightedTriplet(soft_margin(w.mu).mean(), w.lost, correct)


def soft_margin(mu: Tensor) -> Tensor:
    """log(1 + exp(mu)), elementwise, exact for large mu as well."""
    return -torch.nn.functional.logsigmoid(-mu)
