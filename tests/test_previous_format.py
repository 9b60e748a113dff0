"""Folders that version 0.1.0 wrote (golden/v0_1) open with today's code and give the figures of that version."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call

from vireid.deploy.bundle import Bundle
from vireid.deploy.calibration import Calibration
from vireid.deploy.extractor import FeatureExtractor
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.results import Results
from vireid.layers.embedder import load_embedder
from vireid.layers.refiner import load_refiner
from vireid.search.archive import Archive, files_of
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.search.searcher import Searcher

RECORDED = Path(__file__).parent / "golden/v0_1/recorded.tar.xz"
RECORDED_IN = "/srv/vireid-0.1"
METHODS = (
    "agw", "cajl", "cajl_plus", "cmlspge", "cmtr", "d2rl", "hicmd", "maum", "mclnet", "mpanet", "msclnet", "nformer",
    "spot",
)  # fmt: skip
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32 through another build of torch


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded folders, whose runs name this place; tests only read here."""
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(RECORDED) as archive:
        if hasattr(tarfile, "data_filter"):  # not in the first releases of Python 3.11
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    for recipe in folder.glob("*/recipe.json"):
        text = recipe.read_text()
        assert RECORDED_IN in text
        recipe.write_text(text.replace(RECORDED_IN, str(folder)))
    return folder


