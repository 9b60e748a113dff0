"""FeatureExtractor: every kind of picture gives the vectors of `vireid embed`; what cannot be read is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import make_run, write_people
from torch import Tensor, nn

from vireid.data import datasets
from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.runtimes import torch_embed
from vireid.errors import PictureError, PictureTooLarge
from vireid.evaluation.embed import embed
from vireid.layers.embedder import Embedder, load_embedder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extractor")
    write_people(folder / "data", {"train": 3, "test": 2})
    export_bundle(make_run(folder / "run", folder / "data"), folder / "bundle", onnx=False)
    return folder


@pytest.fixture(scope="module")
def extract(place: Path) -> FeatureExtractor:
    return FeatureExtractor(place / "bundle", device="cpu", batch_size=3)


def test_vectors_are_those_of_embed(place: Path, extract: FeatureExtractor) -> None:
    table = datasets.load(f"manifest={place / 'data'}")
    config = extract.bundle.config
    network = load_embedder(place / "run/embedder.safetensors")
    expected = embed(network, table, config.size, filter=config.filter, progress=False, batch_size=3).vectors
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    paths = [table.full_path(row) for row in range(len(table))]
    found = extract(paths, ["infrared" if modality else "visible" for modality in table.modality])
    assert found.dtype == np.float32 and found.shape == (40, extract.dim)
    np.testing.assert_array_equal(found, expected)  # the same pixels through the same batches
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(extract(paths, "auto"), expected)  # gray pictures are infrared here, others not
    np.testing.assert_array_equal(extract(paths, table.modality), expected)


def test_every_kind_of_picture(place: Path, extract: FeatureExtractor) -> None:
    path = place / "data/0_1_0.png"
    with Image.open(path) as opened:
        picture = opened.copy()
    pixels = np.array(picture)
    expected = extract(path, "visible")
    assert expected.shape == (1, extract.dim)
    opaque = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], 2)
    palette = picture.quantize(256)
    palette.info["transparency"] = b"\x00\x80"
    same: list[object] = [
        str(path), path.read_bytes(), [path.read_bytes()], picture, pixels, [pixels], (x for x in [pixels]),
        pixels[None], pixels[:, ::-1][:, ::-1],
        torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(pixels).permute(2, 0, 1)[None],
        opaque, Image.fromarray(opaque),
    ]  # fmt: skip
    for kind in same:
        np.testing.assert_array_equal(extract(kind, "visible"), expected)
    assert extract(palette, "visible").shape == expected.shape
    gray = np.array(picture.convert("L"))
    expected = extract(np.repeat(gray[:, :, None], 3, 2), "infrared")
    for kind in (gray, gray[:, :, None], Image.fromarray(gray), torch.from_numpy(gray)[None]):
        np.testing.assert_array_equal(extract(kind, "infrared"), expected)
        np.testing.assert_array_equal(extract(kind, "auto"), expected)
    mixed = extract([path, gray, picture], ["visible", "infrared", "visible"])
    np.testing.assert_allclose(mixed[0], mixed[2], atol=1e-6)
    np.testing.assert_allclose(mixed[1], expected[0], atol=1e-6)
    assert extract([], "auto").shape == (0, extract.dim)


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 1), (8, 3)])
def test_rotation_that_the_camera_noted(
    place: Path, extract: FeatureExtractor, tmp_path: Path, orientation: int, turn: int
) -> None:
    with Image.open(place / "data/0_1_0.png") as opened:
        upright = opened.copy()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(np.array(upright), turn)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(extract(tmp_path / "turned.png", "visible"), extract(upright, "visible"))
    with Image.open(tmp_path / "turned.png") as lazy:
        np.testing.assert_array_equal(extract(lazy, "visible"), extract(upright, "visible"))


def test_pictures_are_streamed(place: Path, extract: FeatureExtractor) -> None:
    taken = 0

    def camera() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:  # never ends
            taken += 1
            yield np.full((8, 4, 3), taken % 256, np.uint8)

    batches = extract.batches(camera(), "infrared")
    for number in range(1, 5):
        vectors, modality = next(batches)
        assert len(vectors) == 3 and modality.tolist() == [1, 1, 1]
        assert taken == 3 * (number + 1)  # one batch ahead and no more
    batches.close()
    (first, kinds), (second, more) = extract.batches([np.zeros((4, 4, 3), np.uint8)] * 4, "auto")
    assert (len(first), len(second)) == (3, 1) and kinds.dtype == np.int64 and more.tolist() == [1]


def test_what_is_refused(place: Path, extract: FeatureExtractor, tmp_path: Path) -> None:
    good = place / "data/0_1_0.png"

    def refused(picture: object, match: str) -> None:
        with pytest.raises(PictureError, match=match):
            extract([good, picture], "visible")

    refused(tmp_path / "none.jpg", r"none.jpg: there is no such file")
    (tmp_path / "text.jpg").write_text("no picture")
    refused(tmp_path / "text.jpg", r"text.jpg cannot be read as a picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:300])
    refused(tmp_path / "cut.png", "cannot be read as a picture")
    refused(tmp_path, "cannot be read as a picture")
    refused(np.zeros((8, 8, 3), np.uint16), "expected uint8 pixels .* got uint16")
    refused(np.zeros((8, 8, 3), np.float32), "got float32")
    refused(torch.zeros(3, 8, 8), "got float32")
    refused(torch.zeros(8, 8, 3, dtype=torch.uint8), r"a tensor is \(3, H, W\), got \(8, 8, 3\)")
    refused(np.zeros((8, 8, 2), np.uint8), r"got \(8, 8, 2\)")
    refused(np.zeros((0, 8, 3), np.uint8), r"got \(0, 8, 3\)")
    refused(np.zeros((2, 8, 8, 3), np.uint8), r"got \(2, 8, 8, 3\)")
    refused(b"bytes", "picture 1 cannot be read as a picture")
    refused(1.5, "got float")
    with pytest.raises(PictureError, match="got int"):
        extract(3, "visible")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 'thermal'"):
        extract(good, "thermal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="modality has 1 entries and there are more pictures"):
        extract([good, good], ["visible"])
    with pytest.raises(ValueError, match="more entries than there are pictures"):
        extract([good, good], ["visible"] * 3)
    with pytest.raises(ValueError, match="takes pictures, got pictures and heatmaps"):
        extract(good, "visible", heatmaps=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        FeatureExtractor(place / "bundle", batch_size=0)


def test_a_decompression_bomb_is_refused(extract: FeatureExtractor, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "large.gif")
    data = (tmp_path / "large.gif").read_bytes()
    (tmp_path / "large.gif").write_bytes(data[:6] + b"\xff\xff\xff\xff" + data[10:])  # 65,535 x 65,535
    with pytest.raises(PictureTooLarge, match=r"large.gif has 65535 x 65535 pixels, at most 179 million"):
        extract(tmp_path / "large.gif", "infrared")


class WithHeatmaps(Embedder):
    inputs = ("heatmaps",)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        return {"mean": self.linear(images.mean((2, 3))) * inputs[0].mean((1, 2, 3))[:, None] + modality[:, None]}


def test_declared_inputs_are_passed_by_name(
    place: Path, extract: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = WithHeatmaps().eval()
    config = extract.bundle.config.model_copy(update={"inputs": ("heatmaps",), "dim": 4})
    monkeypatch.setattr(Bundle, "embedder", lambda self, backend, device: torch_embed(network))
    takes = FeatureExtractor(Bundle(extract.bundle.path, config), batch_size=2)
    pictures = np.random.RandomState(0).randint(0, 256, (5, *config.size, 3)).astype(np.uint8)
    maps = np.random.RandomState(1).rand(5, 2, 3, 3)
    found = takes(pictures, "infrared", heatmaps=maps)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(images, torch.ones(5, dtype=torch.int64), torch.from_numpy(maps).float())
    np.testing.assert_allclose(found, nn.functional.normalize(expected).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="takes pictures and heatmaps, got pictures; pass each as NAME=array"):
        takes(pictures, "infrared")
    with pytest.raises(ValueError, match="heatmaps has 4 rows, the pictures are 5"):
        takes(pictures, "infrared", heatmaps=maps[:4])
    with pytest.raises(ValueError, match="heatmaps has 6 rows, the pictures are 5"):
        takes(pictures, "infrared", heatmaps=np.concatenate([maps, maps[:1]]))
