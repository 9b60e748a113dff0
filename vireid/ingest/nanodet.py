"""NanoDet-g: the detector of people that comes with vireid, from one ONNX file by OpenVINO or onnxruntime.

RangiLyu: "NanoDet-Plus: Super fast and high accuracy lightweight anchor-free object detection model", 2021; the model
NanoDet-g of its repository, trained on COCO. The network is convolutional throughout, so a frame keeps its proportions.

The network estimates the product of "is a person" and the IoU of its box (Li et al., "Generalized Focal Loss", NeurIPS
2020). A score here is the square root of it, which lies where trackers expect a detector's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import sqrt
from pathlib import Path

import numpy as np
from PIL import Image

from vireid.deploy.runtimes import OF_ONNX, import_openvino, installed
from vireid.errors import DetectorError

WEIGHTS = Path(__file__).parent.parent / "models" / "detectors" / "nanodet" / "detector.onnx"
MIN_SCORE = 0.6
SIDE = 640  # pixels: frames become SIDE * SIDE of them, in their own proportions
CELL = 32  # pixels of the coarsest cell of the network
OVERLAP = 0.6  # IoU above which the lower of two boxes is the same person, as in the published configuration

Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # uint8 (N, H, W, 3) -> boxes (N, P, 4), scores (N, P)


class NanoDet:
    """A Detector of people; keeps boxes with a score of at least `min_score`.

    Raises DetectorError where neither OpenVINO nor onnxruntime is installed.
    """

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        self.min_score = min_score
        self.network = _network()

    def __call__(self, frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        detections = []
        for frame in frames:
            height, width = frame.shape[:2]
            boxes, scores = (values[0] for values in self.network(_resized(frame)[None]))
            scores = np.sqrt(scores)
            kept = scores >= self.min_score
            boxes, scores = suppressed(boxes[kept], scores[kept])
            fitted = network_size(height, width)
            boxes = boxes * np.tile([width / fitted[1], height / fitted[0]], 2)
            detections.append((boxes.clip(0, [width, height, width, height]).astype(np.float32), scores))
        return detections


def network_size(height: int, width: int) -> tuple[int, int]:
    """The (height, width) at which the network sees a frame: multiples of CELL, about SIDE * SIDE pixels in all."""
    scale = SIDE / sqrt(height * width)
    return max(CELL, round(height * scale / CELL) * CELL), max(CELL, round(width * scale / CELL) * CELL)


def _resized(frame: np.ndarray) -> np.ndarray:
    height, width = network_size(*frame.shape[:2])
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def suppressed(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and scores (N,), highest first, without those that overlap a higher one by more than OVERLAP."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    corners = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (corners[1] - corners[0]).clip(0).prod(2)
    overlaps = shared > OVERLAP * (areas[:, None] + areas[None, :] - shared)
    kept: list[int] = []
    for row in range(len(boxes)):
        if not overlaps[row, kept].any():
            kept.append(row)
    return boxes[kept], scores[kept]


def runs_here() -> bool:
    """Whether a runtime for the network is installed."""
    return any(installed(name) for name in OF_ONNX)


@lru_cache(maxsize=1)
def _network() -> Network:
    if not runs_here():
        raise DetectorError(
            "the detector that comes with vireid needs OpenVINO or onnxruntime: pip install 'vireid[openvino]', or "
            "give another detector (--detector FOLDER or HUB/NAME)"
        )
    return _by_openvino() if installed("openvino") else _by_onnxruntime()


def _by_openvino() -> Network:
    # without the hint it computes in bfloat16 where the processor has it, and boxes would depend on the machine
    compiled = import_openvino().Core().compile_model(WEIGHTS, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = compiled.create_infer_request().infer({"images": images})  # one a call, threads do not share it
        return np.array(outputs["boxes"]), np.array(outputs["scores"])

    return run


def _by_onnxruntime() -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(WEIGHTS, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = session.run(["boxes", "scores"], {"images": images})
        return np.asarray(boxes), np.asarray(scores)

    return run
