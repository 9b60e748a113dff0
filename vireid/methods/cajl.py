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

from torch import Tensor

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, ChannelExchange, ChannelJitter, Erase, Flip, Normalize, PadCrop
from vireid.declaration import Weight, settings
from vireid.losses.softened_kl import softened_kl
from vireid.method import Batch, Recipe, View
from vireid.methods._channel_augmented import ChannelAugmented, ChannelAugmentedSettings
from vireid.training.optim import SGD, WarmupSteps
from vireid.types import INFRARED, VISIBLE

ORIGINAL, AUGMENTED, INFRARED_VIEW = 0, 1, 2  # V, V' and I: views in the order of the released code
CROP = (PadCrop(10), Flip(0.5), Normalize())


@settings
class CAJLSettings(ChannelAugmentedSettings):
    """The released code's values."""

    kl: Weight = 0.0
    """Weight w of the divergence of V's logits from those of I."""


class CAJL(ChannelAugmented):
    """The released method; its divergence between the logits of V and I is off by default, as in the main script."""

    Settings = CAJLSettings
    settings: CAJLSettings
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

    def logit_losses(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the views' logits (N, num_pids) learn from each other."""
        if not self.settings.kl:
            return {}
        visible, infrared = (logits[batch.view == view] for view in (ORIGINAL, INFRARED_VIEW))
        return {"kl": self.settings.kl * softened_kl(visible, infrared)}
