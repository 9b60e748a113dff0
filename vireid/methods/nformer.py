"""NFormer: a small transformer over the embeddings of thousands of images draws each one to its mutual neighbors.

Wang, Shen, Liu, Gao, Gavves: "NFormer: Robust Person Re-Identification with Neighbor Transformer", CVPR 2022; checked
against arrays recorded from its released code, haochenheheda/NFormer.

The embeddings are those of another run, the base, which is not trained further; network in layers/nformer.py. Stage 0
trains a projection of them to the transformer's width, stage 1 the transformer, on sets of images near each other:

    L     = CE + L_tri + lambda L_cen                                           lambda = 0.0005, the same in both stages
    CE    = cross-entropy of the logits behind the batch norm, targets 0.9 onehot + 0.1 / C
    L_tri = mean_i max(0, m + max_{P_i} d_ij - min_{N_i} d_ij), m = 0.3, of vectors before the batch norm, as they are
    L_cen = mean_i |f_i - c_{y_i}|^2; the centers c have SGD of their own, on L_cen without lambda

At test queries and gallery are refined together, so the figures are transductive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Never

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.data.samplers import IdentityBatches
from vireid.data.transforms import Chain, Erase, Flip, Normalize, PadCrop
from vireid.declaration import BelowOne, Count, Index, Number, Rate, Share, Weight, configured, settings
from vireid.errors import ArgumentError
from vireid.evaluation.frozen import Frozen
from vireid.layers.neck import classifier
from vireid.layers.neighbors import mutual_neighbors
from vireid.layers.nformer import NFormerRefiner, NFormerRefinerSettings, RefinementSettings, from_released
from vireid.layers.weights import fill
from vireid.losses.hard_triplet import batch_hard_triplet_in_blocks
from vireid.losses.label_smoothing import LabelSmoothing
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.training.optim import SGD, Adam, Constant, Optimizers, Steps, warmup
from vireid.types import IMAGENET_MEAN, INFRARED, VISIBLE

if TYPE_CHECKING:
    from vireid.data.pipeline import TrainingData
    from vireid.data.table import Table

# with `augment`, as the released code re-embeds; its fill is ImageNet's mean color, put into normalized values
AUGMENT = Chain(PadCrop(10), Flip(0.5), Normalize(), Erase(0.5, fill=IMAGENET_MEAN))
STAGES = 2  # the projection, then the transformer; each has a classifier and centers of its own


@settings
class WarmupFrom:
    """The network's factor rises linearly from `start` in the warm-up, then falls at milestones; the centers' is 1."""

    start: Share = 0.01
    """Share of the learning rate at the beginning of the warm-up."""
    warmup_epochs: Index = 10
    """Length of the warm-up; 0 for none."""
    milestones: tuple[Index, ...] = (39, 69)  # the released code counts epochs from 1 and falls at 40 and 70
    """Epochs, counted from 0, from which on the factor is multiplied by gamma."""
    gamma: Rate = 0.1
    """What the factor is multiplied by at each milestone."""
    warmup_steps: Index = 0
    """Iterations of the warm-up, in place of its epochs; 0: by epochs."""

    def __call__(self, at: Progress) -> dict[str, float]:
        part = warmup(at, self.warmup_epochs, self.warmup_steps)
        factor = (self.start + (1 - self.start) * part) * Steps(self.milestones, self.gamma)(at)
        return {"network": factor, "centers": 1.0}


@settings
class NearbySets:
    """`sets` sets of images near a random one: of the length (1 + u) nearest by inner product, u uniform, `length`.

    A set takes at most 0.6 of all images, so that small data sets give different sets too. An epoch has one set for
    every `images_per_set` images.
    """

    length: Count = 7000
    """Images of a set."""
    sets: Count = 2
    """Sets of a batch."""
    images_per_set: Count = 30
    """Training images for which an epoch has one set."""

    def size(self, images: int) -> int:
        """Images of a set."""
        return max(1, min(self.length, int(0.6 * images)))

    def iterations(self, images: int) -> int:
        """Batches of an epoch."""
        return max(1, -(-(images // self.images_per_set) // self.sets))

    def draw(self, vectors: Tensor, random: np.random.RandomState) -> np.ndarray:
        """The rows of one set from vectors (R, D), in random order."""
        size = self.size(len(vectors))
        center, near = random.randint(len(vectors)), int(size * (1 + random.rand()))
        rows = (vectors @ vectors[center]).topk(min(near, len(vectors))).indices.cpu().numpy()
        return random.permutation(rows)[:size]


@settings
class NFormerSettings(LabelSmoothing, RefinementSettings):
    """The released code's values but for what docs/methods/nformer.md lists."""

    base: str = field(kw_only=True)
    """Run folder whose embeddings are refined, or an embeddings file (.npz) of all training images."""
    train_normalize: bool = True
    """Whether the transformer's vectors have length 1 in training as at test, or stay as they are, as released."""
    augment: bool = False
    """Whether augmented pictures are embedded again in every epoch, as released; the base is then a run folder."""
    label_smoothing: BelowOne = 0.1
    """Share of each label that is spread evenly over all identities, as released; 0: none."""
    margin: Number = 0.3
    """Margin m of L_tri."""
    center: Weight = 5e-4
    """Weight lambda of L_cen; 0 leaves the centers out."""


