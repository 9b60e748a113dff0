"""MCLNet: a modality classifier to be confused, and marginal centers of identities and cameras, on top of AGW.

Hao, Zhao, Ye, Shen: "Cross-Modality Person Re-Identification via Modality Confusion and Center Aggregation", ICCV 2021;
checked against its released code, bitreidgroup/Modality-Confusion-Learning.

A small classifier D learns to tell visible from infrared pooled vectors x; the extractor learns to make it answer
50/50. Embeddings f (behind the BN neck, not normalized) come near to fixed random centers, of their identity and of
their camera, as far as the nearest one of their class has come.

    L_m = - mean_i log softmax(D(x_i))_{t_i}                    into D alone; t = 0 visible, 1 infrared
    L   = L_id + L_wrt + w_e L_e + w_ica L_ica + w_cca L_cca    into everything else
    L_e = - mean_i (log softmax(D(x_i))_0 + log softmax(D(x_i))_1) / 2
    L_id, L_wrt   as in AGW;  L_ica, L_cca   losses/marginal_center.py with identities, and with cameras, as classes

Each iteration first takes a step on L_m over D, then computes D(x) again, with the new D held still, for L_e. The
released code sends L_e back through the activations of the old D, which present versions of PyTorch refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.errors import ArgumentError
from vireid.layers.nonlocal_block import InnerWidth
from vireid.layers.pooling import Pooling
from vireid.layers.two_stream import Encoded
from vireid.layers.weights import fill
from vireid.losses.marginal_center import Hinge, marginal_center_aggregation
from vireid.losses.weighted_triplet import Softmax
from vireid.method import Batch, Progress, Recipe, View
from vireid.methods.agw import AGW
from vireid.training.optim import SGD, Optimizers, WarmupSteps
from vireid.types import INFRARED, MODALITIES, VISIBLE

EXTRACTOR = ("backbone", "head")
AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize(), Erase(0.8, area=(0.1, 0.8)))


@dataclass(frozen=True)
class ExtractorSchedule:
    """The schedule `extractor` for backbone and head; modality classifier and learned centers keep their rates."""

    extractor: WarmupSteps

    def __call__(self, at: Progress) -> dict[str, float]:
        return {**dict.fromkeys(EXTRACTOR, self.extractor(at)), "modality": 1.0, "centers": 1.0}


class ModalityClassifier(nn.Module):
    """Pooled vectors (N, dim) to modality logits (N, 2): two linear layers and a batch norm, nothing between them.

    It only serves training, so the batch norm always takes the statistics of the batch and keeps none.
    """

    RELEASED: ClassVar = {"map1": "first", "map3": "second", "bn": "bn"}  # its map2 is never called

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden)
        self.second = nn.Linear(hidden, len(MODALITIES))
        self.bn = nn.BatchNorm1d(len(MODALITIES), track_running_stats=False)

    def forward(self, pooled: Tensor) -> Tensor:
        # Autocast would keep its half-precision copies of the weights until the iteration ends: the second pass of an
        # iteration would not see the step that was taken on them in between.
        with torch.autocast(pooled.device.type, enabled=False):
            return self.bn(self.second(self.first(pooled.to(self.first.weight.dtype))))

    def load_released(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load a state dict with the released code's names (map1, map3, bn); returns the keys that were not used."""
        parts = {key: key.split(".", 1) for key in state}
        known = {key: f"{self.RELEASED[part[0]]}.{part[1]}" for key, part in parts.items() if part[0] in self.RELEASED}
        unused = set(fill(self, {new: state[key] for key, new in known.items()}))
        return [key for key in state if key not in known or known[key] in unused]


