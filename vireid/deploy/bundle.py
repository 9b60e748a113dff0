"""Bundle: a trained embedder as a folder that serves without its method's code.

    embedder.safetensors   the weights, and how to rebuild the network from vireid.layers; for a network of your own
                           torch needs its Python file too, the other runtimes do not
    config.json            what a server must know: size, filter, layer, dimension, what it was trained on, digest
    README.md              the model card
    embedder.onnx          pixels in, vectors out, for onnxruntime and OpenVINO: normalization inside, any batch, any
                           mixture of modalities (optional)
    parity.json            by how much each runtime differs from torch, at batches of 1, 2 and 7
    calibration.json       thresholds, where `vireid calibrate` was run

config.json is written last: a folder without it is not a bundle, so a killed export leaves none behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vireid.deploy.bundle_config import CONFIG, FORMAT, ONNX, PARITY, WEIGHTS, BundleConfig, Compared, Parity
from vireid.deploy.runtimes import BACKENDS, Embed, installed, open_runtime, torch_embed
from vireid.errors import ArgumentError, BundleError
from vireid.json_file import JsonFile, read_json
from vireid.own_files import Code
from vireid.system import choose_device, file_digest, has_gpu
from vireid.training.run_folder import LAST, RECIPE
from vireid.types import Backend

if TYPE_CHECKING:  # a bundle that another runtime serves needs no torch
    import torch

    from vireid.layers.embedder import Embedder

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
    def parity(self) -> dict[str, Compared]:
        """What parity.json says: for each exported runtime the digest of its files and its difference from torch."""
        path = self.path / PARITY
        if not path.is_file():
            raise BundleError(
                f"there is no {path}, which says how the runtimes differ from torch; export the run again"
            )
        try:
            return Parity.model_validate(read_json(path, BundleError, "export the run again")).runtimes
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
            raise BundleError(
                f"{path} is damaged ({place}: {error.errors()[0]['msg']}); export the run again"
            ) from error

    def network(self, device: str | torch.device = "cpu") -> Embedder:
        """The network of torch; WeightsError for one of your own where its code is not given."""
        from vireid.layers.embedder import load_embedder

        return load_embedder(self.path / WEIGHTS, device, self.method)

    def embedder(self, backend: Backend = "auto", device: str = "auto") -> Embed:
        """A function from uint8 images (N, 3, H, W), int64 modality (N,) and the declared inputs to float32 (N, D).

        The vectors are not L2-normalized. It may be called from several threads. `device` is auto, cpu, cuda or cuda:N.
        Raises BundleError where the bundle has no file for this backend or the file is not the one that was compared
        with torch, ValueError for a backend or device that is not here.
        """
        if backend == "auto":
            backend = self.fastest(device)
        if backend not in BACKENDS:
            raise ArgumentError(f"backend is one of auto, {', '.join(BACKENDS)}, got {backend!r}")
        if backend == "torch":
            return torch_embed(self.network(choose_device(device)))
        if not (self.path / ONNX).is_file():
            raise BundleError(f"{self.path} has no {ONNX}; export the run without --no-onnx, or take another backend")
        if not self.compared(backend):
            raise BundleError(
                f"parity.json does not say that {backend} agrees with torch on this {self.path / ONNX}; install "
                f"{backend} and export again"
            )
        return open_runtime(backend, self.path / ONNX, self.config.inputs, device)

    def compared(self, backend: Backend) -> bool:
        """Whether parity.json says that this runtime agrees with torch on the very ONNX file of the folder."""
        recorded = self.parity.get(backend)
        return recorded is not None and recorded.files.get(ONNX) == file_digest(self.path / ONNX)

    def fastest(self, device: str = "auto") -> Backend:
        """What "auto" takes: on a CPU OpenVINO, where it is installed and was compared with torch; else torch.

        benchmarks/extraction.py has the figures by which this was chosen.
        """
        there = (self.path / ONNX).is_file() and (self.path / PARITY).is_file() and installed("openvino")
        here = there and (not has_gpu() if device == "auto" else device == "cpu")
        return "openvino" if here and self.compared("openvino") else "torch"


def _no_bundle(folder: Path) -> str:
    if (folder / RECIPE).is_file():
        return f"{folder} is a run folder, expected a bundle; make one with `vireid export {folder}`"
    if (folder / LAST).is_file():
        return f"{folder} is a run folder without {RECIPE}, which says what was trained: restore it or train again"
    if not folder.is_dir():
        return f"there is no bundle folder {folder}; make one with `vireid export RUN --to {folder}`"
    return f"{folder} holds no {CONFIG}: it is not a bundle, or its export was stopped; run `vireid export` again"
