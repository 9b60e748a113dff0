"""`embed`, `evaluate` and `calibrate` without a run: with the model that comes with vireid, and with a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call, error_of
from small_run import make_run, write_people

from vireid import models
from vireid.deploy.bundle import Bundle
from vireid.deploy.calibration import Calibration
from vireid.deploy.export import export_bundle
from vireid.evaluation.embed import Embeddings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `run` and its `bundle`."""
    folder = tmp_path_factory.mktemp("model_use")
    write_people(folder / "data", {"train": 4, "test": 20})
    export_bundle(make_run(folder / "run", folder / "data"), folder / "bundle", onnx=False)
    return folder


def test_the_default_model_embeds_and_is_evaluated(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--data", f"manifest={place / 'data'}", "--quiet", "--device", "cpu")
    done = call("evaluate", *words, "--pictures", 2, "--format", "json")
    assert done.exit_code == 0, done.output
    folder, digest = Path("runs/manifest/night"), Bundle.open(models.path_of("night")).config.digest
    assert {path.name for path in folder.iterdir()} == {"results.json", "table.md", "queries.csv", "figures"}
    table = (folder / "table.md").read_text("utf-8")
    assert "model: night" in table and f"embedder: {digest[:8]}" in table and "not on this data" in table
    done = call("embed", *words, "--to", tmp_path / "mine")
    assert done.exit_code == 0, done.output
    layers = sorted((tmp_path / "mine/embeddings").glob("*.npz"))
    assert layers and all(len(Embeddings.load(path)) == 20 * 8 for path in layers)


def test_a_copy_of_the_model_is_calibrated(place: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in models.path_of("night").iterdir()}
    words = ("--data", f"manifest={place / 'data'}", "--quiet", "--device", "cpu")
    done = call("calibrate", *words, "--to", tmp_path / "mine")
    assert done.exit_code == 0, done.output
    assert before == {path.name: path.read_bytes() for path in models.path_of("night").iterdir()}
    copy = Bundle.open(tmp_path / "mine")
    assert copy.config == Bundle.open(models.path_of("night")).config
    assert Calibration.load(copy.path, copy.config.digest).dataset == "manifest"


def test_a_bundle_and_a_run_are_models_too(place: Path, tmp_path: Path) -> None:
    words = ("--quiet", "--device", "cpu", "--pictures", 0, "--format", "json", "--center")
    data = ("--data", f"manifest={place / 'data'}")
    of_bundle = call("evaluate", "--model", place / "bundle", *data, "--to", tmp_path / "of_bundle", *words)
    of_run = call("evaluate", "--model", place / "run", *words)
    assert of_bundle.exit_code == 0 and of_run.exit_code == 0, (of_bundle.output, of_run.output)
    figures = [
        [{key: value for key, value in row.items() if key != "stamp"} for row in json.loads(done.stdout)]
        for done in (of_bundle, of_run)
    ]
    assert figures[0] == figures[1] and figures[0] and (place / "run/results.json").is_file()
    for done in (of_bundle, of_run):
        assert all(row["stamp"]["center"].startswith("mean of each modality") for row in json.loads(done.stdout))
    assert "not on this data" not in (tmp_path / "of_bundle/table.md").read_text("utf-8")


def test_what_does_not_go_together_is_refused(place: Path, tmp_path: Path) -> None:
    assert "pass --data" in error_of(call("evaluate"), 2)
    assert "not both" in error_of(call("evaluate", place / "run", "--model", "night"), 2)
    assert "--to belongs to --model" in error_of(call("embed", place / "run", "--to", tmp_path), 2)
    data = ("--data", f"manifest={place / 'data'}")
    assert "name the run" in error_of(call("evaluate", *data, "--refine", place / "run"), 2)
    assert "did you mean night" in error_of(call("evaluate", *data, "--model", "nigth"), 1)
