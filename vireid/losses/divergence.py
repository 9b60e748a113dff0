"""Divergence: Kullback-Leibler divergence of the class probabilities of two sets of logits, row by row.

KL(p_i || q_i) = sum_c p_ic (log p_ic - log q_ic)        p = softmax(logits), q = softmax(other)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL(p_i || q_i) (N,) of logits and other (N, classes); gradients flow through what is given them.

    >>> z = torch.tensor([[0.0, 0.0]])
    >>> round(divergence(z, torch.tensor([[0.0, 1.0]])).item(), 4)
    0.1201
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p, log_q = F.log_softmax(logits.to(dtype), 1), F.log_softmax(other.to(dtype), 1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
