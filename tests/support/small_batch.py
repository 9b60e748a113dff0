"""A random batch of small pictures and the settings of a tiny two-stream network, for tests of methods."""

from __future__ import annotations

import torch

from vireid.method import Batch
from vireid.types import INFRARED, VISIBLE

TINY = {"width": 4, "blocks": (1, 1, 1, 1)}


def batch(pids: int = 4, images: int = 2, views: tuple[int, ...] = (VISIBLE, INFRARED)) -> Batch:
    label = torch.arange(pids).repeat_interleave(images)
    n = len(label)
    noise = torch.randn(n * len(views), 3, 64, 32, generator=torch.Generator().manual_seed(0))
    modality = torch.tensor(views).repeat_interleave(n)
    return Batch(noise, label.repeat(len(views)), modality + 1, modality, torch.arange(len(views)).repeat_interleave(n))
