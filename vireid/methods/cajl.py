"""CAJL: visible images reduced to one of their own channels join the training as a third view.

Ye, Ruan, Du, Shou: "Channel Augmented Joint Learning for Visible-Infrared Recognition", ICCV 2021; checked against its
released code, mangye16/Cross-Modal-Re-ID-baseline, ICCV21_CAJ.

A visible image V whose three channels are all replaced by one of them (V') looks like an infrared image I but keeps
the person's detail. V' is made from the same files as V, with its own crop, flip and erased rectangle, and passes
through the visible stem. The network is AGW's; the triplet runs over V, V' and I together.

    L = L_id + L_sq + w L_kl
    L_id = mean cross-entropy over V, V', I
    L_sq = enhanced squared difference of the pooled vectors of V, V', I (losses/enhanced_squared_difference.py)
    L_kl = softened KL divergence of the logits of V from those of I, T = 3 (losses/softened_kl.py); w = 0
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, ChannelExchange, ChannelJitter, Erase, Flip, Normalize, PadCrop
from vireid.layers.nonlocal_block import InnerWidth
from vireid.layers.pooling import Pooling
from vireid.losses.enhanced_squared_difference import Beyond, enhanced_squared_difference
from vireid.losses.softened_kl import softened_kl
from vireid.losses.weighted_triplet import Softmax
from vireid.method import Batch, Progress, Recipe, View
from vireid.methods.agw import AGW
from vireid.training.optim import SGD, WarmupSteps
from vireid.types import INFRARED, VISIBLE

ORIGINAL, AUGMENTED, INFRARED_VIEW = 0, 1, 2  # V, V' and I: views in the order of the released code
CROP = (PadCrop(10), Flip(0.5), Normalize())


class CAJL(AGW):
    """Settings of the network as AGW's (width, blocks, attention, nonlocal_width, pooling), and of the losses:

    square: the signed square (main script) or the plain weighted triplet; gamma, alpha: its factor and that of the
    distances inside the weights; beyond: "clamp" (released: no gradient above 88) or "linear"; softmax: "official" or
    "exact" weights; kl: weight w of L_kl.
    """

    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        # Everything behind Normalize acts on normalized values, as in the released code; so copying a channel of an
        # infrared image, whose channels were equal before, still changes its brightness a little.
        views=(
            View(VISIBLE, Chain(*CROP, Erase(0.5))),
            View(VISIBLE, Chain(*CROP, Erase(0.5), ChannelExchange())),
            View(INFRARED, Chain(*CROP, Erase(0.5), ChannelJitter(gray=0.5))),
        ),
        epochs=100,
        optimizers={"backbone": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    def __init__(
        self,
        num_pids: int,
        camids: tuple[int, ...] = (),
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        attention: bool = True,
        nonlocal_width: InnerWidth = "one",
        pooling: Pooling = "gem",
        square: bool = True,
        gamma: float = 1.0,
        alpha: float = 1.0,
        beyond: Beyond = "clamp",
        softmax: Softmax = "official",
        kl: float = 0.0,
    ) -> None:
        super().__init__(
            num_pids,
            camids,
            width=width,
            blocks=blocks,
            attention=attention,
            nonlocal_width=nonlocal_width,
            pooling=pooling,
            softmax=softmax,
        )
        self.square, self.gamma, self.alpha, self.kl = square, gamma, alpha, kl
        self.beyond: Beyond = beyond

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        _, pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        logits = self.classifier(embedding)
        return {
            "identity": F.cross_entropy(logits, batch.label),
            "triplet": self.triplet_loss(pooled, batch.label),
            **self.logit_losses(logits, batch),
        }

    def logit_losses(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the views' logits (N, num_pids) learn from each other."""
        if not self.kl:
            return {}
        return {"kl": self.kl * softened_kl(logits[batch.view == ORIGINAL], logits[batch.view == INFRARED_VIEW])}

    def triplet_loss(self, pooled: Tensor, label: Tensor) -> Tensor:
        out = enhanced_squared_difference(
            pooled,
            label,
            square=self.square,
            gamma=self.gamma,
            alpha=self.alpha,
            softmax=self.softmax,
            beyond=self.beyond,
        )
        self.watch.update(saturated=out.saturated, lost_negatives=out.lost, correct=out.correct)
        return out.loss
