"""Trackers: the packages themselves write without a network, and what they wrote is read back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from loop_runs import Stop, records, run, stop_after
from pieces import wait_for
from small_training import SmallData, small

from vireid.errors import MissingPackage
from vireid.training.trackers import IDS, TensorBoard, ids_of, remember, trackers_again

NAMES = {"losses/id", "lr/trunk", "watch/pooled", "epoch_losses/triplet", "images_per_s"}


def stored(folder: Path):
    """MLflow's own reader of RUN/mlruns, and the run that belongs to the folder."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    return client, client.get_run(ids_of(folder)["mlflow"])


def test_mlflow_holds_every_record_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    run(tmp_path, mlflow=True, log_every=3)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"  # its makers get no statistics of use
    client, tracked = stored(tmp_path)
    assert tracked.info.run_name == tmp_path.name and tracked.info.status == "FINISHED"
    assert set(tracked.data.metrics) >= NAMES and tracked.data.params["num_pids"]
    points = client.get_metric_history(tracked.info.run_id, "losses/id")
    steps = records(tmp_path, "step")
    assert [(p.step, p.value) for p in points] == [(r["total"], pytest.approx(r["losses"]["id"])) for r in steps]


def test_a_resumed_training_and_an_evaluation_go_into_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(Stop):
        run(tmp_path, mlflow=True, log_every=3, on_epoch=stop_after(0, 1))
    first = ids_of(tmp_path)
    run(tmp_path, small(), data=SmallData(), mlflow=True, log_every=3, resume=True)
    assert ids_of(tmp_path) == first
    picture = tmp_path / "list.png"
    from PIL import Image

    Image.new("RGB", (8, 4), "red").save(picture)
    (again,) = trackers_again(tmp_path)
    again.results({"evaluate/all neck/R1": 0.5}, {"evaluate/list": picture}, 9)
    again.close()
    client, tracked = stored(tmp_path)
    assert tracked.data.metrics["evaluate/all neck/R1"] == 0.5
    assert [one.path for one in client.list_artifacts(tracked.info.run_id, "figures")] == ["figures/list.png"]


@pytest.mark.slow
def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tmp_path, wandb=True, log_every=3)
    own = ids_of(tmp_path)["wandb"]
    (file,) = tmp_path.glob(f"wandb/offline-run-*/run-{own}.wandb")
    expected = (b"losses/id", b"epoch_losses/triplet", b"num_pids")
    wait_for(lambda: all(name in file.read_bytes() for name in expected), "what wandb's own process writes")
    (again,) = trackers_again(tmp_path)
    again.results({"evaluate/all neck/R1": 0.5}, {}, 9)
    again.close()
    files = list(tmp_path.glob(f"wandb/offline-run-*/run-{own}.wandb"))
    assert len(files) == 2 or b"evaluate/all neck/R1" in files[0].read_bytes()


def test_figures_of_an_evaluation_stand_in_tensorboard(tmp_path: Path) -> None:
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from PIL import Image

    picture = tmp_path / "list.png"
    Image.new("RGB", (8, 4), "red").save(picture)
    TensorBoard(tmp_path, {}).close()
    (again,) = trackers_again(tmp_path)
    again.results({"evaluate/all neck/R1": 0.5}, {"evaluate/list": picture}, 9)
    again.close()
    events = event_file.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("evaluate/all neck/R1")] == [(9, 0.5)]
    (image,) = events.Images("evaluate/list")
    assert (image.width, image.height, image.step) == (8, 4, 9)


@pytest.mark.parametrize(("word", "module"), [("wandb", "wandb"), ("mlflow", "mlflow.entities")])
def test_a_missing_package_is_reported_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, module: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=rf"pip install 'vireid\[{word}\]'"):
        run(tmp_path, **{word: True})
    remember(tmp_path, word, "abc")
    assert list(trackers_again(tmp_path)) == [] and "the figures are not logged" in caplog.text
    assert (tmp_path / IDS).is_file()
