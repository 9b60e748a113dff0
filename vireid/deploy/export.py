"""Export: a run's embedder written as a bundle, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import (
    CALIBRATION,
    CARD,
    CONFIG,
    FILES,
    FORMAT,
    PARITY,
    WEIGHTS,
    BundleConfig,
    TrainedOn,
)
from vireid.deploy.card import model_card, results_of
from vireid.deploy.parity import LIMIT, example_inputs, export_runtimes
from vireid.errors import BundleError
from vireid.layers.embedder import Embedder
from vireid.own_files import Code, file_of, is_own
from vireid.system import file_digest, remove_partials, replacing
from vireid.training.run_folder import RunFolder
from vireid.types import INFRARED, VISIBLE
from vireid.version import __version__


def export_bundle(
    run: Path | str | RunFolder,
    folder: Path | str,
    *,
    onnx: bool = True,
    method: Code | None = None,
) -> Bundle:
    """Write the embedder that a run reports as a bundle into `folder`, compare every runtime with torch and open it.

    An earlier bundle in the folder is replaced; its calibration stays if the weights are the same. `method` is the
    file of a network of your own, where it is not the one that the run recorded. Raises BundleError where a runtime
    differs from torch by more than LIMIT or a network of your own cannot be exported (nothing is written then), and
    RunError.
    """
    opened, folder = run if isinstance(run, RunFolder) else RunFolder.open(run), Path(folder)
    network = opened.embedder(method=method)
    size = opened.deployment.size
    with new_bundle(folder) as draft:
        shutil.copyfile(opened.path / WEIGHTS, draft / WEIGHTS)
        runtimes = export_runtimes(network, size, draft, onnx)
        config = config_of(opened, network, file_digest(draft / WEIGHTS))
        write_parity(draft, runtimes)
        file = file_of(type(network)) if is_own(type(network)) else None
        results = results_of(opened.path, config.digest)
        _write(draft / CARD, model_card(config, runtimes, results, file and file.name))
        for place in (opened.path, folder):
            if _calibrated_for(place / CALIBRATION, config.digest):
                shutil.copyfile(place / CALIBRATION, draft / CALIBRATION)
        write_config(draft, config)
    return Bundle.open(folder, method or opened.code)


def config_of(run: RunFolder, network: Embedder, digest: str) -> BundleConfig:
    """What config.json says; one picture goes through the network to learn its layer and dimension."""
    use = run.deployment
    given = [torch.zeros(2, 3, *use.size, dtype=torch.uint8), torch.tensor([VISIBLE, INFRARED])]
    layer, dim = "", 0
    network.eval()
    with torch.no_grad():
        layers = network.layers(network.normalize(given[0]), given[1], *example_inputs(network, use.size))
        layer, first = next(iter(layers.items()))
        dim = int(first.shape[1])
    return BundleConfig(
        method=run.record.method,
        size=use.size,
        filter=use.filter,
        thermal_range=use.thermal_range,
        similarity=use.similarity,
        layer=layer,
        dim=dim,
        inputs=tuple(network.inputs),
        num_params=sum(param.numel() for param in network.parameters()),
        trained_on=TrainedOn.of(run.record),
        stamp={**run.stamp, "size": f"{use.size[0]}x{use.size[1]} {use.filter}"},
        digest=digest,
        vireid=__version__,
    )


def _calibrated_for(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("embedder") == digest
    except (ValueError, AttributeError):
        return False  # a damaged one is not carried over


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything that a bundle does not."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BundleError(f"{folder} is a file; name a folder for the bundle")
    remove_partials(folder)
    foreign = sorted({path.name for path in folder.iterdir()} - set(FILES))
    if foreign:
        raise BundleError(
            f"{folder} holds {', '.join(foreign[:3])}, which is not of a bundle; name a new folder, or one that holds "
            "nothing but a bundle"
        )


@contextmanager
def new_bundle(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, in which a bundle is made; its files replace those of `folder` at the end.

    It is removed afterwards, as is what a killed export left. BundleError where `folder` holds anything else.
    """
    _check_folder(folder)
    folder = folder.absolute()
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, folder: Path) -> None:
    """Move the files of `draft` into the folder, config.json last, and remove those of a former bundle."""
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    for name in FILES:
        if (draft / name).exists():
            with replacing(folder / name) as partial:
                os.replace(draft / name, partial)
        else:
            (folder / name).unlink(missing_ok=True)


def write_parity(folder: Path, runtimes: dict[str, Any]) -> None:
    """Write parity.json from what export_runtimes returned."""
    report = {"format": FORMAT, "limit": LIMIT, "torch": torch.__version__, "runtimes": runtimes}
    _write(folder / PARITY, json.dumps(report, indent=2) + "\n")


def write_config(folder: Path, config: BundleConfig) -> None:
    """Write config.json."""
    _write(folder / CONFIG, config.model_dump_json(indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
