"""D2RL: images of each modality are translated into the other, and one network sees both as four channels.

Wang, Wang, Zheng, Chuang, Satoh: "Learning to Reduce Dual-level Discrepancy for Infrared-Visible Person
Re-identification", CVPR 2019. No code was released: a reconstruction from the abstract, from descriptions by others and
from UNIT, which the image level builds on.

The image level T_I (encoders E, generators G, discriminators D of both modalities) closes the gap between modalities,
the feature level T_F, a re-identification network on four channels, the rest. Sums over both modalities:

    L   = L_I + lambda_F L_F                                                    lambda_F = 1
    L_I = 10 L_recon + .01 L_kl + L_gan + 10 L_cycle + .01 L_kl_cycle
    L_recon = mean |x - G_v(z_v)|      L_cycle = mean |x - G_v(z')|, z' of the translated x
    L_kl = mean of squares of the means of z;      L_kl_cycle = that of z'
    L_gan, L_D: least squares, sums over scales (losses/least_squares_gan.py), of the translated images
    L_F = mean cross-entropy of the logits + batch-hard triplet of the pooled vectors, margin 0.3

Three stages: T_I alone; T_F alone on what T_I then makes; both, with new discriminators, L_F moving E and G as well.
Every step on T_I is two: D first, then E and G against the new D with new noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches, UnpairedBatches
from vireid.data.transforms import Chain, Flip, PadCrop, Symmetric
from vireid.declaration import Count, Number, Positive, Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.d2rl import UnifiedResNet, UnifiedResNetSettings, load_unified
from vireid.layers.neck import classifier
from vireid.layers.unit import Discriminators, Pair, own_channels
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.least_squares_gan import discriminator_loss, generator_loss
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import SGD, Adam, Constant, IterationSteps, Optimizers, WarmupSteps
from vireid.types import INFRARED, MODALITIES, VISIBLE

IMAGES, FEATURES = ("discriminators", "translators"), ("features", "head")  # groups of T_I and of T_F
FLIPPED = Chain(Flip(0.5), Symmetric())
AUGMENT = Chain(PadCrop(10), Flip(0.5), Symmetric())
SIZE = (256, 128)
SHOWN = 8  # images of each modality on a sheet of samples


def image_adam(lr: float) -> Adam:
    """UNIT's optimizer."""
    return Adam(lr=lr, betas=(0.5, 0.999), weight_decay=1e-4)


TOGETHER = Recipe(  # of T_F alone; the last stage draws its batches in the same way
    size=SIZE,
    sampler=IdentityBatches(pids=8, images=4),
    views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
    epochs=60,
    optimizers={**dict.fromkeys(IMAGES, image_adam(0.0)), "features": SGD(lr=0.01), "head": SGD(lr=0.1)},
    schedule=WarmupSteps(warmup_epochs=10, milestones=(20, 50), gamma=0.1),
    step="step_features",
)


@settings
class D2RLSettings(LabelSmoothing, UnifiedResNetSettings):
    """UNIT's values, and AGW's for T_F; the paper's are not known."""

    scales: Count = 3
    """Scales of each discriminator."""
    discriminator_width: Count = 64
    """Channels of a discriminator's first convolution."""
    discriminator_layers: Count = 4
    """Convolutions of stride 2 at each scale of a discriminator."""
    recon: Weight = 10.0
    """Weight of L_recon; 0 leaves it out."""
    kl: Weight = 0.01
    """Weight of L_kl; 0 leaves it out."""
    gan: Weight = 1.0
    """Weight of L_gan and of L_D; 0 leaves the discriminators out."""
    cycle: Weight = 10.0
    """Weight of L_cycle; 0 leaves it out."""
    kl_cycle: Weight = 0.01
    """Weight of L_kl_cycle; 0 leaves it out."""
    lambda_f: Positive = 1.0
    """Weight of L_F in the last stage."""
    image_every: Count = 1
    """The last stage computes L_I on every n-th row, n this number; 4 takes one picture of each person and modality."""
    keep_discriminators: bool = False
    """Whether the last stage continues with the discriminators of the first in place of new ones."""
    triplet: Weight = 1.0
    """Weight of the triplet loss in L_F; 0 leaves it out."""
    margin: Number = 0.3
    """Margin of the triplet loss."""

    @model_validator(mode="after")
    def trains_the_translators(self) -> D2RLSettings:
        if not (self.recon or self.cycle or self.gan):
            raise ArgumentError("one of the weights recon, gan and cycle must be above 0, got 0 for all three")
        return self


