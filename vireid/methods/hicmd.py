"""Hi-CMD: shape, clothes, pose and illumination come apart because images with exchanged parts have to look right.

Choi, Lee, Kim, Kim, Kim: "Hi-CMD: Hierarchical Cross-Modality Disentanglement for Visible-Infrared Person
Re-Identification", CVPR 2020; written from a specification and checked against arrays recorded from the released code,
bismex/HiCMD, whose network files were not opened.

An image x_m of modality m is a prototype p = E_p(x) and a code a = E_a(x) = [s; e]: style s, kept with the identity,
and the rest e, pose and illumination. A decoder G must rebuild a person's visible image from the infrared one and
back, with s and e exchanged (layers/hicmd_generator.py: y_m, z_m, same_m, cycle_m). People are matched by p and s
alone; the generator is not deployed. With o the other modality, and |.| the mean absolute value:

    L   = 50 |same_m - x_m| + 50 |y_m - x_m| + 50 |cycle_m - x_m| + 10 (|e(y_m) - e_m| + |s(y_m) - s_o|) + mean e_m^2
          + 20 L_adv(y_m, z_m)                   summed over both m; into encoders and decoder
          + L_id + L_triplet                     of f1 and a projection of it; into encoders and head
    L_D = 20 [ least squares of D_m, images y_m and z_m against x_m, + 0.01 gradient penalty ]       into D_m, first

L_id and L_triplet (losses/cosine_triplet.py) see real images, those made of them, and mixtures of both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.samplers import PivotPairs
from vireid.data.transforms import Chain, Erase, Flip, Normalize
from vireid.declaration import Count, Share, Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.hicmd import PrototypeAttribute, PrototypeAttributeSettings, excluded, load_encoders, style, twins
from vireid.layers.hicmd_generator import BOTH, Decoder, Made, Source, translate
from vireid.layers.image_translation import MultiScale, init_normal, residual_critic
from vireid.losses.cosine_triplet import cosine_triplet
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.losses.least_squares_gan import discriminator_loss, generator_loss, gradient_penalty
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import SGD, Adam, IterationSteps, Optimizers
from vireid.types import INFRARED, MODALITIES, VISIBLE

AUGMENT = Chain(Flip(0.5), Normalize())
PIVOTS = ((0, 2, 6), (1, 3, 7))  # kinds of row that the two triplet terms start from
PER_PERSON = 3  # rows of a view: a translated person, a visible negative, an infrared negative


class Inputs(NamedTuple):
    """Normalized images (P, 3, H, W) and labels (P,), all in lists by modality."""

    images: list[Tensor]  # row i of both is the same person
    label: Tensor
    negatives: list[Tensor]  # of other people, who differ between the lists
    negative_label: list[Tensor]


def inputs_of(batch: Batch) -> Inputs:
    """The parts of a batch of PivotPairs; ValueError where its rows are not such."""
    views = [batch.of_view(m) for m in BOTH]
    if len(batch) % (2 * PER_PERSON) or [len(view) for view in views] != [len(batch) // 2] * 2:
        raise ArgumentError(
            f"Hi-CMD needs a visible and an infrared view of {PER_PERSON} rows per person, got views of "
            f"{[len(view) for view in views]} rows; use the sampler PivotPairs"
        )
    negatives = [views[m][slice(1 + m, None, PER_PERSON)] for m in BOTH]
    images = [view.images[::PER_PERSON] for view in views]
    return Inputs(images, views[0].label[::PER_PERSON], [n.images for n in negatives], [n.label for n in negatives])


def _log_loss(maps: list[Tensor], sign: int) -> Tensor:
    """The original adversarial loss: sum over scales of -mean log sigmoid(sign D), also as the generator's term."""
    return torch.stack([F.softplus(-sign * values).mean() for values in maps]).sum()


