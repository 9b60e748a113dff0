"""Runtimes: torch, onnxruntime and OpenVINO behind one kind of function, from pixels to vectors."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid.errors import ArgumentError, BundleError

if TYPE_CHECKING:  # the other runtimes need no torch
    from vireid.layers.embedder import Embedder

BACKENDS = ("torch", "onnxruntime", "openvino")
OF_ONNX = BACKENDS[1:]  # those that read the file embedder.onnx
BATCHES = (1, 2, 7)  # at which a runtime is compared with torch
_IMPORT = threading.Lock()  # of import_openvino

# uint8 images (N, 3, H, W), int64 modality (N,), declared inputs (N, ...) -> float32 (N, D), not L2-normalized
Embed = Callable[..., np.ndarray]


def torch_embed(embedder: Embedder) -> Embed:
    """An embedder of torch as the function that a bundle gives."""
    import torch

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
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise ArgumentError("this backend needs OpenVINO: pip install 'vireid[openvino]'") from error
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


def import_openvino() -> Any:
    """The package without its telemetry, which reports every import to Google Analytics, from a forked process."""
    name = "openvino_telemetry"
    with _IMPORT:
        before = sys.modules.get(name)
        sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed: OpenVINO has a stub for it
        try:
            import openvino
        finally:
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
    return openvino


def open_runtime(name: str, path: Path, inputs: tuple[str, ...], device: str) -> Embed:
    """The runtime of OF_ONNX by name, with an ONNX file whose inputs are images, modality and `inputs`.

    Raises ArgumentError where the runtime or the device is not here, BundleError for a file that it cannot read.
    """
    opened = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}[name]
    try:
        return opened(path, ("images", "modality", *inputs), device)
    except ArgumentError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            f"{path} cannot be read by {name} ({reason}); copy it again, or export the run again"
        ) from error


def installed(name: str) -> bool:
    """Whether the package of a runtime is here."""
    return find_spec(name) is not None
