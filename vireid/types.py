"""Plain values that every room uses: modalities, sizes, similarities, backends, roles, languages. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VISIBLE, INFRARED = 0, 1
MODALITY_WORDS = {  # in tables and names of folders, in lower case
    "visible": VISIBLE, "0": VISIBLE, "rgb": VISIBLE, "vis": VISIBLE, "color": VISIBLE,
    "infrared": INFRARED, "1": INFRARED, "ir": INFRARED, "nir": INFRARED, "thermal": INFRARED, "tir": INFRARED,
    "lwir": INFRARED,
}  # fmt: skip

Modality = Literal["visible", "infrared"]
MODALITIES: tuple[Modality, Modality] = ("visible", "infrared")  # by number
ModalityOrAuto = Literal["visible", "infrared", "auto"]  # auto: decided from the picture
Size = tuple[int, int]  # (height, width) in pixels
ResizeFilter = Literal["lanczos", "bicubic", "bilinear"]
Similarity = Literal["cosine", "euclidean"]
Role = Literal["search", "ingest", "monitor", "admin"]  # what a token allows
Backend = Literal["auto", "torch", "onnxruntime", "openvino"]  # auto: see Bundle.fastest
Language = Literal["en", "zh"]  # of labels and pages

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the statistics of ImageNet's training set


@dataclass(frozen=True)
class Deployment:
    """How pictures are prepared for an embedder and how its vectors are compared; it is saved with the network."""

    size: Size  # (height, width)
    filter: ResizeFilter = "lanczos"
    similarity: Similarity = "cosine"
    thermal_range: tuple[float, float] | None = None  # of gray values of more than 8 bits; None: see images.GrayRule
