"""What CAJL and CAJ+ share: three views through AGW's network and the enhanced squared difference over all of them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid.declaration import Number, settings
from vireid.layers.two_stream_stripes import StripesSettings
from vireid.losses.enhanced_squared_difference import Beyond, enhanced_squared_difference
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.unit_triplet import UnitTriplet
from vireid.losses.weighted_triplet import Softmax
from vireid.method import Batch, Progress
from vireid.methods._two_stream import TwoStreamMethod


@settings
class ChannelAugmentedSettings(UnitTriplet, LabelSmoothing, StripesSettings):
    """What CAJL and CAJ+ share: the network, and the enhanced squared difference over V, V' and I."""

    square: bool = True
    """The signed square of the main script, or the plain weighted triplet."""
    gamma: Number = 1.0
    """Factor of the enhanced squared difference."""
    alpha: Number = 1.0
    """Factor of the distances inside the weights."""
    beyond: Beyond = "clamp"
    """Above a difference of 88: no gradient (clamp, released) or a straight line."""
    softmax: Softmax = "official"
    """Weights of the triplet's pairs: as the released code computes them, or exact."""


class ChannelAugmented(TwoStreamMethod):
    """CAJL and CAJ+: three views through AGW's network; what the logits learn from each other differs."""

    settings: ChannelAugmentedSettings

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        _, pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        logits = self.classifier(embedding)
        return {
            "identity": F.cross_entropy(logits, batch.label, label_smoothing=self.settings.label_smoothing),
            "triplet": self.triplet_loss(pooled, batch.label),
            **self.logit_losses(logits, batch),
        }

    def logit_losses(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the views' logits (N, num_pids) learn from each other."""
        raise NotImplementedError(f"{type(self).__name__} does not say what the logits learn")

    def triplet_loss(self, pooled: Tensor, label: Tensor) -> Tensor:
        s = self.settings
        out = enhanced_squared_difference(
            s.compared(pooled), label, square=s.square, gamma=s.gamma, alpha=s.alpha, softmax=s.softmax, beyond=s.beyond
        )
        self.watch.update(saturated=out.saturated, lost_negatives=out.lost, correct=out.correct)
        return out.loss
