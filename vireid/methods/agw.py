"""AGW: non-local attention, generalized-mean pooling and the weighted regularized triplet on a two-stream ResNet-50.

Ye, Shen, Lin, Xiang, Shao, Hoi: "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021
(visible-infrared version); checked against its released code, mangye16/Cross-Modal-Re-ID-baseline.

Only the first convolution and batch norm differ between the modalities. The triplet acts on the pooled vector, the
identity loss behind the BN neck, whose output is what is compared.

    L = L_id + L_wrt
    L_id  = mean over the batch of the cross-entropy of the logits, without label smoothing by default
    L_wrt = weighted regularized triplet of the pooled vectors, both modalities mixed (losses/weighted_triplet.py)
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Flip, Normalize, PadCrop
from vireid.declaration import settings
from vireid.layers.two_stream_stripes import StripesSettings
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.unit_triplet import UnitTriplet
from vireid.losses.weighted_triplet import Softmax, weighted_regularized_triplet
from vireid.method import Batch, Progress, Recipe, View
from vireid.methods._two_stream import TwoStreamMethod
from vireid.training.optim import SGD, WarmupSteps
from vireid.types import INFRARED, VISIBLE

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize())


@settings
class AGWSettings(UnitTriplet, LabelSmoothing, StripesSettings):
    """The released code's values; its `base` variant is attention=false, pooling=average, triplet=hard."""

    triplet: Literal["weighted", "hard"] = "weighted"
    """Triplet loss: weighted regularized, or batch-hard with margin 0.3."""
    softmax: Softmax = "official"
    """Weights of the triplet's pairs: as the released code computes them, or exact."""


class AGW(TwoStreamMethod):
    """The baseline of the family: identity and triplet loss on both modalities."""

    Settings = AGWSettings
    settings: AGWSettings
    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=81,
        optimizers={"backbone": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        _, pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        logits = self.classifier(embedding)
        identity = F.cross_entropy(logits, batch.label, label_smoothing=self.settings.label_smoothing)
        return {"identity": identity, "triplet": self.triplet_loss(pooled, batch.label)}

    def triplet_loss(self, pooled: Tensor, label: Tensor) -> Tensor:
        pooled = self.settings.compared(pooled)
        if self.settings.triplet == "hard":
            return batch_hard_triplet(pooled, label)
        loss, lost, correct = weighted_regularized_triplet(pooled, label, self.settings.softmax)
        self.watch.update(lost_negatives=lost, correct=correct)
        return loss
