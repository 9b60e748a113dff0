"""The public API in the order of use, on a small trained run: load, train, evaluate, report, embed, search."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from PIL import Image
from small_run import write_people

import vireid
from vireid.errors import GalleryError
from vireid.search.gallery import Gallery, Record
from vireid.types import ModalityOrAuto
from vireid.workflows.calibrate import calibrate_run
from vireid.workflows.repeat import command_of

TINY = {"width": 4, "blocks": [1, 1, 1, 1], "size": [48, 24], "sampler.pids": 4, "sampler.images": 2}
NAMES_OF_0_1 = (
    "load", "Table", "DataError", "find", "Method", "Recipe", "TrainingData", "load_embedder", "embed", "Embeddings",
    "protocol", "protocols_for", "Protocol", "evaluate", "Results", "__version__",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    data: Path
    table: vireid.Table
    run: vireid.Run
    model: vireid.Model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Twenty test people, a run of one epoch, and its calibrated model."""
    folder = tmp_path_factory.mktemp("api")
    data = write_people(folder / "data", {"train": 6, "test": 20})
    table = vireid.load(f"manifest={data}")
    run = vireid.train("agw", table, folder / "run", epochs=1, device="cpu", progress=False, **TINY)
    run.export(onnx=False)
    calibrate_run(run.path, device="cpu", progress=False)
    return Place(data, table, run, vireid.Model.open(run.path, device="cpu"))


def pictures_of(place: Place) -> list[Path]:
    return sorted(place.data.glob("1[0-3]_*.png"))


def test_a_run_is_trained_and_evaluated(place: Place) -> None:
    assert place.run.record.dataset == "manifest" and place.run.record.last_recipe.epochs == 1
    scores = place.run.evaluate(device="cpu", progress=False, pictures=2)
    assert {row.protocol for row in scores.rows} >= {"manifest/visible-to-infrared", "manifest/infrared-to-visible"}
    assert all(row.stamp["similarity"] == "cosine" for row in scores.rows)
    again = vireid.Run.open(place.run.path).evaluate(device="cpu", progress=False, pictures=0)
    assert again.rows == scores.rows


