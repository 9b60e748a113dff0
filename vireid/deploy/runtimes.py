"""Runtimes: torch, onnxruntime and OpenVINO behind one kind of function, from pixels to vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vireid.errors import ArgumentError
from vireid.layers.embedder import Embedder

BACKENDS = ("torch", "onnxruntime", "openvino")
BATCHES = (1, 2, 7)  # at which a runtime is compared with torch

# uint8 images (N, 3, H, W), int64 modality (N,), declared inputs (N, ...) -> float32 (N, D), not L2-normalized
Embed = Callable[..., np.ndarray]


def torch_embed(embedder: Embedder) -> Embed:
    """An embedder of torch as the function that a bundle gives."""
    device = embedder.mean.device

    def embed(images: np.ndarray, modality: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            given = [torch.from_numpy(np.ascontiguousarray(value)).to(device) for value in (images, modality, *inputs)]
            return embedder(*given).float().cpu().numpy()

    return embed


def open_onnxruntime(path: Path, names: tuple[str, ...], device: str) -> Embed:
    try:
        import onnxruntime
    except ImportError as error:
        raise ArgumentError("this backend needs onnxruntime: pip install 'vireid[export]'") from error
    providers = onnxruntime.get_available_providers()
    wants_gpu = device.startswith("cuda") or (device == "auto" and "CUDAExecutionProvider" in providers)
    if wants_gpu and "CUDAExecutionProvider" not in providers:
        raise ArgumentError(
            f"device {device!r}: this onnxruntime has no CUDA ({', '.join(providers)}); take device cpu or auto"
        )
    number = int(device.partition(":")[2] or 0)
    gpu = [("CUDAExecutionProvider", {"device_id": number})] if wants_gpu else []
    session = onnxruntime.InferenceSession(path, providers=[*gpu, "CPUExecutionProvider"])

    def embed(*given: np.ndarray) -> np.ndarray:
        (embeddings,) = session.run(["embeddings"], dict(zip(names, given, strict=True)))
        return np.asarray(embeddings, dtype=np.float32)

    return embed


def open_openvino(path: Path, names: tuple[str, ...], device: str) -> Embed:
    openvino = _import_openvino()
    if device not in ("auto", "cpu"):
        raise ArgumentError(f"OpenVINO serves on the CPU here, got device {device!r}; take cpu or auto")
    # left alone, it computes in bfloat16 where the processor has it, and vectors would depend on the machine
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", hints)

    def embed(*given: np.ndarray) -> np.ndarray:
        request = compiled.create_infer_request()  # one a call, so that threads do not share it
        outputs = request.infer(dict(zip(names, given, strict=True)))
        return np.array(outputs["embeddings"], dtype=np.float32)

    return embed


def convert_to_openvino(onnx: Path, target: Path) -> None:
    openvino = _import_openvino()
    model = openvino.convert_model(onnx)
    openvino.save_model(model, target, compress_to_fp16=False)


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ArgumentError("this needs OpenVINO: pip install 'vireid[openvino]'") from error
    return openvino
