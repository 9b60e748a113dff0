"""The shape of a method: what a file in methods/ has to provide, and what the training loop hands to it.

A Method is an nn.Module that knows its losses and its recipe and owns an `embedder`, the part that is deployed. The
loop in training/loop.py knows nothing else about it. Shape letters are those of docs/architecture.md, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from pydantic import Field, SkipValidation, model_validator
from torch import Tensor, nn

from vireid.declaration import BelowOne, Count, Index, NoSettings, Range, Rate, Share, configured, settings
from vireid.errors import ArgumentError
from vireid.types import INFRARED, VISIBLE, ResizeFilter, Similarity, Size

EmbedderT = TypeVar("EmbedderT", bound=nn.Module)


# --- what a method needs of other rooms -------------------------------------------------------------------------------


class Rows(Protocol):
    """Rows of a table (vireid.data.table.Table), one per image."""

    @property
    def pid(self) -> np.ndarray: ...
    @property
    def camid(self) -> np.ndarray: ...
    @property
    def modality(self) -> np.ndarray: ...
    @property
    def extras(self) -> dict[str, np.ndarray]: ...

    def __len__(self) -> int: ...


class BatchSource(Protocol):
    """The training rows and their pictures (vireid.data.pipeline.TrainingData)."""

    def batches(self, recipe: Recipe, at: Progress) -> Iterator[Batch]: ...


class OptimizerGroups(Protocol):
    """The optimizers of the named groups of parameters (vireid.training.optim.Optimizers)."""

    def step(self, loss: Tensor | Mapping[str, Tensor], *names: str) -> None: ...


class BaseRun(Protocol):
    """The run whose embeddings a method refines (vireid.evaluation.frozen.Frozen)."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What recipe.json says about it."""
        ...

    @property
    def init(self) -> str:
        """What the stamp says the training started from."""
        ...


# --- recipes ----------------------------------------------------------------------------------------------------------


@runtime_checkable
class Transform(Protocol):
    """Changes a dict of aligned whole-batch tensors; `images` (N, 3, H, W) are uint8 until Normalize, then float."""

    def __call__(self, sample: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]: ...


