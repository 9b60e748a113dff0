"""Bundle: a trained embedder as a folder that serves without its method's code.

    embedder.safetensors   the weights, and how to rebuild the network from vireid.layers; for a network of your own
                           torch needs its Python file too, the other runtimes do not
    config.json            what a server must know: size, filter, layer, dimension, what it was trained on, digest
    README.md              the model card
    embedder.onnx          pixels in, vectors out: normalization inside, any batch, any mixture of modalities (optional)
    embedder.xml, .bin     the same for OpenVINO (optional)
    parity.json            by how much each runtime differs from torch, at batches of 1, 2 and 7
    calibration.json       thresholds, where `vireid calibrate` was run

config.json is written last: a folder without it is not a bundle, so a killed export leaves none behind.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vireid.deploy.bundle_config import (
    CALIBRATION,
    CARD,
    CONFIG,
    FILES,
    FORMAT,
    ONNX,
    OPENVINO,
    OPENVINO_WEIGHTS,
    PARITY,
    WEIGHTS,
    BundleConfig,
    TrainedOn,
)
from vireid.deploy.card import figures_of, model_card
from vireid.deploy.parity import LIMIT, example_inputs, export_runtimes
from vireid.deploy.runtimes import BACKENDS, Embed, open_onnxruntime, open_openvino, torch_embed
from vireid.errors import ArgumentError, BundleError
from vireid.json_file import JsonFile
from vireid.layers.embedder import Embedder, load_embedder
from vireid.own_files import Code, file_of, is_own
from vireid.system import choose_device, file_digest, remove_partials, replacing
from vireid.training.run_folder import RECIPE, RunFolder
from vireid.types import INFRARED, VISIBLE, Backend
from vireid.version import __version__

CONFIGURATION = JsonFile(CONFIG, BundleConfig, FORMAT, BundleError, "export the run again")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: the folder and what its config.json says; `method` defines a network of your own."""

    path: Path
    config: BundleConfig
    method: Code | None = None

    @classmethod
    def open(cls, folder: str | Path, method: Code | None = None) -> Bundle:
        """The bundle in a folder, its weights checked against their digest; BundleError where it is none or damaged.

        `method` is the Python file of a network of your own, which is executed when torch computes the vectors.
        """
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise BundleError(_no_bundle(folder))
        config = CONFIGURATION.read(folder)
        if not (folder / WEIGHTS).is_file():
            raise BundleError(f"{folder} has no {WEIGHTS}; copy the whole folder, or export the run again")
        if (actual := file_digest(folder / WEIGHTS)) != config.digest:
            raise BundleError(
                f"{folder / WEIGHTS} was changed after the export: its sha256 is {actual[:12]}..., config.json says "
                f"{config.digest[:12]}...; export the run again"
            )
        return cls(folder, config, method)

    @property
    def parity(self) -> dict[str, Any]:
        """What parity.json says: for each exported runtime the digest of its files and its difference from torch."""
        try:
            return json.loads((self.path / PARITY).read_text(encoding="utf-8"))["runtimes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{self.path / PARITY} is missing or damaged; export the run again") from error

    def network(self, device: str | torch.device = "cpu") -> Embedder:
        """The network of torch; WeightsError for one of your own where its code is not given."""
        return load_embedder(self.path / WEIGHTS, device, self.method)

    def embedder(self, backend: Backend = "torch", device: str = "auto") -> Embed:
        """A function from uint8 images (N, 3, H, W), int64 modality (N,) and the declared inputs to float32 (N, D).

        The vectors are not L2-normalized. It may be called from several threads. `device` is auto, cpu, cuda or cuda:N.
        Raises BundleError where the bundle has no file for this backend or the file is not the one that was compared
        with torch, ValueError for a backend or device that is not here.
        """
        if backend not in BACKENDS:
            raise ArgumentError(f"backend is one of {', '.join(BACKENDS)}, got {backend!r}")
        if backend == "torch":
            return torch_embed(self.network(choose_device(device)))
        names = {"onnxruntime": (ONNX,), "openvino": (OPENVINO, OPENVINO_WEIGHTS)}[backend]
        missing = [name for name in names if not (self.path / name).is_file()]
        if missing:
            how = "with --openvino" if backend == "openvino" else "without --no-onnx"
            raise BundleError(f"{self.path} has no {missing[0]}; export the run {how}, or take another backend")
        recorded = self.parity.get(backend, {}).get("files", {})
        for name in names:
            if recorded.get(name) != file_digest(self.path / name):
                raise BundleError(
                    f"{self.path / name} is not the file that was compared with torch (parity.json); export again"
                )
        open_runtime = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}[backend]
        return open_runtime(self.path / names[0], ("images", "modality", *self.config.inputs), device)


def export_bundle(
    run: Path | str | RunFolder,
    folder: Path | str,
    *,
    onnx: bool = True,
    openvino: bool = False,
    method: Code | None = None,
) -> Bundle:
    """Write the embedder that a run reports as a bundle into `folder`, compare every runtime with torch and open it.

    An earlier bundle in the folder is replaced; its calibration stays if the weights are the same. `method` is the
    file of a network of your own, where it is not the one that the run recorded. Raises BundleError where a runtime
    differs from torch by more than LIMIT or a network of your own cannot be exported (nothing is written then), and
    RunError.
    """
    opened, folder = run if isinstance(run, RunFolder) else RunFolder.open(run), Path(folder)
    if openvino and not onnx:
        raise ArgumentError("the OpenVINO file is made from the ONNX file; leave --no-onnx out")
    network = opened.embedder(method=method)
    size = opened.deployment.size
    with new_bundle(folder) as draft:
        shutil.copyfile(opened.path / WEIGHTS, draft / WEIGHTS)
        runtimes = export_runtimes(network, size, draft, onnx, openvino)
        config = config_of(opened, network, file_digest(draft / WEIGHTS))
        report = {"format": FORMAT, "limit": LIMIT, "torch": torch.__version__, "runtimes": runtimes}
        _write(draft / PARITY, json.dumps(report, indent=2) + "\n")
        file = file_of(type(network)) if is_own(type(network)) else None
        figures = figures_of(opened.path, config.digest)
        _write(draft / CARD, model_card(config, runtimes, figures, file and file.name))
        for place in (opened.path, folder):
            if _calibrated_for(place / CALIBRATION, config.digest):
                shutil.copyfile(place / CALIBRATION, draft / CALIBRATION)
        write_config(draft, config)
    return Bundle.open(folder, method or opened.code)


# --- making a bundle --------------------------------------------------------------------------------------------------


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


def write_config(folder: Path, config: BundleConfig) -> None:
    """Write config.json."""
    _write(folder / CONFIG, config.model_dump_json(indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _no_bundle(folder: Path) -> str:
    if (folder / RECIPE).is_file():
        return f"{folder} is a run folder, expected a bundle; make one with `vireid export {folder}`"
    if not folder.is_dir():
        return f"there is no bundle folder {folder}; make one with `vireid export RUN --to {folder}`"
    return f"{folder} holds no {CONFIG}: it is not a bundle, or its export was stopped; run `vireid export` again"
