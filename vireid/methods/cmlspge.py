"""CM-LSP-GE: stripes compared along their shortest path, and an enhanced copy of the global vector.

Wang, Li, Ma: "Cross-modal Local Shortest Path and Global Enhancement for Visible-Thermal Person Re-Identification",
arXiv 2022 (2206.04401); re-implementation from the published equations, no code was released.

AGW's network gives a global vector g and its enhanced copy eg, a batch norm of g; h horizontal stripes give one vector
f_j each (layers/cmlspge.py). Identity and triplet losses act on all of them; at test the distance of two images by
their stripes is the shortest path through the table of stripe distances (layers/stripe_path.py), which compares
part with part where a body is shifted in its crop; evaluation/local_shortest_path.py re-ranks by it.

    L = L_id^g + L_id^eg + L_tri^g + L_tri^eg + L_id^lv + L_id^lt + L_PA
    L_id^g, L_id^eg   mean cross-entropy over all rows, a classifier each
    L_id^lv, L_id^lt  sum over stripes of the mean cross-entropy over visible, over infrared rows; a classifier a stripe
    L_tri             triplet of the centers of each person and modality, losses/center_triplet.py
    L_PA              batch-hard triplet of each stripe, hinged, losses/part_triplet.py; or of the path
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Flip, Normalize, PadCrop
from vireid.declaration import Count, Index, Number, Weight, settings
from vireid.layers.cmlspge import GlobalAndStripes, GlobalAndStripesSettings
from vireid.layers.neck import classifier
from vireid.layers.two_stream_weights import load_two_stream
from vireid.losses.center_triplet import Reduction, center_triplet
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.part_triplet import Candidates, part_triplet, path_triplet
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.methods._two_stream import TwoStreamMethod
from vireid.training.optim import SGD, WarmupSteps, split_by_module
from vireid.types import INFRARED, MODALITIES, VISIBLE

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize())


@settings
class CMLSPGESettings(LabelSmoothing, GlobalAndStripesSettings):
    """Defaults are mostly choices, with reasons in docs/methods/cmlspge.md; a weight of 0 leaves its loss out."""

    first_stripe: Count = 1
    """Stripe, counted from 1, at which the sums over stripes start; 2 as printed."""
    local_triplet: Literal["stripe", "lsp", "both"] = "stripe"
    """L_PA compares stripe with stripe (as printed), along the shortest path (lsp), or both."""
    candidates: Candidates = "both"
    """Candidates of L_PA are of both modalities, or of the other one (cross)."""
    margin_global: Number = 0.3
    """Margin m_g of L_tri."""
    margin_local: Number = 0.3
    """Margin m_l of L_PA."""
    reduction: Reduction = "mean"
    """Triplets over their anchors: mean, or sum as printed."""
    enhanced: Weight = 1.0
    """Weight of the losses on eg."""
    local: Weight = 1.0
    """Weight of L_id^lv + L_id^lt."""
    center: Weight = 1.0
    """Weight of L_tri."""
    part: Weight = 1.0
    """Weight of L_PA."""
    test_distance: Literal["cosine", "global_local"] = "cosine"
    """Of an evaluation: the cosine of the embedding, or the global cosine less the shortest path over the gallery."""
    triplets_from: Index = 0
    """Epoch, counted from 0, from which L_tri and L_PA act; later than 0 for a start from random weights."""

    @model_validator(mode="after")
    def check_stripes(self) -> CMLSPGESettings:
        if self.parts and self.first_stripe > self.parts:
            raise ValueError(f"first_stripe counts from 1 to parts={self.parts}, got {self.first_stripe}")
        if self.parts and not (self.local or self.part):
            raise ValueError("with local=0 and part=0 nothing trains the stripes; leave them out with parts=0")
        if self.test_distance == "global_local" and not self.parts:
            raise ValueError("test_distance=global_local compares stripes, which parts=0 leaves out")
        if self.triplets_from and not (self.center or self.part):
            raise ValueError(
                f"triplets_from={self.triplets_from} is the epoch from which L_tri or L_PA acts, which center=0 and "
                "part=0 leave out"
            )
        return self


class CMLSPGE(Method[GlobalAndStripes]):
    """AGW's network, whose global vector, enhanced copy and stripes have losses of their own."""

    Settings = CMLSPGESettings
    settings: CMLSPGESettings
    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=6, images=8),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=60,
        optimizers={"backbone": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    no_gradient = TwoStreamMethod.no_gradient

    # Maps of 4 rows, as tests have them, cannot be cut into six.
    tiny: ClassVar[dict[str, object]] = {"width": 4, "blocks": (1, 1, 1, 1), "parts": 2, "part_dim": 8}

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        s = self.settings
        self.triplets = ("stripe", "lsp") if s.local_triplet == "both" else (s.local_triplet,)
        self.first = s.first_stripe - 1
        self.embedder = GlobalAndStripes(self.settings)
        self.pooled_classifier = classifier(self.embedder.dim, num_pids)
        self.classifier = classifier(self.embedder.dim, num_pids)  # of eg
        self.stripe_classifiers = nn.ModuleList(classifier(s.part_dim, num_pids) for _ in range(self.first, s.parts))

    @classmethod
    def recipe_for(cls, dataset: str) -> Recipe:
        """RegDB: 8 people x 4, all other data 6 x 8, as the hetero-center triplet's authors have it."""
        assert isinstance(cls.recipe, Recipe)  # one stage
        if dataset != "regdb":
            return cls.recipe
        return dataclasses.replace(cls.recipe, sampler=IdentityBatches(pids=8, images=4))

    def params(self) -> dict[str, list[nn.Parameter]]:
        """What ImageNet's weights do not fill (neck, stripes, classifiers) is the "head" with ten times the rate."""
        network = self.embedder
        new = (network.neck, network.stripes, self.pooled_classifier, self.classifier, self.stripe_classifiers)
        return split_by_module(self, head=[part for part in new if part is not None])

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        maps, pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        triplets = at.epoch >= self.settings.triplets_from
        terms = self.global_losses(pooled, embedding, batch, triplets)
        if self.embedder.stripes is not None:
            terms |= self.stripe_losses(self.embedder.stripes(maps)[:, self.first :], batch, triplets)
        return terms

    def global_losses(self, pooled: Tensor, embedding: Tensor, batch: Batch, triplets: bool) -> dict[str, Tensor]:
        """L_id and, with `triplets`, L_tri of g (N, D) and eg (N, D)."""
        s = self.settings
        terms: dict[str, Tensor] = {}
        for suffix, x, head, weight in (
            ("", pooled, self.pooled_classifier, 1.0),
            ("_enhanced", embedding, self.classifier, s.enhanced),
        ):
            if weight:
                loss = F.cross_entropy(head(x), batch.label, label_smoothing=s.label_smoothing)
                terms["identity" + suffix] = weight * loss
            if weight * s.center and triplets:
                loss = center_triplet(x, batch.label, batch.modality, s.margin_global, s.reduction)
                terms["center" + suffix] = weight * s.center * loss
        return terms

    def stripe_losses(self, stripes: Tensor, batch: Batch, triplets: bool) -> dict[str, Tensor]:
        """L_id^lv, L_id^lt and, with `triplets`, L_PA of stripes (N, S, d), those that the sums run over."""
        s = self.settings
        terms: dict[str, Tensor] = {}
        if s.local:
            logits = [head(x) for head, x in zip(self.stripe_classifiers, stripes.unbind(1), strict=True)]
            rows_of = partial(F.cross_entropy, reduction="none", label_smoothing=s.label_smoothing)
            each = torch.stack([rows_of(z, batch.label) for z in logits]).sum(0)  # (N,)
            for modality, name in enumerate(MODALITIES):
                rows = batch.modality == modality
                terms[f"stripes_{name}"] = s.local * (each * rows).sum() / rows.sum()
        for kind, loss in (("stripe", part_triplet), ("lsp", path_triplet)):
            if s.part and triplets and kind in self.triplets:
                terms["part" if kind == "stripe" else "path"] = s.part * loss(
                    stripes,
                    batch.label,
                    batch.modality,
                    margin=s.margin_local,
                    candidates=s.candidates,
                    reduction=s.reduction,
                )
        return terms

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, or an embedder file of this method; returns the keys not used.

        With parts=0 the network is AGW's, whose checkpoints it then takes too.
        """
        return load_two_stream(self.embedder, state)