@runtime_checkable
class Sampler(Protocol):
    """Draws the rows of each batch; row i of both lines is the same person."""

    def epoch(self, table: Any, random: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield integer arrays (2, n): line 0 visible rows of the table, line 1 infrared rows, until the epoch ends."""
        ...


class VectorSampler(Protocol):
    """Draws sets of images by their vectors, for a method that refines embeddings and reads no pictures."""

    def draw(self, vectors: Tensor, random: np.random.RandomState) -> np.ndarray:
        """The rows (n,) of one set, from the vectors (R, D) of all training rows."""
        ...


@runtime_checkable
class Schedule(Protocol):
    """Maps progress to the factor by which every learning rate is multiplied, or to one factor per optimizer name."""

    def __call__(self, at: Progress) -> float | Mapping[str, float]: ...


@settings
class OptimizerSpec:
    """Settings of one named optimizer; the kinds are in training/optim.py."""

    lr: Rate
    """Learning rate before the schedule's factor."""

    def build(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        raise NotImplementedError(f"{type(self).__name__} does not say how it is built")


@settings
class View:
    """One image stream of the batch: which modality it reads and how its images are transformed."""

    modality: Annotated[Index, Field(le=1)]
    """VISIBLE (0) or INFRARED (1)."""
    transform: Annotated[Transform, SkipValidation]
    """What is done to its images."""


@settings
class Recipe:
    """What one training stage needs. `step` names the method's function that takes one training step."""

    size: tuple[Count, Count] | None
    """Height and width in pixels that pictures are resized to; null in a stage that reads none."""
    sampler: Annotated[Sampler | VectorSampler, SkipValidation]
    """Which rows make each batch."""
    views: tuple[View, ...]
    """The image streams of a batch."""
    epochs: Index
    """Length of the stage; 0: nothing is trained, and the last stage saves the start."""
    optimizers: dict[str, Annotated[OptimizerSpec, SkipValidation]]
    """One optimizer for each named group of parameters."""
    schedule: Annotated[Schedule, SkipValidation]
    """The factor of the learning rates over time."""
    step: str = "step"
    """The function of the method that takes one training step."""
    filter: ResizeFilter = "lanczos"
    """How pictures are resized once, before training."""
    thermal_range: Range | None = None
    """Gray values of more than 8 bits that become black and white; null: percentiles 1 to 99 of each picture."""
    similarity: Similarity = "cosine"
    """By which the published system compares embeddings."""
    freeze: Index = 0
    """Parts of the backbone that stay as loaded, from the first: the stem, then layer1 to layer4."""
    frozen_norms: bool = False
    """Whether the backbone's batch norms keep their loaded statistics and train weight and bias alone."""
    ema: BelowOne = 0.0
    """Decay of averaged weights, which are what is saved and evaluated; 0: the weights of the last step are."""
    mix: Share = 1.0
    """Share of the trained weights in what is saved and evaluated; the rest are the weights of the start."""
    pseudo_infrared: bool = False
    """Whether training takes visible pictures alone and makes its infrared views of them."""

    @model_validator(mode="after")
    def sized(self) -> Self:
        if self.views and self.size is None:
            raise ArgumentError("a stage with views reads pictures and needs a `size`, e.g. size=[288,144]")
        if self.pseudo_infrared and not self.views:
            raise ArgumentError("pseudo_infrared makes views of pictures, and this stage reads none; leave it out")
        return self

    @property
    def picture_size(self) -> Size:
        """`size` of a stage that reads pictures; ArgumentError in one that reads none."""
        if self.size is None:
            raise ArgumentError("this stage reads no pictures, so that it has no size")
        return self.size


# --- what a step gets -------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """Where training stands; epochs and iterations count from 0, `iteration` runs through the whole stage."""

    stage: int = 0
    epoch: int = 0
    iteration: int = 0
    epochs: int = 1
    iterations_per_epoch: int = 1


@dataclass
class Batch:
    """Images of several views, one after the other; row i of every view is the same person."""

    images: Tensor  # (N, 3, H, W) float32, normalized by the views' transforms
    label: Tensor  # (N,) int64, 0..num_pids-1
    camid: Tensor  # (N,) int64, the dataset's own camera numbers
    modality: Tensor  # (N,) int64, VISIBLE or INFRARED
    view: Tensor  # (N,) int64, index into recipe.views
    extras: dict[str, Tensor] = field(default_factory=dict)  # (N, ...), e.g. heatmaps

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """The same batch with only these rows (boolean mask, indices or slice)."""
        extras = {name: value[rows] for name, value in self.extras.items()}
        return Batch(
            self.images[rows], self.label[rows], self.camid[rows], self.modality[rows], self.view[rows], extras
        )

    @property
    def visible(self) -> Batch:
        return self[self.modality == VISIBLE]

    @property
    def infrared(self) -> Batch:
        return self[self.modality == INFRARED]

    def of_view(self, index: int) -> Batch:
        return self[self.view == index]


class Method(nn.Module, Generic[EmbedderT]):
    """What is trained. A subclass sets `recipe`, `Settings` and `embedder`, and writes `losses` (or `step`).

    `Settings` is a class made by vireid.declaration.settings; its fields can be set by name on the command line.
    A method is built from `num_pids` and `camids` (the sorted camera numbers of the training rows), and from either a
    `settings` object or the settings as keywords. Raises SettingsError for unknown names and values out of range.
    """

    recipe: ClassVar[Recipe | tuple[Recipe, ...]]  # several recipes are stages, in order
    Settings: ClassVar[type] = NoSettings
    no_gradient: ClassVar[Mapping[str, str]] = {}  # trainable parameters (patterns) without gradient, and the reason
    raw_distances: ClassVar[str] = "triplet"  # the loss that compares vectors of any length (training/first_losses.py)
    tiny: ClassVar[Mapping[str, object]] = {}  # settings of a network small enough for tests; empty: width and blocks
    embedder: EmbedderT  # what is deployed (layers/embedder.py); a refining method has none

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__()
        self.num_pids = num_pids
        self.camids = tuple(camids)
        self.settings: Any = configured(self.Settings, settings, words)
        self.watch: dict[str, float | Tensor] = {}  # numbers that a step wants in the log beside its losses

    @classmethod
    def recipe_for(cls, dataset: str) -> Recipe | tuple[Recipe, ...]:
        """The recipe for a dataset by name; a method overrides this only where its paper demands it."""
        return cls.recipe

    def params(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by optimizer name."""
        return {"main": [p for p in self.parameters() if p.requires_grad]}

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        """Scalar losses by name, already weighted: their sum is the objective."""
        raise NotImplementedError(f"{type(self).__name__} writes neither losses nor step")

    def step(self, batch: Batch, optim: OptimizerGroups, at: Progress) -> dict[str, Tensor]:
        """Take one training step and return the losses for the log."""
        losses = self.losses(batch, at)
        optim.step(losses)  # by name, so that an error can say which of them is not finite
        return losses

    def after_step(self, at: Progress) -> None:
        """Called after every step: averaged copies, memory banks."""

    def samples(self, batch: Batch, at: Progress) -> dict[str, Tensor] | None:
        """Pictures to look at, by name, float (N, 3, H, W) from 0 to 1; None where the method makes none.

        Called with the last batch of every epoch, in evaluation mode and without gradient, on rank 0 alone; what it
        draws at random leaves the training as it is. The rows are written to RUN/samples/STAGE-EPOCH.png.
        """
        return None

    def batches(self, data: BatchSource, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        """The batches of epoch `at.epoch`; the default draws images by recipe.sampler and recipe.views."""
        return data.batches(recipe, at)

    def artifacts(self) -> dict[str, nn.Module]:
        """The networks that a run saves for use without this class: `embedder`, or `refiner` of a refining method."""
        return {name: part for name, part in self.named_children() if name == "embedder"}

    def base_run(self) -> BaseRun | None:
        """The run whose embeddings this method refines; None where it embeds itself."""
        return None

    def check(self, table: Rows) -> None:
        """Raise DataError for rows that this method cannot be trained on; called before anything is written."""

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """Load public pretrained weights into the trunk; returns the keys of `state` that were not used."""
        raise ArgumentError(f"{type(self).__name__} has no trunk that takes pretrained weights; leave `weights` out")
