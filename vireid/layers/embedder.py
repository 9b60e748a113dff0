"""Embedder: what every deployed network has in common: pixels in, embedding out, and a description to rebuild it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vireid.layers.saved import load_network, save_network

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the statistics of ImageNet's training set


class Embedder(nn.Module):
    """Maps uint8 images (N, 3, H, W), RGB, and modality (N,) to embeddings (N, D), not L2-normalized.

    A subclass writes `layers`, which takes images that are already normalized (as the training transforms leave
    them), and passes its constructor's keywords to `super().__init__` so that a file can rebuild it.
    `inputs` names what forward takes beyond images and modality, in order. One that takes `heatmaps` says in the
    attribute of that name how they are drawn (keywords of vireid.data.pose.heatmaps.HeatMaps).
    """

    inputs: tuple[str, ...] = ()
    heatmaps: Mapping[str, Any] | None = None

    mean: Tensor
    std: Tensor

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        """Embeddings (N, D) by layer name from normalized float images; the first is the one to deploy."""
        raise NotImplementedError

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 pixels to zero mean and unit variance per channel, float."""
        if images.dtype != torch.uint8:
            raise TypeError(
                f"an embedder takes uint8 pixels 0..255, got {images.dtype}; pass the image as it was decoded"
            )
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> Tensor:
        return next(iter(self.layers(self.normalize(images), modality, *inputs).values()))


def save_embedder(embedder: Embedder, path: Path) -> None:
    """Write `path` (safetensors) whose header says how to rebuild the embedder without its Method."""
    save_network(embedder, embedder.settings, "embedder", path)


def load_embedder(path: Path, device: str | torch.device = "cpu") -> Embedder:
    """Rebuild an embedder in evaluation mode. Only classes of vireid.layers are built: a file names no foreign code."""
    return load_network(path, "embedder", device)
