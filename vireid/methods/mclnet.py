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
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import SkipValidation
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.declaration import Count, Number, Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.two_stream import Encoded
from vireid.layers.weights import fill
from vireid.losses.marginal_center import Hinge, marginal_center_aggregation
from vireid.method import Batch, Progress, Recipe, Schedule, View
from vireid.methods.agw import AGW, AGWSettings
from vireid.training.optim import SGD, Optimizers, WarmupSteps, split_by_module
from vireid.types import INFRARED, MODALITIES, VISIBLE

EXTRACTOR = ("backbone", "head")
AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize(), Erase(0.8, area=(0.1, 0.8)))


@settings
class ExtractorSchedule:
    """The schedule `extractor` for backbone and head; modality classifier and learned centers keep their rates."""

    extractor: Annotated[Schedule, SkipValidation]
    """Factor of backbone and head."""

    def __call__(self, at: Progress) -> dict[str, float]:
        factor = self.extractor(at)
        assert isinstance(factor, float)  # the kinds that can be named here have one for all groups
        return {**dict.fromkeys(EXTRACTOR, factor), "modality": 1.0, "centers": 1.0}


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


@settings
class MCLNetSettings(AGWSettings):
    """The released code's values, AGW's settings among them; a weight of 0 leaves its loss out."""

    confusion: Weight = 1.0
    """Weight w_e of L_e, which confuses the modality classifier D."""
    hidden: Count = 128
    """Width inside D."""
    ica: Weight = 0.0005
    """Weight w_ica of the centers of identities."""
    cca: Weight = 0.0005
    """Weight w_cca of the centers of cameras."""
    sigma: Number = 8.0
    """Margin of both center terms, between the rows of a class and the nearest one."""
    rho: Number = 4500.0
    """Margin of both center terms, between centers (squared distance)."""
    hinge: Hinge = "batch"
    """Hinges around the mean of the batch (batch, released) or around each row (sample, paper)."""
    images_per_pid: Count | None = None
    """Factor of the nearest row: null counts the rows of a person in the batch, the released code has 8."""
    centers: Literal["fixed", "learned"] = "fixed"
    """Centers stay as drawn (fixed, released), or follow the gradient of the center terms without their weights."""


class MCLNet(AGW):
    """AGW with a modality classifier, which takes its step first, and with marginal centers."""

    Settings = MCLNetSettings
    settings: MCLNetSettings
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

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        ica, cca = self.settings.ica, self.settings.cca
        if cca and not self.camids:
            raise ArgumentError(
                "camera centers need the training cameras: pass camids, or leave the term out with cca=0"
            )
        self.modality_classifier = ModalityClassifier(self.embedder.dim, self.settings.hidden)
        self.register_buffer("cameras", torch.tensor(sorted(self.camids), dtype=torch.int64))
        self.learned = [f"{kind}_centers" for kind, weight in (("identity", ica), ("camera", cca)) if weight]
        self.learned = self.learned if self.settings.centers == "learned" else []
        for name, classes in (("identity_centers", num_pids), ("camera_centers", len(self.camids))):
            drawn = torch.randn(classes, self.embedder.dim)
            if name in self.learned:
                self.register_parameter(name, nn.Parameter(drawn))
            else:
                self.register_buffer(name, drawn)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """AGW's groups, "modality" for D, and "centers", which is empty where the centers are fixed."""
        return split_by_module(
            self,
            head=(self.embedder.neck, self.classifier),
            modality=(self.modality_classifier,),
            centers=[self.get_parameter(name) for name in self.learned],
        )

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
        weights = {"ica": self.settings.ica, "cca": self.settings.cca}
        centers = self.center_losses(encoded.embedding, batch)
        return {
            "identity": F.cross_entropy(
                self.classifier(encoded.embedding), batch.label, label_smoothing=self.settings.label_smoothing
            ),
            "triplet": self.triplet_loss(encoded.pooled, batch.label),
            "confusion": self.settings.confusion * self.confusion_loss(encoded.pooled),
            **{name: weights[name] * loss for name, loss in centers.items()},
        }

    def center_losses(self, embedding: Tensor, batch: Batch) -> dict[str, Tensor]:
        """L_ica and L_cca of embeddings (N, D), without their weights; a term of weight 0 is left out."""
        s = self.settings
        terms: dict[str, Tensor] = {}
        if s.ica:
            terms["ica"] = self.center_loss(embedding, batch.label, self.identity_centers, s.images_per_pid)
        if s.cca:
            terms["cca"] = self.center_loss(embedding, self.camera_label(batch.camid), self.camera_centers)
        return terms

    def center_loss(self, embedding: Tensor, label: Tensor, centers: Tensor, rows: int | None = None) -> Tensor:
        """The center term of embeddings (N, D) with label (N,) and centers (classes, D)."""
        s = self.settings
        return marginal_center_aggregation(
            embedding, label, centers, sigma=s.sigma, rho=s.rho, hinge=s.hinge, rows_per_class=rows
        )

    def camera_label(self, camid: Tensor) -> Tensor:
        """Camera numbers (N,) to their positions among the sorted training cameras; ValueError for another camera."""
        label = torch.searchsorted(self.cameras, camid).clamp(max=len(self.cameras) - 1)
        if not bool((self.cameras[label] == camid).all()):
            raise ArgumentError(
                f"the batch has cameras {camid.unique().tolist()}, this method was built for {self.cameras.tolist()}; "
                "pass camids of all training rows"
            )
        return label
