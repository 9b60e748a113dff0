"""`vireid embed --layer --backend`: one layer by the runtime that `auto` takes, all of them by torch."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from command_line import call, error_of
from small_run import make_run, write_people

from vireid import models
from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.deploy.parity import LIMIT
from vireid.deploy.runtimes import OF_ONNX, installed
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.workflows.run import Run

pytest.importorskip("onnxruntime", reason="extra: export")
pytest.importorskip("onnxscript", reason="extra: export")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, and `run` with its exported bundle."""
    folder = tmp_path_factory.mktemp("embed")
    write_people(folder / "data", {"train": 4, "test": 3})
    export_bundle(make_run(folder / "run", folder / "data"), folder / "run/bundle")
    return folder


def unit(embeddings: Embeddings) -> np.ndarray:
    return embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)


def assert_agree(made: Embeddings, expected: Embeddings) -> None:
    """Vectors of the same rows within the limit of parity.json, and far from each other between pictures."""
    assert made.table.path.tolist() == expected.table.path.tolist()
    assert np.abs(unit(made) - unit(expected)).max() <= LIMIT
    assert (unit(made) * unit(expected)).sum(1).min() >= 1 - LIMIT
    assert np.abs(unit(made)[0] - unit(made)[1:]).max(1).min() > LIMIT


@pytest.mark.parametrize("backend", [pytest.param(name, id=name) for name in (*OF_ONNX, "auto")])
@pytest.mark.parametrize("flip", [False, True])
def test_the_shipped_model_by_each_runtime(place: Path, tmp_path: Path, backend: str, flip: bool) -> None:
    if backend != "auto" and not installed(backend):
        pytest.skip(f"{backend} is not installed")
    data = ("--data", f"manifest={place / 'data'}", "--quiet", "--device", "cpu", *(["--flip"] if flip else []))
    one = call("embed", *data, "--to", tmp_path / "one", "--layer", "deployed", "--backend", backend)
    every = call("embed", *data, "--to", tmp_path / "every")
    assert one.exit_code == every.exit_code == 0, (one.output, every.output)
    config, name = Bundle.open(models.path_of("night")).config, f"neck{'@flip' if flip else ''}.npz"
    assert config.layer == "neck"
    assert [path.name for path in (tmp_path / "one/embeddings").iterdir()] == [name]
    made, expected = (Embeddings.load(tmp_path / to / "embeddings" / name) for to in ("one", "every"))
    assert_agree(made, expected)
    runtime = Bundle.open(models.path_of("night")).fastest("cpu") if backend == "auto" else backend
    assert made.stamp.get("runtime", "torch") == runtime and "runtime" not in expected.stamp
    assert {**made.stamp, "runtime": ""} == {**expected.stamp, "runtime": ""}
    assert made.similarity == expected.similarity


def test_the_log_says_what_auto_takes(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "fastest", lambda self, device: "onnxruntime")
    run, words = Run.open(place / "run"), {"progress": False, "device": "cpu"}
    with caplog.at_level(logging.INFO):
        made = run.embed(layer="deployed", **words)
        assert "layer neck is embedded by onnxruntime" in caplog.text
        caplog.clear()
        every = run.embed(**words)
        assert "onnxruntime is faster and has the deployed layer alone: --layer deployed" in caplog.text
    assert list(made) == ["neck"] and list(every) == ["neck", "pooled"]
    assert made["neck"].stamp["runtime"] == "onnxruntime" and "runtime" not in every["neck"].stamp
    assert_agree(made["neck"], every["neck"])


def test_one_layer_of_a_run_is_never_taken_for_all_of_them(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, words = Run.open(place / "run"), {"split": "train", "progress": False, "device": "cpu"}
    assert list(run.embed(layer="pooled", **words)) == ["pooled"]
    assert [path.name for path in (place / "run/embeddings").glob("*@train.npz")] == ["pooled@train.npz"]
    every = run.embed(**words)
    assert list(every) == ["neck", "pooled"]
    with caplog.at_level(logging.INFO):
        kept = run.embed(layer="pooled", **words)
    assert "up to date" in caplog.text and list(kept) == ["pooled"]
    np.testing.assert_array_equal(kept["pooled"].vectors, every["pooled"].vectors)
    assert run.embed(layer="neck", backend="onnxruntime", **words)["neck"].stamp["runtime"] == "onnxruntime"
    assert "runtime" not in run.embed(**words)["neck"].stamp


def test_a_runtime_without_the_layer_is_refused(place: Path, tmp_path: Path) -> None:
    data = ("--data", f"manifest={place / 'data'}", "--quiet")
    message = error_of(call("embed", *data, "--to", tmp_path, "--backend", "onnxruntime"), 2)
    assert "onnxruntime has the layer neck alone, not all; pass --layer deployed" in message
    assert "it has neck, pooled" in error_of(call("embed", *data, "--to", tmp_path, "--layer", "pool"), 2)
    bare = make_run(tmp_path / "run", place / "data")
    with pytest.raises(ArgumentError, match="export the run first"):
        Run.open(bare.path).embed(layer="deployed", backend="onnxruntime", progress=False)
    assert list(Run.open(bare.path).embed(layer="deployed", progress=False)) == ["neck"]
