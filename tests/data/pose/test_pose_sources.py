"""Where poses come from: OpenPose's files, arrays, the template, letterboxed pictures, ViTPose and RTMPose files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vireid.data.pose.heatmaps import openpose, template
from vireid.data.pose.sources import OpenPoseFolder, Pictures, PoseArrays, Template, coco, letterbox
from vireid.data.table import Table, table_from_columns
from vireid.errors import DataError, PictureError


def table_of(root: Path, *paths: str) -> Table:
    rows = len(paths)
    columns = {"path": paths, "pid": range(rows), "camid": [1] * rows, "modality": [0] * rows, "split": ["test"] * rows}
    return table_from_columns(root, columns, "test")


def picture(root: Path, path: str, x: int = 0, y: int = 0, size: tuple[int, int] = (64, 32)) -> None:
    """A gray picture with one white pixel block of 3 x 3 around (x, y)."""
    pixels = np.full((*size, 3), 40, dtype=np.uint8)
    pixels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 255
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / path)


def points(seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).rand(17, 3).astype(np.float32)


def test_three_orders_of_points() -> None:
    given = points()
    eighteen = openpose(torch.from_numpy(given)[None])[0].numpy()
    np.testing.assert_array_equal(coco(eighteen), given)
    # BODY_25 has the middle of the hips as number 8 and feet from 19 on
    body = np.concatenate([eighteen[:8], np.full((1, 3), 9.0), eighteen[8:], np.full((6, 3), 9.0)])
    np.testing.assert_array_equal(coco(body), given)
    np.testing.assert_array_equal(coco(np.stack([given, given])), np.stack([given, given]))
    with pytest.raises(DataError, match="17 COCO points, or of OpenPose's 18 or 25"):
        coco(np.zeros((5, 3)))


def write_json(file: Path, *people: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"people": [{"pose_keypoints_2d": p.reshape(-1).tolist()} for p in people]}))


def test_openpose_folder(tmp_path: Path) -> None:
    eighteen = openpose(torch.from_numpy(points())[None])[0].numpy()
    faint = eighteen * np.array([1, 1, 0.1], dtype=np.float32)
    write_json(tmp_path / "cam1" / "0001" / "0001_keypoints.json", faint, eighteen, faint)
    write_json(tmp_path / "cam1_0001_0002_keypoints.json", faint)
    write_json(tmp_path / "cam1" / "0001" / "0003_keypoints.json")
    table = table_of(tmp_path, *(f"cam1/0001/000{i}.jpg" for i in (1, 2, 3, 4)))
    found = OpenPoseFolder(tmp_path)(table)
    assert found.shape == (4, 17, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], points(), rtol=1e-6)  # of three people the one with the most confidence
    np.testing.assert_allclose(found[1], coco(faint), rtol=1e-6)
    assert np.isnan(found[2:]).all()  # nobody there, and no file
    (tmp_path / "cam1" / "0001" / "0004_keypoints.json").write_text("{}")
    with pytest.raises(DataError, match=r"0004_keypoints\.json is not an output of OpenPose"):
        OpenPoseFolder(tmp_path)(table)
    with pytest.raises(DataError, match="no folder of OpenPose"):
        OpenPoseFolder(tmp_path / "none")


def test_arrays_in_both_forms(tmp_path: Path) -> None:
    eighteen = openpose(torch.from_numpy(points(1))[None])[0].numpy()
    np.savez(tmp_path / "columns.npz", path=["a.jpg", "b.jpg"], keypoints=np.stack([points(), points(1)]))
    np.savez(tmp_path / "named.npz", **{"a.jpg": points(), "b.jpg": eighteen})
    table = table_of(tmp_path, "b.jpg", "c.jpg", "a.jpg")
    for name in ("columns.npz", "named.npz"):
        found = PoseArrays(tmp_path / name)(table)
        np.testing.assert_allclose(found[[0, 2]], np.stack([points(1), points()]))
        assert np.isnan(found[1]).all()
    (tmp_path / "text.npz").write_text("none")
    np.savez(tmp_path / "half.npz", path=["a.jpg"])
    np.savez(tmp_path / "short.npz", **{"a.jpg": np.zeros((4, 3))})
    for name, message in (
        ("text", "no .npz file"),
        ("half", "expected `path`"),
        ("short", "17 COCO"),
        ("no", "no .npz"),
    ):
        with pytest.raises(DataError, match=message):
            PoseArrays(tmp_path / f"{name}.npz")


def test_template_fits_each_picture(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", size=(64, 32))
    picture(tmp_path, "b.png", size=(100, 30))
    found = Template()(table_of(tmp_path, "a.png", "b.png"))
    np.testing.assert_array_equal(found, np.stack([template((64, 32)).numpy(), template((100, 30)).numpy()]))


class Brightest:
    """An estimator that finds the white spot."""

    size = (80, 60)

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, *self.size)
        self.seen.append(len(images))
        weight = (images[:, 0].double() - 60).clamp(min=0)
        total = weight.sum((1, 2))
        x = (weight.sum(1) * torch.arange(60)).sum(1) / total
        y = (weight.sum(2) * torch.arange(80)).sum(1) / total
        return torch.stack([x, y, torch.full_like(x, 1.5)], 1)[:, None].expand(-1, 17, -1).clone()


def test_pictures_of_any_shape_go_there_and_back(tmp_path: Path) -> None:
    places = {"a.png": (5, 50, (64, 32)), "b.png": (20, 9, (40, 90)), "c.png": (30, 100, (160, 60))}
    for name, (x, y, size) in places.items():
        picture(tmp_path, name, x, y, size)
    estimator = Brightest()
    found = Pictures(estimator, batch_size=2)(table_of(tmp_path, *places))
    assert estimator.seen == [2, 1] and found.dtype == np.float32
    for pose, (x, y, _) in zip(found, places.values(), strict=True):
        np.testing.assert_allclose(pose[:, :2], np.tile([x, y], (17, 1)), atol=0.35)
        assert (pose[:, 2] == 1).all()  # confidence is cut at 1
    (tmp_path / "d.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"d\.png cannot be read"):
        Pictures(estimator)(table_of(tmp_path, "d.png"))
    with pytest.raises(ValueError, match="1 or more pictures"):
        Pictures(estimator, 0)


def test_letterbox_keeps_proportions_and_the_middle() -> None:
    crop, (scale_x, scale_y, left, top) = letterbox(Image.new("RGB", (30, 100), "white"), (80, 60), padding=1.25)
    assert crop.shape == (80, 60, 3) and (scale_x, scale_y) == (19 / 30, 0.64) and (left, top) == (20, 8)
    rows, columns = np.flatnonzero(crop.any((1, 2))), np.flatnonzero(crop.any((0, 2)))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (8, 71, 20, 38)


# --- ViTPose ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vitpose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a very small ViTPose of random weights, in the form in which the Hub has the trained ones."""
    transformers = pytest.importorskip("transformers", reason="ViTPose needs the package transformers")
    backbone = transformers.VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    names = {i: str(i) for i in range(17)}
    config = transformers.VitPoseConfig(
        backbone_config=backbone, scale_factor=4, use_simple_decoder=True, id2label=names
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vitpose")
    transformers.VitPoseForPoseEstimation(config).save_pretrained(folder)
    return folder


def test_vitpose_from_a_folder(vitpose: Path) -> None:
    from vireid.data.pose.vitpose import VitPose, peaks

    estimator = VitPose(vitpose)
    assert estimator.size == (64, 48) and not estimator.model.training
    images = torch.randint(0, 256, (3, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = estimator(images)
    assert found.shape == (3, 17, 3) and torch.isfinite(found).all() and not found.requires_grad
    with torch.no_grad():
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        pixels = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        maps = estimator.model(pixels).heatmaps
    assert maps.shape == (3, 17, 16, 12)
    cells = peaks(maps)
    torch.testing.assert_close(found[..., 0], cells[..., 0] * 47 / 11)  # the first and last cell are the outer pixels
    torch.testing.assert_close(found[..., 1], cells[..., 1] * 63 / 15)
    torch.testing.assert_close(found[..., 2], maps.amax((2, 3)).clamp(0, 1))
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        shrunk = torch.nn.functional.interpolate(large.float(), (64, 48), mode="bilinear", antialias=True)
        cells = peaks(estimator.model((shrunk / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)).heatmaps)
    inside = cells[..., :2] * torch.tensor([47 / 11, 63 / 15])
    torch.testing.assert_close(estimator(large)[..., :2], (inside + 0.5) * 2 - 0.5, rtol=1e-3, atol=1e-2)


def test_vitpose_has_its_own_statistics(vitpose: Path, tmp_path: Path) -> None:
    from vireid.data.pose.vitpose import VitPose, statistics

    assert statistics(tmp_path / "none.json") == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for file in vitpose.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    images = torch.randint(0, 256, (1, 3, 64, 48), dtype=torch.uint8)
    assert VitPose(tmp_path).mean.flatten().tolist() == [0.5] * 3
    assert not VitPose(tmp_path)(images).equal(VitPose(vitpose)(images))


def test_peaks_are_those_of_transformers() -> None:
    pytest.importorskip("transformers", reason="its own decoding is the oracle")
    from transformers.models.vitpose import image_processing_pil_vitpose as theirs

    from vireid.data.pose.vitpose import peaks

    random = np.random.RandomState(0)
    places = random.rand(2, 17, 2) * [18, 26] + 6  # maps of 40 x 30; away from the border, where paddings differ
    rows, columns = np.arange(40)[:, None], np.arange(30)
    x, y = places[..., 0, None, None], places[..., 1, None, None]
    maps = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8) * (0.5 + random.rand(2, 17, 1, 1) / 2)
    found = peaks(torch.from_numpy(maps))
    coarse, heights = theirs.get_keypoint_predictions(maps)
    fine = theirs.post_dark_unbiased_data_processing(coarse.astype(np.float64), maps, kernel=11)
    np.testing.assert_allclose(found[..., :2], fine, atol=1e-4)
    np.testing.assert_allclose(found[..., 2:], heights, rtol=1e-12)
    np.testing.assert_allclose(found[..., :2], places, atol=0.02)  # and both are right
    flat = peaks(torch.zeros(1, 17, 8, 6))
    assert torch.isfinite(flat).all()


def test_what_is_no_vitpose(vitpose: Path, tmp_path: Path) -> None:
    from vireid.data.pose.vitpose import VitPose

    with pytest.raises(ValueError, match=r"expected config\.json"):
        VitPose(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="of type 'vit', expected vitpose"):
        VitPose(tmp_path)


# --- RTMPose ----------------------------------------------------------------------------------------------------------


def simcc_model(file: Path, batch: int | str = "batch", outputs: int = 2, points: int = 17, width: int = 48) -> Path:
    """An ONNX file in RTMPose's form: (N, 3, 64, width) to columns (N, 17, 2 width) and rows (N, 17, 128).

    Its columns are the sums of the picture over its rows, each twice, and its rows the other way round, so the peak is
    where the picture is brightest.
    """
    onnx = pytest.importorskip("onnx", reason="the export extra")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes, graph_outputs = [], []
    for name, bins in (("columns", 2 * width), ("rows", 128))[:outputs]:
        nodes += [
            helper.make_node("ReduceMean", ["input", f"axes_{name}"], [f"mean_{name}"], keepdims=0),
            helper.make_node("Unsqueeze", [f"mean_{name}", "last"], [f"open_{name}"]),  # (N, 3, n, 1)
            helper.make_node("Concat", [f"open_{name}"] * 2, [f"twice_{name}"], axis=3),
            helper.make_node("Reshape", [f"twice_{name}", f"flat_{name}"], [f"joined_{name}"]),  # (N, 3, 2n)
            helper.make_node("ReduceMean", [f"joined_{name}", "one"], [f"single_{name}"], keepdims=1),
            helper.make_node("Expand", [f"single_{name}", f"shape_{name}"], [name]),
        ]
        graph_outputs.append(helper.make_tensor_value_info(name, kind, [batch, points, bins]))
    constants = {"last": [3], "one": [1]}
    for name, axis, bins in (("columns", 2, 2 * width), ("rows", 3, 128)):
        constants |= {f"axes_{name}": [axis], f"flat_{name}": [0, 3, bins], f"shape_{name}": [1, points, bins]}
    tensors = [helper.make_tensor(k, onnx.TensorProto.INT64, [len(v)], v) for k, v in constants.items()]
    given = [helper.make_tensor_value_info("input", kind, [batch, 3, 64, width])]
    graph = helper.make_graph(nodes, "simcc", given, graph_outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, file)
    return file


def spots() -> tuple[Tensor, Tensor]:
    """Two black crops 64 x 48 with a white pixel, and where it is."""
    images, places = torch.zeros(2, 3, 64, 48, dtype=torch.uint8), torch.tensor([[7, 50], [40, 3]])
    images[torch.arange(2), :, places[:, 1], places[:, 0]] = 255
    return images, places


@pytest.mark.parametrize("batch", ["batch", 1])
def test_rtmpose_from_a_file(tmp_path: Path, batch: int | str) -> None:
    pytest.importorskip("onnxruntime", reason="the export extra")
    from vireid.data.pose.rtmpose import RTMPose

    estimator = RTMPose(simcc_model(tmp_path / "pose.onnx", batch))
    assert estimator.size == (64, 48)
    images, places = spots()
    found = estimator(images)
    assert found.shape == (2, 17, 3)
    assert found[..., :2].equal(places[:, None].float().expand(-1, 17, -1))
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(estimator(large)[..., :2], (found[..., :2] + 0.5) * 2 - 0.5)


def test_rtmpose_reads_red_first_and_takes_the_lower_maximum(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the export extra")
    from vireid.data.pose.rtmpose import RTMPose

    estimator = RTMPose(simcc_model(tmp_path / "pose.onnx"))
    seen = []
    estimator.session = type("Session", (), {"run": lambda self, names, feed: seen.append(feed["input"]) or answer})()
    columns, rows = torch.zeros(1, 17, 96), torch.zeros(1, 17, 128)
    columns[0, :, 21], rows[0, :, 100] = 0.7, 0.4
    columns[0, 1, 22], rows[0, 2] = 3.0, -1.0
    answer = [columns.numpy(), rows.numpy()]
    image = torch.zeros(1, 3, 64, 48, dtype=torch.uint8)
    image[:, 0] = 255
    found = estimator(image)[0]
    assert found[0].tolist() == pytest.approx([10.5, 50.0, 0.4]) and found[1].tolist() == pytest.approx([11, 50, 0.4])
    assert float(found[2, 2]) == 0  # no negative confidence
    values = seen[0][0].mean((1, 2))
    assert values.tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rel=1e-4)


def test_what_is_no_rtmpose(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the export extra")
    from vireid.data.pose.rtmpose import RTMPose

    with pytest.raises(ValueError, match="no ONNX file at"):
        RTMPose(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match="is not an ONNX file that onnxruntime reads"):
        RTMPose(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match="gives 1 outputs"):
        RTMPose(simcc_model(tmp_path / "one.onnx", outputs=1))
    with pytest.raises(ValueError, match="batches of 8 alone"):
        RTMPose(simcc_model(tmp_path / "eight.onnx", batch=8))
    few = RTMPose(simcc_model(tmp_path / "few.onnx", points=5))
    with pytest.raises(ValueError, match="expected 17 points"):
        few(spots()[0])
    with warnings.catch_warnings(), pytest.raises(ValueError, match="no CUDA"):
        RTMPose(tmp_path / "few.onnx", device="cuda")
