"""Saved networks: a safetensors file whose header says how to rebuild the network: class, settings, and no code.

A network of vireid.layers is rebuilt from its file alone. For a network of your own the header names class and file
(`mine.py:Net`) with the sha256 of the file; its code runs only where it is given: load_network(..., code="mine.py").
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from vireid.errors import WeightsError
from vireid.json_file import parsed
from vireid.own_files import Code, class_in, digest_of, errors_of, file_of, is_own, qualified_name

log = logging.getLogger(__name__)


def save_network(network: nn.Module, settings: Any, kind: str, path: Path, more: dict[str, Any] | None = None) -> None:
    """Write `path`: the tensors, and under `kind` in the header class and settings that rebuild it, and `more`."""
    about = {**description(network, settings), **(more or {})}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={kind: json.dumps(about, default=to_jsonable_python)})
    partial.replace(path)


def description(network: nn.Module, settings: Any) -> dict[str, Any]:
    """What a file says about a network: its class, its settings and, of your own class, the sha256 of its file."""
    about = {"class": qualified_name(type(network)), "settings": dataclasses.asdict(settings)}
    file = file_of(type(network)) if is_own(type(network)) else None
    return about if file is None else {**about, "sha256": digest_of(file)}


def load_network(
    path: Path, kind: str, base: type[nn.Module], device: str | torch.device = "cpu", code: Code | None = None
) -> tuple[Any, dict[str, Any]]:
    """Rebuild a network of this kind in evaluation mode, and what its file says about it.

    `code` is the Python file (or a class in it) that defines or imports a network of your own. Raises WeightsError for
    another file, and for a network of your own without its code; OwnFileError.
    """
    about = described(path, kind)
    module, _, name = about["class"].rpartition(".")
    if module.startswith("vireid.layers."):
        network = network_of_vireid(path, module, name, about["settings"], base)
    else:
        network = own_network(path, about, base, code)
    return network.to(device).eval(), about


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """WeightsError, which names the file, for what safetensors raises."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors ({error}); it is missing, cut off or another file: copy it again"
        ) from error


def described(path: Path, kind: str) -> dict[str, Any]:
    """What the header of a file says about its network, `class` and `settings` at least; WeightsError."""
    with reading(path), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if kind not in metadata:
        raise WeightsError(f"{path} has no {kind} description; expected a file that vireid wrote ({kind}.safetensors)")
    try:
        about = parsed(metadata[kind])
        if isinstance(about["class"], str) and isinstance(about["settings"], dict):
            return about
    except (ValueError, KeyError, TypeError):
        pass
    raise WeightsError(f"{path}: the {kind} description in its header is damaged; copy the file again")


def network_of_vireid(path: Path, module: str, name: str, settings: dict[str, Any], base: type[nn.Module]) -> nn.Module:
    """Rebuild a network of vireid.layers."""
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        kind = None
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise WeightsError(
            f"{path} holds {module}.{name}, which is not an {base.__name__} of this vireid; was it written by a newer "
            "one?"
        )
    try:
        network = kind(**settings)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # pydantic's and torch's are among them
        raise WeightsError(
            f"{path}: the settings in its header build no {name}; copy it again, or was it written by a newer vireid?\n"
            f"{error}"
        ) from error
    return filled(network, path, f"the {name} that its header describes; copy it again")


def own_network(path: Path, about: dict[str, Any], base: type[nn.Module], code: Code | None) -> nn.Module:
    """Rebuild a network of the user's own class."""
    name = about["class"]
    if ":" not in name:  # version 0.1 wrote MODULE.CLASS
        name = ":" + name.rpartition(".")[2]
    words = f"the network {name.rpartition(':')[2]} of your own" + (
        f" ({name.partition(':')[0]})" if name[0] != ":" else ""
    )
    if code is None:
        raise WeightsError(
            f"{path} holds {words}, whose code is not in the file and is run only where you name it: pass --method "
            "FILE (method= or code= in Python) with the Python file that defines it, or serve an ONNX file of it"
        )
    if not isinstance(code, type) and not Path(code).expanduser().is_file():
        raise WeightsError(
            f"{path} holds {words}, and {code} is not there; pass --method FILE (method= in Python) with the Python "
            "file that defines it"
        )
    own = class_in(code, name, base)
    if own is None:
        where = code.__module__ if isinstance(code, type) else code
        raise WeightsError(
            f"{path} holds {words}, which {where} does not define; pass --method with the file that does"
        )
    file = file_of(own)
    if file is not None and about.get("sha256", digest_of(file)) != digest_of(file):
        log.warning("%s has changed since %s was written", file, path)
    with errors_of(file or Path(path)):
        network = own(**about["settings"])
    return filled(network, path, f"{own.__name__} as {file} defines it now; give the file as it was at the training")


def filled(network: nn.Module, path: Path, expected: str) -> nn.Module:
    """The network with the tensors of a file; WeightsError, which says what they do not fit, where they are others."""
    with reading(path):
        tensors = load_file(path, device="cpu")
    if broken := [
        name for name, value in tensors.items() if value.is_floating_point() and not value.float().isfinite().all()
    ]:
        raise WeightsError(
            f"{path} holds values that are not finite numbers, first in {broken[0]}, in {len(broken)} of "
            f"{len(tensors)} tensors: its training failed, or the file is damaged; give an earlier one"
        )
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit {expected}\n{error}") from error
    return network


def check_rebuilds(network: nn.Module, settings: Any) -> None:
    """WeightsError where a network of your own could not be rebuilt from its class and settings alone."""
    kind = type(network)
    words = (
        f"{kind.__name__} has to be rebuilt from its file by {kind.__name__}(**settings), with no other argument: "
        f"declare what it takes as fields (vireid.declaration.settings), name that class in `{kind.__name__}.Settings`"
    )
    if "<locals>" in kind.__qualname__:
        raise WeightsError(f"{kind.__qualname__} is defined inside of a function; define it at the top of a file")
    values = json.loads(json.dumps(dataclasses.asdict(settings), default=to_jsonable_python))
    try:
        again = kind(**values)
    except Exception as error:
        raise WeightsError(f"{words} ({type(error).__name__}: {error})") from error
    shapes, rebuilt = ({k: tuple(v.shape) for k, v in one.state_dict().items()} for one in (network, again))
    if different := sorted(k for k in shapes.keys() | rebuilt.keys() if shapes.get(k) != rebuilt.get(k)):
        raise WeightsError(f"{words}; rebuilt like this it differs in {', '.join(different[:3])}")


def write_half(source: Path, target: Path) -> None:
    """Copy a saved network with its float32 tensors as float16; `load_network` gives them to a float32 network again.

    Raises WeightsError for a value beyond the range of float16.
    """
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata() or {}
    tensors = load_file(source, device="cpu")
    halves = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    for name, value in tensors.items():
        if value.isfinite().all() and not halves[name].isfinite().all():
            raise WeightsError(
                f"{source}: {name} holds {float(value.abs().max()):.3g}, more than float16 holds (65504); keep float32"
            )
    save_file(halves, target, metadata=metadata)
