"""Trackers: TensorBoard, W&B and MLflow take the records of a training, and the figures of its evaluations later.

Each is a Logger (logger.py) with one more verb, `results`. W&B and MLflow are configured by their own variables
(WANDB_MODE=offline, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME); without an address MLflow writes into
RUN/mlruns. RUN/trackers.json holds their ids, by which a resumed training and an evaluation find their run again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from vireid.errors import MissingPackage, RunError
from vireid.json_file import read_json
from vireid.system import replacing
from vireid.training.options import LoopOptions

PROJECT = "vireid"  # of W&B and the experiment of MLflow, unless their variables say another
IDS, TENSORBOARD = "trackers.json", "tensorboard"
MAX_PARAM = 500  # letters of a value that every version of MLflow takes
log = logging.getLogger(__name__)


class Tracker(Protocol):
    """A Logger that takes figures of an evaluation, too: fractions and PNG files by name, after step `total`."""

    def log(self, record: Mapping[str, Any]) -> None: ...

    def results(self, values: Mapping[str, float], pictures: Mapping[str, Path], total: int) -> None: ...

    def close(self) -> None: ...


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name: `losses/id` of a step, `epoch_losses/id` of an epoch.

    >>> scalars({"event": "epoch", "losses": {"id": 0.5}, "selected": {"held-out identities": 0.25}})
    {'epoch_losses/id': 0.5, 'epoch_selected/held-out identities': 0.25}
    """
    step = record["event"] == "step"
    groups = ("losses", "watch", "lr") if step else ("losses", "selected")
    prefix = "" if step else "epoch_"
    named = {f"{prefix}{group}/{name}": value for group in groups for name, value in record.get(group, {}).items()}
    return {**named, "images_per_s": record["images_per_s"]} if step else named


class TensorBoard:
    """TensorBoard files in RUN/tensorboard; points after step `total` of an older log are dropped.

    Raises MissingPackage where TensorBoard is not installed.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], total: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise _missing("a TensorBoard log", "tensorboard", "log") from error
        self.writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=total + 1 if total else None)

    def log(self, record: Mapping[str, Any]) -> None:
        for name, value in scalars(record).items():
            self.writer.add_scalar(name, value, int(record["total"]))
        self.writer.flush()

    def results(self, values: Mapping[str, float], pictures: Mapping[str, Path], total: int) -> None:
        import numpy as np
        from PIL import Image

        for name, value in values.items():
            self.writer.add_scalar(name, value, total)
        for name, path in pictures.items():
            with Image.open(path) as picture:
                self.writer.add_image(name, np.asarray(picture.convert("RGB")), total, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of W&B, kept in RUN/wandb; MissingPackage where wandb is not installed."""

    def __init__(self, folder: Path, config: Mapping[str, Any], total: int = 0) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _missing("a W&B log", "wandb", "wandb") from error
        known = ids_of(folder).get("wandb")
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self.run = wandb.init(
            project=project, name=folder.name, id=known, resume="allow", dir=str(folder), config=dict(config)
        )
        remember(folder, "wandb", self.run.id)

    def log(self, record: Mapping[str, Any]) -> None:
        self.run.log(scalars(record), step=int(record["total"]))

    def results(self, values: Mapping[str, float], pictures: Mapping[str, Path], total: int) -> None:
        import wandb

        self.run.log({name: wandb.Image(str(path)) for name, path in pictures.items()})
        self.run.summary.update(dict(values))

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run of MLflow; MissingPackage where mlflow (or mlflow-skinny) is not installed."""

    def __init__(self, folder: Path, config: Mapping[str, Any], total: int = 0) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # statistics of use that it sends to its makers
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder.resolve() / "mlruns").as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which version 3.17 refuses otherwise
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError as error:
            raise _missing("an MLflow log", "mlflow", "mlflow") from error
        self.metric, self.client = Metric, MlflowClient(tracking_uri=uri)
        known = ids_of(folder).get("mlflow")
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self.client.get_experiment_by_name(name)
            place = self.client.create_experiment(name) if experiment is None else experiment.experiment_id
            known = self.client.create_run(place, run_name=folder.name).info.run_id
            params = [Param(key, value[:MAX_PARAM]) for key, value in flat(config)]
            for start in range(0, len(params), 100):  # as many as one request takes
                self.client.log_batch(known, params=params[start : start + 100])
            remember(folder, "mlflow", known)
        else:
            self.client.update_run(known, status="RUNNING")
        self.id = known

    def log(self, record: Mapping[str, Any]) -> None:
        self._log(scalars(record), int(record["total"]))

    def results(self, values: Mapping[str, float], pictures: Mapping[str, Path], total: int) -> None:
        self._log(values, total)
        for path in pictures.values():
            self.client.log_artifact(self.id, str(path), "figures")

    def _log(self, values: Mapping[str, float], total: int) -> None:
        now = int(1000 * time.time())
        self.client.log_batch(self.id, metrics=[self.metric(name, value, now, total) for name, value in values.items()])

    def close(self) -> None:
        self.client.set_terminated(self.id)


KINDS: dict[str, Callable[[Path, Mapping[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}  # by the field of LoopOptions


def trackers_of(folder: Path, options: LoopOptions, config: Mapping[str, Any], total: int) -> list[Tracker]:
    """The trackers that a training asks for; `config` is its record. MissingPackage for one that is not installed."""
    return [kind(folder, config, total) for name, kind in KINDS.items() if getattr(options, name)]


def trackers_again(folder: Path) -> Iterator[Tracker]:
    """The trackers that the training in this folder had; one whose package is gone is left out with a warning."""
    used = [*ids_of(folder), *(["tensorboard"] if (folder / TENSORBOARD).is_dir() else [])]
    for name in used:
        try:
            yield KINDS[name](folder, {}, 0)
        except MissingPackage as error:
            log.warning("the figures are not logged: %s", error)


def ids_of(folder: Path) -> dict[str, str]:
    """The ids of the runs of W&B and MLflow that belong to a run folder, by tracker."""
    path = folder / IDS
    return read_json(path, RunError, "remove it: the figures then go to new runs") if path.is_file() else {}


def remember(folder: Path, tracker: str, id: str) -> None:
    """Write the id of a tracker's run into the run folder."""
    ids = {**ids_of(folder), tracker: id}
    with replacing(folder / IDS) as partial:
        partial.write_text(json.dumps(ids) + "\n", encoding="utf-8")


def flat(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings and lists with their places joined by dots.

    >>> list(flat({"a": {"b": 1}, "c": [True]}))
    [('a.b', '1'), ('c.0', 'True')]
    """
    if isinstance(values, Mapping) or (isinstance(values, list | tuple) and values):
        pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
        for key, value in pairs:
            yield from flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(values)


def _missing(what: str, package: str, extra: str) -> MissingPackage:
    return MissingPackage(f"{what} needs the package {package}: pip install 'vireid[{extra}]'", name=package)
