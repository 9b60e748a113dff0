"""Contrast: a pretrained backbone learns to find each person among the images of the other modality; our own method.

The idea. With few people and no camera of the site to learn from, a good start is worth more than any loss; so little
of it is given up. Batch statistics stay those of ImageNet, the first layers stay as they are, cues that hold for one
pair of cameras alone are broken by augmentation, and in the end the trained weights are mixed with those of the start.

    x' = bridge(x)                                   data/bridging.py
    e  = BN neck of the means of R x K cells         layers/cells.py
    L  = contrast of the e of both modalities over the people of the batch, temperature t   losses/modality_contrast.py
    w  = mix w_trained + (1 - mix) w_start           training/reported.py

The last line is that of Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022. There is no classifier: a
batch of P people is a choice among P, whatever the number of people in the set. The parts and their share in the result
are in docs/methods/contrast.md.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from vireid.data.bridging import Bridge
from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Flip, Normalize, PadCrop
from vireid.declaration import Positive, settings
from vireid.layers.cells import CellNetwork, CellsSettings
from vireid.layers.two_stream_weights import load_two_stream
from vireid.losses.modality_contrast import modality_contrast
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import AdamW, Cosine, split_by_module
from vireid.types import INFRARED, VISIBLE

# Color is what a visible picture has alone, polarity what differs between infrared cameras.
OF_VISIBLE = Bridge(single_channel=0.6, invert=0.2, tone=0.5, low_resolution=0.3)
OF_INFRARED = Bridge(invert=0.4, tone=0.5, low_resolution=0.3)


@settings
class ContrastSettings(CellsSettings):
    """The network, and the temperature of the contrast."""

    temperature: Positive = 0.1
    """Divides the cosines: smaller ones look at the hardest people of a batch alone."""


class Contrast(Method[CellNetwork]):
    """Contrast between the modalities on cells of a pretrained backbone."""

    Settings = ContrastSettings
    settings: ContrastSettings
    recipe = Recipe(
        size=(128, 64),
        sampler=IdentityBatches(pids=48, images=1),
        views=(
            View(VISIBLE, Chain(PadCrop(4, fill=127), Flip(0.5), OF_VISIBLE, Normalize())),
            View(INFRARED, Chain(PadCrop(4, fill=127), Flip(0.5), OF_INFRARED, Normalize())),
        ),
        epochs=6,
        optimizers={"backbone": AdamW(lr=0.001), "head": AdamW(lr=0.005)},
        schedule=Cosine(warmup_steps=100, per_epoch=False),
        frozen_norms=True,
        freeze=2,
    )

    # Cells that fit the 4 x 2 maps of a test picture.
    tiny: ClassVar[dict[str, object]] = {"depth": 6, "cells": ((4, 2, 1),)}

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        self.embedder = CellNetwork(self.settings)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """The neck is the "head"."""
        return split_by_module(self, head=(self.embedder.neck,))

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        embedding = self.embedder.encode(batch.images, batch.modality).embedding
        visible, infrared = batch.modality == VISIBLE, batch.modality == INFRARED
        loss, correct = modality_contrast(
            embedding[visible],
            embedding[infrared],
            batch.label[visible],
            batch.label[infrared],
            self.settings.temperature,
        )
        self.watch.update(correct=correct)
        return {"contrast": loss}

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet weights of the backbone, or an embedder file; returns the keys not used."""
        return load_two_stream(self.embedder, state)