@settings
class HiCMDSettings(LabelSmoothing, PrototypeAttributeSettings):
    """The released code's values; `code` and `paper` choose where the two differ."""

    scales: Count = 3
    """Scales of each discriminator."""
    same: Weight = 50.0
    """Weight of |same_m - x_m|; 0 leaves it out."""
    cross: Weight = 50.0
    """Weight of |y_m - x_m|; 0 leaves it out."""
    cycle: Weight = 50.0
    """Weight of |cycle_m - x_m|; 0 leaves it out."""
    code: Weight = 10.0
    """Weight of |e(y_m) - e_m| + |s(y_m) - s_o|; 0 leaves it out."""
    kl: Weight = 1.0
    """Weight of the prior on e; 0 leaves it out."""
    adversarial: Weight = 20.0
    """Weight of L_adv and of L_D; 0 leaves the discriminators out."""
    penalty: Weight = 0.01
    """Weight of the gradient penalty inside L_D; 0 leaves it out."""
    identity: Weight = 1.0
    """Weight of L_id; 0 leaves it out."""
    triplet: Weight = 1.0
    """Weight of L_triplet; 0 leaves it out."""
    erase: Share = 0.5
    """Probability of random erasing, before the identity losses alone."""
    rebuild: Source = "code"
    """same_m decoded with the style of the person's other image (code), or of the same image (paper)."""
    cycle_codes: Source = "code"
    """cycle_m decoded with the codes of the images (code), or of the generated images (paper)."""
    kl_form: Source = "code"
    """Prior on e: mean square (code), or half the sum of squares, KL(N(e, 1) || N(0, 1)) (paper)."""
    gan: Source = "code"
    """Adversarial loss: least squares (code), or logarithms (paper)."""
    neck_rows: Literal["all", "kind"] = "all"
    """The neck's batch norm sees all rows of a step, or each kind of row by itself."""


