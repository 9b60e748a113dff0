"""Files of weights: the tensors by name in a checkpoint of whatever layout, and what it held beside them; no code runs.

{"net": {"module.conv1.weight": ...}, "mAP": 0.5}   ->   wrapper `net`, prefix `module.`, conv1.weight, beside: mAP
"""

from __future__ import annotations

import _codecs
import argparse
import datetime
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vireid.errors import WeightsError
from vireid.layers.weights_kind import HEAD_BYTES, is_safetensors, not_weights

# Keys under which public checkpoints keep their state dict; where none is there, the only state dict is taken.
WRAPPERS = ("net", "model", "state_dict", "model_state_dict", "teacher")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
RUN_CHECKPOINT = "method"  # and the key of last.pt and best.pt, which hold a method with its network
NETWORKS = ("embedder.", "refiner.")  # of a method
WRAPPED = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile, before the names of what they wrap
WHOLE = "model."  # before every name, of training frameworks
QUERY_ENCODER = "encoder_q."  # of MoCo; what stands beside it are its momentum encoder and its queue
BACKBONE = "backbone."  # before the names of a network with a head, which then belongs to none of the networks here
HEADS = {"head", "heads", "fc", "classifier", "projector", "pixel_mean", "pixel_std"}
SAVE_AGAIN = "in the code that wrote it, save the tensors alone: torch.save(network.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file by their names in the network, and how the file was laid out."""

    path: Path
    kind: str  # in words
    tensors: dict[str, Tensor]
    wrapper: str = ""  # keys around the state dict, joined by dots
    prefixes: tuple[str, ...] = ()  # that were taken from the names, outermost first
    left_out: tuple[str, ...] = ()  # tensors that stand beside the network
    beside: tuple[str, ...] = ()  # keys beside the wrapper

    @property
    def layout(self) -> str:
        """Kind, wrapper and prefixes in one line."""
        parts = [self.kind]
        parts += [f"state dict under `{self.wrapper}`"] if self.wrapper else []
        parts += [f"names behind `{''.join(self.prefixes)}`"] if self.prefixes else []
        return ", ".join(parts)


