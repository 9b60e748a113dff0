"""AGW: non-local attention, generalized-mean pooling and the weighted regularized triplet on a two-stream ResNet-50.

Ye, Shen, Lin, Xiang, Shao, Hoi: "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021
(visible-infrared version); checked against its released code, mangye16/Cross-Modal-Re-ID-baseline.

Only the first convolution and batch norm differ between the modalities. The triplet acts on the pooled vector, the
identity loss behind the BN neck, whose output is what is compared.

    L = L_id + L_wrt
    L_id  = mean over the batch of the cross-entropy of the logits, without label smoothing
    L_wrt = weighted regularized triplet of the pooled vectors, both modalities mixed (losses/weighted_triplet.py)
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Flip, Normalize, PadCrop
from vireid.errors import ArgumentError
from vireid.layers.neck import classifier
from vireid.layers.nonlocal_block import InnerWidth
from vireid.layers.pooling import Pooling
from vireid.layers.two_stream import TwoStream
from vireid.layers.two_stream_weights import load_two_stream
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.weighted_triplet import Softmax, weighted_regularized_triplet
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import SGD, WarmupSteps
from vireid.types import INFRARED, VISIBLE

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize())


class AGW(Method):
    """Settings, the released code's values as defaults:

    width, blocks: size of the network (64, (3, 4, 6, 3) is ResNet-50); attention: non-local blocks, of inner width
    nonlocal_width ("one" released, "half" intended); pooling: "gem" (p = 3), "gem-learned" (ReID-Survey) or "average";
    triplet: "weighted" or "hard" (batch-hard, margin 0.3); softmax: "official" or "exact" weights of the triplet.
    The code's `base` variant is attention=False, pooling="average", triplet="hard".
    """

    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=81,
        optimizers={"backbone": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    # Why a trainable parameter's gradient is zero up to rounding; read by the test that looks for dead parameters.
    no_gradient: ClassVar[dict[str, str]] = {
        "embedder.trunk.nonlocal*.W.bias": "a shift right before a batch norm, which subtracts it again",
    }

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
    ) -> None:
        super().__init__(num_pids, camids)
        if triplet not in ("weighted", "hard"):
            raise ArgumentError(f"triplet is 'weighted' or 'hard', got {triplet!r}")
        self.triplet = triplet
        self.softmax: Softmax = softmax
        self.embedder: TwoStream = TwoStream(  # pyright: ignore[reportIncompatibleVariableOverride]
            width=width, blocks=blocks, attention=attention, nonlocal_width=nonlocal_width, pooling=pooling
        )
        self.classifier = classifier(self.embedder.dim, num_pids)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """Neck and classifier are the "head" with ten times the learning rate; non-local blocks are in the backbone."""
        head = [*self.embedder.neck.parameters(), *self.classifier.parameters()]
        inside = {id(p) for p in head}
        backbone = [p for p in self.parameters() if id(p) not in inside]
        return {name: [p for p in group if p.requires_grad] for name, group in (("backbone", backbone), ("head", head))}

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        _, pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        identity = F.cross_entropy(self.classifier(embedding), batch.label)
        return {"identity": identity, "triplet": self.triplet_loss(pooled, batch.label)}

    def triplet_loss(self, pooled: Tensor, label: Tensor) -> Tensor:
        if self.triplet == "hard":
            return batch_hard_triplet(pooled, label)
        loss, lost, correct = weighted_regularized_triplet(pooled, label, self.softmax)
        self.watch.update(lost_negatives=lost, correct=correct)
        return loss

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, a checkpoint of the released code, or an embedder file; returns the keys not used.

        A classifier is taken when it knows as many identities as this one, else its key is among those returned.
        """
        unused = load_two_stream(self.embedder, state)
        return [key for key in unused if not (key == "classifier.weight" and self.load_classifier(state[key]))]

    def load_classifier(self, weight: Tensor) -> bool:
        if weight.shape != self.classifier.weight.shape:
            return False
        self.classifier.load_state_dict({"weight": weight})
        return True
