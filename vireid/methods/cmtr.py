"""CMTR: a vision transformer that is told the modality by a learned vector, and embeddings from which it is removed.

Liang et al.: "CMTR: Cross-modality Transformer for Visible-infrared Person Re-identification",
arXiv 2021 (2110.08994). No code was released: a re-implementation from the published equations; what they leave open
follows TransReID (ICCV 2021) and PMT (AAAI 2023), the nearest systems with public code.

One vector e^m per modality is added to all tokens, like a position code (layers/cmtr.py). A map phi_m of the same
vector is subtracted from the embedding f, and two losses want the rest, g, to be the person alone: so e^m has to hold
what belongs to the modality. At test f is compared and nothing is subtracted.

    L = L_ID + L_WRT + lambda (L_MAC + L_MAID)                    lambda = 0.5
    L_ID   = mean cross-entropy of W f
    L_WRT  = weighted regularized triplet of V, the vector before the BN neck      losses/weighted_triplet.py
    L_MAC  = mean log(1 + exp |g - center of the identity|)                        losses/modality_aware.py
    L_MAID = mean cross-entropy of W g,    g = f - phi_m(e^m)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.errors import ArgumentError
from vireid.layers.backbones.vit import VitStem
from vireid.layers.backbones.vit_weights import load_vit
from vireid.layers.cmtr import ModalityRemoval, ModalityTransformer, Phi, Pixels
from vireid.layers.neck import classifier
from vireid.losses.modality_aware import Center, Distance, Reduction, modality_aware_center, modality_aware_identity
from vireid.losses.weighted_triplet import Softmax, weighted_regularized_triplet
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import AdamW, WarmupCosine
from vireid.types import INFRARED, VISIBLE

if TYPE_CHECKING:
    from vireid.data.pipeline import TrainingData

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize(), Erase(0.5))


class CMTR(Method):
    """Settings; the paper leaves all but the equations open, so their defaults are choices, told in the method's page:

    image_size: the recipe's size again, for which the position code is made; patch, stride, stem, dim, depth, heads,
    mlp_ratio, dropout, attention_dropout, drop_path: the transformer (layers/vit.py); modality_scale,
    modality_on_cls: how e^m enters; pixels: statistics that the pretrained weights expect, "imagenet" or "half"; phi:
    "linear" or "mlp"; mac_center: "identity", or "modality" as printed; mac_distance: D of L_MAC, "euclidean",
    "squared" or "normalized"; reduction: of L_MAC and L_MAID, "mean", or "sum" as printed; share_classifier: L_MAID
    uses the classifier of L_ID; mae: lambda, 0 leaves L_MAC and L_MAID out; softmax: "exact" (printed, the anchor is no
    positive of its own) or "official" (AGW's code, where it is).
    """

    recipe = Recipe(
        size=(256, 128),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=24,
        optimizers={"backbone": AdamW(lr=1.5e-4, weight_decay=1e-4), "head": AdamW(lr=3e-4, weight_decay=1e-4)},
        schedule=WarmupCosine(warmup_epochs=3, start=0.01, final=0.01),
    )

    no_gradient: ClassVar[dict[str, str]] = {
        "embedder.trunk.norm.bias": "a shift right before a batch norm, which subtracts it; distances do not see it",
    }

    # Without stochastic depth: two processes draw other numbers than one, and a test compares them.
    tiny: ClassVar[dict[str, object]] = {
        "image_size": (64, 32),
        "stride": 12,
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "drop_path": 0.0,
    }

    def __init__(
        self,
        num_pids: int,
        camids: tuple[int, ...] = (),
        *,
        image_size: tuple[int, int] = (256, 128),
        patch: int = 16,
        stride: int = 12,
        stem: VitStem = "patch",
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.1,
        modality_scale: float = 1.0,
        modality_on_cls: bool = True,
        pixels: Pixels = "imagenet",
        phi: Phi = "linear",
        mac_center: Center = "identity",
        mac_distance: Distance = "euclidean",
        reduction: Reduction = "mean",
        share_classifier: bool = True,
        mae: float = 0.5,
        softmax: Softmax = "exact",
    ) -> None:
        super().__init__(num_pids, camids)
        for name, value, words in (
            ("mac_center", mac_center, ("identity", "modality")),
            ("mac_distance", mac_distance, ("euclidean", "squared", "normalized")),
            ("reduction", reduction, ("mean", "sum")),
            ("softmax", softmax, ("exact", "official")),
        ):
            if value not in words:
                raise ArgumentError(f"{name} is one of {', '.join(words)}, got {value!r}")
        if mae < 0 or (mae == 0 and not share_classifier):
            raise ArgumentError(
                f"mae is the weight of L_MAC and L_MAID, 0 or more, and with 0 there is no second classifier: got "
                f"mae={mae}, share_classifier={share_classifier}"
            )
        self.mac_center: Center = mac_center
        self.mac_distance: Distance = mac_distance
        self.reduction: Reduction = reduction
        self.mae = mae
        self.softmax: Softmax = softmax
        self.embedder: ModalityTransformer = ModalityTransformer(  # pyright: ignore[reportIncompatibleVariableOverride]
            image_size=image_size,
            patch=patch,
            stride=stride,
            stem=stem,
            dim=dim,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=drop_path,
            modality_scale=modality_scale,
            modality_on_cls=modality_on_cls,
            pixels=pixels,
        )
        self.classifier = classifier(dim, num_pids)
        self.removal = ModalityRemoval(dim, phi) if mae else None
        self.cleaned_classifier = None if share_classifier else classifier(dim, num_pids)

    @classmethod
    def recipe_for(cls, dataset: str) -> Recipe:
        """36 epochs on RegDB, 24 on all other data, as PMT has it."""
        assert isinstance(cls.recipe, Recipe)  # one stage
        return dataclasses.replace(cls.recipe, epochs=36) if dataset == "regdb" else cls.recipe

    def params(self) -> dict[str, list[nn.Parameter]]:
        """The blocks and the patch projection are the "backbone", with half the rate of all the rest, the "head"."""
        trunk = self.embedder.trunk
        backbone = [*trunk.patch_embed.parameters(), *trunk.blocks.parameters()]
        inside = {id(p) for p in backbone}
        return {"backbone": backbone, "head": [p for p in self.parameters() if p.requires_grad and id(p) not in inside]}

    def batches(self, data: TrainingData, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        made_for = self.embedder.trunk.image_size
        if tuple(recipe.size) != made_for:
            raise ArgumentError(
                f"the position code is made for images of {made_for[0]}x{made_for[1]}, the recipe's size is "
                f"{recipe.size[0]}x{recipe.size[1]}: set image_size=[{recipe.size[0]},{recipe.size[1]}] as well"
            )
        return super().batches(data, recipe, at)

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        own_positive = self.softmax == "official"
        triplet, lost, correct = weighted_regularized_triplet(pooled, batch.label, self.softmax, own_positive)
        self.watch.update(lost_negatives=lost, correct=correct)
        losses = {"identity": F.cross_entropy(self.classifier(embedding), batch.label), "triplet": triplet}
        return losses | self.modality_aware_losses(embedding, batch.label, batch.modality)

    def modality_aware_losses(self, embedding: Tensor, label: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """lambda L_MAC and lambda L_MAID of embeddings f (N, D) with label (N,) and modality (N,)."""
        if self.removal is None:
            return {}
        cleaned = self.removal(embedding, modality, self.embedder.modality_embed)
        logits = (self.cleaned_classifier or self.classifier)(cleaned)
        center = modality_aware_center(
            cleaned,
            label,
            modality,
            center=self.mac_center,
            distance=self.mac_distance,
            reduction=self.reduction,
        )
        identity = modality_aware_identity(logits, label, self.reduction)
        return {"modality_center": self.mae * center, "modality_identity": self.mae * identity}

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """A vision transformer in timm's names, or an embedder file of this method; returns the keys not used."""
        return load_vit(self.embedder, state)
