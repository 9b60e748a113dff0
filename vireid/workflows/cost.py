"""What a network costs where it is deployed: parameters, bytes, milliseconds for a picture."""

from __future__ import annotations

import statistics
import time
from typing import Protocol

import torch

from vireid.deploy.onnx import examples
from vireid.layers.embedder import Embedder
from vireid.system import choose_device
from vireid.training.run_folder import EMBEDDER, REFINER, RunFolder
from vireid.types import VISIBLE

TIMED_PICTURES, TIMED_PASSES = 16, 3


class Deployed(Protocol):
    """What is needed of a run (workflows/run.py)."""

    @property
    def folder(self) -> RunFolder: ...
    @property
    def embedding_run(self) -> Deployed: ...
    def embedder(self) -> Embedder: ...


def parameters_of(run: Deployed) -> int:
    """Of the embedder; of a run that refines another, of that run's embedder and the refiner."""
    networks = [run.embedding_run.embedder(), *([] if run.folder.record.base is None else [run.folder.refiner()])]
    return sum(p.numel() for network in networks for p in network.parameters())


def bytes_of(run: Deployed) -> int:
    """Of the files that are deployed."""
    files = [run.embedding_run.folder.path / EMBEDDER, run.folder.path / REFINER]
    return sum(file.stat().st_size for file in files if file.is_file())


def ms_per_picture(run: Deployed, device: str = "auto") -> float:
    """Milliseconds in which the run's network embeds a picture: the median of TIMED_PASSES of TIMED_PICTURES."""
    source, place = run.embedding_run, choose_device(device)
    embedder, size = source.embedder(), source.folder.deployment.size
    embedder = embedder.to(place).eval()
    images = torch.zeros(TIMED_PICTURES, 3, *size, dtype=torch.uint8, device=place)
    modality = torch.full((TIMED_PICTURES,), VISIBLE, dtype=torch.int64, device=place)
    inputs = [one[:1].expand(TIMED_PICTURES, *one.shape[1:]) for one in examples(embedder, size)]
    seconds = []
    with torch.no_grad():
        for _ in range(1 + TIMED_PASSES):
            started = time.perf_counter()
            embedder(images, modality, *inputs).cpu()  # which waits for the device
            seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:]) / TIMED_PICTURES
