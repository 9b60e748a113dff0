"""Public weights: the state dict at a name, path or address, and a strict way to copy it into a module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vireid.errors import ArgumentError
from vireid.layers.weights_file import read
from vireid.layers.weights_source import locate


def load_state(source: str | Path) -> dict[str, Tensor]:
    """The state dict at `source`, on the CPU: a name, a .pth, .pt or .safetensors file, https://, file:// or hf://.

    A download is kept in torch.hub's checkpoint folder and used from there the next time. A name such as
    `resnet50-19c8e357.pth` says how the sha256 of the file begins, which is checked each time. `hf://org/repo/file`
    needs huggingface_hub. Raises ArgumentError for a missing file, WeightsError for another hash or a file that holds
    no state dict.
    """
    return read(locate(source)).tensors


def new_names(state: Mapping[str, Tensor], patterns: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Key of `state` -> its name here, for the keys whose start a pattern (regular expression, replacement) matches."""
    names: dict[str, str] = {}
    for key in state:
        for pattern, name in patterns:
            if re.match(pattern, key):
                names[key] = re.sub("^" + pattern, name, key)
                break
    return names


def fill(module: nn.Module, state: Mapping[str, Tensor], prefixes: Sequence[str] = ("",)) -> list[str]:
    """Copy `state` into all entries of `module` whose names begin with one of `prefixes`; returns the unused keys.

    Raises ValueError, before anything is copied, that lists missing names and differing shapes. Only the counters
    `num_batches_tracked` may be missing: files older than they are have none.
    """
    own = {name: value for name, value in module.state_dict().items() if name.startswith(tuple(prefixes))}
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [n for n in own if n in state and state[n].shape != own[n].shape]
    faults = [f"{n} {tuple(own[n].shape)} is missing" for n in missing]
    faults += [f"{n} should have shape {tuple(own[n].shape)}, the file has {tuple(state[n].shape)}" for n in wrong]
    if faults:
        more = f"\n  and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise ArgumentError(
            f"the weights do not fit this {type(module).__name__}:\n  "
            + "\n  ".join(faults[:8])
            + more
            + "\nGive weights of the same architecture (width, blocks, attention), or build the network to match them"
        )
    with torch.no_grad():
        for name, value in own.items():
            if name in state:
                value.copy_(state[name])
    return [key for key in state if key not in own]