def read(path: Path) -> WeightsFile:
    """Read a .safetensors or torch file, by its content and not its name.

    Raises WeightsError that says what the file is where it holds no tensors by name.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if other := not_weights(head):
        raise WeightsError(f"{path} is {other}")
    if is_safetensors(head) or path.suffix == ".safetensors":
        return unpacked(path, "safetensors file", read_safetensors(path))
    return unpacked(path, "torch file", read_torch(path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; WeightsError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}; download it again") from error


# --- torch files ------------------------------------------------------------------------------------------------------


def harmless() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What checkpoints hold beside tensors and may be rebuilt, as none of it runs code of the file: figures of NumPy,
    options of argparse, paths (as text: nothing is opened) and times."""
    rebuild: set[Any] = {np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]}  # of a scalar and of an array
    named: list[Any] = [
        (function, f"{module}.{function.__name__}")
        for function in rebuild
        for module in ("numpy._core.multiarray", "numpy.core.multiarray")  # of NumPy 2 and of NumPy 1
    ]
    kinds = [np.dtype(letter) for letter in "?bhilqpBHILQPefdgFDSUmM"]  # not O: objects
    paths: list[Any] = [
        (pure, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")  # the latter in files of Python 3.13
        for pure in (PurePosixPath, PureWindowsPath)
        for name in (pure.__name__, pure.__name__.removeprefix("Pure"))
    ]
    times = [datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone]
    own = [np.ndarray, np.dtype, *{type(kind) for kind in kinds}, _codecs.encode, argparse.Namespace]
    return [*named, *paths, *times, *own]


def read_torch(path: Path) -> Any:
    """What torch.save wrote; WeightsError that says why where it cannot be read."""
    try:
        with torch.serialization.safe_globals(harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says what the file is
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and others for broken files
        raise WeightsError(f"{path} {why_unreadable(path, str(error))}") from error


def why_unreadable(path: Path, message: str) -> str:
    """What a file is that torch cannot read, and what to do; torch's own advice is to switch its protection off."""
    if "TorchScript" in message:
        return f"is a TorchScript program, not a file of tensors; {SAVE_AGAIN}"
    if match := re.search(r"GLOBAL ([\w.]+)|<class '([\w.]+)'>", message):
        name = match[1] or match[2]
        return f"is not a torch file of plain tensors: it holds an object of {name}, which is not loaded; {SAVE_AGAIN}"
    names = _names_in_zip(path)
    if names and not any(name.endswith("data.pkl") for name in names):
        listed = ", ".join(names[:3])
        return f"is a ZIP archive that torch did not write; it holds {listed}: unpack it and give the checkpoint"
    return (
        "is not a torch file of plain tensors: it is cut off, damaged or of another program; download it again and "
        "compare its size"
    )


def _names_in_zip(path: Path) -> list[str]:
    """The names in an archive; nothing of a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # of a damaged list of names zipfile raises UnicodeDecodeError, struct.error and others
        return []


# --- wrappers and prefixes --------------------------------------------------------------------------------------------


def unpacked(path: Path, kind: str, content: Any) -> WeightsFile:
    """The state dict of a file's content: taken out of wrappers, with names as the network has them."""
    wrapper, beside = list[str](), list[str]()
    while isinstance(content, Mapping) and (key := wrapper_of(content)) is not None:
        beside += [str(other) for other in content if other != key]
        wrapper.append(key)
        content = content[key]
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        tensors = {str(key): tensor for key, value in content.items() if (tensor := as_tensor(value)) is not None}
        beside += [str(key) for key, value in content.items() if as_tensor(value) is None]
    if not tensors:
        held = type(content).__name__ if not isinstance(content, Mapping) else ", ".join(map(str, list(content)[:6]))
        raise WeightsError(
            f"{path} holds no state dict: expected tensors by name, alone or under {', '.join(WRAPPERS)}; it holds "
            f"{held or 'nothing'}"
        )
    broken = [name for name, tensor in tensors.items() if tensor.dtype in FLOATS and tensor.isnan().any()]
    if broken:
        raise WeightsError(
            f"{path} holds values that are not numbers (NaN), first in {broken[0]}, in {len(broken)} of {len(tensors)} "
            "tensors: the training that wrote it failed; give an earlier checkpoint of it"
        )
    if wrapper == [RUN_CHECKPOINT]:
        kind = "checkpoint of a training with vireid"
    names, prefixes, left_out = without_prefixes(list(tensors))
    return WeightsFile(
        path=path,
        kind=kind,
        tensors={name: tensors[key] for key, name in names.items()},
        wrapper=".".join(wrapper),
        prefixes=tuple(prefixes),
        left_out=tuple(left_out),
        beside=tuple(beside),
    )


def wrapper_of(content: Mapping[Any, Any]) -> str | None:
    """The key under which a mapping keeps a state dict; None where there is none, or which one is not known."""
    keys = (RUN_CHECKPOINT, *WRAPPERS) if "format" in content else WRAPPERS
    known = next((key for key in keys if isinstance(content.get(key), Mapping)), None)
    if known is not None or any(as_tensor(value) is not None for value in content.values()):
        return known
    others = [key for key, value in content.items() if isinstance(key, str) and _holds_tensors(value)]
    return others[0] if len(others) == 1 else None


def _holds_tensors(content: Any) -> bool:
    """Whether something is a state dict of any size, and not the state of an optimizer, whose tensors lie deeper."""
    return isinstance(content, Mapping) and any(as_tensor(value) is not None for value in content.values())


def as_tensor(value: Any) -> Tensor | None:
    """A tensor, also of an array of numbers; None of anything else, and of a tensor that is sparse or has no values."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return torch.from_numpy(value)
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
        return value
    return None


def without_prefixes(keys: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Key -> its name in the network, the prefixes that were taken away, and the keys of what stands beside it.

    >>> without_prefixes(["module.encoder_q.conv1.weight", "module.encoder_k.conv1.weight"])
    ({'module.encoder_q.conv1.weight': 'conv1.weight'}, ['module.', 'encoder_q.'], ['module.encoder_k.conv1.weight'])
    """
    names, prefixes, left_out = {key: key for key in keys}, list[str](), list[str]()
    while (prefix := common_prefix(list(names.values()))) is not None:
        prefixes.append(prefix)
        if prefix == QUERY_ENCODER:
            left_out += [key for key, name in names.items() if not name.startswith(prefix)]
            names = {key: name for key, name in names.items() if name.startswith(prefix)}
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
    names = {key: name.replace("._orig_mod.", ".") for key, name in names.items()}
    owners = {names[key]: key for key in sorted(names, key=len)}  # of two keys with one name, that with prefixes
    for key in [key for key, name in names.items() if owners[name] != key]:
        left_out.append(key)
        del names[key]
    return names, prefixes, left_out


def common_prefix(names: list[str]) -> str | None:
    """The prefix that has nothing to do with the network's own names; None where there is none."""
    for prefix in (*WRAPPED, QUERY_ENCODER, *NETWORKS):
        if any(name.startswith(prefix) for name in names):
            return prefix
    if all(name.startswith(WHOLE) for name in names):
        return WHOLE
    firsts = {name.partition(".")[0] for name in names}
    return BACKBONE if "backbone" in firsts and firsts - {"backbone"} <= HEADS else None
