"""What a training starts from: run folders, bundles, shipped models, checkpoints of a run; what else is refused."""

import logging
from pathlib import Path

import pytest
import torch
from released import write_released
from small_run import make_run, write_people
from torch import Tensor

from vireid import models
from vireid.deploy.export import export_bundle
from vireid.errors import ArgumentError, RunError, WeightsError
from vireid.layers.weights_file import read
from vireid.methods.agw import AGW
from vireid.training.run_folder import RunFolder
from vireid.workflows.initial_weights import file_of, initial_weights, label_of, load

SMALL = {"width": 4, "blocks": (1, 1, 1, 1), "attention": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("initial")
    return make_run(folder / "run", write_people(folder / "data", {"train": 3, "test": 2}))


def embedder_of(run: RunFolder) -> dict[str, Tensor]:
    return run.embedder().state_dict()


def started(source: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of a small AGW that starts from `source`, and its stamp."""
    torch.manual_seed(7)
    method = AGW(3, (), **SMALL)
    stamp = initial_weights(method, (), str(source))
    return method.embedder.state_dict(), stamp


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())


def test_a_run_folder_and_its_file(run: RunFolder) -> None:
    state, stamp = started(run.path)
    assert same(state, embedder_of(run)) and stamp["init"].startswith("run/embedder.safetensors (sha256 ")
    state, stamp = started(run.path / "embedder.safetensors")
    assert same(state, embedder_of(run)) and stamp["init"].startswith("embedder.safetensors (sha256 ")


def test_a_bundle(run: RunFolder, tmp_path: Path) -> None:
    bundle = export_bundle(run, tmp_path / "bundle", onnx=False)
    assert same(started(bundle.path)[0], embedder_of(run))


def test_a_checkpoint_of_a_run(run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    method = AGW(3, (), **SMALL)
    method.embedder.load_state_dict(embedder_of(run))
    state = {"format": 1, "method": method.state_dict(), "optimizers": {}, "finished": True}
    torch.save(state, tmp_path / "last.pt")
    with caplog.at_level(logging.INFO):
        assert same(started(tmp_path / "last.pt")[0], embedder_of(run))
        assert "last step" not in caplog.text
        torch.save({**state, "reported": {"mix": 1.0, "average": None, "start": None}}, tmp_path / "last.pt")
        started(tmp_path / "last.pt")
    assert "holds the weights of the last step" in caplog.text


def test_a_run_without_an_embedder_gives_its_checkpoint(run: RunFolder, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "recipe.json").write_bytes((run.path / "recipe.json").read_bytes())
    with pytest.raises(RunError, match="its first epoch has not ended"):
        file_of(stopped)
    (stopped / "last.pt").touch()
    assert file_of(stopped) == stopped / "last.pt"


def test_a_shipped_model(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_bundle(run, tmp_path / "shipped", onnx=False)
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    (tmp_path / "here/shipped").mkdir(parents=True)  # a folder of this name, as of data, is another thing
    monkeypatch.chdir(tmp_path / "here")
    path = file_of("shipped")
    assert path == tmp_path / "shipped/embedder.safetensors" and label_of("shipped", path).startswith(
        "shipped (sha256 "
    )


def test_other_folders_and_names(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a folder without weights of vireid: expected a run folder"):
        file_of(tmp_path)
    with pytest.raises(ArgumentError, match="no weights at nothing: expected"):
        file_of("nothing")


def test_the_name_of_a_backbone_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"imagenet-resnet50-ibn-a is not on this machine.*vireid weights get imagenet-"
    ):
        initial_weights(AGW(3, (), backbone="resnet50-ibn-a"), (), "imagenet")


def test_tensors_that_are_not_used_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = write_released(tmp_path / "best.t", "module.")
    method = AGW(6, (), width=4)
    with caplog.at_level(logging.INFO):
        load(method, read(tmp_path / "best.t"))
    own = method.embedder.state_dict()
    assert own["visible.conv1.weight"].equal(state["visible_module.visible.conv1.weight"])
    assert method.classifier.weight.equal(state["classifier.weight"])
    assert f"best.t: {len(state) - len(own) - 1} tensors were not used (thermal_module.thermal.layer1" in caplog.text
