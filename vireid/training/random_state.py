"""The states of the random generators of a process, as they are kept in a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vireid.errors import RunError


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators of this process as plain containers and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    numpy_state = (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss))
    return {
        "python": random.getstate(),
        "numpy": (*numpy_state, float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` returned."""
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        if not torch.cuda.is_available():
            raise RunError("the checkpoint was written on a GPU and none is here; resume it on a GPU")
        torch.cuda.set_rng_state(state["cuda"])
