"""Consistency: the logits of one view learn the class probabilities of another view of the same image.

Ye, Wu, Chen, Du: "Channel Augmentation for Visible-Infrared Re-Identification", TPAMI 2024 (CAJ+); checked against its
released code, mangye16/Cross-Modal-Re-ID-baseline, PAMI23_Supervised/loss.py.

    L = - mean_i sum_c softmax(teacher_i)_c log softmax(student_i)_c

By default the teacher is the strongly (channel-) augmented image and the student the weakly augmented one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def consistency(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss (scalar) of student logits (N, classes) against teacher logits, which receive no gradient.

    >>> z = torch.zeros(1, 4)
    >>> round(consistency(z, z).exp().item(), 4)
    4.0
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    return F.cross_entropy(student.to(dtype), F.softmax(teacher.detach().to(dtype), 1))
