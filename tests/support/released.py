"""Checkpoints in the form in which the code of the AGW family was released, with random weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_files import GOLDEN
from torch import Tensor

PEOPLE = 395  # that the released classifier knows


def released_state(width: int = 4, people: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """All names of the released network; every channel count is scaled from 64 to `width`."""
    shapes = json.loads((GOLDEN / "agw_state_keys.json").read_text())
    generator = torch.Generator().manual_seed(seed)
    kept: dict[int, int] = {1: 1, 3: 3, 7: 7, 1000: 1000, PEOPLE: people}
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        sizes = [kept[n] if n in kept else n * width // 64 for n in shape]
        if not sizes:
            state[name] = torch.tensor(1)
        elif len(sizes) > 1:
            state[name] = torch.randn(sizes, generator=generator) / np.prod(sizes[1:]) ** 0.5
        elif name.endswith("running_var"):
            state[name] = 1 + torch.rand(sizes, generator=generator)
        else:  # small, so that the values of 16 blocks stay finite
            state[name] = 0.2 + 0.3 * torch.rand(sizes, generator=generator)
    return state


def write_released(path: Path, prefix: str = "", **beside: Any) -> dict[str, Tensor]:
    """Write {'net': ..., 'cmc': ..., 'mAP': ...} with figures of NumPy, as released files have; returns the state."""
    state = released_state()
    figures = {"cmc": np.array([0.5, 0.7]), "mAP": np.float64(0.4), "epoch": 3, "options": argparse.Namespace(lr=0.1)}
    torch.save({"net": {prefix + name: value for name, value in state.items()}, **figures, **beside}, path)
    return state
