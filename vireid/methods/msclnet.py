"""MSCLNet: a recurrent network fuses both modalities of a person, centers of cameras and of people shape the space.

Zhang, Zhao, Kang, Shen: "Modality Synergy Complement Learning with Cascaded Aggregation for Visible-Infrared Person
Re-identification", ECCV 2022. No code was released: a re-implementation from the published equations.

Pairs of a visible and an infrared picture of a person y; pooled vectors f of AGW's network; maps with instance norm,
pooled whole to g and in stripes to b_j; S fuses the pair stripe by stripe, b_j^s = S(b_j^v, b_j^r), f^s = mean_j b_j^s.

    L = L_AGW + .5 L_div + 1.25 L_t + .8 L_local + 1.5 L_global + L_sub + L_intra + L_inter
    L_div    = - mean min(KL(p^v || p^r), 1)                   p^v, p^r: softmax of heads on g^v and on g^r
    L_t      = cross-entropy of the head on g^v + that of the head on g^r
    L_local  = mean over pairs of sum_j (1 - c_j) + sqrt(2 - 2 c_j)      c_j = cos(b_j^s, b_j^v); moves S alone
    L_global = mean over pairs of |C_y^s - C_y^r|^2            batch centers of f^s and of f^r; moves S alone
    L_sub, L_intra, L_inter: losses/center_cascade.py with f^v, f^r and f^s as rows, a sub-class being what one camera
                             sees of a person, for f^s the pair of cameras; moves everything

Where a printed equation has no lower bound, repels or cannot be computed, this is our reading; the page lists both.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.declaration import Count, Index, Positive, Rate, Weight, settings
from vireid.distributed import gather
from vireid.errors import ArgumentError
from vireid.layers.msclnet import NormalizedPooling, Synergy
from vireid.layers.neck import bn_neck, classifier
from vireid.layers.pooling import Pooling
from vireid.losses.batch_centers import batch_centers
from vireid.losses.center_cascade import Inter, center_cascade
from vireid.losses.divergence import divergence
from vireid.method import Batch, Progress, Recipe, View
from vireid.methods.agw import AGW, AGWSettings
from vireid.training.optim import SGD, split_by_module, warmup
from vireid.types import INFRARED, MODALITIES, VISIBLE

AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize(), Erase(0.8, area=(0.2, 0.8)))
Local = Literal["attract", "literal"]


@settings
class WarmupFactors:
    """Linear warm-up, (epoch + 1) / warmup_epochs, times the factor of the last milestone (epoch) reached."""

    warmup_epochs: Index = 10
    """Epochs of the warm-up; 0: none."""
    milestones: tuple[Index, ...] = (20, 50, 100)
    """Epochs from which on the factor of the same place holds."""
    factors: tuple[Rate, ...] = (0.5, 0.1, 0.01)
    """Factor of each milestone."""
    warmup_steps: Index = 0
    """Iterations of the warm-up, in place of its epochs; 0: by epochs."""

    @model_validator(mode="after")
    def paired(self) -> Self:
        if len(self.milestones) != len(self.factors):
            raise ArgumentError(f"every milestone has a factor, got {self.milestones} and {self.factors}")
        return self

    def __call__(self, at: Progress) -> float:
        factor = warmup(at, self.warmup_epochs, self.warmup_steps)
        return factor * (1.0, *self.factors)[sum(at.epoch >= m for m in self.milestones)]


@settings
class MSCLNetSettings(AGWSettings):
    """Our reading of the published equations, with AGW's settings; a weight of 0 leaves its loss out."""

    stripes: Annotated[Count, Field(le=1)] = 1
    """AGW's maps are pooled as a whole; the stripes of this method are `parts`."""
    agw_weight: Weight = 1.0
    """Weight of AGW's identity and triplet losses; 0 as printed."""
    div_weight: Weight = 0.5
    """Weight of L_div."""
    identity_weight: Weight = 1.25
    """Weight of L_t, the cross-entropies of the heads on g."""
    local_weight: Weight = 0.8
    """Weight of L_local."""
    global_weight: Weight = 1.5
    """Weight of L_global."""
    sub_weight: Weight = 1.0
    """Weight of L_sub."""
    intra_weight: Weight = 1.0
    """Weight of L_intra."""
    inter_weight: Weight = 1.0
    """Weight of L_inter."""
    parts: Count = 6
    """Stripes, which must divide the rows of the maps; 6 in the paper."""
    hidden: Count = 512
    """Width of the Mogrifier LSTM in S, which the paper does not give."""
    rounds: Index = 5
    """Rounds of mutual gating in the Mogrifier LSTM; 0 is an ordinary LSTM."""
    normalized_pooling: Pooling = "gem"
    """Pooling of g and the stripes."""
    head_neck: bool = True
    """Whether a BN neck stands before each head of L_t."""
    div_on: Literal["logits", "pooled"] = "logits"
    """L_div compares the softmax of the heads' logits, or of g itself (pooled)."""
    div_cap: Positive | None = 1.0
    """Largest divergence of a pair in L_div, beyond which nothing pushes; null as printed."""
    local_form: Local = "attract"
    """L_local as attract, or as printed (literal), which repels below cos = 1/2."""
    inter_form: Inter = "bounded"
    """L_inter between centers of length 1 (bounded), or as printed (literal), without lower bound."""
    unit_length: bool = True
    """Whether L_global and the cascade see f with length 1; false as printed."""
    cascade: Literal["joint", "separate", "synergy"] = "joint"
    """f^v, f^r, f^s share centers of identities (joint), are separate (mean of three), or f^s is alone (synergy)."""


