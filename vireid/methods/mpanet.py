"""MPANet: gated instance norms, pattern maps, and classifiers of the two modalities that learn from each other.

Wu, Dai, Chen, Lin, Wu, Huang, Zhong, Ji: "Discover Cross-Modality Nuances for Visible-Infrared Person
Re-Identification", CVPR 2021; checked against its released code, DoubtedSteam/MPANet.

One ResNet-50 serves both modalities. Gates decide per channel how much style to remove, six pattern maps M_k pool six
vectors beside the global one (layers/mpanet.py). W is the joint classifier, W_v and W_i those of the modalities.

    L = 0.5 L_sep + L_cc + L_id + L_v + L_i + 2.5 L_kl
    L_sep = mean over images and pairs k < l of <M_k, M_l>       sum over positions, so it grows with the resolution
    L_cc  = center cluster of the pooled vectors (losses/center_cluster.py)
    L_id  = cross-entropy of W over all images; L_v, L_i: of W_v over the visible, of W_i over the infrared ones
    L_kl  = mean_i KL(p_i || q_i), p_i = softmax of the classifier of image i's own modality, q_i = softmax of the
            averaged classifier of the other modality on the same embedding, without gradient
    averaged W_m <- (1 - a) averaged W_m + a W_m before each loss;  a = 0.2 min(100 / (epoch + 2), 1), epoch from 0
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.samplers import Chunks
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.declaration import Number, Share, Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.mpanet import PatternNet, PatternSettings, load_pattern_net
from vireid.layers.pooling import at_least_float32
from vireid.losses.center_cluster import center_cluster
from vireid.losses.divergence import divergence
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import Adam, Steps
from vireid.types import INFRARED, VISIBLE

AUGMENT = Chain(
    Flip(0.5),
    PadCrop(10, fill=127),
    Normalize(),
    Erase(0.5, area=(0.02, 0.33), aspect=(0.3, 3.3), fill=(0.0, 0.0, 0.0), tries=10),  # torchvision 0.4's defaults
)
SLOWER_FROM = 100  # from this epoch on, counted from 1, the averaging rate falls

# Names in a checkpoint of the released code -> names of the classifiers here.
HEADS = {
    "classifier.weight": "classifier.weight",
    "visible_classifier.weight": "visible_classifier.weight",
    "infrared_classifier.weight": "infrared_classifier.weight",
    "visible_classifier_.weight": "visible_average",
    "infrared_classifier_.weight": "infrared_average",
}


@settings
class MPANetSettings(LabelSmoothing, PatternSettings):
    """The released code's values; a weight of 0 leaves its loss out."""

    separation: Weight = 0.5
    """Weight of L_sep, which keeps the pattern maps apart."""
    center: Weight = 1.0
    """Weight of L_cc, the center cluster."""
    margin: Number = 0.7
    """Distance between people's centers in L_cc."""
    modality_weight: Weight = 0.5
    """Configured weight of L_v + L_i; `modality_sum` says how often it counts."""
    modality_sum: Literal["code", "config"] = "code"
    """L_v + L_i is added twice (code, as released, so that 0.5 counts as 1) or once (config, read literally)."""
    mutual: Weight = 2.5
    """Weight of L_kl, by which the classifiers learn from each other's averages."""
    update_rate: Share = 0.2
    """Share a of the live classifiers in their averages, up to epoch 99; it falls from epoch 100 on."""


