"""One picture has one vector: through index, the page's upload, the extractor, `embed` and the pixel cache."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("python_multipart", reason="needs the extra `serve`")
from PIL import Image
from served import client, make_bundle, make_service

from vireid.data import cache, datasets
from vireid.deploy.bundle import Bundle
from vireid.evaluation.embed import embed
from vireid.images import read, resize
from vireid.ingest.index import index
from vireid.ingest.sources import crops_of
from vireid.layers.embedder import load_embedder

KINDS = ("upright.png", "turned.jpg", "cut-out.png", "palette.png", "thermal.png", "cmyk.jpg", "gray-alpha.png",
         "fax.bmp", "film.gif", "float.tif")  # fmt: skip


def pictures(folder: Path) -> None:
    """Random pictures, one of each kind."""
    folder.mkdir()
    random = np.random.RandomState(5)

    def colors() -> np.ndarray:
        return np.kron(random.randint(0, 256, (8, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)

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
    save("thermal.png", Image.fromarray((7000 + 5 * colors()[:, :, 0].astype(np.int64)).astype(np.uint16)))
    save("cmyk.jpg", Image.fromarray(colors()).convert("CMYK"))
    save("gray-alpha.png", Image.merge("LA", (Image.fromarray(colors()[:, :, 0]), alpha)))
    save("fax.bmp", Image.fromarray(colors()[:, :, 1]).convert("1"))
    save("film.gif", Image.fromarray(colors()).quantize(64), save_all=True,
         append_images=[Image.fromarray(colors()).quantize(64)])  # fmt: skip
    save("float.tif", Image.fromarray(colors()[:, :, 2].astype(np.float32) / 40 + 12))
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
            "/api/search",
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