def test_the_report_is_one_page_without_outside_files(place: Place) -> None:
    place.run.evaluate(device="cpu", progress=False, pictures=2, protocols=("manifest/infrared-to-visible",))
    path = place.run.report()
    assert path == place.run.path / "report.html"
    text = path.read_text("utf-8")
    scores = vireid.Results.load(place.run.path / "results.json")
    for summary in scores.summaries:
        assert all(f"<td>{100 * summary.mean[name]:.2f}</td>" in text for name in ("R1", "mAP", "mINP"))
        assert summary.stamp["images"] in text and summary.stamp["embedder"] in text
    assert all(f'alt="{path.stem}"' in text for path in (place.run.path / "figures").iterdir())
    assert 5 < text.count('<li class="') <= 8 * 11  # pictures of the hardest queries
    outside = text.replace("http://www.w3.org/", "")  # names of SVG, which nothing fetches
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)|url\((?!#)|@import|<script|https?://""", outside)
    assert set(re.findall(r"<pre>(vireid train .*?)</pre>", text)) == {html.escape(command_of(place.run.record))}


def test_the_command_of_the_report_repeats_the_training(place: Place, tmp_path: Path) -> None:
    words = shlex.split(command_of(place.run.record))
    assert words[:3] == ["vireid", "train", "agw"] and "sampler.pids=4" in words
    assert not any(word.startswith(("margin", "filter", "similarity")) for word in words)  # they are the defaults
    done = call(*words[1:], "--run", tmp_path / "again", "--device", "cpu", "--quiet", "--no-evaluate")
    assert done.exit_code == 0, done.output
    again = vireid.Run.open(tmp_path / "again")
    assert again.folder.embedder_digest == place.run.folder.embedder_digest
    assert not place.run.record.differences(again.record)


def test_a_run_that_was_not_evaluated_has_no_report(place: Place, tmp_path: Path) -> None:
    shutil.copy(place.run.path / "recipe.json", tmp_path)
    with pytest.raises(vireid.DataError, match="vireid evaluate"):
        vireid.Run.open(tmp_path).report()


def test_a_method_is_a_name_a_class_or_a_file(place: Place, tmp_path: Path) -> None:
    kind = vireid.find("agw")
    mine = tmp_path / "mine.py"
    mine.write_text("from vireid.methods.agw import AGW\n\n\nclass Mine(AGW):\n    pass\n")
    for number, method in enumerate((kind, mine, str(mine))):
        words = {"epochs": 1, "device": "cpu", "progress": False, **TINY}
        run = vireid.train(method, place.data, tmp_path / str(number), **words)
        assert run.record.method == ("AGW" if method is kind else "Mine")
        old, new = (vireid.load_embedder(r.path / "embedder.safetensors").state_dict() for r in (place.run, run))
        assert all(bool((old[name] == new[name]).all()) for name in old)  # the same training, named in another way


def test_pictures_of_every_kind_give_the_same_vectors(place: Place) -> None:
    paths = pictures_of(place)
    vectors = place.model.embed(paths, modality="auto")
    assert vectors.shape == (len(paths), place.model.dim) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    opened = [Image.open(path) for path in paths]
    arrays = [np.asarray(picture) for picture in opened]
    for pictures in ([str(path) for path in paths], (path for path in paths), opened, arrays, iter(arrays)):
        np.testing.assert_array_equal(place.model.embed(pictures), vectors)
    for one in (opened[0], arrays[0]):  # a batch of another size rounds in another way
        np.testing.assert_allclose(place.model.embed(one), vectors[:1], rtol=1e-4, atol=1e-5)
    assert place.model.embed([]).shape == (0, place.model.dim)


def test_the_model_is_that_of_the_run(place: Place) -> None:
    """A model's vectors are those that the run is evaluated on, divided by their length."""
    (deployed, *_) = place.run.embed(device="cpu", progress=False).values()
    paths = [deployed.table.full_path(row) for row in range(len(deployed))]
    modality: list[ModalityOrAuto] = ["infrared" if kind else "visible" for kind in deployed.table.modality]
    expected = deployed.vectors / np.linalg.norm(deployed.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(place.model.embed(paths, modality), expected, rtol=1e-4, atol=1e-5)


def fill(gallery: Gallery, model: vireid.Model, paths: list[Path]) -> None:
    vectors = model.embed(paths)
    kinds = [int("_3_" in path.name or "_4_" in path.name) for path in paths]
    gallery.add([
        Record(path.name, vector, "c", float("nan"), kind, path.name)
        for path, vector, kind in zip(paths, vectors, kinds, strict=True)
    ])  # fmt: skip


@pytest.mark.parametrize("driver", ["memory", "lance"])
def test_a_picture_is_searched_with_the_models_calibration(place: Place, tmp_path: Path, driver: str) -> None:
    if driver == "lance":
        pytest.importorskip("lancedb", reason="extra: search")
    gallery = vireid.open_gallery("memory:" if driver == "memory" else tmp_path / "archive", model=place.model)
    assert gallery.dim == place.model.dim and gallery.info().bundle_digest == place.model.digest
    fill(gallery, place.model, pictures_of(place))
    picture = pictures_of(place)[3]
    answer = vireid.Searcher(place.model, gallery).search(picture, k=10, false_match_rate=1e-2)
    assert answer.hits[0].record.id == picture.name and answer.hits[0].similarity == pytest.approx(1, abs=1e-5)
    assert len(answer.hits) == 10 and answer.nobody is False
    assert all(hit.probability is not None for hit in answer.hits)
    assert place.model.calibration is not None
    hit = answer.hits[1]
    probability = place.model.calibration.probability(hit.similarity, (1, hit.record.modality), answer.prior)
    assert hit.probability == pytest.approx(float(probability))
    gallery.close()


def test_a_model_that_is_not_calibrated_says_so_when_a_rate_is_requested(place: Place, tmp_path: Path) -> None:
    bundle = place.run.export(tmp_path / "bundle", onnx=False)
    (bundle.path / "calibration.json").unlink()
    model = vireid.Model.open(bundle.path, device="cpu")
    gallery = vireid.open_gallery("memory:", model=model)
    fill(gallery, model, pictures_of(place)[:3])
    searcher = vireid.Searcher(model, gallery)
    assert model.calibration is None and searcher.search(pictures_of(place)[0]).hits[0].probability is None
    with pytest.raises(vireid.VireidError, match="vireid calibrate"):
        searcher.search(pictures_of(place)[0], false_match_rate=1e-3)


def test_a_gallery_of_another_model_is_refused(place: Place) -> None:
    with pytest.raises(GalleryError, match="pass the model alone"):
        vireid.open_gallery("memory:", dim=place.model.dim, model=place.model)
    gallery = vireid.open_gallery("memory:", place.model.dim, "f" * 64)
    with pytest.raises(GalleryError, match="vectors of two networks are not comparable"):
        vireid.Searcher(place.model, gallery)


def test_a_calibration_of_another_network_is_refused(place: Place, tmp_path: Path) -> None:
    bundle = place.run.export(tmp_path / "bundle", onnx=False)
    file = bundle.path / "calibration.json"
    file.write_text(file.read_text().replace(place.model.digest, "f" * 64))
    with pytest.raises(vireid.VireidError, match="belongs to embedder ffff"):
        _ = vireid.Model.open(bundle.path, device="cpu").calibration


def test_without_a_name_the_model_is_the_one_that_comes_with_vireid(place: Place) -> None:
    model = vireid.Model.open(device="cpu")
    assert model.bundle.path.name == "night" and model.digest != place.model.digest
    gallery = vireid.open_gallery("memory:", model=model)
    fill(gallery, model, pictures_of(place))
    picture = pictures_of(place)[3]
    answer = vireid.Searcher(model, gallery).search(picture, k=10, false_match_rate=1e-3)
    assert answer.hits[0].record.id == picture.name and answer.nobody is False
    assert all(hit.probability is not None for hit in answer.hits)
    with pytest.raises(GalleryError, match="the model night"):
        vireid.Searcher(place.model, gallery)


def test_public_names_of_0_1_are_there() -> None:
    assert all(getattr(vireid, name) is not None for name in NAMES_OF_0_1)