class MSCLNet(AGW):
    """AGW with the fusion of pairs and a cascade of center losses, which serve training alone."""

    Settings = MSCLNetSettings
    settings: MSCLNetSettings
    recipe = Recipe(
        size=(288, 144),
        sampler=IdentityBatches(pids=8, images=4),
        views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
        epochs=200,
        optimizers={"backbone": SGD(lr=0.01), "head": SGD(lr=0.1)},
        schedule=WarmupFactors(),
    )

    # Stripes that fit the four rows of the maps of a test picture.
    tiny: ClassVar[dict[str, object]] = {"width": 4, "blocks": (1, 1, 1, 1), "parts": 2, "hidden": 8}

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        s = self.settings
        self.weights = {"identity": s.agw_weight, "triplet": s.agw_weight, "div": s.div_weight}
        self.weights |= {"heads": s.identity_weight, "local": s.local_weight, "global": s.global_weight}
        self.weights |= {"sub": s.sub_weight, "intra": s.intra_weight, "inter": s.inter_weight}
        dim = self.embedder.dim
        self.normalized = nn.ModuleList(NormalizedPooling(dim, s.parts, s.normalized_pooling) for _ in MODALITIES)
        self.heads = nn.ModuleList(
            nn.Sequential(bn_neck(dim) if s.head_neck else nn.Identity(), classifier(dim, num_pids)) for _ in MODALITIES
        )
        self.synergy = Synergy(dim, s.hidden, s.rounds)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """What ImageNet's weights do not fill, non-local blocks excepted, is the "head" with ten times the rate."""
        return split_by_module(
            self, head=(self.embedder.neck, self.classifier, self.normalized, self.heads, self.synergy)
        )

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        maps, pooled, embedding = self.embedder.encode(batch.images, batch.modality)
        rows = pairs(batch)
        label, camids = batch.label[rows[VISIBLE]], [batch.camid[r] for r in rows]
        normed = [part(maps[r]) for part, r in zip(self.normalized, rows, strict=True)]
        terms = {
            "identity": self.cross_entropy(self.classifier(embedding), batch.label),
            "triplet": self.triplet_loss(pooled, batch.label),
            **self.synergy_losses(normed[VISIBLE][0], normed[INFRARED][0], label),
        }
        if any(self.weights[name] for name in ("local", "global", "sub", "intra", "inter")):
            stripes, held = (torch.cat([b, b.detach()]) for _, b in normed), normed[VISIBLE][1].detach()
            # one pass for both: the first half carries gradients to the network, the second to S alone
            fused, apart = self.synergy(*stripes).chunk(2)
            terms |= self.complement_losses(apart, held, pooled[rows[INFRARED]].detach(), label)
            terms |= self.cascade_losses([*(pooled[r] for r in rows), fused.mean(1)], label, camids)
        return {name: self.weights[name] * loss for name, loss in terms.items() if self.weights[name]}

    def synergy_losses(self, visible: Tensor, infrared: Tensor, label: Tensor) -> dict[str, Tensor]:
        """L_div and L_t of g (N, D) of both modalities, without their weights."""
        logits = [head(g) for head, g in zip(self.heads, (visible, infrared), strict=True)]
        apart = divergence(*(logits if self.settings.div_on == "logits" else (visible, infrared)))
        self.watch["divergence"] = apart.detach().mean()
        heads = torch.stack([self.cross_entropy(z, label) for z in logits]).sum()
        return {"div": -apart.clamp(max=self.settings.div_cap or torch.inf).mean(), "heads": heads}

    def complement_losses(self, fused: Tensor, visible: Tensor, infrared: Tensor, label: Tensor) -> dict[str, Tensor]:
        """L_local and L_global of stripes of S and of the visible pictures (N, parts, D), and f^r (N, D), both held."""
        cosine = F.cosine_similarity(fused.detach(), visible, dim=2)
        self.watch["stripe_cosine"] = cosine.mean()
        return {
            "local": stripe_distance(fused, visible, self.settings.local_form),
            "global": center_distance(self.scaled(fused.mean(1)), self.scaled(infrared), label),
        }

    def cascade_losses(self, f: list[Tensor], label: Tensor, camids: list[Tensor]) -> dict[str, Tensor]:
        """L_sub, L_intra and L_inter of f^v, f^r and f^s (N, D), label (N,) and the pictures' cameras (N,)."""
        visible, infrared = camids
        seen = [(visible, visible), (infrared, infrared), (visible, infrared)]
        # the first column keeps the three apart where one camera takes pictures of both modalities
        parts = [torch.stack([torch.full_like(v, kind), v, r], dim=1) for kind, (v, r) in enumerate(seen)]
        given = [(self.scaled(x), label, part) for x, part in zip(f, parts, strict=True)]
        if self.settings.cascade == "joint":
            given = [tuple(torch.cat(column) for column in zip(*given, strict=True))]
        elif self.settings.cascade == "synergy":
            given = given[2:]
        terms = [center_cascade(*rows, inter=self.settings.inter_form) for rows in given]
        return {name: torch.stack([getattr(t, name) for t in terms]).mean() for name in ("sub", "intra", "inter")}

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(logits, label, label_smoothing=self.settings.label_smoothing)

    def scaled(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) if self.settings.unit_length else x


def pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of the visible and of the infrared pictures; ValueError unless the i-th of both are the same person."""
    visible, infrared = ((batch.modality == m).nonzero().squeeze(1) for m in (VISIBLE, INFRARED))
    if not batch.label[visible].equal(batch.label[infrared]):
        raise ArgumentError(
            f"MSCLNet fuses pairs: row i of the {len(visible)} visible and of the {len(infrared)} infrared pictures "
            "must be the same person; give the recipe one view of each modality"
        )
    return visible, infrared


def stripe_distance(x: Tensor, target: Tensor, form: Local = "attract") -> Tensor:
    """L_local of stripes x and target (N, parts, D), summed over parts, averaged over rows.

    "literal" has cos for 1 - cos, as printed: its minima are cos = 1 and cos = -1, its maximum cos = 1/2.
    """
    x, target = F.normalize(x, dim=2), F.normalize(target, dim=2)
    cosine = (x * target).sum(2)
    # sqrt(2 - 2 cos) is the distance of vectors of length 1, which rounding cannot make negative under the root
    distance = ((x - target).square().sum(2) + 1e-12).sqrt()
    return ((cosine if form == "literal" else 1 - cosine) + distance).sum(1).mean()


def center_distance(x: Tensor, target: Tensor, label: Tensor) -> Tensor:
    """L_global of rows x and target (N, D) with label (N,); rows of all processes take part."""
    x, target, label = gather(x), gather(target), gather(label)
    centers, row, _ = batch_centers(x, label)
    return (centers - batch_centers(target, label).centers)[row].square().sum(1).mean()
