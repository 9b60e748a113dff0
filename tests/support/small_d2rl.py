"""A small D2RL, its batch, and one step of a stage."""

from __future__ import annotations

import torch
from torch import Tensor

from vireid.method import Batch, Progress
from vireid.methods.d2rl import D2RL
from vireid.training.optim import Optimizers
from vireid.types import INFRARED, VISIBLE

STAGES = D2RL.recipe
Weights = dict[str, list[Tensor]]


def tiny(**settings: object) -> D2RL:
    torch.manual_seed(0)
    return D2RL(4, (1, 2), **{**D2RL.tiny, **settings}).train()  # pyright: ignore[reportArgumentType]


def batch(pids: int = 4, images: int = 2, dtype: torch.dtype = torch.float32) -> Batch:
    """Pixels from -1 to 1; infrared images are gray."""
    label = torch.arange(pids).repeat_interleave(images)
    n = len(label)
    pixels = torch.rand(2 * n, 3, 64, 32, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels[n:] = pixels[n:, :1]
    modality = torch.tensor([VISIBLE, INFRARED]).repeat_interleave(n)
    return Batch(pixels, label.repeat(2), modality + 1, modality, modality)


def weights(method: D2RL) -> Weights:
    return {name: [p.detach().clone() for p in group] for name, group in method.params().items()}


def moved(before: Weights, method: D2RL) -> set[str]:
    """Groups of which some parameter has changed."""
    now = weights(method)
    return {n for n in before if any(not a.equal(b) for a, b in zip(before[n], now[n], strict=True))}


def take(method: D2RL, stage: int, iteration: int = 1) -> dict[str, Tensor]:
    """One step of a stage at its own rates."""
    optim = Optimizers(method.params(), STAGES[stage])
    return getattr(method, STAGES[stage].step)(batch(), optim, Progress(stage=stage, iteration=iteration))