class MCLNet(AGW):
    """Settings of the network and of the triplet as AGW's, and:

    confusion, ica, cca: weights w_e, w_ica, w_cca; hidden: width inside D; sigma, rho: margins of the centers;
    hinge: "batch" (released) or "sample" (paper); images_per_pid: counted in the batch, or a number (8 is fixed in the
    released code, the same for its sampler); centers: "fixed" (released) or "learned" by an optimizer of their own,
    along the gradient of L_ica + L_cca without their weights, after the extractor's step.
    """

    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=201,
        optimizers={
            "backbone": SGD(lr=0.01),
            "head": SGD(lr=0.1),
            "modality": SGD(lr=0.1),
            "centers": SGD(lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0),  # ReID-Survey's center loss
        },
        schedule=ExtractorSchedule(WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1)),
    )

    no_gradient = AGW.no_gradient | {
        "modality_classifier.first.bias": "shifts all rows alike before a batch norm, which subtracts it again",
        "modality_classifier.second.bias": "a shift right before a batch norm, which subtracts it again",
    }

    identity_centers: Tensor  # (num_pids, D): a buffer, or a parameter where learned
    camera_centers: Tensor  # (cameras, D)
    cameras: Tensor  # (cameras,) sorted camids, whose positions are the camera labels

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
        triplet: Literal["weighted", "hard"] = "weighted",
        softmax: Softmax = "official",
        confusion: float = 1.0,
        hidden: int = 128,
        ica: float = 0.0005,
        cca: float = 0.0005,
        sigma: float = 8.0,
        rho: float = 4500.0,
        hinge: Hinge = "batch",
        images_per_pid: int | None = None,
        centers: Literal["fixed", "learned"] = "fixed",
    ) -> None:
        super().__init__(
            num_pids,
            camids,
            width=width,
            blocks=blocks,
            attention=attention,
            nonlocal_width=nonlocal_width,
            pooling=pooling,
            triplet=triplet,
            softmax=softmax,
        )
        if hinge not in ("batch", "sample") or centers not in ("fixed", "learned"):
            raise ArgumentError(
                f"hinge is 'batch' or 'sample', centers 'fixed' or 'learned'; got hinge={hinge!r}, centers={centers!r}"
            )
        if images_per_pid is not None and images_per_pid < 1:
            raise ArgumentError(
                f"images_per_pid is 1 or more, or null to count them in the batch; got {images_per_pid}"
            )
        if cca and not self.camids:
            raise ArgumentError(
                "camera centers need the training cameras: pass camids, or leave the term out with cca=0"
            )
        self.confusion, self.ica, self.cca, self.images_per_pid = confusion, ica, cca, images_per_pid
        self.margins: dict[str, Any] = {"sigma": sigma, "rho": rho, "hinge": hinge}
        self.modality_classifier = ModalityClassifier(self.embedder.dim, hidden)
        self.register_buffer("cameras", torch.tensor(sorted(self.camids), dtype=torch.int64))
        self.learned = [f"{kind}_centers" for kind, weight in (("identity", ica), ("camera", cca)) if weight]
        self.learned = self.learned if centers == "learned" else []
        for name, classes in (("identity_centers", num_pids), ("camera_centers", len(self.camids))):
            drawn = torch.randn(classes, self.embedder.dim)
            if name in self.learned:
                self.register_parameter(name, nn.Parameter(drawn))
            else:
                self.register_buffer(name, drawn)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """AGW's groups, "modality" for D, and "centers", which is empty where the centers are fixed."""
        centers = [self.get_parameter(name) for name in self.learned]
        apart = {"modality": list(self.modality_classifier.parameters()), "centers": centers}
        outside = {id(p) for group in apart.values() for p in group}
        extractor = super().params()
        return {name: [p for p in group if id(p) not in outside] for name, group in extractor.items()} | apart

    def step(self, batch: Batch, optim: Optimizers, at: Progress) -> dict[str, Tensor]:
        encoded = self.embedder.encode(batch.images, batch.modality)
        modality = self.modality_loss(encoded.pooled.detach(), batch.modality)
        optim.step({"modality": modality}, "modality")
        losses = self.extractor_losses(encoded, batch)
        optim.step(losses, *EXTRACTOR)
        if self.learned:  # after the extractor, whose gradient runs through the centers as they were
            optim.step(self.center_losses(encoded.embedding.detach(), batch), "centers")
        return {**losses, "modality": modality}

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        """What the extractor minimizes, against D as it is."""
        return self.extractor_losses(self.embedder.encode(batch.images, batch.modality), batch)

    def modality_loss(self, pooled: Tensor, modality: Tensor) -> Tensor:
        """L_m of pooled vectors (N, D) with modality (N,)."""
        logits = self.modality_classifier(pooled)
        self.watch["modality_correct"] = (logits.detach().argmax(1) == modality).to(logits.dtype).mean()
        return F.cross_entropy(logits, modality)

    def confusion_loss(self, pooled: Tensor) -> Tensor:
        """L_e of pooled vectors (N, D)."""
        return -F.log_softmax(self.modality_classifier(pooled), 1).mean()

    def extractor_losses(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        weights = {"ica": self.ica, "cca": self.cca}
        centers = self.center_losses(encoded.embedding, batch)
        return {
            "identity": F.cross_entropy(self.classifier(encoded.embedding), batch.label),
            "triplet": self.triplet_loss(encoded.pooled, batch.label),
            "confusion": self.confusion * self.confusion_loss(encoded.pooled),
            **{name: weights[name] * loss for name, loss in centers.items()},
        }

    def center_losses(self, embedding: Tensor, batch: Batch) -> dict[str, Tensor]:
        """L_ica and L_cca of embeddings (N, D), without their weights; a term of weight 0 is left out."""
        found: dict[str, Tensor] = {}
        if self.ica:
            found["ica"] = marginal_center_aggregation(
                embedding, batch.label, self.identity_centers, rows_per_class=self.images_per_pid, **self.margins
            )
        if self.cca:
            found["cca"] = marginal_center_aggregation(
                embedding, self.camera_label(batch.camid), self.camera_centers, **self.margins
            )
        return found

    def camera_label(self, camid: Tensor) -> Tensor:
        """Camera numbers (N,) to their positions among the sorted training cameras; ValueError for another camera."""
        label = torch.searchsorted(self.cameras, camid).clamp(max=len(self.cameras) - 1)
        if not bool((self.cameras[label] == camid).all()):
            raise ArgumentError(
                f"the batch has cameras {camid.unique().tolist()}, this method was built for {self.cameras.tolist()}; "
                "pass camids of all training rows"
            )
        return label
