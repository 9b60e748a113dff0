"""Detectors: people in frames, by a network of the `transformers` package from a folder of weights on this machine.

RT-DETRv2 (Lv, Zhao, Chang, Huang, Wang, Liu: "RT-DETRv2: Improved Baseline with Bag-of-Freebies for Real-Time Detection
Transformer", 2024) and D-FINE (Peng, Li, Wu, Zhang, Sun, Wu: "D-FINE: Redefine Regression Task in DETRs as Fine-grained
Distribution Refinement", ICLR 2025) are tried; others of `AutoModelForObjectDetection` should do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vireid.errors import DetectorError
from vireid.ingest.video_settings import PERSON
from vireid.system import choose_device

FILES = ("config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class Detector(Protocol):
    """Finds people: uint8 RGB frames (H, W, 3) in; boxes (N, 4) and scores (N,) in 0..1 of each out, both float32.

    A box is left, top, right and bottom in pixels.
    """

    def __call__(self, frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]: ...


class TransformersDetector:
    """A Detector from `folder` as the Hub has it: config, preprocessor config and weights as safetensors, no pickle.

    Keeps what it calls `label` with a score of at least `min_score`. Raises DetectorError.
    """

    def __init__(self, folder: Path, min_score: float = 0.3, label: str = PERSON, device: str = "auto") -> None:
        check_folder(folder)
        try:
            from transformers import AutoImageProcessor, AutoModelForObjectDetection
        except ImportError as error:
            raise DetectorError("detectors need the package transformers: pip install 'vireid[detect]'") from error
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(folder, **local)
            self.model: Any = AutoModelForObjectDetection.from_pretrained(folder, use_safetensors=True, **local)
        except (ValueError, OSError, KeyError) as error:
            raise DetectorError(f"{folder} holds no detector that transformers can open: {error}") from error
        names = {str(name).lower(): int(number) for number, name in self.model.config.id2label.items()}
        if label.lower() not in names:
            raise DetectorError(
                f"the detector in {folder} finds {', '.join(sorted(names)[:10])}{', ...' if len(names) > 10 else ''}, "
                f"and nothing called {label!r}; take one that was trained on COCO, or name its label for people"
            )
        self.label, self.min_score = names[label.lower()], min_score
        self.device = choose_device(device)
        self.model = self.model.to(self.device).eval()

    def __call__(self, frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        import torch  # slow to import, and needed by nothing else of `vireid index` where OpenVINO embeds

        inputs = self.processor(images=list(frames), return_tensors="pt").to(self.device)
        sizes = [frame.shape[:2] for frame in frames]
        with torch.no_grad():
            detections = self.processor.post_process_object_detection(
                self.model(**inputs), threshold=self.min_score, target_sizes=sizes
            )
        people_of_frames = []
        for (height, width), one in zip(sizes, detections, strict=True):
            people = one["labels"] == self.label
            boxes, scores = (one[name][people].float().cpu().numpy() for name in ("boxes", "scores"))
            order = np.argsort(-scores, kind="stable")
            boxes = boxes[order].clip(0, [width, height, width, height]).astype(np.float32)
            people_of_frames.append((boxes, scores[order]))
        return people_of_frames


def check_folder(folder: Path) -> Path:
    """The file of weights in a detector's folder; DetectorError where something is missing."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if missing or weights is None:
        raise DetectorError(
            f"no detector in {folder}: expected {', '.join(FILES)} and {WEIGHTS[0]}; download them from the Hub, "
            "for example PekingU/rtdetr_v2_r18vd"
        )
    return weights
