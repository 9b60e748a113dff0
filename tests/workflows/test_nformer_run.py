"""NFormer as a run: two processes, and the command line from a base to refined figures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import TINY as AGW_TINY
from command_line import call, error_of, write_manifest
from small_training import PIDS, table, torchrun
from torch import Tensor

from vireid import distributed
from vireid.data import datasets
from vireid.data.pipeline import TrainingData
from vireid.data.samplers import IdentityBatches
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.results import Results
from vireid.method import Progress, Recipe
from vireid.methods.nformer import NearbySets, NFormer
from vireid.training.loop import train
from vireid.training.optim import Constant


def recipes() -> tuple[Recipe, ...]:
    assert isinstance(NFormer.recipe, tuple)
    first, second = (replace(r, epochs=2, schedule=Constant()) for r in NFormer.recipe)
    return replace(first, sampler=IdentityBatches(4, 2)), replace(second, sampler=NearbySets(12, 2, 8))


def base(folder: Path) -> str:
    """A file of vectors of the small table's rows."""
    vectors = np.random.RandomState(0).randn(len(table()), 16).astype(np.float32)
    return str(Embeddings(vectors, table()).save(folder / "vectors.npz"))


# --- two processes ----------------------------------------------------------------------------------------------------


def trained(folder: Path, run: str) -> dict[str, Tensor]:
    """The state in float64 after two epochs of each stage."""
    torch.manual_seed(0)
    method = NFormer(PIDS, (1, 2), base=str(folder / "vectors.npz"), **NFormer.tiny).double()  # pyright: ignore
    given = TrainingData(table(), rank=distributed.rank(), world=distributed.world(), progress=False)
    train(method, given, folder / run, recipes=recipes(), progress=False)
    return method.state_dict()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    base(tmp_path)
    torchrun(str(Path(__file__)), str(tmp_path))
    found, one = torch.load(tmp_path / "two.pt", weights_only=True), trained(tmp_path, "one")
    for key, value in one.items():
        torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


# --- command line -----------------------------------------------------------------------------------------------------

