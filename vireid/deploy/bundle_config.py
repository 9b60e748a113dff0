"""What stands in a bundle's folder: the names of its files, and its config.json as a checked object."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from vireid.data.table import Table
from vireid.training.record import Run

FORMAT = "vireid bundle 1"
WEIGHTS, CONFIG, CARD, PARITY = "embedder.safetensors", "config.json", "README.md", "parity.json"
ONNX, OPENVINO, OPENVINO_WEIGHTS = "embedder.onnx", "embedder.xml", "embedder.bin"
CALIBRATION = "calibration.json"
FILES = (WEIGHTS, CARD, ONNX, OPENVINO, OPENVINO_WEIGHTS, PARITY, CALIBRATION, CONFIG)  # in the order of writing


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
    def of(cls, run: Run) -> TrainedOn:
        """What a run's recipe.json says."""
        about = run.about
        return cls(
            dataset=about["dataset"],
            partition=about.get("partition", ""),
            data=about["data"],
            splits=tuple(about.get("trained_on", ("train",))),
            held_out_pids=tuple(about.get("held_out_pids", ())),
            num_pids=about["num_pids"],
        )

    def same_data(self, table: Table) -> bool:
        """Whether a table, all splits of it, is the one that was trained on."""
        rows = table.where(self.splits)
        rows = rows[~np.isin(rows.pid, self.held_out_pids)]
        same = (self.dataset, self.partition) == (table.dataset, table.partition)
        return same and rows.fingerprint == self.data

    def __str__(self) -> str:
        named = (
            self.partition if self.partition.startswith(self.dataset) else f"{self.dataset} {self.partition}".strip()
        )
        return f"{named}: {self.num_pids} people of {' and '.join(self.splits)}"


class BundleConfig(BaseModel):
    """config.json. `size` is (height, width); `digest` is the sha256 of the weights' file; `stamp` that of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vireid bundle 1"]
    method: str
    size: tuple[int, int]
    filter: Literal["lanczos", "bicubic", "bilinear"]
    similarity: Literal["cosine", "euclidean"]  # that the run is evaluated with; search compares by cosine
    layer: str
    dim: int
    inputs: tuple[str, ...]
    num_params: int
    trained_on: TrainedOn
    stamp: dict[str, str]
    digest: str
    vireid: str


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
