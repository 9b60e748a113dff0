"""A network that takes heat maps, served: the pose by an estimator, or by a word that says that none is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import make_run, write_people

from vireid.data.pose.heatmaps import HeatMaps, template
from vireid.deploy import pose_input as posing
from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.pose_input import Poser
from vireid.errors import PoseError

SIZE = (48, 32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("posing")
    write_people(folder / "data", {"train": 3, "test": 3})
    words = ("width=4", "blocks=[1,1,1,1]", "attention=false", f"size=[{SIZE[0]},{SIZE[1]}]")
    run = make_run(folder / "run", folder / "data", "spot", words=words)
    return export_bundle(run, folder / "bundle")


@pytest.fixture
def pictures(bundle: Bundle) -> list[Path]:
    return sorted((bundle.path.parent / "data").glob("*_0.png"))[:7]


def drawn(keypoints: torch.Tensor) -> np.ndarray:
    """Heat maps as the small SPOT was made with."""
    return HeatMaps(sigma=2.0).draw(keypoints, SIZE).numpy()


class Estimator:
    """Says that every joint is at the brightest pixel of the crop, by a confidence above 1."""

    size = (64, 48)

    def __init__(self, place: Any = None, device: Any = "cpu") -> None:
        self.place = place

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        at = images.float().sum(1).flatten(1).argmax(1)
        points = torch.stack([at % self.size[1], at // self.size[1], torch.full_like(at, 2)], 1).float()
        return points[:, None].expand(-1, 17, -1).clone()


def test_template_and_zeros_are_those_maps_for_every_picture(bundle: Bundle, pictures: list[Path]) -> None:
    plain = FeatureExtractor(bundle, device="cpu", batch_size=3)
    for word, points in (("template", template(SIZE)), ("zeros", torch.zeros(17, 3))):
        maps = drawn(points.expand(len(pictures), -1, -1))
        expected = plain(pictures, "visible", heatmaps=maps)
        found = FeatureExtractor(bundle, device="cpu", batch_size=3, pose=word)(pictures, "visible")
        assert np.allclose(found, expected, atol=1e-6)
    assert not np.allclose(
        found, plain(pictures, "visible", heatmaps=drawn(template(SIZE).expand(7, -1, -1))), atol=1e-4
    )


def test_an_estimator_looks_at_every_picture(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vireid.data.pose.rtmpose.RTMPose", Estimator)
    poser = Poser("rtmpose:weights.onnx", bundle)
    seen = []
    for height, width, row, column in ((96, 48, 70, 10), (40, 60, 8, 50)):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[row - 2 : row + 3, column - 2 : column + 3] = 255
        pixels[row, column] = 255
        seen.append((poser.look(Image.fromarray(pixels)), (height, width, row, column)))
    points = poser.points([each for each, _ in seen])
    for point, (_, (height, width, row, column)) in zip(points, seen, strict=True):
        assert abs(float(point[0, 0]) - ((column + 0.5) * SIZE[1] / width - 0.5)) < 2.5
        assert abs(float(point[0, 1]) - ((row + 0.5) * SIZE[0] / height - 0.5)) < 2.5
        assert float(point[0, 2]) == 1.0
    assert np.array_equal(poser.maps([each for each, _ in seen]), drawn(points))


def test_batches_and_runtimes_agree(bundle: Bundle, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vireid.data.pose.vitpose.VitPose", Estimator)
    one = FeatureExtractor(bundle, device="cpu", batch_size=1, pose="vitpose:folder")(pictures)
    assert np.allclose(
        one, FeatureExtractor(bundle, device="cpu", batch_size=4, pose="vitpose:folder")(pictures), atol=1e-5
    )
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    other = FeatureExtractor(bundle, "onnxruntime", "cpu", batch_size=4, pose="vitpose:folder")
    assert np.allclose(one, other(pictures), atol=1e-4)


def test_what_is_missing_or_too_much_is_said(bundle: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"takes pictures and heatmaps.*--pose.*vitpose:FOLDER, rtmpose:FILE\.onnx, template or zeros"
    ):
        FeatureExtractor(bundle, device="cpu")(pictures)
    for word in ("", "openpose:folder", "rtmpose:", "average"):
        with pytest.raises(PoseError, match="--pose is vitpose"):
            Poser(word, bundle)
    data = bundle.path.parent / "data"
    other = export_bundle(make_run(tmp_path / "run", data), tmp_path / "bundle", onnx=False)
    with pytest.raises(PoseError, match="AGW takes pictures alone"):
        FeatureExtractor(other, device="cpu", pose="zeros")
    assert posing.to_do(other) == ""


def test_index_and_serve_say_what_to_do(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    pytest.importorskip("lancedb", reason="needs the extra `search`")
    from vireid.errors import ServiceError
    from vireid.workflows.service import index_pictures, open_service

    data, place = bundle.path.parent / "data", str(tmp_path / "night")
    with pytest.raises(ServiceError, match="SPOT also takes heatmaps; say with --pose"):
        index_pictures(bundle.path, data, place)
    assert not Path(place).exists()
    assert index_pictures(bundle.path, data, place, pose="template").added == 48
    with pytest.raises(ServiceError, match="say with --pose"):
        open_service(bundle.path, place)
    service = open_service(bundle.path, place, pose="template")
    answer = service.searcher.search(data / "4_1_0.png", "visible", 1)
    assert answer.hits[0].record.id.endswith("4_1_0.png") and answer.hits[0].similarity > 0.999
    service.archive.close()