class HiCMD(Method[PrototypeAttribute]):
    """Encoders of a person's shape and of the rest, held apart by a decoder that must rebuild exchanged images."""

    Settings = HiCMDSettings
    settings: HiCMDSettings
    recipe = Recipe(
        size=(256, 128),
        sampler=PivotPairs(pids=2, batches=1000),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=200,  # of 1,000 iterations
        optimizers={
            "discriminator": Adam(lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4),
            "generator": Adam(lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4),
            "head": SGD(lr=1e-3, weight_decay=1e-4),
            "balance": SGD(lr=1e-5, weight_decay=1e-4),
        },
        schedule=IterationSteps(every=50_000, gamma=0.5),
        filter="bicubic",
    )

    raw_distances: ClassVar[str] = ""  # its triplet compares cosines
    no_gradient: ClassVar[dict[str, str]] = {
        "embedder.prototypes.*.conv.bias": "a shift right before an instance norm, which subtracts it again",
        "decoder.blocks.*.conv.bias": "a shift right before an adaptive instance norm, which subtracts it again",
        "embedder.neck.linear.bias": "a shift right before a batch norm, which subtracts it again",
    }

    # The published dilations need maps larger than 9, so images of 40 pixels or more.
    tiny: ClassVar[dict[str, object]] = {
        "width": 4,
        "blocks": (1, 1, 1, 1),
        "residual": 1,
        "dilations": (1, 2, 3),
        "scales": 2,
    }

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        s = self.settings
        self.erase = Erase(s.erase, aspect=(0.3, 3.3), fill=(0.0, 0.0, 0.0))  # 0 is the mean color
        self.embedder = PrototypeAttribute(s)
        self.decoder = Decoder(4 * s.width, self.embedder.dim, 8 * s.width)
        critic = MultiScale([residual_critic(width=s.width // 2, blocks=s.residual) for _ in range(s.scales)])
        init_normal(critic)
        self.critics = twins(critic)
        self.classifier = nn.Linear(self.embedder.dim, num_pids)
        nn.init.normal_(self.classifier.weight, 0.0, 0.001)
        nn.init.zeros_(self.classifier.bias)
        self.projection = nn.Linear(self.embedder.dim, self.embedder.dim // 2)
        nn.init.kaiming_normal_(self.projection.weight, mode="fan_out")
        nn.init.zeros_(self.projection.bias)

    @classmethod
    def recipe_for(cls, dataset: str) -> Recipe:
        """RegDB: 100,000 iterations in place of 200,000, and rates halved every 25,000 (released settings)."""
        assert isinstance(cls.recipe, Recipe)
        if dataset != "regdb":
            return cls.recipe
        return replace(cls.recipe, epochs=100, schedule=IterationSteps(every=25_000, gamma=0.5))

    def params(self) -> dict[str, list[nn.Parameter]]:
        """Both discriminators; encoders and decoder; what stands behind the encoders; alpha with a rate of its own."""
        parts = self.embedder
        groups: dict[str, tuple[nn.Module, ...]] = {
            "discriminator": (self.critics,),
            "generator": (parts.prototypes, parts.attributes, self.decoder),
            "head": (parts.trunk, parts.neck, self.classifier, self.projection),
            "balance": (parts.balance,),
        }
        return {name: [p for module in group for p in module.parameters()] for name, group in groups.items()}

    def step(self, batch: Batch, optim: Optimizers, at: Progress) -> dict[str, Tensor]:
        given = inputs_of(batch)
        made = self.make(given.images)
        against: dict[str, Tensor] = {}
        if self.settings.adversarial:
            against = {"discriminator": self.discriminator_loss(given.images, made)}
            optim.step(against, "discriminator")
        losses = self.generator_losses(given.images, made) | self.identity_losses(given, made)
        optim.step(losses, "generator", "head", "balance")
        self.watch["alpha"] = self.embedder.balance.alpha.detach().clone()
        return losses | against

    def make(self, images: list[Tensor]) -> Made:
        return translate(self.embedder, self.decoder, images, self.settings.rebuild, self.settings.cycle_codes)

    def discriminator_loss(self, images: list[Tensor], made: Made) -> Tensor:
        """L_D, which trains the discriminators alone; every real image counts once per image made for it, twice."""
        s, terms = self.settings, []
        for m in BOTH:
            real = images[m].detach().requires_grad_()
            maps, fake = (
                self.judge(m, real),
                self.judge(m, torch.cat([made.swapped[m], made.modality_only[m]]).detach()),
            )
            loss = discriminator_loss(fake, maps) if s.gan == "code" else _log_loss(fake, -1) + _log_loss(maps, 1)
            terms.append(loss + s.penalty * gradient_penalty(maps, real) if s.penalty else loss)
        return s.adversarial * 2 * torch.stack(terms).sum()

    def judge(self, modality: int, images: Tensor) -> list[Tensor]:
        """The discriminator's maps (N, 1, h, w) per scale."""
        # Autocast would keep half-precision copies of the weights until the iteration ends, and the generator would not
        # meet the discriminator as it is after its step.
        with torch.autocast(images.device.type, enabled=False):
            return self.critics[modality](images.to(self.projection.weight.dtype))

    def generator_losses(self, images: list[Tensor], made: Made) -> dict[str, Tensor]:
        """The weighted terms of L_G that see images or codes; a weight of 0 leaves its term out."""
        s = self.settings
        terms: dict[str, Tensor] = {}
        for name, rebuilt in (("same", made.same), ("cross", made.swapped), ("cycle", made.cycle)):
            terms[name] = torch.stack([F.l1_loss(rebuilt[m], images[m]) for m in BOTH]).sum()
        code, again = made.code, made.swapped_code
        kept = [F.l1_loss(excluded(again[m]), excluded(code[m])) for m in BOTH]
        brought = [F.l1_loss(style(again[m]), style(code[1 - m])) for m in BOTH]
        terms["code"] = torch.stack(kept + brought).sum()
        terms["kl"] = sum((self.kl(excluded(code[m])) for m in BOTH), torch.zeros_like(terms["code"]))
        if s.adversarial:
            maps = [self.judge(m, torch.cat([made.swapped[m], made.modality_only[m]])) for m in BOTH]
            term = generator_loss if s.gan == "code" else lambda fake: _log_loss(fake, 1)
            terms["adversarial"] = 2 * torch.stack([term(fake) for fake in maps]).sum()
        weights = {"same": s.same, "cross": s.cross, "cycle": s.cycle, "code": s.code, "kl": s.kl}
        weights["adversarial"] = s.adversarial
        return {name: weights[name] * loss for name, loss in terms.items() if weights[name]}

    def kl(self, codes: Tensor) -> Tensor:
        """Of codes (N, D): their mean square, or with "paper" the mean over rows of KL(N(code, 1) || N(0, 1))."""
        return codes.square().mean() if self.settings.kl_form == "code" else codes.square().sum(1).mean() / 2

    def identity_losses(self, given: Inputs, made: Made) -> dict[str, Tensor]:
        """Weighted cross-entropy and triplets of the rows of `joined`; a weight of 0 leaves its term out."""
        joined, labels = self.joined(given, made)
        neck, sizes, label = self.embedder.neck, [len(y) for y in labels], torch.cat(labels)
        f1 = neck(torch.cat(joined)) if self.settings.neck_rows == "all" else torch.cat([neck(x) for x in joined])
        terms: dict[str, Tensor] = {}
        if self.settings.identity:
            loss = F.cross_entropy(self.classifier(f1), label, label_smoothing=self.settings.label_smoothing)
            terms["identity"] = self.settings.identity * loss
        if self.settings.triplet:
            x = self.projection(f1)
            rows = x.split(sizes)
            calls = [
                cosine_triplet(torch.cat([rows[k] for k in kinds]), torch.cat([labels[k] for k in kinds]), x, label)
                for kinds in PIVOTS
            ]
            terms["triplet"] = self.settings.triplet * torch.stack(calls).sum()
        return terms

    def joined(self, given: Inputs, made: Made) -> tuple[list[Tensor], list[Tensor]]:
        """Joined vectors of the eight kinds of row and their labels, of images erased again.

        0 x_v, 1 x_i, 2 y_v, 3 y_i, 4 and 5 negatives, 6 (prototype of x_v, style of y_v) and the reverse, 7 the same of
        x_i and y_i. Nothing flows back through y to the decoder. Each kind passes the trunk's and the attribute
        encoders' batch norms by itself, as released.
        """
        encode = self.embedder
        shape: list[list[Tensor]] = []  # by modality: of x, y and negatives
        clothes: list[list[Tensor]] = []
        for m in BOTH:
            images = [self.erased(x) for x in (given.images[m], made.swapped[m].detach(), given.negatives[m])]
            prototypes = encode.prototypes[m](torch.cat(images)).split([len(x) for x in images])
            shape.append([encode.trunk(p) for p in prototypes])
            clothes.append([style(encode.attributes[m](x)) for x in images])
        own = [encode.balance(shape[m][k], clothes[m][k]) for k in range(3) for m in BOTH]
        crossed = [encode.balance(torch.cat(shape[m][:2]), torch.cat(clothes[m][1::-1])) for m in BOTH]
        return own + crossed, [given.label] * 4 + given.negative_label + [given.label.repeat(2)] * 2

    def erased(self, images: Tensor) -> Tensor:
        return self.erase({"images": images}, torch.default_generator)["images"]

    def samples(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        """Each person of the batch: its two images, and what is made of them."""
        images = [batch.of_view(m).images for m in BOTH]
        made, (v, i) = self.make(images), MODALITIES
        rows = {v: images[0], i: images[1]}
        for name, pair in (("rebuilt", made.same), ("cycle", made.cycle)):
            rows |= {f"{v}, {name}": pair[0], f"{i}, {name}": pair[1]}
        for name, pair in (("", made.swapped), (", own pose", made.modality_only)):
            rows |= {f"{i} to {v}{name}": pair[0], f"{v} to {i}{name}": pair[1]}
        return {name: x * self.embedder.std + self.embedder.mean for name, x in rows.items()}

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, for attribute encoders and trunk, or an embedder file; returns the keys not used."""
        return load_encoders(self.embedder, state)
