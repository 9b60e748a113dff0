"""MAUM: each modality learns identity proxies of its own, whose stored copies pull the vectors of the other modality.

Liu, Sun, Zhu, Pei, Yang, Li: "Learning Memory-Augmented Unidirectional Metrics for Cross-Modality Person
Re-Identification", CVPR 2022. No code was released: a re-implementation from the published equations.

One classifier for both modalities lets visible and infrared vectors settle on either side of an identity's weight, its
proxy, without meeting: the proxy is a relay. So two more classifiers see one modality each. Copies of their weights go
into two first-in first-out banks, and vectors are drawn to the copies of the other modality, which cannot move. The
proxies drift as the network trains, so older copies are further, harder references.

    L      = L_ID + w (L_RGB + L_IR) + beta (L_R2I + L_I2R)                         w = beta = 1
    L_ID   = mean cross-entropy over all rows, logits W x
    L_RGB  = mean cross-entropy over visible rows, logits W^R x;  L_IR over infrared rows, W^I x
    L_R2I  = mean over visible rows of log[1 + sum_j sum_i exp(alpha (v_j.x - u_i.x + delta))]  losses/unidirectional.py
             u_i: the stored rows of W^I of the row's identity;  v_j: those of all others;  L_I2R with W^R

x is the plain average over the maps; the cross-entropies take it and the proxies as they are, the unidirectional losses
with length 1. In the part model every stripe has its own classifiers, banks and losses, whose mean is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.declaration import Count, Index, Number, Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.maum import StripedTwoStream, StripedTwoStreamSettings
from vireid.layers.neck import classifier
from vireid.layers.two_stream_weights import load_two_stream
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.unidirectional import unidirectional
from vireid.method import Batch, BatchSource, Method, Progress, Recipe, View
from vireid.training.optim import SGD, WarmupSteps, split_by_module
from vireid.types import INFRARED, MODALITIES, VISIBLE

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize(), Erase(0.5))


class SnapshotBank(nn.Module):
    """First-in first-out queue of the last `size` copies of a classifier's weight (C, D); saved, never trained."""

    snapshots: Tensor  # (size, C, D), a ring: copy number n lies at n % size
    pushed: Tensor  # () int64, copies ever taken

    def __init__(self, size: int, num_pids: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ArgumentError(f"a bank holds 1 snapshot or more, got {size}")
        self.register_buffer("snapshots", torch.zeros(size, num_pids, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def valid(self) -> Tensor:
        """(size,) which places hold a snapshot."""
        return torch.arange(len(self.snapshots), device=self.pushed.device) < self.pushed

    @torch.no_grad()
    def push(self, weight: Tensor) -> None:
        """Copy a weight (C, D) in, over the oldest snapshot once the bank is full."""
        # the place is reckoned on the device, which then need not be waited for
        self.snapshots.index_copy_(0, (self.pushed % len(self.snapshots))[None], weight.detach()[None])
        self.pushed += 1

    def contents(self) -> Tensor:
        """The snapshots held (k, C, D), oldest to newest."""
        pushed, size = int(self.pushed), len(self.snapshots)
        return self.snapshots[:pushed].clone() if pushed < size else self.snapshots.roll(-(pushed % size), 0)


class Proxies(nn.Module):
    """The three classifiers of one vector (N, dim) and the banks of the two that see a single modality."""

    def __init__(self, dim: int, num_pids: int, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.shared = classifier(dim, num_pids)
        self.specific = nn.ModuleList(classifier(dim, num_pids) for _ in MODALITIES)  # by modality
        self.banks = nn.ModuleList(SnapshotBank(size, num_pids, dim) for size in sizes)  # by modality

    def bank(self, modality: int) -> SnapshotBank:
        """The copies of the classifier that sees this modality alone."""
        bank = self.banks[modality]
        assert isinstance(bank, SnapshotBank)
        return bank

    def push(self) -> None:
        """Store both modalities' classifiers as they are now."""
        for modality, layer in enumerate(self.specific):
            self.bank(modality).push(layer.weight)  # pyright: ignore[reportArgumentType]

    def identity_losses(
        self, x: Tensor, label: Tensor, modality: Tensor, detach: bool = False, smoothing: float = 0.0
    ) -> dict[str, Tensor]:
        """L_ID, L_RGB and L_IR; with `detach` the last two train their proxies only."""
        losses = {"identity": F.cross_entropy(self.shared(x), label, label_smoothing=smoothing)}
        for m, name in enumerate(MODALITIES):
            rows = modality == m
            own = x[rows].detach() if detach else x[rows]
            losses[f"identity_{name}"] = F.cross_entropy(self.specific[m](own), label[rows], label_smoothing=smoothing)
        return losses

    def unidirectional_losses(
        self, x: Tensor, label: Tensor, modality: Tensor, alpha: float, delta: float
    ) -> dict[str, Tensor]:
        """L_R2I and L_I2R; 0 as long as the other modality's bank is empty."""
        losses: dict[str, Tensor] = {}
        for m, other in ((VISIBLE, INFRARED), (INFRARED, VISIBLE)):
            rows, bank = modality == m, self.bank(other)
            loss = unidirectional(x[rows], label[rows], bank.snapshots, alpha=alpha, delta=delta, valid=bank.valid)
            losses[f"{MODALITIES[m]}_to_{MODALITIES[other]}"] = loss.mean()
        return losses


@settings
class MAUMSettings(LabelSmoothing, StripedTwoStreamSettings):
    """The paper leaves all but the equations open: most defaults are choices, with reasons in docs/methods/maum.md."""

    snapshots_visible: Count = 16
    """Size S_RGB of the bank that holds copies of the visible classifier."""
    snapshots_infrared: Count = 16
    """Size S_IR of the bank that holds copies of the infrared classifier."""
    start_epoch: Index = 10
    """Epoch, counted from 0, in which the banks begin to fill."""
    enqueue_every: Count = 1
    """Iterations from one snapshot to the next."""
    alpha: Number = 32.0
    """Scale of the unidirectional losses, positive unless beta is 0."""
    delta: Number = 0.2
    """Margin of the unidirectional losses."""
    specific: Weight = 1.0
    """Weight w of L_RGB + L_IR, positive unless beta is 0."""
    beta: Weight = 1.0
    """Weight of L_R2I + L_I2R; 0 leaves them and the banks out."""
    detach_specific: bool = False
    """Whether L_RGB and L_IR train their proxies alone, not the network."""

    @model_validator(mode="after")
    def check_proxies(self) -> MAUMSettings:
        if self.beta and (self.alpha <= 0 or self.specific <= 0):
            raise ValueError(
                f"the unidirectional losses need a positive alpha, and proxies trained with a positive weight: got "
                f"alpha={self.alpha}, specific={self.specific}; to leave these losses out set beta=0"
            )
        return self


class MAUM(Method[StripedTwoStream]):
    """Three classifiers for each vector and the banks of two of them."""

    Settings = MAUMSettings
    settings: MAUMSettings
    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=81,
        optimizers={"backbone": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    )

    # A size for tests, in which the banks begin at once and wrap around.
    tiny: ClassVar[dict[str, object]] = {
        "width": 4,
        "blocks": (1, 1, 1, 1),
        "start_epoch": 0,
        "snapshots_visible": 3,
        "snapshots_infrared": 2,
    }

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        self.embedder = StripedTwoStream(self.settings)
        sizes = (self.settings.snapshots_visible, self.settings.snapshots_infrared)
        self.proxies = nn.ModuleList(Proxies(dim, num_pids, sizes) for dim in self.embedder.branch_dims)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """What ImageNet's weights do not fill (proxies, stripes, neck) is the "head" with ten times the rate."""
        new = (self.proxies, self.embedder.neck, self.embedder.stripes)
        return split_by_module(self, head=[part for part in new if part is not None])

    def batches(self, data: BatchSource, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        start = self.settings.start_epoch
        if self.settings.beta and start >= recipe.epochs:
            raise ArgumentError(
                f"the banks begin to fill in epoch {start}, but training has {recipe.epochs} epochs: set "
                "start_epoch to the end of the warm-up, or beta=0 to train without the unidirectional losses"
            )
        return super().batches(data, recipe, at)

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        branches = self.embedder.branches(batch.images, batch.modality)
        by_branch = [self.branch_losses(i, x, batch) for i, x in enumerate(branches)]
        losses, parts = ({}, by_branch) if not self.settings.with_global else (by_branch[0], by_branch[1:])
        for name in parts[0] if parts else ():
            losses[f"stripes_{name}"] = torch.stack([part[name] for part in parts]).mean()
        return losses

    def branch_losses(self, branch: int, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses of vectors x (N, dim) of one branch: the global one, or a stripe."""
        proxies = self.proxies[branch]
        assert isinstance(proxies, Proxies)
        s = self.settings
        losses = proxies.identity_losses(x, batch.label, batch.modality, s.detach_specific, s.label_smoothing)
        for name in MODALITIES:
            losses[f"identity_{name}"] = s.specific * losses[f"identity_{name}"]
        if s.beta:
            proxy_losses = proxies.unidirectional_losses(x, batch.label, batch.modality, s.alpha, s.delta)
            losses |= {name: s.beta * loss for name, loss in proxy_losses.items()}
            self.watch.update({f"snapshots_{name}": proxies.bank(m).valid.sum() for m, name in enumerate(MODALITIES)})
        return losses

    def after_step(self, at: Progress) -> None:
        """Store the proxies that the optimizer's step has just left; the same on every rank, as the weights are."""
        s = self.settings
        if s.beta and at.epoch >= s.start_epoch and at.iteration % s.enqueue_every == 0:
            for proxies in self.proxies:
                assert isinstance(proxies, Proxies)
                proxies.push()

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, a checkpoint of AGW's released code, or an embedder file; returns the keys not used."""
        return load_two_stream(self.embedder, state)
