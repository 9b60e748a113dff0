"""The device that a user asks for."""

from __future__ import annotations

import torch


def choose_device(name: str = "auto") -> torch.device:
    """The GPU where there is one and "auto" is asked; ValueError for a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises AssertionError
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); take cpu, cuda or auto") from error
    return device
