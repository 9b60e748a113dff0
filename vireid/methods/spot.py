"""SPOT: heat maps of the pose say where the appearance is read, and soft body parts exchange what they saw.

Chen, Ye, Qi, Wu, Jiang, Lin: "Structure-Aware Positional Transformer for Visible-Infrared Person Re-Identification",
TIP 2022. No code was released: a re-implementation from the published equations.

The place of a person's joints looks alike in both modalities. A small network turns heat maps of the joints into
structure maps; fused with the appearance they attend over its positions (ASR). The structure maps also give soft part
masks, whose part vectors meet in a transformer with sinusoidal positions (TPI). Both are fused (layers/spot.py).

    L   = L_B + lambda_1 L_IS + lambda_2 L_IP + L_IF                       lambda_1 = lambda_2 = 1
    L_X = L_id + L_tri of descriptor X: B pooled appearance, IS attended structure, IP parts, IF fused
    L_id  = mean cross-entropy behind the descriptor's own BN neck, by its own classifier
    L_tri = batch-hard triplet before that neck

Poses come with the data as keypoints and are drawn after crop and flip (data/pose/heatmaps.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.data.pose.heatmaps import WithHeatmaps, unknown_poses
from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Flip, Normalize, PadCrop
from vireid.declaration import Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.neck import bn_neck, classifier
from vireid.layers.spot import StructureTwoStream, StructureTwoStreamSettings
from vireid.layers.two_stream_weights import load_two_stream
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.weighted_triplet import weighted_regularized_triplet
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import SGD, WarmupSteps, split_by_module
from vireid.types import INFRARED, VISIBLE

if TYPE_CHECKING:
    from vireid.data.pipeline import TrainingData
    from vireid.data.table import Table

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize())
MARGIN = 0.3


@settings
class SPOTSettings(LabelSmoothing, StructureTwoStreamSettings):
    """The paper leaves all but the equations open, so these are choices; docs/methods/spot.md gives their reasons."""

    structure: Weight = 1.0
    """Weight lambda_1 of the losses of the attended structure; 0 leaves them out."""
    part: Weight = 1.0
    """Weight lambda_2 of the losses of the parts; 0 leaves them out."""
    triplet: Literal["hard", "weighted"] = "hard"
    """Triplet loss of every descriptor: batch-hard, or AGW's with exact softmax."""
    margin: Weight = MARGIN
    """Margin of the batch-hard triplet."""

    @model_validator(mode="after")
    def has_a_margin(self) -> SPOTSettings:
        if self.triplet == "weighted" and self.margin != MARGIN:
            raise ArgumentError(
                f"the weighted triplet has no margin, got margin={self.margin}; leave it out or set triplet=hard"
            )
        return self


class SPOT(Method[StructureTwoStream]):
    """A two-stream network with a structure branch and a part branch that read heat maps of the pose."""

    Settings = SPOTSettings
    settings: SPOTSettings
    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=81,
        optimizers={"backbone": SGD(lr=0.01), "branches": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    tiny: ClassVar[dict[str, object]] = {"width": 4, "blocks": (1, 1, 1, 1), "relation": (4, 6, 8, 8), "parts": 3}

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        s = self.settings
        self.embedder = StructureTwoStream(s)
        self.weights = {name: w for name, w in (("base", 1.0), ("structure", s.structure), ("parts", s.part)) if w}
        dim = self.embedder.dim
        self.necks = nn.ModuleDict({name: bn_neck(dim) for name in self.weights})  # the fused one is the embedder's
        self.classifiers = nn.ModuleDict({name: classifier(dim, num_pids) for name in (*self.weights, "fused")})

    def params(self) -> dict[str, list[nn.Parameter]]:
        """Necks and classifiers are the "head" with ten times the rate of the network and of the two "branches"."""
        network = self.embedder
        return split_by_module(
            self,
            branches=(network.relation, network.fusion, network.asr, network.masks, network.tpi, network.gamma),
            head=(network.neck, self.necks, self.classifiers),
        )

    def check(self, table: Table) -> None:
        """DataError for poses that the table does not know, unless `missing` says what stands for them."""
        unknown_poses(table, self.settings.missing)

    def batches(self, data: TrainingData, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        """Batches with `heatmaps` among their extras."""
        self.check(data.table)
        views = tuple(View(view.modality, WithHeatmaps(view.transform, self.embedder.maps)) for view in recipe.views)
        return super().batches(data, dataclasses.replace(recipe, views=views), at)

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        _, branches = self.embedder.branches(batch.images, batch.modality, batch.extras["heatmaps"])
        terms = self.branch_losses("fused", branches.fused, self.embedder.neck, batch.label)
        for name, weight in self.weights.items():
            each = self.branch_losses(name, getattr(branches, name), self.necks[name], batch.label)
            terms |= {key: weight * loss for key, loss in each.items()}
        return terms

    def branch_losses(self, name: str, x: Tensor, neck: nn.Module, label: Tensor) -> dict[str, Tensor]:
        """L_id and L_tri of one descriptor (N, C), without its weight; the fused one's names bear no prefix."""
        prefix = "" if name == "fused" else f"{name}_"
        if self.settings.triplet == "hard":
            triplet = batch_hard_triplet(x, label, self.settings.margin)
        else:
            triplet = weighted_regularized_triplet(x, label, "exact").loss
        logits = self.classifiers[name](neck(x))
        identity = F.cross_entropy(logits, label, label_smoothing=self.settings.label_smoothing)
        return {f"{prefix}identity": identity, f"{prefix}triplet": triplet}

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, or an embedder file of this method; returns the keys not used."""
        return load_two_stream(self.embedder, state)
