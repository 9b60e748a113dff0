"""The ways in which a training fails by itself, each with its report: where it stood, what happened, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from vireid.errors import VireidError
from vireid.method import Batch, Progress, Recipe


class TrainingDiverged(VireidError, FloatingPointError):
    """Training stopped because a loss or a weight became NaN or infinite; the run stays at its last checkpoint."""

    def __init__(self, at: Progress, reason: str, lr: Mapping[str, float], precision: str, checkpoint: Path) -> None:
        rates = ", ".join(f"{name} {value:g}" for name, value in lr.items())
        super().__init__(
            f"training stopped at stage {at.stage}, epoch {at.epoch}, iteration {at.iteration}: {reason}. "
            f"{_kept(checkpoint)} Lower the learning rate (now {rates}), warm up longer, or set `clip` on the optimizer"
            f"{'' if precision == 'float32' else '; or train in float32'}."
        )


class OutOfMemory(VireidError, RuntimeError):
    """The GPU's memory did not suffice for one training step."""

    def __init__(self, batch: Batch, recipe: Recipe, checkpoint: Path) -> None:
        device = batch.images.device
        rows = "vectors" if recipe.size is None else f"images of {recipe.size[0]}x{recipe.size[1]}"
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else 0
        super().__init__(
            f"{device} with {memory:.1f} GiB ran out of memory at a batch of {len(batch)} {rows}. "
            f"Lower the numbers of the sampler ({recipe.sampler}) or `size`, use precision=bfloat16, or keep the "
            f"pictures out of the GPU's memory (resident=False). {_kept(checkpoint)}"
        )


def _kept(checkpoint: Path) -> str:
    kept = "stays at its last checkpoint" if checkpoint.exists() else "holds no checkpoint yet"
    return f"{checkpoint.parent} {kept}."