class MPANet(Method[PatternNet]):
    """One network for both modalities, three classifiers and the moving averages of two of them."""

    Settings = MPANetSettings
    settings: MPANetSettings
    recipe = Recipe(
        size=(384, 128),
        sampler=Chunks(pids=16, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=140,
        optimizers={"main": Adam(lr=3.5e-4, weight_decay=5e-4)},
        schedule=Steps(milestones=(80, 120), gamma=0.1),
        filter="bilinear",
    )

    visible_average: Tensor
    infrared_average: Tensor

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        if num_pids < 1:
            raise ArgumentError(f"a classifier needs at least one training identity, got num_pids={num_pids}")
        self.modality_weight = self.settings.modality_weight * (2 if self.settings.modality_sum == "code" else 1)
        self.embedder = PatternNet(self.settings)
        # torch's own initial weights, as in the released code
        self.classifier, self.visible_classifier, self.infrared_classifier = (
            nn.Linear(self.embedder.dim, num_pids, bias=False) for _ in range(3)
        )
        # buffers: saved and resumed, never optimized
        self.register_buffer("visible_average", self.visible_classifier.weight.detach().clone())
        self.register_buffer("infrared_average", self.infrared_classifier.weight.detach().clone())

    @classmethod
    def recipe_for(cls, dataset: str) -> Recipe:
        """RegDB: 256 x 128, 12 people x 5, one milestone, Euclidean (released code); all other data as SYSU-MM01."""
        assert isinstance(cls.recipe, Recipe)  # one stage
        if dataset != "regdb":
            return cls.recipe
        return dataclasses.replace(
            cls.recipe,
            size=(256, 128),
            sampler=Chunks(pids=12, images=5),
            schedule=Steps(milestones=(110,), gamma=0.1),
            similarity="euclidean",
        )

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        _, masks, pooled, embedding = self.embedder.encode(batch.images)
        terms: dict[str, Tensor] = {}
        if self.settings.separation and self.embedder.patterns is not None:
            terms["separation"] = self.settings.separation * overlap(masks)
        if self.settings.center:
            terms["center"] = self.settings.center * center_cluster(pooled, batch.label, self.settings.margin).loss
        return {**terms, **self.classifier_losses(embedding, batch.label, batch.modality, at)}

    def classifier_losses(self, embedding: Tensor, label: Tensor, modality: Tensor, at: Progress) -> dict[str, Tensor]:
        """L_id, L_v, L_i and L_kl of embeddings (N, D); in training mode the averaged classifiers move before."""
        if self.training:
            # here and not in after_step: the released code moves them between the forward pass and the divergence
            self.follow(at)
        logits = self.classifier(embedding)
        self.watch.update(correct=(logits.detach().argmax(1) == label).float().mean())
        smoothing = self.settings.label_smoothing
        terms = {"identity": F.cross_entropy(logits, label, label_smoothing=smoothing)}
        visible, infrared = (modality == m for m in (VISIBLE, INFRARED))
        # all rows pass through both classifiers and the right one is chosen: no row has to be picked out on the device
        own = torch.where(visible[:, None], self.visible_classifier(embedding), self.infrared_classifier(embedding))
        if self.modality_weight:
            each = F.cross_entropy(own, label, reduction="none", label_smoothing=smoothing)
            for name, rows in (("identity-visible", visible), ("identity-infrared", infrared)):
                terms[name] = self.modality_weight * (each * rows).sum() / rows.sum()
        if self.settings.mutual:
            with torch.no_grad():
                teachers = (F.linear(embedding, w) for w in (self.infrared_average, self.visible_average))
                other = torch.where(visible[:, None], *teachers)
            terms["mutual"] = self.settings.mutual * divergence(own, other).mean()
        return terms

    @torch.no_grad()
    def follow(self, at: Progress) -> None:
        """Move the averaged classifiers towards the live ones."""
        rate = averaging_rate(at.epoch, self.settings.update_rate)
        self.visible_average.lerp_(self.visible_classifier.weight, rate)
        self.infrared_average.lerp_(self.infrared_classifier.weight, rate)

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, a checkpoint of the released code, or an embedder file; returns the keys not used.

        Classifiers are taken when they know as many identities as these, else their keys are among those returned.
        """
        unused = load_pattern_net(self.embedder, state)
        own = self.state_dict()
        taken = [key for key in unused if key in HEADS and state[key].shape == own[HEADS[key]].shape]
        for key in taken:
            own[HEADS[key]].copy_(state[key])
        return [key for key in unused if key not in taken]


def averaging_rate(epoch: int, start: float = 0.2) -> float:
    """Share a of the live weights that enters the averaged ones in an epoch, counted from 0.

    >>> [round(averaging_rate(epoch), 4) for epoch in (0, 98, 99, 139)]
    [0.2, 0.2, 0.198, 0.1418]
    """
    return start * min(SLOWER_FROM / (epoch + 2), 1.0)


def overlap(masks: Tensor) -> Tensor:
    """L_sep of masks (N, K, h, w); 0 for a single pattern.

    >>> overlap(torch.ones(1, 3, 2, 2)).item()
    4.0
    """
    masks = at_least_float32(masks)
    pairs = max(masks.shape[1] * (masks.shape[1] - 1) / 2, 1)
    # sum_{k<l} M_k M_l = ((sum_k M_k)^2 - sum_k M_k^2) / 2 at every position
    inner = (masks.sum(1).square() - masks.square().sum(1)).sum() / 2
    return inner / (len(masks) * pairs)
