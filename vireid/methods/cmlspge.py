"""CM-LSP-GE: stripes compared along their shortest path, and an enhanced copy of the global vector.

Wang, Li, Ma: "Cross-modal Local Shortest Path and Global Enhancement for Visible-Thermal Person Re-Identification",
arXiv 2022 (2206.04401); re-implementation from the published equations, no code was released.

AGW's network gives a global vector g and its enhanced copy eg, a batch norm of g; h horizontal stripes give one vector
f_j each (layers/cmlspge.py). Identity and triplet losses act on all of them; at test the distance of two images by
their stripes is the shortest path through the table of stripe distances (layers/shortest_path.py), which compares
part with part where a body is shifted in its crop; retrieval/shortest_path.py re-ranks by it.

    L = L_id^g + L_id^eg + L_tri^g + L_tri^eg + L_id^lv + L_id^lt + L_PA
    L_id^g, L_id^eg   mean cross-entropy over all rows, a classifier each
    L_id^lv, L_id^lt  sum over stripes of the mean cross-entropy over visible, over infrared rows; a classifier a stripe
    L_tri             triplet of the centers of each person and modality, losses/center_triplet.py
    L_PA              batch-hard triplet of each stripe, hinged, losses/part_triplet.py; or of the path
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Flip, Normalize, PadCrop
from vireid.errors import ArgumentError
from vireid.layers.cmlspge import Enhancement, GlobalAndStripes
from vireid.layers.neck import classifier
from vireid.layers.nonlocal_block import InnerWidth
from vireid.layers.pooling import Pooling
from vireid.layers.two_stream_weights import load_two_stream
from vireid.losses.center_triplet import Reduction, center_triplet
from vireid.losses.part_triplet import Candidates, part_triplet, path_triplet
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.methods.agw import AGW
from vireid.training.optim import SGD, WarmupSteps
from vireid.types import INFRARED, MODALITIES, VISIBLE

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize())


class CMLSPGE(Method):
    """Settings; the paper leaves most of them open, so their defaults are choices, told in the method's page:

    width, blocks, attention, nonlocal_width, pooling: the network, as AGW's; ge: enhancement, "bn" or "bn_weight" (a
    gate); parts, part_dim, stripe_pooling: stripes, 0 for the global model; stripe_share: their share in the cosine of
    the deployed embedding; first_stripe: where the sums over stripes start, from 1 (printed: 2); local_triplet:
    "stripe" (printed), "lsp" (the path) or "both"; candidates: of it, from "both" modalities or the other one
    ("cross"); margin_global, margin_local: m_g, m_l; reduction: of triplets over their anchors, "mean" or "sum"
    (printed); enhanced, local, center, part: weights of the losses on eg, of L_id^lv + L_id^lt, of L_tri, of L_PA, of
    which one that is 0 leaves its loss out; triplets_from: the epoch from which L_tri and L_PA act (from the first as
    printed: for a start from random weights, where they pull all vectors to one point before a classifier has learned).
    """

    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=6, images=8),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=60,
        optimizers={"backbone": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    no_gradient = AGW.no_gradient

    # Maps of 4 rows, as tests have them, cannot be cut into six.
    tiny: ClassVar[dict[str, object]] = {"width": 4, "blocks": (1, 1, 1, 1), "parts": 2, "part_dim": 8}

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
        ge: Enhancement = "bn",
        parts: int = 6,
        part_dim: int = 256,
        stripe_pooling: Pooling = "gem",
        stripe_share: float = 0.5,
        first_stripe: int = 1,
        local_triplet: Literal["stripe", "lsp", "both"] = "stripe",
        candidates: Candidates = "both",
        margin_global: float = 0.3,
        margin_local: float = 0.3,
        reduction: Reduction = "mean",
        enhanced: float = 1.0,
        local: float = 1.0,
        center: float = 1.0,
        part: float = 1.0,
        triplets_from: int = 0,
    ) -> None:
        super().__init__(num_pids, camids)
        for name, value, words in (
            ("local_triplet", local_triplet, ("stripe", "lsp", "both")),
            ("candidates", candidates, ("both", "cross")),
            ("reduction", reduction, ("mean", "sum")),
        ):
            if value not in words:
                raise ArgumentError(f"{name} is one of {', '.join(words)}, got {value!r}")
        if parts and not 1 <= first_stripe <= parts:
            raise ArgumentError(f"first_stripe counts from 1 to parts={parts}, got {first_stripe}")
        if parts and not (local or part):
            raise ArgumentError("with local=0 and part=0 nothing trains the stripes; leave them out with parts=0")
        if triplets_from < 0 or (triplets_from and not (center or part)):
            raise ArgumentError(
                f"triplets_from is the epoch, counted from 0, from which L_tri or L_PA acts, got {triplets_from} with "
                f"center={center} and part={part}"
            )
        self.triplets_from = triplets_from
        self.triplets = ("stripe", "lsp") if local_triplet == "both" else (local_triplet,)
        self.first = first_stripe - 1
        self.candidates: Candidates = candidates
        self.reduction: Reduction = reduction
        self.margin_global, self.margin_local = margin_global, margin_local
        self.enhanced, self.local, self.center, self.part = enhanced, local, center, part
        self.embedder: GlobalAndStripes = GlobalAndStripes(  # pyright: ignore[reportIncompatibleVariableOverride]
            width=width,
            blocks=blocks,
            attention=attention,
            nonlocal_width=nonlocal_width,
            pooling=pooling,
            ge=ge,
            parts=parts,
            part_dim=part_dim,
            stripe_pooling=stripe_pooling,
            stripe_share=stripe_share,
        )
        self.pooled_classifier = classifier(self.embedder.dim, num_pids)
        self.classifier = classifier(self.embedder.dim, num_pids)  # of eg
        self.stripe_classifiers = nn.ModuleList(classifier(part_dim, num_pids) for _ in range(self.first, parts))

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
        head = [p for part in new if part is not None for p in part.parameters()]
        inside = {id(p) for p in head}
        backbone = [p for p in self.parameters() if id(p) not in inside]
        return {name: [p for p in group if p.requires_grad] for name, group in (("backbone", backbone), ("head", head))}

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        maps, pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        triplets = at.epoch >= self.triplets_from
        found = self.global_losses(pooled, embedding, batch, triplets)
        if self.embedder.stripes is not None:
            found |= self.stripe_losses(self.embedder.stripes(maps)[:, self.first :], batch, triplets)
        return found

    def global_losses(self, pooled: Tensor, embedding: Tensor, batch: Batch, triplets: bool) -> dict[str, Tensor]:
        """L_id and, with `triplets`, L_tri of g (N, D) and eg (N, D)."""
        found: dict[str, Tensor] = {}
        for suffix, x, head, weight in (
            ("", pooled, self.pooled_classifier, 1.0),
            ("_enhanced", embedding, self.classifier, self.enhanced),
        ):
            if weight:
                found["identity" + suffix] = weight * F.cross_entropy(head(x), batch.label)
            if weight * self.center and triplets:
                loss = center_triplet(x, batch.label, batch.modality, self.margin_global, self.reduction)
                found["center" + suffix] = weight * self.center * loss
        return found

    def stripe_losses(self, stripes: Tensor, batch: Batch, triplets: bool) -> dict[str, Tensor]:
        """L_id^lv, L_id^lt and, with `triplets`, L_PA of stripes (N, S, d), those that the sums run over."""
        found: dict[str, Tensor] = {}
        if self.local:
            logits = [head(x) for head, x in zip(self.stripe_classifiers, stripes.unbind(1), strict=True)]
            each = torch.stack([F.cross_entropy(z, batch.label, reduction="none") for z in logits]).sum(0)  # (N,)
            for modality, name in enumerate(MODALITIES):
                rows = batch.modality == modality
                found[f"stripes_{name}"] = self.local * (each * rows).sum() / rows.sum()
        for kind, loss in (("stripe", part_triplet), ("lsp", path_triplet)):
            if self.part and triplets and kind in self.triplets:
                found["part" if kind == "stripe" else "path"] = self.part * loss(
                    stripes,
                    batch.label,
                    batch.modality,
                    margin=self.margin_local,
                    candidates=self.candidates,
                    reduction=self.reduction,
                )
        return found

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, or an embedder file of this method; returns the keys not used.

        With parts=0 the network is AGW's, whose checkpoints it then takes too.
        """
        return load_two_stream(self.embedder, state)
