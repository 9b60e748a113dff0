"""Which layers are embedded, and by what: torch has all of them, the other runtimes the deployed one alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vireid.data.table import Table
from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import BundleConfig
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings, embed, embed_layers
from vireid.layers.embedder import Embedder
from vireid.system import choose_device
from vireid.types import Backend, Deployment
from vireid.workflows.options import RunOptions

log = logging.getLogger(__name__)


class RuntimeModule(nn.Module):
    """The deployed layer of a bundle by one of its runtimes, as a module that `vireid.embed` takes."""

    def __init__(self, bundle: Bundle, backend: Backend, device: str) -> None:
        super().__init__()
        self.inputs = bundle.config.inputs
        self.heatmaps = bundle.network().heatmaps if self.inputs else None
        self._embed = bundle.embedder(backend, device)

    def forward(self, *given: Tensor) -> Tensor:
        """Vectors (N, D) of uint8 images (N, 3, H, W), modality (N,) and the declared inputs."""
        return torch.from_numpy(self._embed(*(np.ascontiguousarray(value.cpu().numpy()) for value in given)))


def embed_by(
    backend: Backend,
    bundle: Bundle | None,
    network: Callable[[], Embedder],
    use: Deployment | BundleConfig,
    rows: Table,
    options: RunOptions,
    layer: str | None = "all",
) -> dict[str, Embeddings]:
    """Embeddings of the rows by layer: of "all", of a named one, or (None) of the deployed one.

    Backend auto is the fastest runtime of `bundle` for its deployed layer, and torch for other layers and without a
    bundle. Raises ArgumentError for a runtime and a layer that its file does not hold, else as Bundle.embedder.
    """
    backend = chosen(backend, bundle, layer, options.device)
    words: dict[str, Any] = {"size": use.size, "filter": use.filter, "flip": options.flip}
    words |= {"batch_size": options.batch_size, "progress": options.progress}
    if bundle is not None and backend != "torch":
        log.info("layer %s is embedded by %s", bundle.config.layer, backend)
        module = RuntimeModule(bundle, backend, options.device)
        made = embed(module, rows, gray=bundle.config.gray, **words).stamped(layer=bundle.config.layer, runtime=backend)
        layers = {bundle.config.layer: made}
    else:
        embedder = network().to(choose_device(options.device))
        if layer == "all":
            layers = embed_layers(embedder, rows, **words)
        else:
            made = embed(embedder, rows, layer=layer, **words)
            layers = {made.stamp["layer"]: made}
    return {name: replace(made, similarity=use.similarity) for name, made in layers.items()}


def chosen(backend: Backend, bundle: Bundle | None, layer: str | None, device: str) -> Backend:
    """What embeds this layer; the log says where auto would be faster with the deployed layer alone."""
    held = bundle is not None and layer in (None, bundle.config.layer)
    if backend == "auto":
        fastest = "torch" if bundle is None else bundle.fastest(device)
        if not held and fastest != "torch":
            log.info("embedding by torch; %s is faster and has the deployed layer alone: --layer deployed", fastest)
        return fastest if held else "torch"
    if backend == "torch" or held:
        return backend
    if bundle is None:
        raise ArgumentError(f"{backend} needs the exported embedder; export the run first (`vireid export RUN`)")
    raise ArgumentError(
        f"{backend} has the layer {bundle.config.layer} alone, not {layer}; pass --layer deployed, or leave --backend "
        "out"
    )
