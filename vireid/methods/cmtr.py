"""CMTR: a vision transformer that reads the modality as a learned vector, and embeddings from which it is removed.

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
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.declaration import Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.vit_weights import load_vit
from vireid.layers.cmtr import ModalityRemoval, ModalityTransformer, ModalityTransformerSettings, Phi
from vireid.layers.neck import classifier
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.modality_aware import Center, Distance, Reduction, modality_aware_center, modality_aware_identity
from vireid.losses.weighted_triplet import Softmax, weighted_regularized_triplet
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import AdamW, WarmupCosine
from vireid.types import INFRARED, VISIBLE

if TYPE_CHECKING:
    from vireid.data.pipeline import TrainingData

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize(), Erase(0.5))


@settings
class CMTRSettings(LabelSmoothing, ModalityTransformerSettings):
    """The paper leaves all but the equations open, so these are choices; docs/methods/cmtr.md gives their reasons."""

    phi: Phi = "linear"
    """phi_m, what is subtracted as a function of e^m: one linear layer, or two with a GELU between them (mlp)."""
    mac_center: Center = "identity"
    """Center of L_MAC: of the identity, or of the identity in one modality as printed."""
    mac_distance: Distance = "euclidean"
    """Distance D of L_MAC, which is not defined: the plain one, its square, or that of vectors of length 1."""
    reduction: Reduction = "mean"
    """Of L_MAC and L_MAID: the mean over the batch, or the sum as printed."""
    share_classifier: bool = True
    """Whether L_MAID uses the classifier of L_ID."""
    mae: Weight = 0.5
    """Weight lambda of L_MAC and L_MAID; 0 leaves both and the removal out."""
    softmax: Softmax = "exact"
    """Weights of the triplet's pairs: as printed, or as AGW's code computes them, its anchor a positive (official)."""

    @model_validator(mode="after")
    def uses_its_classifier(self) -> CMTRSettings:
        if not self.mae and not self.share_classifier:
            raise ArgumentError("with mae=0 there is no second classifier; leave share_classifier=false out")
        return self


class CMTR(Method[ModalityTransformer]):
    """A vision transformer with modality embeddings and the two losses that clean its embedding from them."""

    Settings = CMTRSettings
    settings: CMTRSettings
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

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        s = self.settings
        self.embedder = ModalityTransformer(s)
        self.classifier = classifier(s.dim, num_pids)
        self.removal = ModalityRemoval(s.dim, s.phi) if s.mae else None
        self.cleaned_classifier = None if s.share_classifier else classifier(s.dim, num_pids)

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
        made_for, size = self.settings.image_size, recipe.picture_size
        if size != made_for:
            raise ArgumentError(
                f"the position code is made for images of {made_for[0]}x{made_for[1]}, the recipe's size is "
                f"{size[0]}x{size[1]}: set image_size=[{size[0]},{size[1]}] as well"
            )
        return super().batches(data, recipe, at)

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        softmax = self.settings.softmax
        own_positive = softmax == "official"
        triplet, lost, correct = weighted_regularized_triplet(pooled, batch.label, softmax, own_positive)
        self.watch.update(lost_negatives=lost, correct=correct)
        logits, smoothing = self.classifier(embedding), self.settings.label_smoothing
        losses = {"identity": F.cross_entropy(logits, batch.label, label_smoothing=smoothing), "triplet": triplet}
        return losses | self.modality_aware_losses(embedding, batch.label, batch.modality)

    def modality_aware_losses(self, embedding: Tensor, label: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """lambda L_MAC and lambda L_MAID of embeddings f (N, D) with label (N,) and modality (N,)."""
        if self.removal is None:
            return {}
        cleaned = self.removal(embedding, modality, self.embedder.modality_embed)
        logits = (self.cleaned_classifier or self.classifier)(cleaned)
        s = self.settings
        center = modality_aware_center(
            cleaned, label, modality, center=s.mac_center, distance=s.mac_distance, reduction=s.reduction
        )
        identity = modality_aware_identity(logits, label, s.reduction, s.label_smoothing)
        return {"modality_center": s.mae * center, "modality_identity": s.mae * identity}

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """A vision transformer in timm's names, or an embedder file of this method; returns the keys not used."""
        return load_vit(self.embedder, state)