WORDS = ("width=8", "depth=2", "landmarks=2", "k=4", "k_cross=2", "epochs=1", "sampler.length=4", "sampler.pids=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest in `data`, a tiny AGW in `agw` and an NFormer on it in `nformer`."""
    folder = tmp_path_factory.mktemp("nformer")
    (folder / "data").mkdir()
    write_manifest(folder / "data")
    shared = ("--data", folder / "data", "--device", "cpu", "--quiet")
    assert call("train", "agw", "--no-evaluate", *shared, "--run", folder / "agw", *AGW_TINY).exit_code == 0
    done = call(
        "train", "nformer", "--no-evaluate", *shared, "--run", folder / "nformer", f"base={folder / 'agw'}", *WORDS
    )
    assert done.exit_code == 0, done.output
    assert "from scratch" not in done.stderr
    return folder


def test_run_folder(place: Path) -> None:
    about = json.loads((place / "nformer" / "recipe.json").read_text())
    agw = json.loads((place / "agw" / "recipe.json").read_text())
    assert about["base"]["method"] == "AGW" and about["base"]["data"] == about["data"] == agw["data"]
    assert about["base"]["dim"] == 128 and len(about["base"]["embedder"]) == 8
    assert about["init"] == "embeddings of AGW (from scratch)"
    assert len(list((place / "agw" / "embeddings").glob("neck@frozen-*.npz"))) == 1
    assert sorted(p.name for p in (place / "nformer").iterdir() if p.is_file()) >= ["last.pt", "log.jsonl"]


def test_evaluate_refines_the_base_and_any_other_run(place: Path, tmp_path: Path) -> None:
    words = ("--quiet", "--pictures", 2, "--protocol", "manifest/infrared-to-visible")
    for run in ("agw", "nformer"):
        done = call("evaluate", place / run, *words)
        assert done.exit_code == 0, done.output
    assert "refine: nformer (transductive)" in done.stdout
    done = call("evaluate", place / "agw", "--refine", place / "nformer", *words)
    assert done.exit_code == 0, done.output
    own, refined = (Results.load(place / run / "results.json").rows for run in ("nformer", "agw"))
    assert [row.stamp["refine"] for row in refined] == ["nformer (transductive)", "none"]
    assert own[0].metrics == refined[0].metrics
    assert own[0].stamp["method"] == "NFormer" and refined[0].stamp["method"] == "AGW"
    assert own[0].stamp["embedder"] == refined[0].stamp["embedder"] == refined[1].stamp["embedder"]
    assert own[0].stamp["refiner"] == refined[0].stamp["refiner"] and "refiner" not in refined[1].stamp
    assert (place / "nformer" / "figures" / "ranked-manifest-infrared-to-visible.png").exists()
    names = {p.name for p in (place / "agw" / "figures").iterdir()}
    assert names == {"ranked-manifest-infrared-to-visible.png", "ranked-manifest-infrared-to-visible@refined.png"}
    shown = call("results", place / "agw", place / "nformer").stdout
    assert "| NFormer | manifest/infrared-to-visible |" in shown and shown.count("| AGW |") == 2
    assert "nformer (transductive)" in (place / "nformer" / "table.md").read_text()
    assert call("evaluate", place / "nformer", *words).exit_code == 0
    assert len(Results.load(place / "nformer" / "results.json").rows) == 1  # measured again, not twice

    words = ("--strict", "--ignore", "frame", "--pictures", 0, "--rerank", "k-reciprocal", "--k1", 3, "--k2", 2)
    done = call("evaluate", place / "nformer", *words, "--quiet")
    assert done.exit_code == 0 and "ignored images are no neighbors" in done.stdout, done.output
    assert "k-reciprocal" in done.stdout
    assert "refines the embeddings of" in call("embed", place / "nformer", "--quiet").stderr

    write_manifest(tmp_path, people=8, seed=1)
    done = call("evaluate", place / "nformer", "--data", tmp_path, "--cross", "--pictures", 0, "--quiet")
    assert done.exit_code == 0 and "trained on: manifest, not on this data" in done.stdout, done.output


def test_another_network_is_stamped_and_other_people_are_refused(place: Path, tmp_path: Path) -> None:
    shared = ("--device", "cpu", "--quiet")
    done = call("train", "cajl", "--data", place / "data", "--run", tmp_path / "cajl", *shared, *AGW_TINY)
    assert done.exit_code == 0, done.output
    done = call("evaluate", tmp_path / "cajl", "--refine", place / "nformer", "--quiet", "--pictures", 0)
    assert done.exit_code == 0 and "refiner trained on: embeddings of AGW" in done.stdout, done.output

    (tmp_path / "data").mkdir()
    write_manifest(tmp_path / "data", people=8)
    other = ("--data", tmp_path / "data", "--run", tmp_path / "other", *shared, *AGW_TINY)
    assert call("train", "agw", "--no-evaluate", *other).exit_code == 0
    words = ("--data", place / "data", "--run", tmp_path / "new", *WORDS, *shared, f"base={tmp_path / 'other'}")
    message = error_of(call("train", "nformer", "--no-evaluate", *words), 1)
    assert "was trained on manifest with training rows" in message and not (tmp_path / "new").exists()
    message = error_of(call("evaluate", tmp_path / "other", "--refine", place / "nformer", "--quiet"), 1)
    assert "--cross" in message and "may be those that the other was trained on" in message


def test_augmented_pictures_and_selection(place: Path, tmp_path: Path) -> None:
    shared = ("--data", place / "data", "--run", tmp_path / "run", "--device", "cpu", "--quiet")
    done = call(
        "train",
        "nformer",
        "--no-evaluate",
        *shared,
        f"base={place / 'agw'}",
        "augment=true",
        *WORDS,
        "--select",
        "test",
    )
    assert done.exit_code == 0, done.output
    done = call("evaluate", tmp_path / "run", "--quiet", "--pictures", 0)
    assert done.exit_code == 0 and "checkpoint: test set (not for publication)" in done.stdout
    assert (tmp_path / "run" / "best.pt").exists()


def test_augmented_vectors_are_the_embedders(place: Path) -> None:
    method = NFormer(3, (1, 2), base=str(place / "agw"), augment=True, **{**NFormer.tiny, "landmarks": 2})
    assert method.base.run is not None
    rows = datasets.load(f"manifest={place / 'data' / 'manifest.csv'}").where("train")
    given = TrainingData(rows, cache_folder=place / "cache", progress=False)
    first, second = recipes()
    at = Progress()
    batches = list(method.batches(given, replace(first, sampler=IdentityBatches(3, 2)), at))
    assert len(batches) == at.iterations_per_epoch and batches[0].images.shape == (12, 128)
    frozen = torch.from_numpy(method.base.embeddings(rows).vectors)
    assert float((torch.cdist(batches[0].images, frozen).amin(1) > 1e-3).double().mean()) > 0.5  # changed pictures
    sets = next(method.batches(given, replace(second, sampler=NearbySets(5, 2, 2)), Progress(1)))
    assert sets.images.shape == (10, 8) and sets.extras["landmark"].shape == (10, 2)


def test_runs_that_do_not_refine_or_are_gone(place: Path, tmp_path: Path) -> None:
    assert "does not refine" in error_of(call("evaluate", place / "agw", "--refine", place / "agw", "--quiet"), 1)
    assert "belongs to refinement" in error_of(call("evaluate", place / "agw", "--strict", "--quiet"), 2)
    assert "leave --layer out" in error_of(call("evaluate", place / "nformer", "--layer", "pooled", "--quiet"), 2)
    assert "refines by itself" in error_of(
        call("evaluate", place / "nformer", "--refine", place / "nformer", "--quiet"), 1
    )
    assert "`base` has no default" in error_of(
        call("train", "nformer", "--no-evaluate", "--data", place / "data", "--quiet"), 2
    )
    words = ("--data", place / "data", "--run", tmp_path / "new", "--quiet")
    assert "refines another run itself" in error_of(
        call("train", "nformer", "--no-evaluate", *words, f"base={place / 'nformer'}"), 1
    )
    about = json.loads((place / "nformer" / "recipe.json").read_text())
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "refiner.safetensors").write_bytes((place / "nformer" / "refiner.safetensors").read_bytes())
    for change, message in (
        ({"path": str(tmp_path / "gone")}, "is not there any more. To refine another run"),
        ({"embedder": "00000000"}, "when its embedder was 00000000"),
        ({"file": "00000000"}, "a file of embeddings"),
    ):
        (moved / "recipe.json").write_text(json.dumps({**about, "base": {**about["base"], **change}}))
        assert message in error_of(call("evaluate", moved, "--quiet"), 1)
    (moved / "refiner.safetensors").unlink()
    (moved / "recipe.json").write_text(json.dumps(about))
    assert "holds no refiner.safetensors yet" in error_of(call("evaluate", moved, "--quiet"), 1)


if __name__ == "__main__":  # started by torchrun
    torch.set_num_threads(1)
    distributed.start()
    state = trained(Path(sys.argv[1]), "two")
    if distributed.is_main():
        torch.save(state, Path(sys.argv[1]) / "two.pt")
    distributed.stop()