class NFormer(Method[Never]):
    """A refining method: it trains no embedder, but a refiner of the vectors of its base."""

    Settings = NFormerSettings
    settings: NFormerSettings
    recipe = (
        Recipe(
            size=None,
            sampler=IdentityBatches(pids=16, images=2),
            views=(),
            epochs=120,
            optimizers={
                "network": Adam(lr=3.5e-4, weight_decay=5e-4),
                "centers": SGD(lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0),
            },
            schedule=WarmupFrom(),
        ),
        Recipe(
            size=None,
            sampler=NearbySets(),
            views=(),
            epochs=20,
            optimizers={
                "network": Adam(lr=1e-5),
                "centers": SGD(lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0),
            },
            schedule=Constant(),
        ),
    )

    # The tests make the base. Without dropout, for their few steps at a rate of 1e-5 are less than its noise.
    tiny: ClassVar[dict[str, object]] = {"width": 8, "depth": 2, "landmarks": 3, "k": 6, "k_cross": 3, "dropout": 0.0}

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        s = self.settings
        self.base = Frozen(s.base)
        if s.augment and (self.base.run is None or self.base.embedder.inputs):
            raise ArgumentError(
                f"augment=true embeds pictures again, for which the base has to be the folder of a run whose embedder "
                f"takes pictures alone; {s.base} is not: set augment=false"
            )
        own = asdict(configured(RefinementSettings, s, {}))
        self.refiner = NFormerRefiner(NFormerRefinerSettings(dim=self.base.dim, **own))
        self.classifiers = nn.ModuleList(classifier(s.width, num_pids) for _ in range(STAGES))  # by stage
        self.centers = nn.ParameterList(torch.randn(num_pids, s.width) for _ in range(STAGES if s.center else 0))

    def params(self) -> dict[str, list[nn.Parameter]]:
        """A loss reaches what its stage trains and no more, so both stages share the names."""
        network = [p for part in (self.refiner, self.classifiers) for p in part.parameters() if p.requires_grad]
        return {"network": network, "centers": list(self.centers)}

    def artifacts(self) -> dict[str, nn.Module]:
        """The refiner; the embedder is the base's."""
        return {"refiner": self.refiner}

    def base_run(self) -> Frozen:
        """The run, or the file of embeddings, whose vectors are refined."""
        return self.base

    def check(self, table: Table) -> None:
        self.base.check(table)

    # --- batches ------------------------------------------------------------------------------------------------------

    def batches(self, data: TrainingData, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        """Vectors (N, D) stand in `images`: stage 0 those of the base, stage 1 projected ones, a set after the other.

        In stage 1 extras hold the `set` of each row (N,) and for which layers it is a `landmark` (N, depth).
        """
        if recipe.views or recipe.size is not None or recipe.filter != "lanczos":
            raise ArgumentError("NFormer's pictures are its base's: leave size, filter and views as they are")
        return (self.identities if at.stage == 0 else self.nearby)(data, recipe, at)

    def identities(self, data: TrainingData, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        sampler = recipe.sampler
        if not isinstance(sampler, IdentityBatches):
            raise ArgumentError(f"stage 0 of NFormer draws by IdentityBatches, got {type(sampler).__name__}")
        length = sampler.iterations(data.table)
        at.iterations_per_epoch, start = length, at.iteration - at.epoch * length
        if self.settings.augment:
            yield from self.augmented(data, sampler, at)
            return
        whole = self.whole(data)
        random = np.random.RandomState(_seeds(f"{data.seed}/{at.stage}/{at.epoch}/sampler"))
        for lines in list(sampler.epoch(data.table, random))[start:]:
            size, rest = divmod(lines.shape[1], data.world)
            if rest:
                raise ArgumentError(f"{data.world} processes cannot share {lines.shape[1]} images; change sampler.pids")
            yield whole[
                torch.from_numpy(lines[:, data.rank * size : (data.rank + 1) * size].reshape(-1)).to(data.device)
            ]

    def nearby(self, data: TrainingData, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        sampler = recipe.sampler
        assert isinstance(sampler, NearbySets)
        if sampler.sets % data.world:
            raise ArgumentError(f"{data.world} processes cannot share {sampler.sets} sets; change sampler.sets")
        whole = self.whole(data) if not self.settings.augment else _joined(list(self.augmented(data, None, at)))
        whole = replace(whole, images=self.projected(whole.images))
        length = sampler.iterations(len(data.table))
        at.iterations_per_epoch, start = length, at.iteration - at.epoch * length
        share = sampler.sets // data.world
        for step in range(start, length):
            sets = []
            for number in range(data.rank * share, (data.rank + 1) * share):
                key = f"{data.seed}/{at.stage}/{at.epoch}/{step}/{number}"
                rows = sampler.draw(whole.images, np.random.RandomState(_seeds(key)))
                one = whole[torch.from_numpy(rows).to(data.device)]
                drawn = self.refiner.draw(one.modality, torch.Generator().manual_seed(int(_seeds(key)[0])))
                flags = torch.zeros(len(one), len(drawn), dtype=torch.bool, device=data.device)
                flags[drawn, torch.arange(len(drawn), device=data.device)[:, None]] = True
                one.extras = {"set": torch.full_like(one.label, number - data.rank * share), "landmark": flags}
                sets.append(one)
            yield _joined(sets)

    def whole(self, data: TrainingData) -> Batch:
        """All training rows with the base's vectors."""
        table = data.table
        vectors = self.base.embeddings(table, data.progress, data.device).vectors
        kind = self.refiner.projection_neck.weight.dtype
        columns = (torch.from_numpy(np.asarray(c)).to(data.device) for c in (table.label, table.camid, table.modality))
        label, camid, modality = columns
        return Batch(torch.from_numpy(vectors).to(data.device, kind), label, camid, modality, torch.zeros_like(label))

    def augmented(self, data: TrainingData, sampler: IdentityBatches | None, at: Progress) -> Iterator[Batch]:
        """The base's vectors of augmented pictures, batch by batch of one pass of the sampler (None: stage 1's own)."""
        assert self.base.run is not None  # the constructor demands it
        use = self.base.run.deployment
        if sampler is None:
            if data.world > 1:
                raise ArgumentError("augment=true in stage 1 needs one process: its sets are drawn from a whole pass")
            sampler = IdentityBatches(pids=min(16, self.num_pids), images=2)
        pictures = Recipe(
            size=use.size,
            sampler=sampler,
            views=(View(VISIBLE, AUGMENT), View(INFRARED, AUGMENT)),
            epochs=at.epochs,
            optimizers={},
            schedule=Constant(),
            filter=use.filter,
            thermal_range=use.thermal_range,
        )
        first = at.iteration if at.stage == 0 else at.epoch * sampler.iterations(data.table)
        embedder = self.base.embedder.to(data.device).eval()
        for batch in data.batches(pictures, Progress(at.stage, at.epoch, first)):
            with torch.no_grad():
                vectors = next(iter(embedder.layers(batch.images, batch.modality).values()))
            yield replace(batch, images=vectors, view=torch.zeros_like(batch.view))

    @torch.no_grad()
    def projected(self, vectors: Tensor) -> Tensor:
        """z+ (R, width) as at test; the projection stands still by now, and so do its batch statistics."""
        neck = self.refiner.projection_neck
        was, _ = neck.training, neck.eval()
        tokens = torch.cat([self.refiner.project(part)[1] for part in vectors.split(4096)])
        neck.train(was)
        return tokens

    # --- losses -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        return self.losses_of(*self.vectors(batch, at), batch, at)

    def losses_of(self, before: Tensor, behind: Tensor, batch: Batch, at: Progress) -> dict[str, Tensor]:
        """Weighted losses of vectors (N, width) before and behind the stage's batch norm."""
        logits = self.classifiers[at.stage](behind)
        losses = {
            "identity": F.cross_entropy(logits, batch.label, label_smoothing=self.settings.label_smoothing),
            "triplet": batch_hard_triplet_in_blocks(before, batch.label, self.settings.margin),
        }
        if self.settings.center:
            losses["center"] = self.settings.center * center_loss(before, batch.label, self.centers[at.stage])
        return losses

    def step(self, batch: Batch, optim: Optimizers, at: Progress) -> dict[str, Tensor]:
        before, behind = self.vectors(batch, at)
        losses = self.losses_of(before, behind, batch, at)
        optim.step(losses, "network")
        if self.settings.center:  # the centers move by the loss without its weight
            own = center_loss(before.detach(), batch.label, self.centers[at.stage])
            optim.step({"center": own}, "centers")
        return losses

    def vectors(self, batch: Batch, at: Progress) -> tuple[Tensor, Tensor]:
        """(N, width) before and behind the batch norm of what the stage trains."""
        return self.refiner.project(batch.images) if at.stage == 0 else self.refined(batch)

    def refined(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(N, width) before and behind the last batch norm, of the sets that the batch holds."""
        sets = int(batch.extras["set"][-1]) + 1
        tokens, modality = batch.images.unflatten(0, (sets, -1)), batch.modality.view(sets, -1)
        if self.settings.train_normalize:
            tokens = F.normalize(tokens, dim=2)
        neighbors = mutual_neighbors(tokens, self.refiner.settings.k, self.refiner.settings.k_cross, modality)
        self.watch["neighbors"] = (neighbors >= 0).sum(1).float().mean()
        flags = batch.extras["landmark"].unflatten(0, (sets, -1)).permute(2, 0, 1)  # (depth, S, n)
        landmarks = flags.nonzero()[:, 2].view(*flags.shape[:2], -1)
        output = self.refiner.transformer(tokens, neighbors, landmarks)
        return output.tokens.flatten(0, 1), output.refined.flatten(0, 1)

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """The released code's checkpoint, or a refiner file; returns the keys not used.

        The transformer is taken always, projection and its batch norm where the checkpoint has both.
        """
        named = from_released(state)
        has = all(any(key.startswith(part) for key in named) for part in ("projection.", "projection_neck."))
        return fill(self.refiner, named, ("projection", "transformer") if has else ("transformer",))


def center_loss(x: Tensor, label: Tensor, centers: Tensor) -> Tensor:
    """mean_i |x_i - c_{y_i}|^2 of x (N, D) and centers (C, D).

    >>> center_loss(torch.tensor([[1.0], [4.0]]), torch.tensor([0, 1]), torch.tensor([[0.0], [2.0]])).item()
    2.5
    """
    return (x - centers[label]).square().sum(1).mean()


def _seeds(key: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u4")


def _joined(parts: list[Batch]) -> Batch:
    """Batches one after the other."""
    names = ("images", "label", "camid", "modality", "view")
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return Batch(**columns, extras={key: torch.cat([p.extras[key] for p in parts]) for key in parts[0].extras})
