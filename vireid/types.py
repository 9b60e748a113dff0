"""Plain values that every room uses: modalities, sizes, similarities, backends, roles, languages. Imports no torch."""

from __future__ import annotations

from typing import Literal

VISIBLE, INFRARED = 0, 1
MODALITIES = ("visible", "infrared")  # by number
MODALITY_WORDS = {  # in tables and names of folders, in lower case
    "visible": VISIBLE, "0": VISIBLE, "rgb": VISIBLE, "vis": VISIBLE, "color": VISIBLE,
    "infrared": INFRARED, "1": INFRARED, "ir": INFRARED, "nir": INFRARED, "thermal": INFRARED, "tir": INFRARED,
    "lwir": INFRARED,
}  # fmt: skip

Modality = Literal["visible", "infrared"]
ModalityOrAuto = Literal["visible", "infrared", "auto"]  # auto: decided from the picture
Size = tuple[int, int]  # (height, width) in pixels
ResizeFilter = Literal["lanczos", "bicubic", "bilinear"]
Similarity = Literal["cosine", "euclidean"]
Backend = Literal["torch", "onnxruntime", "openvino"]
Role = Literal["search", "ingest", "admin"]  # what a token allows
Language = Literal["en", "zh"]  # of labels and pages

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the statistics of ImageNet's training set
