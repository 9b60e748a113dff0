"""Softened KL divergence: logits learn from other logits at a raised temperature.

Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network", arXiv 2015; the term that CAJL's released code
(mangye16/Cross-Modal-Re-ID-baseline, ICCV21_CAJ/loss.py) holds ready with weight 0.

    q = softmax(target / T) + 1e-7, p = softmax(z / T)
    L = T^2 / N  sum_i sum_c q_ic (log q_ic - log p_ic)        T = 3

The 1e-7 is the released code's; with it the loss of equal logits is about 1e-6 times the number of classes, not 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-7


def softened_kl(logits: Tensor, target_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """The loss (scalar) that draws logits (N, classes) to target_logits, which receive no gradient.

    >>> z = torch.tensor([[1.0, 2.0, 4.0]])
    >>> softened_kl(z, z + 5).item() < 1e-5
    True
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = F.log_softmax(logits.to(dtype) / temperature, 1)
    q = F.softmax(target_logits.detach().to(dtype) / temperature, 1) + EPS
    return (q * (q.log() - log_p)).sum(1).mean() * temperature**2
