"""First losses: whether a training from pretrained weights begins with steps that destroy them.

A triplet loss that knows nothing about the people is about ln 2 (weighted) or the margin (batch-hard). One of many
units says that raw vectors lie so far apart that its gradient outweighs all others: after some steps of that size the
pretrained weights are gone, and the training is worse than one from scratch that is as short.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

STEPS = 10  # the first ones, which are looked at
LIMIT = 8.0  # mean triplet loss; starts from EfficientNet-Lite0 that were destroyed had 8 to 28
log = logging.getLogger(__name__)


class FirstLosses:
    """Watches the first steps of a training from pretrained weights, and warns once; `init` is None for random ones.

    `watched` is the name of the loss that compares raw distances, "" where a method has none.
    """

    def __init__(self, init: str | None, watched: str) -> None:
        self.init, self.watched = init, watched
        self.seen: list[Tensor] = []

    def see(self, losses: Mapping[str, Tensor], iteration: int) -> None:
        """Take the losses of step `iteration`, from 0; those behind the first steps are left alone."""
        if self.init is None or self.watched not in losses or iteration >= STEPS:
            return
        self.seen.append(losses[self.watched].detach().float())
        if iteration + 1 == STEPS and (mean := torch.stack(self.seen).mean().item()) > LIMIT:
            log.warning(
                "the mean %s loss of the first %d steps is %.1f, above %g: steps of this size destroy the weights of "
                "the start (%s). Compare unit vectors (unit_triplet=true, where the method has it), take "
                "pooling=average, or lower optimizers.backbone.lr and warm up longer (schedule.warmup_steps)",
                self.watched, len(self.seen), mean, LIMIT, self.init,
            )  # fmt: skip
