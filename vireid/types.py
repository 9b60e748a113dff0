"""Plain values that every room uses: modalities, sizes, resize filters, similarities. Imports no torch."""

from __future__ import annotations

from typing import Literal

VISIBLE, INFRARED = 0, 1
MODALITIES = ("visible", "infrared")  # by number

Modality = Literal["visible", "infrared"]
Size = tuple[int, int]  # (height, width) in pixels
ResizeFilter = Literal["lanczos", "bicubic", "bilinear"]
Similarity = Literal["cosine", "euclidean"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the statistics of ImageNet's training set
