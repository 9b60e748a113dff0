"""A network of the user's own file: every command takes its run, and no other file runs its code by itself."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from command_line import call, error_of, write_manifest

import vireid
from vireid.deploy.bundle import Bundle
from vireid.errors import ArgumentError, WeightsError
from vireid.evaluation.results import Results
from vireid.layers.embedder import load_embedder
from vireid.methods import _two_stream, find
from vireid.own_files import PREFIX, import_file
from vireid.training.run_folder import RunFolder
from vireid.workflows.service import open_service

WORDS = ("width=2", "size=[32,16]", "sampler.pids=2", "sampler.images=2")
QUIET = ("--device", "cpu", "--quiet")
PAGES = ("add-a-method.md", "add-a-method.zh.md")
COUNTED = "import sys\nsys.counted = getattr(sys, 'counted', 0) + 1\n"  # how often a file runs


def example(page: str = PAGES[0]) -> str:
    """small.py of the page on methods."""
    text = (Path(__file__).parents[1] / "docs" / "learn" / page).read_text("utf-8")
    code = re.search(r"cat > small.py <<'END'\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    assert code is not None
    return code[1]


def run_of(method: object, data: Path, run: Path, *words: object) -> Path:
    """A run that the command line trained without evaluating it."""
    done = call("train", method, "--data", data, "--run", run, "--no-evaluate", *QUIET, *WORDS, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, small.py, and its run in run/; no test changes them."""
    folder = tmp_path_factory.mktemp("own_network")
    (folder / "data").mkdir()
    write_manifest(folder / "data")
    (folder / "small.py").write_text(example())
    run_of(folder / "small.py", folder / "data", folder / "run", "epochs=1")
    return folder


@pytest.fixture
def moved(place: Path, tmp_path: Path) -> Path:
    """A run whose file lies in another folder than it says."""
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.copy(place / "small.py", tmp_path / "elsewhere.py")
    path = tmp_path / "run/recipe.json"
    about = json.loads(path.read_text())
    about["method_file"]["path"] = str(tmp_path / "small.py")
    path.write_text(json.dumps(about))
    return tmp_path


def test_the_page_shows_a_complete_one_in_fewer_than_sixty_lines() -> None:
    codes = [example(page) for page in PAGES]
    assert codes[0] == codes[1] and len(codes[0].splitlines()) < 60 and "two_stream" not in codes[0]


