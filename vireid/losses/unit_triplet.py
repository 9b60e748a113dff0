"""Unit triplet, a setting of triplet losses on pooled vectors: each vector is divided by its length first.

Pooled vectors of some pretrained backbones are long: of EfficientNet-Lite0 about 30, at distances of about 25. The
weighted triplet of such vectors begins with a loss of 28, and its steps destroy the pretrained weights. Unit vectors
are at most 2 apart.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid.declaration import settings


@settings
class UnitTriplet:
    """Of a method whose triplet acts on the pooled vectors."""

    unit_triplet: bool = False
    """Whether the triplet compares unit vectors: keeps a pretrained start whose vectors are long."""

    def compared(self, pooled: Tensor) -> Tensor:
        """What the triplet acts on: the pooled vectors (N, D), or the same with length 1."""
        return F.normalize(pooled, dim=1) if self.unit_triplet else pooled
