"""CAJ+: CAJL whose weakly augmented image also learns from the class probabilities of its channel-augmented copy.

Ye, Wu, Chen, Du: "Channel Augmentation for Visible-Infrared Re-Identification", TPAMI 2024; checked against its
released code, mangye16/Cross-Modal-Re-ID-baseline, PAMI23_Supervised.

    L = L_id + L_sq + w L_ws                                  L_id and L_sq as in CAJL, w = 1
    L_ws = - mean_i sum_c softmax(z_i^V')_c log softmax(z_i^V)_c      the logits of V' receive no gradient

Its released data classes change CAJL's augmentation for SYSU-MM01 alone: see `recipe_for`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor

from vireid.data.transforms import Chain, ChannelExchange, ChannelJitter, Erase, RandomGray
from vireid.declaration import Weight, settings
from vireid.losses.consistency import consistency
from vireid.method import Batch, Recipe, View
from vireid.methods._channel_augmented import ChannelAugmented, ChannelAugmentedSettings
from vireid.methods.cajl import AUGMENTED, CAJL, CROP, INFRARED_VIEW, ORIGINAL
from vireid.types import INFRARED, VISIBLE

# Who learns from whom: V from V' (released default), V and I from V' (its flag S=1), or V' from V (its flag S2=1).
Students = Literal["original", "original-and-infrared", "augmented"]


@settings
class CAJLPlusSettings(ChannelAugmentedSettings):
    """The released code's values."""

    consistency: Weight = 1.0
    """Weight w of L_ws."""
    students: Students = "original"
    """Who learns from whom: V from V' (original), V and I from V', or V' from V (augmented)."""


class CAJLPlus(ChannelAugmented):
    """CAJL's views and triplet; the logits of V learn from those of V'."""

    Settings = CAJLPlusSettings
    settings: CAJLPlusSettings
    recipe = CAJL.recipe

    @classmethod
    def recipe_for(cls, dataset: str) -> Recipe:
        """On SYSU-MM01: V gray with probability 0.1, V and V' erased with 0.6, I gray with 3/20 (released code)."""
        assert isinstance(cls.recipe, Recipe)  # one stage
        if dataset != "sysu":
            return cls.recipe
        crop, flip, normalize = CROP
        views = (
            View(VISIBLE, Chain(crop, flip, RandomGray(0.1), normalize, Erase(0.6))),
            View(VISIBLE, Chain(*CROP, Erase(0.6), ChannelExchange())),
            View(INFRARED, Chain(*CROP, Erase(0.5), ChannelJitter(gray=0.6))),
        )
        return dataclasses.replace(cls.recipe, views=views)

    def logit_losses(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        original, augmented, infrared = (logits[batch.view == view] for view in (ORIGINAL, AUGMENTED, INFRARED_VIEW))
        if self.settings.students == "augmented":
            loss = consistency(augmented, original)
        else:
            loss = consistency(original, augmented)
            if self.settings.students == "original-and-infrared":
                loss = loss + consistency(infrared, augmented)
        return {"consistency": self.settings.consistency * loss}
