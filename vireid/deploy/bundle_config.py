"""What stands in a bundle's folder: the names of its files, and its config.json as a checked object."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from vireid.data.table import Table
from vireid.declaration import Count, Range
from vireid.images import GrayRule
from vireid.training.record import RunRecord, data_name
from vireid.types import ResizeFilter, Similarity

FORMAT = "vireid bundle 1"
WEIGHTS, CONFIG, CARD, PARITY = "embedder.safetensors", "config.json", "README.md", "parity.json"
ONNX, CALIBRATION = "embedder.onnx", "calibration.json"
PLAN, NOTICE = "plan.yaml", "NOTICE"  # of a model that comes with vireid: how it is made, and whose work it builds on
FILES = (WEIGHTS, CARD, NOTICE, PLAN, ONNX, PARITY, CALIBRATION, CONFIG)  # in the order of writing


class TrainedOn(BaseModel):
    """Which people an embedder has seen: calibrating on them would flatter it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    partition: str
    data: str  # fingerprint of the training rows
    splits: tuple[str, ...]
    held_out_pids: tuple[int, ...]
    num_pids: int

    @classmethod
    def of(cls, record: RunRecord) -> TrainedOn:
        """What a run's record says."""
        return cls(
            dataset=record.dataset,
            partition=record.partition,
            data=record.data,
            splits=record.trained_on or ("train",),
            held_out_pids=record.held_out_pids,
            num_pids=record.num_pids,
        )

    def same_data(self, table: Table) -> bool:
        """Whether a table, all splits of it, is the one that was trained on."""
        rows = table.where(self.splits)
        rows = rows[~np.isin(rows.pid, self.held_out_pids)]
        same = (self.dataset, self.partition) == (table.dataset, table.partition)
        return same and rows.fingerprint == self.data

    def __str__(self) -> str:
        return f"{data_name(self.dataset, self.partition)}: {self.num_pids} people of {' and '.join(self.splits)}"


class Compared(BaseModel):
    """A runtime in parity.json: the sha256 of each of its files, and by how much its vectors differ from torch's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    files: dict[str, str] = {}


class Parity(BaseModel):
    """parity.json, as far as it is read."""

    runtimes: dict[str, Compared]


class BundleConfig(BaseModel):
    """config.json. `size` is (height, width); `digest` is the sha256 of the weights' file; `stamp` that of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    method: str
    size: tuple[Count, Count]
    filter: ResizeFilter
    thermal_range: Range | None = None  # of gray values of more than 8 bits; None: see images.GrayRule
    similarity: Similarity  # that the run is evaluated with; search compares by cosine
    layer: str
    dim: Count
    inputs: tuple[str, ...]
    num_params: int
    trained_on: TrainedOn
    stamp: dict[str, str]
    digest: str
    vireid: str

    @property
    def gray(self) -> GrayRule:
        """How gray values of more than 8 bits are read."""
        return GrayRule.of(self.thermal_range)
