"""Export: an embedder as one ONNX file whose batch may have any size and any mixture of modalities."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vireid.data.pose.heatmaps import HeatMaps
from vireid.errors import ArgumentError
from vireid.layers.embedder import Embedder
from vireid.types import INFRARED, VISIBLE

OPSET = 20


class _Prefixed(nn.Module):
    """The embedder one level down, so that no buffer of it has a name that the exporter gives to a result ("mean")."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> Tensor:
        return self.embedder(images, modality, *inputs)


def examples(embedder: Embedder, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Two rows of each input that the embedder declares for images of `size`; nothing where they are not known."""
    if embedder.inputs != ("heatmaps",) or embedder.heatmaps is None:
        return ()
    maps = HeatMaps(**embedder.heatmaps)
    return (torch.zeros(2, maps.points, *maps.size(size), device=next(embedder.parameters()).device),)


def _without_traces(model: Any) -> None:
    """Take out where in the source each operation came from: paths of this machine, up to a third of a small file."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


def export_onnx(
    embedder: Embedder, size: tuple[int, int], path: str | Path, extras: tuple[Tensor, ...] | None = None
) -> Path:
    """Write `embedder` for images of `size` (height, width) to `path` and return it.

    Inputs: `images` uint8 (N, 3, H, W), `modality` int64 (N,), then what embedder.inputs declares, for which `extras`
    holds an example of two rows each; heat maps need none. How heat maps are drawn stands in the file's metadata as
    `heatmaps` (JSON). Output: `embeddings` (N, D), not L2-normalized. The embedder is put in evaluation mode while it
    is traced. Raises ValueError where the onnx packages or examples are missing.
    """
    path = Path(path)
    extras = examples(embedder, size) if extras is None else extras
    if len(extras) != len(embedder.inputs):
        raise ArgumentError(
            f"this embedder also takes {embedder.inputs or 'nothing'}: pass one example of each as extras"
        )
    try:
        import onnxscript  # noqa: F401  # torch.onnx needs it and says so late
    except ImportError as error:
        raise ArgumentError("ONNX export needs the export extra: pip install 'vireid[export]'") from error
    example = next(embedder.parameters())
    images = torch.zeros(2, 3, *size, dtype=torch.uint8, device=example.device)
    modality = torch.tensor([VISIBLE, INFRARED], device=example.device)
    batch = torch.export.Dim("batch", min=1)
    names = ("images", "modality", *embedder.inputs)
    was_training = embedder.training
    partial = path.with_name(path.name + ".partial")
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    try:
        embedder.eval()
        registration.setLevel(logging.ERROR)  # it reports at each export that torchvision is not installed
        with warnings.catch_warnings(), torch.no_grad():
            # torch's exporter warns about its own use of deprecated functions; its errors are raised all the same
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Prefixed(embedder),
                (images, modality, *extras),
                dynamo=True,
                dynamic_shapes=({0: batch}, {0: batch}, *([tuple({0: batch} for _ in extras)] if extras else [])),
                input_names=list(names),
                output_names=["embeddings"],  # `embedding` would collide with the value exported for nn.Embedding
                opset_version=OPSET,
                # torch's graph optimizer takes the 1e-12 of GeM for 0 and drops it, which moves empty channels by 1e-4;
                # runtimes fuse convolutions and batch norms themselves when they load the file
                optimize=False,
                verbose=False,
            )
            assert program is not None  # dynamo=True returns it
            _without_traces(program.model)
            if embedder.heatmaps is not None:
                program.model.metadata_props["heatmaps"] = json.dumps(dict(embedder.heatmaps))
            program.save(partial, external_data=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        embedder.train(was_training)
        registration.setLevel(level)
    return path
