"""Bundle: what is written, that it serves without the method through every runtime, and what damaged ones get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import make_run, write_people
from torch import Tensor, nn
from typer.testing import CliRunner

from vireid.cli.app import app
from vireid.deploy import onnx as onnx_export
from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.deploy.runtimes import OF_ONNX, installed
from vireid.errors import BundleError
from vireid.layers.embedder import Embedder
from vireid.system import file_digest
from vireid.training.run_folder import RunFolder
from vireid.types import Backend

pytest.importorskip("onnxscript", reason="extra: export")
pytest.importorskip("onnxruntime", reason="extra: export")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `run` and its `run/bundle`."""
    folder = tmp_path_factory.mktemp("bundle")
    write_people(folder / "data", {"train": 4, "test": 2})
    run = make_run(folder / "run", folder / "data")
    export_bundle(run, folder / "run/bundle")
    return folder


def batch(rows: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    return random.randint(0, 256, (rows, 3, 48, 24)).astype(np.uint8), np.arange(rows, dtype=np.int64) % 2


def copy(place: Path, to: Path) -> Path:
    """A copy of the bundle that may be damaged."""
    to.mkdir()
    for file in (place / "run/bundle").iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_files_and_config(place: Path) -> None:
    folder = place / "run/bundle"
    names = {"embedder.safetensors", "config.json", "README.md", "embedder.onnx", "parity.json"}
    assert {path.name for path in folder.iterdir()} == names
    bundle, run = Bundle.open(folder), RunFolder.open(place / "run")
    config, embedder = bundle.config, run.embedder()
    assert (config.method, config.size, config.filter, config.layer) == ("AGW", (48, 24), "lanczos", "neck")
    assert config.num_params == sum(p.numel() for p in embedder.parameters())
    assert config.digest == file_digest(place / "run/embedder.safetensors")
    assert config.trained_on.num_pids == 4 and str(config.trained_on) == "manifest: 4 people of train"
    images, modality = batch()
    with torch.no_grad():
        expected = embedder(torch.from_numpy(images), torch.from_numpy(modality)).numpy()
    assert config.dim == expected.shape[1]
    np.testing.assert_array_equal(bundle.embedder("torch", "cpu")(images, modality), expected)
    found = bundle.embedder("onnxruntime", "cpu")(images, modality)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    card = (folder / "README.md").read_text()
    assert "AGW" in card and config.digest in card and "Not evaluated yet" in card
    assert card.count("```") == 2 and f"(2, {config.dim})" in card


def test_parity_report(place: Path) -> None:
    report = json.loads((place / "run/bundle/parity.json").read_text())
    assert list(report["runtimes"]) == list(filter(installed, OF_ONNX)) and report["torch"] == torch.__version__
    for runtime in report["runtimes"].values():
        lines = runtime["batches"]
        assert [line["batch"] for line in lines] == [1, 1, 2, 7]
        assert [line["modality"] for line in lines[:3]] == [[0], [1], [1, 0]]
        for line in lines:
            assert 0 <= line["largest_difference"] < report["limit"] and line["smallest_cosine"] > 0.9999


def test_a_runtime_that_differs_stops_the_export(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = onnx_export.export_onnx

    def wrong(embedder: Embedder, size: tuple[int, int], path: Path, extras: tuple = ()) -> Path:
        embedder.mean.mul_(1.02)  # as if the normalization had been forgotten a little
        try:
            return original(embedder, size, path, extras)
        finally:
            embedder.mean.div_(1.02)

    monkeypatch.setattr(onnx_export, "export_onnx", wrong)
    with pytest.raises(BundleError, match=r"onnxruntime differs from torch by .* Nothing was written"):
        export_bundle(place / "run", tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


SERVE = """
import sys, numpy as np
from vireid.deploy.extractor import FeatureExtractor
for backend in ("torch", "onnxruntime"):
    print(FeatureExtractor(sys.argv[1], backend, "cpu")(sys.argv[2:], "auto").sum(0)[:4].round(4).tolist())
foreign = [name for name in sys.modules if name.startswith(("vireid.methods", "vireid.losses", "vireid.workflows"))]
assert not foreign, foreign
"""


def test_it_serves_without_the_method(place: Path, tmp_path: Path) -> None:
    bundle = copy(place, tmp_path / "moved")
    pictures = [str(place / "data/0_1_0.png"), str(place / "data/1_3_1.jpg")]
    words = [sys.executable, "-W", "error", "-c", SERVE, str(bundle), *pictures]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with_torch, with_onnx = (json.loads(line) for line in done.stdout.splitlines())
    np.testing.assert_allclose(with_torch, with_onnx, atol=2e-4)
    assert any(with_torch)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_threads_share_an_embedder(place: Path, backend: Backend) -> None:
    embed = Bundle.open(place / "run/bundle").embedder(backend, "cpu")
    expected = [embed(*batch(3, seed)) for seed in range(4)]
    found: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda s=s: found.update({s: embed(*batch(3, s))})) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        np.testing.assert_allclose(found[seed], expected[seed], atol=1e-5)


def test_openvino(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="extra: openvino")
    bundle = export_bundle(place / "run", tmp_path / "bundle")
    assert list(bundle.parity) == ["onnxruntime", "openvino"] and bundle.fastest("cpu") == "openvino"
    found, expected = (bundle.embedder(name, "cpu")(*batch()) for name in ("openvino", "torch"))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="OpenVINO serves on the CPU"):
        bundle.embedder("openvino", "cuda")
    # an export without it leaves no stale file behind
    again = export_bundle(place / "run", tmp_path / "bundle", onnx=False)
    assert "embedder.onnx" not in {path.name for path in again.path.iterdir()}
    assert again.parity == {} and again.fastest("cpu") == "torch"
    with pytest.raises(BundleError, match="without --no-onnx"):
        again.embedder("onnxruntime")


def test_openvino_reports_no_use_of_it(place: Path, tmp_path: Path) -> None:
    """Its package openvino_telemetry sends each import to Google Analytics, and keeps a number for that in ~/intel."""
    pytest.importorskip("openvino", reason="extra: openvino")
    code = f"""
import os, sys
forks = []
os.register_at_fork(before=lambda: forks.append(1))
from vireid.deploy.bundle import Bundle
Bundle.open({str(place / "run/bundle")!r}).embedder("openvino", "cpu")
assert "openvino" in sys.modules and not forks, forks
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_folders(place: Path, tmp_path: Path) -> None:
    def refused(folder: Path, match: str) -> None:
        with pytest.raises(BundleError, match=match):
            Bundle.open(folder)

    refused(place / "run", "is a run folder")
    refused(tmp_path / "nothing", "there is no bundle folder")
    refused(place / "data", "holds no config.json")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/last.pt").touch()
    refused(tmp_path / "half", "half is a run folder without recipe.json")
    bundle = copy(place, tmp_path / "bundle")
    with (bundle / "embedder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="does not say that onnxruntime agrees with torch"):
        Bundle.open(bundle).embedder("onnxruntime")
    (bundle / "embedder.onnx").unlink()
    with pytest.raises(BundleError, match=r"has no embedder\.onnx"):
        Bundle.open(bundle).embedder("onnxruntime")
    with pytest.raises(ValueError, match="backend is one of auto, torch, onnxruntime, openvino"):
        Bundle.open(bundle).embedder("tensorrt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used here"):
        Bundle.open(bundle).embedder("torch", "cuda:99")
    text = (bundle / "config.json").read_text()
    (bundle / "config.json").write_text(text.replace('"dim"', '"dimension"'))
    refused(bundle, r"config\.json is not what vireid \S+ reads \(dim: .*export the run again")
    (bundle / "config.json").write_text("{")
    refused(bundle, r"config\.json is not readable as JSON .*export the run again")
    (bundle / "config.json").write_text(text.replace("vireid bundle 1", "vireid bundle 9"))
    refused(bundle, r"config\.json has format 'vireid bundle 9', .* reads format 'vireid bundle 1'; export the run")
    (bundle / "config.json").write_text(text)
    with (bundle / "embedder.safetensors").open("ab") as file:
        file.write(b"\0")
    refused(bundle, "was changed after the export")
    (bundle / "embedder.safetensors").unlink()
    refused(bundle, r"has no embedder\.safetensors")


def test_only_a_bundle_is_replaced(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("important")
    with pytest.raises(BundleError, match=r"holds thesis\.txt, which is not of a bundle"):
        export_bundle(place / "run", tmp_path / "mine", onnx=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="is a file"):
        export_bundle(place / "run", tmp_path / "file", onnx=False)
    # what a killed export leaves does not stand in the way
    bundle = copy(place, tmp_path / "bundle")
    (bundle / "config.json").unlink()
    (bundle / ".embedder.onnx.partial").write_text("half")
    (tmp_path / ".bundle.draft").mkdir()
    with pytest.raises(BundleError, match="its export was stopped"):
        Bundle.open(bundle)
    export_bundle(place / "run", bundle, onnx=False)
    assert Bundle.open(bundle).config.method == "AGW" and not list(tmp_path.rglob(".*"))


def test_command(place: Path) -> None:
    words = ["export", str(place / "run"), "--to", str(place / "here"), "--no-onnx"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and f"wrote {place / 'here'}" in result.stdout, result.output
    assert Bundle.open(place / "here").parity == {}
    result = CliRunner().invoke(app, ["export", str(place / "data")])
    assert result.exit_code == 1 and "not a run folder" in result.stderr


OWN = '''
"""A method of one's own whose network is in this file."""
from torch import Tensor, nn
from vireid.layers.embedder import Embedder
from vireid.methods.agw import AGW

class Mean(Embedder):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        return {"mean": self.linear(images.mean((2, 3))) + modality[:, None]}

class Own(AGW):
    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), width: int = 4) -> None:
        super().__init__(num_pids, camids, width=width, blocks=(1, 1, 1, 1))
        self.embedder = Mean()
