"""Refiner: what every network has in common that changes embeddings by looking at those of other images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vireid.declaration import NoSettings, configured
from vireid.layers.saved import load_network, save_network
from vireid.own_files import Code

Apart = Callable[[Tensor], Tensor | None]  # rows (n,) -> mask (n, N) of images that they must not look at


class Refiner(nn.Module):
    """Maps the vectors (N, dim) of a whole set of images and their modality (N,) to refined vectors (N, D).

    A row depends on all rows: what is measured with it is transductive. A subclass sets `name`, names in
    `Settings` the class of its settings (vireid.declaration.settings), from which a file rebuilds it, and writes
    `forward`.
    """

    name: ClassVar[str]
    dim: int  # of the vectors that it takes
    min_images: int = 1  # images that a set must hold

    Settings: ClassVar[type] = NoSettings

    def __init__(self, settings: Any = None, **words: Any) -> None:
        super().__init__()
        self.settings: Any = configured(self.Settings, settings, words)

    def forward(self, vectors: Tensor, modality: Tensor, apart: Apart | None = None) -> Tensor:
        """Refined vectors (N, D); pairs of rows in the mask of `apart` must not look at each other."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it refines")


def save_refiner(refiner: Refiner, path: Path) -> None:
    """Write `path` (safetensors) whose header says how to rebuild the refiner without its Method."""
    save_network(refiner, refiner.settings, "refiner", path)


def load_refiner(path: Path, device: str | torch.device = "cpu", method: Code | None = None) -> Refiner:
    """Rebuild a refiner in evaluation mode; `method` as in load_embedder. Raises WeightsError, OwnFileError."""
    return load_network(path, "refiner", Refiner, device, method)[0]
