"""One picture has one vector: through index, the page's upload, the extractor, `embed` and the pixel cache."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("python_multipart", reason="needs the extra `serve`")
from heic_picture import heic
from PIL import Image
from served import client, make_bundle, make_service
from small_run import WORDS, make_run, write_people

from vireid.data import cache, datasets
from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import Model
from vireid.errors import GalleryError, SettingsError
from vireid.evaluation.embed import embed
from vireid.images import GrayRule, read, resize
from vireid.ingest.index import index
from vireid.ingest.sources import crops_of
from vireid.layers.embedder import load_embedder
from vireid.search.drivers.open import open_gallery
from vireid.search.searcher import Searcher

KINDS = ("upright.png", "turned.jpg", "cut-out.png", "palette.png", "thermal.png", "cmyk.jpg", "gray-alpha.png",
         "fax.bmp", "film.gif", "float.tif", "turned-deep.tif", "big-endian.tif", "unsigned.tif", "counts.pgm",
         "moving.png", "pages.tif", "named-wrong.jpg", "UPPER.JPG", "without-suffix")  # fmt: skip
KINDS += ("IMG_0001.HEIC",) if importlib.util.find_spec("pi_heif") else ()


def unsigned_tiff(values: np.ndarray) -> bytes:
    """A TIFF of 32 bits without sign, which Pillow does not write."""
    out = io.BytesIO()
    Image.fromarray(values.view(np.int32)).save(out, "TIFF", tiffinfo={339: 1})
    return out.getvalue()


def pictures(folder: Path) -> None:
    """Random pictures, one of each kind."""
    folder.mkdir()
    random = np.random.RandomState(5)

    def colors() -> np.ndarray:
        return np.kron(random.randint(0, 256, (8, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)

    def counts() -> np.ndarray:
        return (7000 + 5 * colors()[:, :, 0].astype(np.int64)).astype(np.uint16)

    def save(name: str, image: Image.Image, **options: object) -> None:
        image.save(folder / name, **options)

    def exif(orientation: int) -> Image.Exif:
        block = Image.Exif()
        block[0x0112] = orientation
        return block

    alpha = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[:, None] * 4, 32, 1))
    save("upright.png", Image.fromarray(colors()))
    save("turned.jpg", Image.fromarray(np.rot90(colors())), exif=exif(6))
    save("cut-out.png", Image.merge("RGBA", (*Image.fromarray(colors()).split(), alpha)))
    save("palette.png", Image.fromarray(colors()).quantize(16), transparency=3)
    save("thermal.png", Image.fromarray(counts()))
    save("cmyk.jpg", Image.fromarray(colors()).convert("CMYK"))
    save("gray-alpha.png", Image.merge("LA", (Image.fromarray(colors()[:, :, 0]), alpha)))
    save("fax.bmp", Image.fromarray(colors()[:, :, 1]).convert("1"))
    save("film.gif", Image.fromarray(colors()).quantize(64), save_all=True,
         append_images=[Image.fromarray(colors()).quantize(64)])  # fmt: skip
    values = colors()[:, :, 2].astype(np.float32) / 40 + 12
    values[:3] = np.nan
    save("float.tif", Image.fromarray(values))
    save("turned-deep.tif", Image.fromarray(np.rot90(counts())), exif=exif(6))
    save("big-endian.tif", Image.fromarray(counts().astype(">u2")))
    (folder / "unsigned.tif").write_bytes(unsigned_tiff(counts().astype(np.uint32) * 400_000))
    (folder / "counts.pgm").write_bytes(b"P5 32 64 16383\n" + counts().astype(">u2").tobytes())
    for name in ("moving.png", "pages.tif"):
        save(name, Image.fromarray(colors()), save_all=True, append_images=[Image.fromarray(colors())])
    save("named-wrong.jpg", Image.fromarray(colors()), format="PNG")
    save("UPPER.JPG", Image.fromarray(colors()))
    save("without-suffix", Image.fromarray(colors()), format="WEBP")
    if "IMG_0001.HEIC" in KINDS:
        (folder / "IMG_0001.HEIC").write_bytes(heic())
    lines = [f"{name},{number},visible,test" for number, name in enumerate(KINDS)]
    (folder / "manifest.csv").write_text("\n".join(["path,pid,modality,split", *lines]) + "\n")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def embedded(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """By reader and kind: unit vectors; of the upload the similarity with what was indexed."""
    place = tmp_path_factory.mktemp("pictures")
    folder = place / "crops"
    pictures(folder)
    service = make_service(place / "files", bundle, fill=False)
    extractor, size, filter = service.searcher.extractor, bundle.config.size, bundle.config.filter
    index(service.archive, extractor, crops_of(folder, modality="visible"))
    gallery = service.archive.gallery
    indexed = {Path(row.path).name: row.vector for row in gallery.fetch([row.id for row in gallery.rows()])}
    table = datasets.load(f"manifest={folder / 'manifest.csv'}")
    network = load_embedder(bundle.path / "embedder.safetensors")
    raw = embed(network, table, size, filter=filter, progress=False).vectors
    cached = cache.pixels(table, size, filter=filter)
    api = client(service)

    def asked(name: str) -> float:
        answer = api.post(
            "/api/v1/search",
            files={"picture": (name, (folder / name).read_bytes())},
            data={"ask": json.dumps({"modality": "visible", "limit": len(KINDS)})},
        )
        assert answer.status_code == 200, answer.text
        [similarity] = [hit["similarity"] for hit in answer.json()["hits"] if hit["id"].endswith(name)]
        return similarity

    found: dict[str, Callable[[int, str], object]] = {
        "index": lambda row, name: indexed[name],
        "extractor": lambda row, name: extractor(folder / name, "visible")[0],
        "bytes": lambda row, name: extractor((folder / name).read_bytes(), "visible")[0],
        "opened": lambda row, name: extractor(Image.open(io.BytesIO((folder / name).read_bytes())), "visible")[0],
        "embed": lambda row, name: raw[row] / np.linalg.norm(raw[row]),
        "cache": lambda row, name: np.abs(cached[row].astype(int) - resize(read(folder / name), size, filter)).max(),
        "upload": lambda row, name: asked(name),
    }
    return {
        reader: {name: np.asarray(work(row, name)) for row, name in enumerate(KINDS)} for reader, work in found.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_has_one_vector(embedded: dict[str, dict[str, np.ndarray]], kind: str) -> None:
    expected = embedded["index"][kind]
    for reader in ("extractor", "bytes", "opened", "embed"):
        assert embedded[reader][kind] @ expected == pytest.approx(1, abs=1e-6), reader
    assert embedded["upload"][kind] == pytest.approx(1, abs=1e-6)
    assert embedded["cache"][kind] == 0


def test_different_pictures_have_different_vectors(embedded: dict[str, dict[str, np.ndarray]]) -> None:
    vectors = np.stack(list(embedded["index"].values()))
    similarity = vectors @ vectors.T - 2 * np.eye(len(vectors))
    assert similarity.max() < 1 - 1e-4  # so that a vector of another picture would be noticed


def test_a_gallery_keeps_its_range_of_gray_values_for_every_query(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    random = np.random.RandomState(3)
    for name in ("a.png", "b.png"):
        values = np.kron(random.randint(7000, 9000, (8, 4)), np.ones((8, 8)))
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / "crops" / name)
    fixed, place = GrayRule(6000, 12_000), str(tmp_path / "g")
    gallery = open_gallery(place, bundle.config.dim, bundle.config.digest, gray=fixed)
    service = make_service(tmp_path / "files", bundle, gallery, fill=False)
    index(service.archive, FeatureExtractor(bundle), crops_of(tmp_path / "crops", modality="infrared"))
    picture = tmp_path / "crops/a.png"
    expected = FeatureExtractor(bundle, gray=fixed)(picture, "infrared")
    assert gallery.search(expected, 1)[0][0].record.id == "crops/a.png"
    assert gallery.search(expected, 1)[0][0].similarity == pytest.approx(1, abs=1e-6)
    assert FeatureExtractor(bundle)(picture, "infrared") @ expected.T < 0.9999
    api = client(service)
    sent = {"files": {"picture": ("a.png", picture.read_bytes())}, "data": {"ask": '{"modality": "infrared"}'}}
    answer = api.post("/api/v1/search", **sent).json()
    assert answer["hits"][0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert answer["stamp"]["gray"] == api.get("/api/v1/about").json()["gray"] == "6000 to 12000"
    record = {"record": json.dumps({"camera": "c", "id": "sent", "modality": "infrared"})}
    assert api.post("/api/v1/records", files=sent["files"], data=record).status_code == 200
    assert gallery.fetch(["sent"])[0].vector == pytest.approx(expected[0], abs=1e-6)
    again = open_gallery(place)
    assert again.gray == fixed
    with pytest.raises(
        GalleryError, match=r"with gray values of 6000 to 12000, this is 7000 to 9000.*give 6000 to 12000"
    ):
        open_gallery(place, gray=GrayRule(7000, 9000))
    answered = Searcher(FeatureExtractor(bundle), again).search(picture, "infrared")
    assert answered.hits[0].similarity == pytest.approx(1, abs=1e-6)


def test_the_range_of_the_training_goes_with_the_network(tmp_path: Path) -> None:
    write_people(tmp_path / "data", {"train": 3, "test": 3})
    for path in (tmp_path / "data").glob("*_3_0.png"):
        values = np.random.RandomState(len(path.name)).randint(0, 4000, (64, 32)).astype(np.uint16)
        Image.fromarray(values).save(path)
    run = make_run(tmp_path / "run", tmp_path / "data", words=(*WORDS, "thermal_range=[1000,3000]"))
    rule = GrayRule(1000, 3000)
    saved = load_embedder(run.path / "embedder.safetensors").deployment
    assert saved == run.deployment and saved.thermal_range == rule.ends
    test = datasets.load(f"manifest={tmp_path / 'data'}").where("test")
    made = embed(run.embedder(), test, progress=False)
    assert made.stamp["gray"] == "1000 to 3000"
    (tmp_path / "data/ranges.csv").write_text(
        "path,pid,modality,split,thermal_low,thermal_high\n3_3_0.png,3,infrared,test,0,4000\n"
    )
    by_camera = embed(run.embedder(), datasets.load(f"manifest={tmp_path / 'data/ranges.csv'}"), progress=False)
    wide = FeatureExtractor(Model.open(run.path).bundle, gray=GrayRule(0, 4000))(
        tmp_path / "data/3_3_0.png", "infrared"
    )
    assert by_camera.stamp["gray"] == "1000 to 3000; camera 2: 0 to 4000"
    assert by_camera.vectors[0] / np.linalg.norm(by_camera.vectors[0]) @ wide[0] == pytest.approx(1, abs=1e-6)
    model = Model.open(run.path)
    assert model.gray == rule == open_gallery("memory:", model=model).gray
    [row] = [row for row in range(len(test)) if str(test.path[row]) == "3_3_0.png"]
    expected = made.vectors[row] / np.linalg.norm(made.vectors[row])
    assert model.embed(test.full_path(row), "infrared")[0] @ expected == pytest.approx(1, abs=1e-6)
    assert FeatureExtractor(model.bundle, gray=GrayRule())(test.full_path(row), "infrared")[0] @ expected < 0.9999
    with pytest.raises(SettingsError, match=r"thermal_range.*LOW must be below HIGH"):
        make_run(tmp_path / "other", tmp_path / "data", words=(*WORDS, "thermal_range=[3000,1000]"))