'''


def test_a_network_of_ones_own_serves_through_onnx(place: Path, tmp_path: Path) -> None:
    from vireid.methods import find

    (tmp_path / "own.py").write_text(OWN)
    record = RunFolder.open(place / "run").record
    model = find(str(tmp_path / "own.py"))(4, (1, 2, 3, 4), width=4)
    run = RunFolder.begin(tmp_path / "run", record.model_copy(update={"method": "Own", "settings": {"width": 4}}))
    run.save_artifact(model.embedder)
    run.save({"method": model.state_dict(), "finished": True})
    result = CliRunner().invoke(app, ["export", str(run.path)])
    assert result.exit_code == 1 and "pass --method FILE" in result.stderr
    result = CliRunner().invoke(app, ["export", str(run.path), "--method", str(tmp_path / "own.py")])
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(run.path / "bundle")
    assert (bundle.config.dim, bundle.config.layer) == (5, "mean")
    images, modality = batch()
    with torch.no_grad():
        expected = model.eval().embedder(torch.from_numpy(images), torch.from_numpy(modality)).numpy()
    np.testing.assert_allclose(bundle.embedder("onnxruntime", "cpu")(images, modality), expected, atol=1e-5)
    with pytest.raises(ValueError, match="pass --method FILE"):
        bundle.embedder("torch")
    named = Bundle.open(bundle.path, tmp_path / "own.py").embedder("torch", "cpu")
    np.testing.assert_array_equal(named(images, modality), expected)


class WithHeatmaps(Embedder):
    inputs = ("heatmaps",)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        return {"mean": self.linear(images.mean((2, 3))) + inputs[0].mean((1, 2, 3))[:, None]}


def test_inputs_of_unknown_shape_are_told(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "embedder", lambda run, device="cpu", method=None: WithHeatmaps())
    with pytest.raises(BundleError, match="also takes heatmaps, whose shape is not known"):
        export_bundle(place / "run", tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_figures_of_these_weights_stand_on_the_card(place: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    run = make_run(tmp_path / "run", place / "data", seed=1)
    done = runner.invoke(app, ["evaluate", str(run.path), "--pictures", "0", "--quiet", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    card = (export_bundle(run, tmp_path / "bundle", onnx=False).path / "README.md").read_text()
    assert "manifest/visible-to-infrared" in card and "Not evaluated yet" not in card
    with Image.open(place / "data/0_1_0.png") as picture:  # the pictures of the fixture are what they are said to be
        assert picture.mode == "RGB"
