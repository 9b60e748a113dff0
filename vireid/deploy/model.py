"""Model: what is deployed, whatever it was loaded from: a model that comes with vireid, a run folder or a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vireid import models
from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import CALIBRATION, CONFIG
from vireid.deploy.calibration import Calibration
from vireid.deploy.extractor import FeatureExtractor, Picture
from vireid.images import GrayRule
from vireid.own_files import Code
from vireid.system import file_digest
from vireid.training.run_folder import EMBEDDER, RECIPE, RunFolder
from vireid.types import Backend, ModalityOrAuto

RUN_BUNDLE = "bundle"  # the folder of a run that holds its bundle
log = logging.getLogger(__name__)


class Model:
    """An opened model: pictures in, unit vectors out, and what its bundle says about it."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor

    @classmethod
    def open(
        cls,
        target: str | Path = models.DEFAULT,
        backend: Backend = "auto",
        device: str = "auto",
        method: Code | None = None,
        **options: Any,
    ) -> Model:
        """A model by name, or the path of a run folder or a bundle; `options` are those of FeatureExtractor.

        By default the model that comes with vireid. A folder that has its name is written ./NAME.

        Of a run folder the bundle RUN/bundle is used, and made or renewed where it is missing or older than the run's
        embedder. `method` is the Python file of a network of your own: a bundle needs it, a run has recorded it. Raises
        BundleError, RunError, WeightsError.
        """
        return cls(FeatureExtractor(bundle_of(target, method), backend, device, **options))

    @property
    def bundle(self) -> Bundle:
        """The folder that the model was opened from."""
        return self.extractor.bundle

    @property
    def digest(self) -> str:
        """sha256 of the network's file; galleries and calibrations belong to it."""
        return self.bundle.config.digest

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return self.extractor.dim

    @property
    def gray(self) -> GrayRule:
        """How gray values of more than 8 bits are read."""
        return self.extractor.gray

    def with_gray(self, gray: GrayRule) -> Model:
        """The same model with another rule for gray pictures of more than 8 bits."""
        return Model(self.extractor.with_gray(gray))

    @cached_property
    def calibration(self) -> Calibration | None:
        """Thresholds and probabilities of this model; None where it is not calibrated.

        Raises CalibrationError for a file of another network.
        """
        path = self.bundle.path / CALIBRATION
        return Calibration.load(path, self.digest) if path.is_file() else None

    def embed(
        self,
        pictures: Picture | Iterable[Picture],
        modality: ModalityOrAuto | Iterable[ModalityOrAuto] = "auto",
        **inputs: Any,
    ) -> np.ndarray:
        """L2-normalized vectors, float32 (N, D), one row for each picture in order; as FeatureExtractor."""
        return self.extractor(pictures, modality, **inputs)

    def batches(
        self,
        pictures: Picture | Iterable[Picture],
        modality: ModalityOrAuto | Iterable[ModalityOrAuto] = "auto",
        **inputs: Any,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The vectors in pieces with the modality that each picture was embedded as; as FeatureExtractor."""
        return self.extractor.batches(pictures, modality, **inputs)


def bundle_of(target: str | Path, method: Code | None = None) -> Bundle:
    """The bundle of a model by name, in a folder, or of a run; of a run it is exported where it is missing or old.

    The name of a model that comes with vireid is that model, also where a folder has the same name. `method` is the
    file of a network of your own, where it is not the one that the run recorded.
    """
    path = Path(target)
    if isinstance(target, str) and target in models.names():
        return Bundle.open(models.path_of(target))
    if not path.exists() and isinstance(target, str) and path.name == target:
        return Bundle.open(models.path_of(target))
    if (path / CONFIG).is_file() or not (path / RECIPE).is_file():
        return Bundle.open(path, method)
    run = RunFolder.open(path)
    if bundle := exported_bundle(run, method):
        return bundle
    from vireid.deploy.export import export_bundle

    log.info("exporting %s (without ONNX; `vireid export %s` writes that too)", run.path, run.path)
    return export_bundle(run, run.path / RUN_BUNDLE, onnx=False, method=method)


def exported_bundle(run: RunFolder, method: Code | None = None) -> Bundle | None:
    """The bundle RUN/bundle; None where there is none, or one of another embedder than the run's."""
    if not (run.path / RUN_BUNDLE / CONFIG).is_file():
        return None
    bundle = Bundle.open(run.path / RUN_BUNDLE, method or run.code)
    same = not (run.path / EMBEDDER).is_file() or bundle.config.digest == file_digest(run.path / EMBEDDER)
    return bundle if same else None