def test_every_command_takes_its_run(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    pictures = ("--pictures", 0, *QUIET)
    done = call("evaluate", run, *pictures, "--format", "md")
    assert done.exit_code == 0 and "Small" in done.stdout, done.output
    assert Results.load(run / "results.json").rows[0].stamp["layer"] == "neck"
    for words in (("embed", run, "--split", "train", *QUIET), ("report", run), ("calibrate", run, *QUIET)):
        done = call(*words)
        # a few pictures cannot support a threshold, which calibrate says after it has embedded them
        assert done.exit_code == 0 or (words[0] == "calibrate" and "pairs" in done.stderr), done.output
    assert str(place / "small.py") in (run / "report.html").read_text()
    done = call(
        "index",
        place / "data",
        "--model",
        run,
        "--gallery",
        tmp_path / "night",
        "--modality",
        "visible",
        "--device",
        "cpu",
    )
    assert done.exit_code == 0 and "added 24 pictures" in done.stdout, done.output
    service = open_service(run, str(tmp_path / "night"), device="cpu")
    assert service.bundle.config.dim == 16 and service.attention is not None and not service.attention.reason
    service.archive.close()


def test_its_onnx_file_equals_torch(place: Path, tmp_path: Path) -> None:
    done = call("export", place / "run", "--to", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    bundle = Bundle.open(tmp_path / "bundle")
    compared = bundle.parity["onnxruntime"].model_extra
    assert compared and compared["batches"] and "small.py" in (tmp_path / "bundle/README.md").read_text()
    assert str(place) not in (tmp_path / "bundle/embedder.safetensors").read_bytes().decode("latin-1")
    words = (
        "index",
        place / "data",
        "--model",
        tmp_path / "bundle",
        "--gallery",
        tmp_path / "night",
        "--device",
        "cpu",
    )
    words = (*words, "--modality", "visible")
    error = error_of(call(*words, "--backend", "torch"), 1)
    assert "holds the network Net of your own (small.py)" in error and "--method FILE" in error
    assert call(*words, "--backend", "onnxruntime").exit_code == 0
    done = call(*words, "--method", place / "small.py")
    assert done.exit_code == 0 and "24 were in the gallery" in done.stdout and "--method" in done.stdout, done.output
    picture = next(file for file in (place / "data").rglob("*") if file.suffix in (".png", ".jpg", ".bmp"))
    asked = ("search", picture, "--gallery", tmp_path / "night", "--model", tmp_path / "bundle", "--backend", "torch")
    assert "--method FILE" in error_of(call(*asked), 1)
    assert call(*asked, "--method", place / "small.py").exit_code == 0


def test_a_file_alone_runs_no_code(place: Path, tmp_path: Path) -> None:
    file, network = tmp_path / "counted.py", place / "run/embedder.safetensors"
    file.write_text(COUNTED + example())
    before = getattr(sys, "counted", 0)
    with pytest.raises(WeightsError, match="run only where you name it: pass --method FILE"):
        load_embedder(network)
    with pytest.raises(WeightsError, match=r"nowhere\.py is not there"):
        load_embedder(network, method="nowhere.py")
    assert getattr(sys, "counted", 0) == before
    images, modality = torch.zeros(1, 3, 32, 16, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    vectors = [load_embedder(network, method=one)(images, modality) for one in (file, find(file), str(file))]
    assert vectors[0].equal(vectors[1]) and vectors[0].equal(vectors[2]) and vars(sys)["counted"] == before + 1
    (tmp_path / "other.py").write_text("class Other:\n    pass\n")
    with pytest.raises(WeightsError, match=r"other\.py does not define"):
        load_embedder(network, method=tmp_path / "other.py")


def test_a_file_that_moved_is_required_by_name(moved: Path) -> None:
    words = ("embed", moved / "run", *QUIET)
    error = error_of(call(*words), 1)
    assert f"{moved / 'small.py'} is not there; pass --method FILE" in error
    assert "small.py, which is not there; name its file" in error_of(
        call("train", "--resume", "--run", moved / "run"), 1
    )
    assert call(*words, "--method", moved / "elsewhere.py").exit_code == 0
    assert call("export", moved / "run", "--no-onnx", "--method", moved / "elsewhere.py").exit_code == 0


def test_a_file_that_changed_is_a_warning(moved: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = moved / "small.py"
    path.write_text(example() + "\n# changed\n")
    assert call("embed", moved / "run", *QUIET).exit_code == 0
    assert f"{path} has changed since" in caplog.text
    caplog.clear()
    done = call("train", "--resume", "--run", moved / "run", "epochs=2", "--no-evaluate", *QUIET)
    assert done.exit_code == 0 and f"{path} has changed since the training" in caplog.text, done.output
    assert RunFolder.open(moved / "run").checkpoint()["progress"]["epoch"] == 2
    path = path.with_name("other.py")
    path.write_text(example().replace("BatchNorm1d(channels[-1])", "BatchNorm1d(channels[-1], affine=False)"))
    assert "does not fit Net as" in error_of(call("embed", moved / "run", "--split", "train", "--method", path), 1)


def test_a_network_that_its_settings_do_not_build_is_refused_before_the_training(place: Path, tmp_path: Path) -> None:
    text = example().replace("Net(self.settings)", "Net(3, **vars(self.settings))")
    text = text.replace(
        "def __init__(self, settings=None, **words)", "def __init__(self, parts, settings=None, **words)"
    )
    (tmp_path / "strict.py").write_text(text)
    words = ("train", tmp_path / "strict.py", "--data", place / "data", "--run", tmp_path / "run", *QUIET, *WORDS)
    assert "has to be rebuilt from its file by Net(**settings)" in error_of(call(*words), 1)
    (tmp_path / "wider.py").write_text(example().replace("Net(self.settings)", "Net(width=2 * self.settings.width)"))
    wider = tmp_path / "wider.py"
    assert run_of(wider, place / "data", tmp_path / "wider", "epochs=0")  # what it was built with is what is recorded
    line = "Net(self.settings)\n"
    later = example().replace(line, f"{line}        self.embedder.trunk[0] = nn.Conv2d(3, 2, 5, 2, 2)\n")
    (tmp_path / "later.py").write_text(later)
    words = ("train", tmp_path / "later.py", *words[2:])
    assert "differs in trunk.0.weight" in error_of(call(*words), 1) and not (tmp_path / "run").exists()


# --- files beside it --------------------------------------------------------------------------------------------------


def test_files_of_two_folders_import_their_own_neighbors(place: Path, tmp_path: Path) -> None:
    imports, _, rest = example().partition("@settings\n")
    net, _, method = rest.partition("class Small(")
    late = (
        "\n    def after_step(self, at):\n        import mine_numbers\n        self.watch['bias'] = mine_numbers.BIAS\n"
    )
    beside = "import calendar\nfrom mine_layers import Net, NetSettings, mine_numbers\nassert calendar.month_name\n"
    for name, bias in (("a", 0.0), ("b", 1.0)):
        folder = tmp_path / name
        (folder / "nets").mkdir(parents=True)
        (folder / "nets/deep.py").write_text(f"BIAS = {bias}\n")
        (folder / "mine_numbers.py").write_text(f"from nets.deep import BIAS\nNAME = {name!r}\n")
        (folder / "mine_layers.py").write_text(f"{imports}import mine_numbers\n@settings\n{net}")
        (folder / "calendar.py").write_text("raise ValueError('not the standard library')\n")
        (folder / "mine.py").write_text(f"{imports}{beside}NAME = mine_numbers.NAME\n\nclass Small({method}{late}")
    before = set(sys.modules)
    words = ("--data", place / "data", "--run", tmp_path / "compared", "--seeds", 1, "epochs=1", *WORDS)
    words = (*words, "--protocol", "manifest/infrared-to-visible", "--device", "cpu", "--format", "md")
    done = call("compare", tmp_path / "a/mine.py", tmp_path / "b/mine.py", *words)
    assert done.exit_code == 0, (done.output, done.exception)
    for name, bias in (("a", 0.0), ("b", 1.0)):
        run = RunFolder.open(tmp_path / f"compared/data/{name}-mine/0")
        (line,) = [json.loads(one) for one in (run.path / "log.jsonl").read_text().splitlines()]
        assert line["watch"]["bias"] == bias
        assert Path(sys.modules[type(run.embedder()).__module__].__file__ or "") == tmp_path / name / "mine_layers.py"
        assert name == import_file(tmp_path / name / "mine.py").NAME
    new = {name for name in set(sys.modules) - before if "mine" in name or "deep" in name}
    assert new and all(name.startswith(PREFIX) for name in new) and str(tmp_path / "a") not in sys.path


def test_a_folder_of_other_files_does_not_hide_a_package(tmp_path: Path) -> None:
    (tmp_path / "yaml").mkdir()  # no package: no __init__.py
    (tmp_path / "my-file.py").write_text("import yaml\nfrom . import beside\nloads = yaml.safe_load\n")
    (tmp_path / "beside.py").write_text("import vireid\n")
    module = import_file(tmp_path / "my-file.py")
    assert module.loads("1") == 1 and module.beside.vireid is vireid


# --- a method of vireid on it, a class, no epoch ----------------------------------------------------------------------


def test_a_method_of_vireid_does_not_build_its_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_two_stream, "TwoStream", None)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from vireid.layers.embedder import Embedder\n"
        "from vireid.methods.cajl import CAJL\n\n"
        "class Net(Embedder):\n"
        "    dim = 3\n"
        "class Mine(CAJL):\n"
        "    def build_embedder(self):\n"
        "        return Net()\n"
    )
    method = find(tmp_path / "mine.py")(5)
    assert type(method.embedder).__name__ == "Net" and method.state_dict()["classifier.weight"].shape == (5, 3)


def test_the_run_of_a_class_evaluates_without_a_file(place: Path, tmp_path: Path) -> None:
    kind = find(place / "small.py")
    words = {"width": 2, "size": (32, 16), "sampler.pids": 2, "sampler.images": 2, "epochs": 0}
    run = vireid.train(kind, place / "data", tmp_path / "run", progress=False, device="cpu", **words)
    shutil.move(tmp_path / "run", tmp_path / "again")
    assert run.method is kind and RunFolder.open(tmp_path / "again").embedder(method=kind)


def test_no_epoch_saves_the_start_and_may_be_continued(place: Path, tmp_path: Path) -> None:
    start = run_of(place / "small.py", place / "data", tmp_path / "start", "epochs=0")
    torch.manual_seed(0)
    fresh = find(place / "small.py")(3, (1, 2), width=2)
    saved = RunFolder.open(start).embedder().state_dict()
    assert RunFolder.open(start).finished and (start / "log.jsonl").read_text() == ""
    assert all(torch.equal(value, saved[name]) for name, value in fresh.embedder.state_dict().items())
    done = call("evaluate", start, "--pictures", 0, *QUIET, "--format", "md")
    assert done.exit_code == 0 and "checkpoint: the start, not trained" in done.stdout, done.output
    done = call("train", "--resume", "--run", start, "epochs=1", "--no-evaluate", *QUIET)
    assert done.exit_code == 0, done.output
    trained, direct = (RunFolder.open(path).embedder().state_dict() for path in (start, place / "run"))
    assert all(torch.equal(trained[name], direct[name]) for name in direct)


def test_no_epoch_of_a_method_of_vireid_and_no_selection(place: Path, tmp_path: Path) -> None:
    words = ("--data", place / "data", *QUIET, "blocks=[1,1,1,1]", "width=2", "size=[32,16]", "sampler.pids=2")
    done = call("train", "agw", "--run", tmp_path / "run", *words, "epochs=0", "mix=0.5", "ema=0.9")
    assert done.exit_code == 0 and "not trained" in done.output, done.output
    refused = call("train", "agw", "--run", tmp_path / "best", *words, "epochs=0", "--select", "test")
    assert "leave --select out" in error_of(refused, ArgumentError.exit_code)