@pytest.fixture
def recorded(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of the recorded folders that a test may write into."""
    folder = tmp_path / "recorded"
    shutil.copytree(unpacked, folder)
    for recipe in folder.glob("*/recipe.json"):
        recipe.write_text(recipe.read_text().replace(str(unpacked), str(folder)))
    return folder


def figures(run: Path) -> list[tuple]:
    """Protocol, trial, rank 1, mAP, mINP and similarity of each row of results.json."""
    rows = Results.load(run / "results.json").rows
    return [
        (row.protocol, row.trial, row.metrics.rank1, row.metrics.mAP, row.metrics.mINP, row.stamp["similarity"])
        for row in rows
    ]


def test_the_embedder_of_a_run_gives_the_recorded_vectors(recorded: Path) -> None:
    files = sorted(path.name for path in (recorded / "agw/embeddings").glob("*.npz") if "@" not in path.name)
    assert files == ["neck.npz", "pooled.npz"]
    expected = {name: Embeddings.load(recorded / "agw/embeddings" / name) for name in files}
    shutil.rmtree(recorded / "agw/embeddings")
    done = call("embed", recorded / "agw", "--device", "cpu", "--quiet")
    assert done.exit_code == 0, done.output
    for name, old in expected.items():
        new = Embeddings.load(recorded / "agw/embeddings" / name)
        assert list(new.table.path) == list(old.table.path)
        np.testing.assert_allclose(new.vectors, old.vectors, **CLOSE)


@pytest.mark.parametrize("name", ["agw", "nformer"])
def test_a_run_is_evaluated_to_the_recorded_figures(recorded: Path, name: str) -> None:
    expected = figures(recorded / name)
    shutil.rmtree(recorded / "agw/embeddings")
    (recorded / name / "results.json").unlink()
    done = call("evaluate", recorded / name, "--device", "cpu", "--quiet", "--pictures", 0)
    assert done.exit_code == 0, done.output
    assert figures(recorded / name) == expected and len(expected) == 3


def test_recorded_figures_join_one_table(unpacked: Path) -> None:
    done = call("results", unpacked / "agw", unpacked / "nformer", "--format", "csv")
    assert done.exit_code == 0, done.output
    assert "AGW" in done.stdout and "NFormer" in done.stdout


def test_an_interrupted_training_resumes(recorded: Path) -> None:
    words = ("width=1", "blocks=[1,1,1,1]", "size=[48,24]", "attention=false", "sampler.pids=2", "sampler.images=2")
    shared = ("--data", f"manifest={recorded / 'data'}", "--device", "cpu", "--quiet", "--run", recorded / "stopped")
    done = call("train", "agw", *shared, "--resume", *words, "epochs=2")
    assert done.exit_code == 0, done.output
    state = torch.load(recorded / "stopped/last.pt", weights_only=True)
    assert state["finished"] and (recorded / "stopped/embedder.safetensors").is_file()


def test_an_interrupted_training_resumes_by_its_folder_alone(recorded: Path) -> None:
    done = call("train", "--resume", "--run", recorded / "stopped", "--device", "cpu", "--quiet", "--no-evaluate")
    assert done.exit_code == 0, done.output
    assert torch.load(recorded / "stopped/last.pt", weights_only=True)["finished"]


def test_a_run_is_exported(recorded: Path) -> None:
    done = call("export", recorded / "agw", "--to", recorded / "exported", "--no-onnx")
    assert done.exit_code == 0, done.output
    old, new = Bundle.open(recorded / "agw/bundle").config, Bundle.open(recorded / "exported").config
    assert (new.digest, new.size, new.filter, new.layer) == (old.digest, old.size, old.filter, old.layer)
    assert (recorded / "exported/calibration.json").is_file()


def test_a_bundle_extracts_the_recorded_vectors(unpacked: Path) -> None:
    extractor = FeatureExtractor(Bundle.open(unpacked / "agw/bundle"), device="cpu")
    old = Embeddings.load(unpacked / "agw/embeddings/neck.npz")
    paths = [unpacked / "data" / name for name in old.table.path]
    modality = ["infrared" if kind else "visible" for kind in old.table.modality]
    expected = old.vectors / np.linalg.norm(old.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(extractor(paths, modality), expected, **CLOSE)


def test_a_gallery_is_searched_with_its_bundle_and_calibration(recorded: Path) -> None:
    pytest.importorskip("lancedb", reason="extra: search")
    bundle = Bundle.open(recorded / "agw/bundle")
    gallery = open_gallery(recorded / "gallery", bundle.config.dim, bundle.config.digest)
    calibration = Calibration.model_validate_json((recorded / "agw/bundle/calibration.json").read_bytes())
    searcher = Searcher(FeatureExtractor(bundle, device="cpu"), gallery, calibration)
    answer = searcher.search(recorded / "data/4_infrared_0.jpg", k=12, false_match_rate=0.01, prior=0.5)
    expected = json.loads((recorded / "answer.json").read_text())
    assert answer.nobody is expected["nobody"]
    hits = {hit.record.id: hit for hit in answer.hits}  # those of both modalities were ordered by similarity
    for old in expected["hits"]:
        hit = hits[old["id"]]
        assert hit.similarity == pytest.approx(old["similarity"], abs=1e-4)
        assert hit.probability == pytest.approx(old["probability"], abs=1e-3)
    gallery.close()


def test_an_archive_keeps_its_rows_pictures_marks_and_log_and_takes_more(recorded: Path) -> None:
    pytest.importorskip("lancedb", reason="extra: search")
    gallery = open_gallery(recorded / "gallery")
    archive = Archive(gallery, files_of(str(recorded / "gallery"), None))
    rows = list(gallery.rows())
    assert [row.id for row in rows] == sorted(
        f"{p}_{m}_{i}.jpg" for p in (3, 4, 5) for m in ("infrared", "visible") for i in (0, 1)
    )
    assert gallery.count(Filter(cameras=("yard",), tags=("night",), modality=1)) == 6
    assert rows[-1].time_s == 1_700_000_501 and rows[-1].pid == "" and rows[0].pid == "p3"
    assert all(archive.thumbnails.read(row.id) for row in rows)
    assert [(mark.id, mark.right) for mark in archive.marks.of()] == [
        ("4_visible_0.jpg", True),
        ("3_visible_0.jpg", False),
    ]
    assert archive.audit.verify() == len(archive.audit.entries()) == 2
    archive.close()
    gallery.close()
    (recorded / "more").mkdir()
    shutil.copy(recorded / "data/0_visible_0.jpg", recorded / "more/new.jpg")
    words = ("index", recorded / "agw/bundle", recorded / "more", "--gallery", recorded / "gallery", "--device", "cpu")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert open_gallery(recorded / "gallery").count() == 13


@pytest.mark.parametrize("name", METHODS)
def test_the_network_of_every_method_gives_the_recorded_vectors(unpacked: Path, name: str) -> None:
    path = unpacked / f"networks/{name}.safetensors"
    with np.load(unpacked / "networks/vectors.npz") as arrays:
        inputs = [torch.from_numpy(arrays[key]) for key in sorted(arrays) if key.startswith(f"{name}/input")]
        images, modality = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["modality"])
        expected = arrays[f"{name}/vectors"]
    with torch.no_grad():
        vectors = load_refiner(path)(*inputs) if name == "nformer" else load_embedder(path)(images, modality, *inputs)
    np.testing.assert_allclose(vectors.numpy(), expected, **CLOSE)
