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

Poses come with the data as keypoints and are drawn after crop and flip (data/pose.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.pose.heatmaps import HeatMaps, Missing, WithHeatmaps, unknown_poses
from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Flip, Normalize, PadCrop
from vireid.errors import ArgumentError
from vireid.layers.neck import bn_neck, classifier
from vireid.layers.pooling import Pooling
from vireid.layers.spot import STRIDE, PartNorm, Scale, StructureTwoStream
from vireid.layers.two_stream_weights import load_two_stream
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.weighted_triplet import weighted_regularized_triplet
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import SGD, WarmupSteps
from vireid.types import INFRARED, VISIBLE

if TYPE_CHECKING:
    from vireid.data.pipeline import TrainingData
    from vireid.data.table import Table

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize())
MARGIN = 0.3


class SPOT(Method):
    """Settings; the paper leaves all but the equations open, so their defaults are choices, told in the method's page:

    width, blocks, attention (non-local blocks), pooling (of B): the network; missing: what stands for a pose that the
    data do not know, "error", "zeros" or "template" (one average upright person); points, sigma, least: heat maps (18
    OpenPose or 17 COCO points, cells, confidence below which a map is empty); relation, attention_dim, attention_scale:
    structure branch; parts, part_norm, tpi_layers, tpi_heads, tpi_ffn, tpi_dropout, tpi_base: part branch; structure,
    part: lambda_1 and lambda_2, of which one that is 0 leaves its losses out; triplet: "hard" with its margin, or
    "weighted" (AGW's, exact softmax).
    """

    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=81,
        optimizers={"backbone": SGD(lr=0.01), "branches": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    tiny: ClassVar[dict[str, object]] = {"width": 4, "blocks": (1, 1, 1, 1), "relation": (4, 6, 8, 8), "parts": 3}

    def __init__(
        self,
        num_pids: int,
        camids: tuple[int, ...] = (),
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        attention: bool = False,
        pooling: Pooling = "average",
        missing: Missing = "error",
        points: int = 18,
        sigma: float = 2.0,
        least: float = 0.05,
        relation: tuple[int, ...] = (64, 128, 256, 256),
        attention_dim: int | None = None,
        attention_scale: Scale = "none",
        parts: int = 6,
        part_norm: PartNorm = "mass",
        tpi_layers: int = 1,
        tpi_heads: int = 8,
        tpi_ffn: int | None = None,
        tpi_dropout: float = 0.1,
        tpi_base: float = 10000.0,
        structure: float = 1.0,
        part: float = 1.0,
        triplet: Literal["hard", "weighted"] = "hard",
        margin: float = MARGIN,
    ) -> None:
        super().__init__(num_pids, camids)
        if triplet not in ("hard", "weighted"):
            raise ArgumentError(f"triplet is 'hard' or 'weighted', got {triplet!r}")
        if triplet == "weighted" and margin != MARGIN:
            raise ArgumentError(
                f"the weighted triplet has no margin, got margin={margin}; leave it out or set triplet=hard"
            )
        if structure < 0 or part < 0 or margin < 0:
            raise ArgumentError(f"weights and margin are 0 or more, got {structure=}, {part=}, {margin=}")
        self.triplet, self.margin = triplet, margin
        self.embedder: StructureTwoStream = StructureTwoStream(  # pyright: ignore[reportIncompatibleVariableOverride]
            width=width,
            blocks=blocks,
            attention=attention,
            pooling=pooling,
            points=points,
            sigma=sigma,
            least=least,
            missing=missing,
            relation=relation,
            attention_dim=attention_dim,
            attention_scale=attention_scale,
            parts=parts,
            part_norm=part_norm,
            tpi_layers=tpi_layers,
            tpi_heads=tpi_heads,
            tpi_ffn=tpi_ffn,
            tpi_dropout=tpi_dropout,
            tpi_base=tpi_base,
        )
        self.maps = HeatMaps(points=points, sigma=sigma, stride=STRIDE, least=least, missing=missing)
        self.weights = {name: w for name, w in (("base", 1.0), ("structure", structure), ("parts", part)) if w}
        dim = self.embedder.dim
        self.necks = nn.ModuleDict({name: bn_neck(dim) for name in self.weights})  # the fused one is the embedder's
        self.classifiers = nn.ModuleDict({name: classifier(dim, num_pids) for name in (*self.weights, "fused")})

    def params(self) -> dict[str, list[nn.Parameter]]:
        """Necks and classifiers are the "head" with ten times the rate of the network and of the two "branches"."""
        network = self.embedder
        backbone = (network.visible, network.infrared, network.trunk, network.pool)
        branches = (network.relation, network.fusion, network.asr, network.masks, network.tpi, network.gamma)
        head = (network.neck, self.necks, self.classifiers)
        return {
            name: [p for part in parts for p in part.parameters() if p.requires_grad]
            for name, parts in (("backbone", backbone), ("branches", branches), ("head", head))
        }

    def check(self, table: Table) -> None:
        """DataError for poses that the table does not know, unless `missing` says what stands for them."""
        unknown_poses(table, self.maps.missing)

    def batches(self, data: TrainingData, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        """Batches with `heatmaps` among their extras."""
        self.check(data.table)
        views = tuple(View(view.modality, WithHeatmaps(view.transform, self.maps)) for view in recipe.views)
        return super().batches(data, dataclasses.replace(recipe, views=views), at)

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        _, branches = self.embedder.branches(batch.images, batch.modality, batch.extras["heatmaps"])
        found = self.branch_losses("fused", branches.fused, self.embedder.neck, batch.label)
        for name, weight in self.weights.items():
            each = self.branch_losses(name, getattr(branches, name), self.necks[name], batch.label)
            found |= {key: weight * loss for key, loss in each.items()}
        return found

    def branch_losses(self, name: str, x: Tensor, neck: nn.Module, label: Tensor) -> dict[str, Tensor]:
        """L_id and L_tri of one descriptor (N, C), without its weight; the fused one's names bear no prefix."""
        prefix = "" if name == "fused" else f"{name}_"
        if self.triplet == "hard":
            triplet = batch_hard_triplet(x, label, self.margin)
        else:
            triplet = weighted_regularized_triplet(x, label, "exact").loss
        identity = F.cross_entropy(self.classifiers[name](neck(x)), label)
        return {f"{prefix}identity": identity, f"{prefix}triplet": triplet}

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, or an embedder file of this method; returns the keys not used."""
        return load_two_stream(self.embedder, state)
