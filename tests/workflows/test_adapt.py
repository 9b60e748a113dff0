"""`vireid adapt`: pairs in unlabeled crops, a short training on them, and what is refused."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import call, error_of
from small_run import make_run, write_people

from vireid import models
from vireid.deploy.bundle import Bundle
from vireid.deploy.model import Model
from vireid.errors import ArgumentError, RunError
from vireid.ingest.sources import Crop
from vireid.workflows import adapt as module
from vireid.workflows.adapt import PAIRS, Crops, check_held_out, groups_of, held_out
from vireid.workflows.options import AdaptOptions
from vireid.workflows.run import Run
from vireid.workflows.train import train

TINY = ("depth=6", "cells=[[4,2,1]]", "size=[64,32]", "sampler.pids=4")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`crops` of 26 people by four cameras, a list of them with tracks, and the `run` of a tiny model."""
    folder = tmp_path_factory.mktemp("adapt")
    write_people(folder / "crops", {"train": 4, "test": 22})
    make_run(folder / "run", folder / "crops", "contrast", words=TINY)
    with (folder / "crops/manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [f"crops/{row['path']},{row['camid']},{row['modality']},{row['pid']}" for row in rows]
    (folder / "crops.csv").write_text("\n".join(["path,camera,modality,track", *lines]) + "\n")
    return folder


def test_a_model_is_continued_on_pairs_and_used_by_its_path(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MIN_PAIRS", 4)
    monkeypatch.setattr(module, "MIN_HELD_OUT", 1000)
    words = ("--run", place / "mine", "--share", 0.8, "--epochs", 1, "--quiet", "--device", "cpu")
    with caplog.at_level(logging.INFO, logger="vireid"):
        done = call("adapt", place / "run", place / "crops.csv", *words)
    assert done.exit_code == 0, done.output
    assert f"--model {place / 'mine'}" in done.stdout
    with (place / "mine" / PAIRS).open() as file:
        rows = list(csv.DictReader(file))
    pids = sorted({int(row["pid"]) for row in rows})
    assert pids == list(range(len(pids))) and len(rows) == 4 * len(pids)  # two groups of two crops each
    for pid in pids:
        pair = [row for row in rows if int(row["pid"]) == pid]
        assert {(row["modality"], row["camid"]) for row in pair} <= {
            ("visible", "1"), ("visible", "2"), ("infrared", "3"), ("infrared", "4"),
        }  # fmt: skip
        assert len({row["camid"] for row in pair}) == 2 and len({row["similarity"] for row in pair}) == 1
    similarity = [float(row["similarity"]) for row in rows]
    assert similarity == sorted(similarity, reverse=True)
    assert f"the {len(pids)} most similar are taken" in caplog.text and "too few to say" in caplog.text

    record = Run.open(place / "mine").record
    assert record.init.startswith("run/embedder.safetensors") and record.last_recipe.mix == 0.5
    assert record.settings["depth"] == 6 and record.deployment.size == (64, 32)
    picture = place / "crops/0_1_0.png"
    vectors = [Model.open(place / name, device="cpu").embed([picture], "visible") for name in ("run", "mine")]
    assert 0.5 < float((vectors[0] * vectors[1]).sum()) < 0.9999
    assert "already holds a run" in error_of(call("adapt", place / "run", place / "crops.csv", *words), 1)


def test_too_few_pairs_and_other_models_are_refused(place: Path, tmp_path: Path) -> None:
    words = ("--run", tmp_path / "mine", "--quiet", "--device", "cpu")
    message = error_of(call("adapt", place / "run", place / "crops.csv", *words), 1)
    assert "expected 50 pairs or more" in message and "crops" in message and "docs/train/adapt.md" in message
    few = (place / "crops.csv").read_text().splitlines()[:40]
    (place / "few.csv").write_text("\n".join(few) + "\n")
    message = error_of(call("adapt", place / "run", place / "few.csv", *words), 1)
    assert "20 visible and 19 infrared rows, 50 of each modality needed" in message
    make_run(tmp_path / "agw", place / "crops")
    assert "is a model of AGW" in error_of(call("adapt", tmp_path / "agw", place / "crops.csv", *words), 2)
    assert not (tmp_path / "mine").exists()


def test_a_model_that_comes_with_vireid_is_trained_on_by_its_name(place: Path, tmp_path: Path) -> None:
    words = {"device": "cpu", "progress": False, "epochs": 0}
    run = train("thermal", f"manifest={place / 'crops'}", tmp_path / "run", **words)
    record, config = run.record, Bundle.open(models.path_of("thermal")).config
    assert record.init == f"thermal (sha256 {config.digest[:8]})" and record.method == config.method
    assert record.deployment.size == config.size and record.settings["cells"] == [[2, 16, 2], [3, 8, 2]]
    own, shipped = run.embedder().state_dict(), Bundle.open(models.path_of("thermal")).network().state_dict()
    assert own.keys() == shipped.keys() and all(own[name].equal(value) for name, value in shipped.items())
    with pytest.raises(ArgumentError, match="leave --weights imagenet out"):
        train("thermal", f"manifest={place / 'crops'}", tmp_path / "other", weights="imagenet", **words)


def test_a_result_that_finds_fewer_pairs_among_held_out_crops_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    person, modality = random.standard_normal((40, 16)), np.repeat([0, 1], 40)

    def vectors(noise: float) -> np.ndarray:
        made = np.tile(person, (2, 1)) + noise * random.standard_normal((80, 16))
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    crops = Crops([Crop(str(row), Path("x.jpg"), "c") for row in range(80)], vectors(0.5), modality, np.arange(80))
    made: Any = SimpleNamespace(path=Path("runs/mine"))
    monkeypatch.setattr(module, "bundle_of", lambda path: path)
    for noise, worse in ((0.01, False), (5.0, True)):
        monkeypatch.setattr(module, "embedded", lambda listed, *more, n=noise: (listed, vectors(n), modality))
        with caplog.at_level(logging.INFO, logger="vireid"):
            if not worse:
                check_held_out("night", made, crops, AdaptOptions())
                assert "40 with the run" in caplog.text
                continue
            with pytest.raises(RunError, match=r"runs/mine is probably no better than night[^$]*Keep night"):
                check_held_out("night", made, crops, AdaptOptions())


def test_a_quarter_of_the_groups_is_held_out() -> None:
    group = np.repeat(np.arange(1000), 3)
    out = held_out(group, seed=0)
    assert 0.2 < out.mean() < 0.3 and np.array_equal(out, held_out(group, seed=0))
    assert all(len(set(part)) == 1 for part in out.reshape(1000, 3))


def test_groups_are_the_tracks_or_names_of_one_camera_and_modality() -> None:
    listed = [
        ("a", "1", ""),
        ("a", "1", ""),
        ("b", "1", ""),
        ("a", "", "1"),
        ("a", "", "1"),
        ("a", "", ""),
        ("a", "", ""),
    ]
    crops = [
        Crop(str(row), Path("x.jpg"), camera, track=track, pid=pid) for row, (camera, track, pid) in enumerate(listed)
    ]
    assert groups_of(crops, np.zeros(7, np.int64)).tolist() == [0, 0, 1, 2, 2, 3, 4]
    assert groups_of(crops[:2], np.array([0, 1])).tolist() == [0, 1]
