"""Embedder: what every deployed network has in common: pixels in, embedding out, and a description to rebuild it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from vireid.declaration import NoSettings, configured
from vireid.errors import WeightsError
from vireid.layers.saved import load_network, save_network
from vireid.own_files import Code
from vireid.system import fast_layout
from vireid.types import IMAGENET_MEAN, IMAGENET_STD, Deployment


class Embedder(nn.Module):
    """Maps uint8 images (N, 3, H, W), RGB, and modality (N,) to embeddings (N, D), not L2-normalized.

    A subclass writes `layers`, which takes images that are already normalized (as the training transforms leave
    them), and names in `Settings` the class of its settings (vireid.declaration.settings), from which a file rebuilds
    it. It is built from a settings object, of which it keeps its own fields alone, or from the settings as keywords.
    `inputs` names what forward takes beyond images and modality, in order. One that takes `heatmaps` says in the
    attribute of that name how they are drawn (keywords of vireid.data.pose.heatmaps.HeatMaps).
    """

    inputs: tuple[str, ...] = ()
    heatmaps: Mapping[str, Any] | None = None

    mean: Tensor
    std: Tensor

    Settings: ClassVar[type] = NoSettings
    deployment: Deployment | None = None  # of a network that was loaded from a file

    def __init__(self, settings: Any = None, **words: Any) -> None:
        super().__init__()
        self.settings: Any = configured(self.Settings, settings, words)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        """Embeddings (N, D) by layer name from normalized float images; the first is the one to deploy."""
        raise NotImplementedError

    def backbone_parts(self) -> list[list[nn.Module]]:
        """The parts that public weights fill, in order: the stem or stems, then layer1 to layer4; [] of others.

        A recipe's `freeze` and `frozen_norms` act on them.
        """
        return []

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 pixels to zero mean and unit variance per channel, float."""
        if images.dtype != torch.uint8:
            raise TypeError(
                f"an embedder takes uint8 pixels 0..255, got {images.dtype}; pass the image as it was decoded"
            )
        return (fast_layout(images).to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> Tensor:
        return next(iter(self.layers(self.normalize(images), modality, *inputs).values()))


def save_embedder(embedder: Embedder, path: Path, deployment: Deployment | None = None) -> None:
    """Write `path` (safetensors) whose header says how to rebuild the embedder without its Method and how to use it."""
    use = deployment or embedder.deployment
    save_network(embedder, embedder.settings, "embedder", path, {} if use is None else {"deployment": asdict(use)})


def load_embedder(path: Path, device: str | torch.device = "cpu", method: Code | None = None) -> Embedder:
    """Rebuild an embedder in evaluation mode.

    A file runs no foreign code: for a network of your own `method` is the Python file (or a class in it) that defines
    it. Raises WeightsError, OwnFileError.
    """
    embedder, about = load_network(path, "embedder", Embedder, device, method)
    if use := about.get("deployment"):
        try:
            embedder.deployment = TypeAdapter(Deployment).validate_python(use)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(("deployment", *map(str, first["loc"])))
            raise WeightsError(
                f"{path}: its header is damaged ({where}: {first['msg']}); copy the file again"
            ) from error
        if min(embedder.deployment.size) < 1:
            raise WeightsError(f"{path}: its header is damaged (deployment.size: {use['size']}); copy the file again")
    return embedder
