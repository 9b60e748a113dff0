"""Detectors: people in frames, by a network that comes with vireid or by one of the `transformers` package.

    open_detector("weights/detector")                    a folder of weights on this machine
    open_detector("PekingU/rtdetr_v2_r18vd")             a name of the Hub, NAME@REVISION for one of its revisions
    open_detector("nanodet")                             the one that comes with vireid, see nanodet.py

`nanodet` is the shipped one, also where a folder has that name (./nanodet); other paths that exist come before names of
the Hub. Of the Hub the configuration and safetensors alone are fetched, into its usual
cache, from which HF_HUB_OFFLINE=1 takes them again.

RT-DETRv2 (Lv, Zhao, Chang, Huang, Wang, Liu: "RT-DETRv2: Improved Baseline with Bag-of-Freebies for Real-Time Detection
Transformer", 2024) and D-FINE (Peng, Li, Wu, Zhang, Sun, Wu: "D-FINE: Redefine Regression Task in DETRs as Fine-grained
Distribution Refinement", ICLR 2025) are tried; others of `AutoModelForObjectDetection` should do.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vireid.errors import DetectorError
from vireid.ingest import nanodet
from vireid.ingest.video_settings import DETECTOR, PERSON
from vireid.system import choose_device

log = logging.getLogger(__name__)
FILES = ("config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
FETCHED = [*FILES, *WEIGHTS, "model-*-of-*.safetensors"]  # of a repository of the Hub
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
MIN_SCORE = 0.3  # of the detectors of transformers
EXAMPLE = "PekingU/rtdetr_v2_r18vd"


class Detector(Protocol):
    """Finds people: uint8 RGB frames (H, W, 3) in; boxes (N, 4) and scores (N,) in 0..1 of each out, both float32.

    A box is left, top, right and bottom in pixels.
    """

    def __call__(self, frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]: ...


@dataclass(frozen=True)
class Shipped:
    """A detector that comes with vireid."""

    open: Callable[[float], Detector]
    """Makes it from the lowest score of a box."""
    min_score: float
    """The lowest score where none is given."""
    weights: Path
    """The file of its weights."""


SHIPPED = {"nanodet": Shipped(nanodet.NanoDet, nanodet.MIN_SCORE, nanodet.WEIGHTS)}


def open_detector(
    source: str | Path = DETECTOR,
    min_score: float | None = None,
    label: str = PERSON,
    device: str = "auto",
    folder: Path | None = None,
) -> Detector:
    """The detector of a folder, a name of the Hub or a shipped one; relative paths begin at `folder`.

    Keeps what it calls `label` with a score of at least `min_score`, by default that of `lowest_score`. Shipped ones
    find people alone and use the CPU whatever `device` says. Raises DetectorError.
    """
    place = located(source, folder)
    score = lowest_score(place, min_score)
    if not isinstance(place, str):
        return TransformersDetector(place, score, label, device)
    if label.lower() != PERSON:
        raise DetectorError(f"the detector {place} finds people alone, got the label {label!r}; leave the label out")
    return SHIPPED[place].open(score)


def lowest_score(source: str | Path, min_score: float | None) -> float:
    """The lowest score of a box that is kept: `min_score`, or where that is None the detector's own."""
    if min_score is not None:
        return min_score
    return SHIPPED[str(source)].min_score if str(source) in SHIPPED else MIN_SCORE


def located(source: str | Path, folder: Path | None = None) -> Path | str:
    """The absolute folder of a detector's weights, fetched from the Hub where it is a name there, or a shipped name.

    Raises DetectorError.
    """
    name, place = str(source), ((folder or Path()) / Path(source).expanduser()).absolute()
    if name in SHIPPED:
        return name
    if place.exists():
        check_folder(place)
        return place
    if HUB_NAME.fullmatch(name):
        return from_hub(name)
    close = difflib.get_close_matches(name, SHIPPED, 1, 0.5)
    raise DetectorError(
        f"no detector in {place}: expected {' or '.join(SHIPPED)}, which comes with vireid, a folder with "
        f"{', '.join(FILES)} and {WEIGHTS[0]}, or a name of the Hub, for example {EXAMPLE}"
        f"{f'; did you mean {close[0]}?' if close else ''}"
    )


@lru_cache(maxsize=4)
def weights_digest(source: str | Path) -> str:
    """sha256 of what decides the boxes of a detector: its weights, and the configuration beside them."""
    place = located(source)
    folder, files = (place, FILES) if isinstance(place, Path) else (Path(), ())
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in files))
    if isinstance(place, Path):
        weights = sorted(place.glob("*.safetensors")) or [check_folder(place)]
    else:
        weights = [SHIPPED[place].weights]
    for file in weights:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def from_hub(name: str) -> Path:
    """The folder of NAME or NAME@REVISION in the cache of huggingface_hub, fetched where it is not there."""
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise DetectorError(
            f"there is no folder {name}, and detectors of the Hub need huggingface_hub: pip install 'vireid[hub]'"
        ) from error
    repository, _, revision = name.partition("@")
    by_hand = f"`hf download {repository} --local-dir detector` on a machine with internet, and give that folder"
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=FETCHED))
    except errors.GatedRepoError as error:
        raise DetectorError(
            f"the Hub gives {repository} to those alone who accepted its license: accept it on the repository's page "
            "and sign in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DetectorError(
            f"there is no folder {name}, and the Hub has no {repository} that this machine may read; check the name, "
            f"for example {EXAMPLE}, or sign in with `hf auth login` if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DetectorError(
            f"{repository} has no revision {revision} on the Hub; leave @{revision} out for the newest one"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise DetectorError(
            f"there is no folder {name}; it is not in the cache of huggingface_hub either, and the Hub cannot be "
            f"reached (offline, or HF_HUB_OFFLINE is set): run this once online, or run {by_hand}"
        ) from error
    except (OSError, ValueError) as error:  # of HTTP, of the disk, and of names that the Hub does not have
        raise DetectorError(f"{name} could not be fetched from the Hub: {error}. Or run {by_hand}") from error
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing or not any((folder / file).is_file() for file in WEIGHTS):
        lacking = " and ".join([*missing] or [f"weights as {WEIGHTS[0]}"])
        raise DetectorError(
            f"{name} on the Hub has no {lacking}, and pickled weights are not opened; take a detector for "
            f"transformers, for example {EXAMPLE}"
        )
    log.info("detector %s: %s", name, folder)
    return folder


class TransformersDetector:
    """A Detector from `folder` as the Hub has it: config, preprocessor config and weights as safetensors, no pickle.

    Keeps what it calls `label` with a score of at least `min_score`. Raises DetectorError.
    """

    def __init__(self, folder: Path, min_score: float = MIN_SCORE, label: str = PERSON, device: str = "auto") -> None:
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
            f"for example {EXAMPLE}"
        )
    return weights
