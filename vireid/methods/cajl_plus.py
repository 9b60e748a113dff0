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
from vireid.errors import ArgumentError
from vireid.layers.nonlocal_block import InnerWidth
from vireid.layers.pooling import Pooling
from vireid.losses.consistency import consistency
from vireid.losses.enhanced_squared_difference import Beyond
from vireid.losses.weighted_triplet import Softmax
from vireid.method import Batch, Recipe, View
from vireid.methods.cajl import AUGMENTED, CAJL, CROP, INFRARED_VIEW, ORIGINAL
from vireid.types import INFRARED, VISIBLE

# Who learns from whom: V from V' (released default), V and I from V' (its flag S=1), or V' from V (its flag S2=1).
Students = Literal["original", "original-and-infrared", "augmented"]
STUDENTS = ("original", "original-and-infrared", "augmented")


class CAJLPlus(CAJL):
    """Settings beside CAJL's: consistency, the weight w of L_ws, and students, who learns from whom:

    "original" (V from V'), "original-and-infrared" (V and I from V') or "augmented" (V' from V).
    """

    recipe = CAJL.recipe

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
        consistency: float = 1.0,
        students: Students = "original",
    ) -> None:
        super().__init__(
            num_pids,
            camids,
            width=width,
            blocks=blocks,
            attention=attention,
            nonlocal_width=nonlocal_width,
            pooling=pooling,
            square=square,
            gamma=gamma,
            alpha=alpha,
            beyond=beyond,
            softmax=softmax,
        )
        if students not in STUDENTS:
            raise ArgumentError(f"students is one of {', '.join(STUDENTS)}, got {students!r}")
        self.weight, self.students = consistency, students

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
        if self.students == "augmented":
            loss = consistency(augmented, original)
        else:
            loss = consistency(original, augmented)
            if self.students == "original-and-infrared":
                loss = loss + consistency(infrared, augmented)
        return {"consistency": self.weight * loss}
