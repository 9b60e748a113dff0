"""Saved networks: a safetensors file whose header says how to rebuild the network, by vireid.layers alone."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from vireid.errors import WeightsError


def save_network(network: nn.Module, settings: Any, kind: str, path: Path, more: dict[str, Any] | None = None) -> None:
    """Write `path`: the tensors, and under `kind` in the header class and settings that rebuild it, and `more`."""
    about = {
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
        "settings": dataclasses.asdict(settings),
        **(more or {}),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={kind: json.dumps(about)})
    partial.replace(path)


def load_network(path: Path, kind: str, device: str | torch.device = "cpu") -> tuple[Any, dict[str, Any]]:
    """Rebuild a network of this kind in evaluation mode, and what its file says about it.

    Raises WeightsError for another file or one that names code outside vireid.layers.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if kind not in metadata:
        raise WeightsError(f"{path} has no {kind} description; expected a file that vireid wrote ({kind}.safetensors)")
    about = json.loads(metadata[kind])
    module, _, name = about["class"].rpartition(".")
    if not module.startswith("vireid.layers."):
        raise WeightsError(
            f"{path} names {about['class']}, but only {kind}s of vireid.layers load from a file; export ONNX"
        )
    network = getattr(importlib.import_module(module), name)(**about["settings"])
    network.load_state_dict(load_file(path, device="cpu"))
    return network.to(device).eval(), about


def write_half(source: Path, target: Path) -> None:
    """Copy a saved network with its float32 tensors as float16; `load_network` gives them to a float32 network again.

    Raises WeightsError for a value beyond the range of float16.
    """
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata() or {}
    tensors = load_file(source, device="cpu")
    halves = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    for name, value in tensors.items():
        if value.isfinite().all() and not halves[name].isfinite().all():
            raise WeightsError(
                f"{source}: {name} holds {float(value.abs().max()):.3g}, more than float16 holds (65504); keep float32"
            )
    save_file(halves, target, metadata=metadata)