class D2RL(Method[UnifiedResNet]):
    """Translators between the modalities, and a network that sees an image and its translation as four channels."""

    Settings = D2RLSettings
    settings: D2RLSettings
    recipe: ClassVar[tuple[Recipe, ...]] = (
        Recipe(
            size=SIZE,
            sampler=UnpairedBatches(images=4, batches=1000),
            views=(View(VISIBLE, FLIPPED), View(INFRARED, FLIPPED)),
            epochs=60,
            optimizers={**dict.fromkeys(IMAGES, image_adam(1e-4)), **dict.fromkeys(FEATURES, SGD(lr=0.0))},
            schedule=IterationSteps(every=100_000, gamma=0.5),
            step="step_images",
        ),
        TOGETHER,
        replace(
            TOGETHER,
            epochs=20,
            optimizers={**dict.fromkeys(IMAGES, image_adam(1e-5)), "features": SGD(lr=0.001), "head": SGD(lr=0.01)},
            schedule=Constant(),
            step="step_joint",
        ),
    )

    no_gradient: ClassVar[dict[str, str]] = {
        f"embedder.translators.{part}.conv.bias": "a shift right before an instance norm, which subtracts it again"
        for part in (
            "encoders.*.[012]",
            "encoders.*.first",
            "encoders.*.second",
            "generators.*.first",
            "generators.*.second",
        )
    }

    tiny: ClassVar[dict[str, object]] = {
        "width": 4,
        "blocks": (1, 1, 1, 1),
        "image_width": 4,
        "image_blocks": 1,
        "discriminator_width": 4,
        "discriminator_layers": 2,
        "scales": 2,
    }

    noise_seed: Tensor  # () int64, from which the noise of every iteration follows

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        s = self.settings
        self.register_buffer("noise_seed", torch.randint(2**31, ()))
        self.embedder = UnifiedResNet(s)
        self.discriminators = Discriminators(s.discriminator_width, s.discriminator_layers, s.scales)
        self.classifier = classifier(self.embedder.dim, num_pids)

    @classmethod
    def recipe_for(cls, dataset: str) -> tuple[Recipe, ...]:
        """The first stage has 60,000 iterations, on RegDB, a tenth of SYSU-MM01, 20,000."""
        assert isinstance(cls.recipe, tuple)  # three stages
        first, *rest = cls.recipe
        return (replace(first, epochs=20) if dataset == "regdb" else first, *rest)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """D; E and G; T_F's network, and as AGW its neck and classifier apart, with ten times the rate."""
        net = self.embedder
        parts = {
            "discriminators": [self.discriminators],
            "translators": [net.translators],
            "features": [net.stem, net.trunk, net.pool],
            "head": [net.neck, self.classifier],
        }
        return {
            name: [p for module in modules for p in module.parameters() if p.requires_grad]
            for name, modules in parts.items()
        }

    # --- the three steps --------------------------------------------------------------------------------------------

    def step_images(self, batch: Batch, optim: Optimizers, at: Progress) -> dict[str, Tensor]:
        """T_I alone."""
        self.check_idle(optim, at, FEATURES)
        images = self.by_modality(batch)
        noise = self.noise(images, at)
        critics = self.critic_step(images, noise[:2], optim)
        losses = self.image_losses(images, noise[2:])
        optim.step(losses, "translators")
        return critics | losses

    def step_features(self, batch: Batch, optim: Optimizers, at: Progress) -> dict[str, Tensor]:
        """T_F alone: nothing but it receives a gradient."""
        self.check_idle(optim, at, IMAGES)
        with torch.no_grad():
            unified = self.embedder.unify(batch.images, batch.modality)
        losses = self.feature_losses(unified, batch)
        optim.step(losses, *FEATURES)
        return losses

    def step_joint(self, batch: Batch, optim: Optimizers, at: Progress) -> dict[str, Tensor]:
        """Both; T_F sees the translation without noise, as at test, and sends its gradient through it."""
        if at.iteration == 0 and not self.settings.keep_discriminators:
            self.discriminators.renew(int(self.noise_seed))
        images = self.by_modality(batch, self.settings.image_every)
        noise = self.noise(images, at)
        critics = self.critic_step(images, noise[:2], optim)
        features = self.feature_losses(self.embedder.unify(batch.images, batch.modality), batch)
        losses = self.image_losses(images, noise[2:])
        losses |= {name: self.settings.lambda_f * loss for name, loss in features.items()}
        optim.step(losses, "translators", *FEATURES)
        return critics | losses

    def critic_step(self, images: Pair, noise: Sequence[Tensor], optim: Optimizers) -> dict[str, Tensor]:
        """D's step; nothing where D is left out."""
        if not self.settings.gan:
            return {}
        losses = self.critic_losses(images, noise)
        optim.step(losses, "discriminators")
        return losses

    def check_idle(self, optim: Optimizers, at: Progress, groups: Sequence[str]) -> None:
        """A rate that this stage would not use is a misunderstanding; ValueError."""
        for name in groups:
            if optim.specs[name].lr:
                raise ArgumentError(
                    f"stage {at.stage} does not train `{name}`: set optimizers.{name}.lr of the stages that do, e.g. "
                    f"stages.2.optimizers.{name}.lr={optim.specs[name].lr:g}, and leave that of stage {at.stage} at 0"
                )

    # --- losses -----------------------------------------------------------------------------------------------------

    def critic_losses(self, images: Pair, noise: Sequence[Tensor]) -> dict[str, Tensor]:
        """L_D of visible (N, 3, H, W) and infrared (N, 1, H, W) images; noise of z_v and of z_i."""
        self.discriminators.check_size(*images[VISIBLE].shape[2:])
        with torch.no_grad():
            made = self.embedder.translators.translated(images, noise)
        terms = [discriminator_loss(d(made[1 - m]), d(images[m])) for m, d in enumerate(self.discriminators)]
        return {"discriminators": self.settings.gan * torch.stack(terms).sum()}

    def image_losses(self, images: Pair, noise: Sequence[Tensor]) -> dict[str, Tensor]:
        """L_I, weighted, of visible and infrared images; noise as RoundTrip's. A term of weight 0 is left out."""
        s, trip = self.settings, self.embedder.translators.round_trip(images, noise)
        weights = {"recon": s.recon, "kl": s.kl, "gan": s.gan, "cycle": s.cycle, "kl_cycle": s.kl_cycle}
        critics = self.discriminators if s.gan else ()
        sums = {
            "recon": [F.l1_loss(made, x) for made, x in zip(trip.rebuilt, images, strict=True)],
            "kl": [mean.square().mean() for mean in trip.mean],
            "gan": [generator_loss(d(trip.translated[1 - m])) for m, d in enumerate(critics)],
            "cycle": [F.l1_loss(made, x) for made, x in zip(trip.cycled, images, strict=True)],
            "kl_cycle": [mean.square().mean() for mean in trip.mean_again],
        }
        return {n: weights[n] * torch.stack(terms).sum() for n, terms in sums.items() if weights[n]}

    def feature_losses(self, unified: Tensor, batch: Batch) -> dict[str, Tensor]:
        """L_F of unified images (N, 4, H, W)."""
        _, pooled, embedding = self.embedder.encode(unified, batch.modality)
        logits = self.classifier(embedding)
        losses = {"identity": F.cross_entropy(logits, batch.label, label_smoothing=self.settings.label_smoothing)}
        if self.settings.triplet:
            losses["triplet"] = self.settings.triplet * batch_hard_triplet(pooled, batch.label, self.settings.margin)
        return losses

    # --- what the steps need ----------------------------------------------------------------------------------------

    def by_modality(self, batch: Batch, every: int = 1) -> Pair:
        """Visible (N, 3, H, W) and infrared (N, 1, H, W) images of every `every`-th row."""
        visible, infrared = (batch.images[batch.modality == m][::every] for m in range(len(MODALITIES)))
        return own_channels(visible, VISIBLE), own_channels(infrared, INFRARED)

    def noise(self, images: Pair, at: Progress) -> list[Tensor]:
        """Noise of one iteration, two for D and four in RoundTrip's order, from the run's seed, stage and iteration.

        So a resumed run sees the same.
        """
        seed = ((int(self.noise_seed) * 1_000_003 + at.stage) * 1_000_003 + at.iteration) % 2**63
        return self.embedder.translators.noise(images, seed)

    def samples(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        """Up to eight images of each modality and all that is made of them, without noise as at test."""
        translators = self.embedder.translators
        images = tuple(x[:: -(-len(x) // SHOWN)] for x in self.by_modality(batch))
        trip, rows = translators.round_trip((images[VISIBLE], images[INFRARED])), {}
        for m, name in enumerate(MODALITIES):
            joined = self.embedder.joined(images[m], m)
            shown = {
                name: images[m],
                f"{name} rebuilt": trip.rebuilt[m],
                f"{name} as {MODALITIES[1 - m]}": trip.translated[m],
                f"{name} and back": trip.cycled[m],
                # side by side, as four channels cannot be shown
                f"{name} unified": torch.cat([joined[:, :3], joined[:, 3:].expand(-1, 3, -1, -1)], dim=3),
            }
            rows |= {key: (x.expand(-1, 3, -1, -1) + 1) / 2 for key, x in shown.items()}
        return rows

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50 for T_F, or a D2RL embedder file for all but D; returns the keys that were not used."""
        return load_unified(self.embedder, state)
