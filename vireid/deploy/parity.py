"""Parity: the other runtimes of a bundle, each compared with torch before it is written."""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vireid.deploy.bundle_config import ONNX
from vireid.deploy.runtimes import BATCHES, OF_ONNX, Embed, installed, open_runtime, torch_embed
from vireid.errors import BundleError, VireidError
from vireid.layers.embedder import Embedder
from vireid.own_files import is_own
from vireid.system import file_digest
from vireid.types import INFRARED, VISIBLE

log = logging.getLogger(__name__)
LIMIT = 1e-4  # of a coordinate of the L2-normalized vectors; float32 runtimes differ by about 1e-7 to 1e-5


def export_runtimes(network: Embedder, size: tuple[int, int], draft: Path, onnx: bool) -> dict[str, Any]:
    """Write the ONNX file into `draft` and compare each installed runtime that reads it with torch."""
    runtimes: dict[str, Any] = {}
    if not onnx:
        return runtimes
    from vireid.deploy.onnx import export_onnx

    network.eval()
    try:
        export_onnx(network, size, draft / ONNX, example_inputs(network, size))
    except Exception as error:  # torch raises many kinds
        if isinstance(error, VireidError) or not is_own(type(network)):
            raise
        raise BundleError(
            f"torch cannot export {type(network).__name__} as ONNX ({type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}); export with --no-onnx to serve through torch"
        ) from error
    for name in filter(installed, OF_ONNX):
        lines = compare(network, open_runtime(name, draft / ONNX, network.inputs, "cpu"), size)
        worst = max(line["largest_difference"] for line in lines)
        if not worst <= LIMIT:
            raise BundleError(
                f"{name} differs from torch by {worst:.2g} in a coordinate of the L2-normalized vectors, more than "
                f"{LIMIT:g}: {json.dumps(lines)}. Nothing was written; please report it with the method and its "
                "settings, and export with --no-onnx to serve through torch"
            )
        runtimes[name] = {
            "version": version(name),
            "files": {ONNX: file_digest(draft / ONNX)},
            "batches": lines,
        }
        batches = ", ".join(map(str, BATCHES))
        log.info("%s: largest difference from torch %.1e at batches of %s", name, worst, batches)
    return runtimes


def compare(network: Embedder, other: Embed, size: tuple[int, int]) -> list[dict[str, Any]]:
    """How L2-normalized vectors of `other` differ from torch's on made-up pictures, a line for each batch.

    One visible and one infrared picture alone, then mixed batches: pictures are smooth noise, as photographs are.
    """
    random = np.random.RandomState(0)
    reference, lines = torch_embed(network), []
    for batch, modality in [(1, np.array([VISIBLE])), *((n, np.arange(n) % 2 ^ INFRARED) for n in BATCHES)]:
        images = _pictures(random, batch, size)
        inputs = [
            random.rand(batch, *example.shape[1:]).astype(np.float32) for example in example_inputs(network, size)
        ]
        given = (images, modality.astype(np.int64), *inputs)
        expected, actual = _unit(reference(*given)), _unit(other(*given))
        lines.append({
            "batch": batch,
            "modality": modality.tolist(),
            "largest_difference": float(np.abs(expected - actual).max()),
            "smallest_cosine": float(np.sum(expected * actual, axis=1).min()),
        })  # fmt: skip
    return lines


def example_inputs(network: Embedder, size: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Two rows of each input that the embedder declares; BundleError where their shape is not known."""
    if not network.inputs:
        return ()
    from vireid.deploy.onnx import examples

    inputs = examples(network, size)
    if len(inputs) != len(network.inputs):
        raise BundleError(
            f"{type(network).__name__} also takes {', '.join(network.inputs)}, whose shape is not known here, so no "
            "ONNX file can be made; export with --no-onnx and serve through torch"
        )
    return inputs


def _pictures(random: np.random.RandomState, count: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 (count, 3, H, W): coarse noise, blown up, under fine noise."""
    coarse = random.randint(0, 256, (count, 3, 6, 3)).astype(np.float32)
    rows, columns = np.arange(size[0]) * 6 // size[0], np.arange(size[1]) * 3 // size[1]
    fine = random.normal(0, 12, (count, 3, *size))
    return np.clip(coarse[:, :, rows][:, :, :, columns] + fine, 0, 255).astype(np.uint8)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
