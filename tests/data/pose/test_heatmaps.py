"""Pose: heat maps in loops, the two orders of points, mirrors, unknown poses, the way through TrainingData."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vireid.data.pipeline import TrainingData
from vireid.data.pose.heatmaps import (
    TEMPLATE,
    HeatMaps,
    Missing,
    WithHeatmaps,
    heatmaps,
    openpose,
    template,
    unknown_poses,
)
from vireid.data.samplers import IdentityBatches
from vireid.data.table import Table, table_from_columns
from vireid.data.transforms import COCO_MIRROR, OPENPOSE_MIRROR, Chain, Flip, Normalize, PadCrop, flip
from vireid.errors import DataError
from vireid.method import Progress, Recipe, View
from vireid.synthetic.body import KEYPOINTS
from vireid.types import INFRARED, VISIBLE

OPENPOSE = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip


def points(n: int = 3, size: tuple[int, int] = (64, 32), seed: int = 0) -> torch.Tensor:
    """Random keypoints (n, 17, 3) inside an image."""
    uniform = torch.rand(n, 17, 3, generator=torch.Generator().manual_seed(seed))
    return uniform * torch.tensor([size[1] - 1.0, size[0] - 1.0, 1.0])


def test_heatmaps_are_gaussians() -> None:
    given, sigma = points(2, (6, 5)), 1.3
    given[0, 0, 2], given[0, 1, 2], given[1, 3] = 0.04, 0.05, torch.nan
    found = heatmaps(given, (6, 5), sigma, least=0.05)
    assert found.shape == (2, 17, 6, 5)
    for (i, k, row, column), value in np.ndenumerate(found.numpy()):
        x, y, c = given[i, k].tolist()
        expected = c * math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2)) if c >= 0.05 else 0.0
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-7), (i, k)
    assert not found[0, 0].any() and not found[1, 3].any() and found[0, 1].any()
    far = heatmaps(torch.tensor([[[1e30, -1e30, 0.0]]]), (4, 4))
    assert not far.any()  # a place that means nothing leaves no NaN behind


def test_coco_as_openpose() -> None:
    given = points()
    found = openpose(given)
    for place, name in enumerate(OPENPOSE):
        if name != "neck":
            assert found[:, place].equal(given[:, KEYPOINTS.index(name)]), name
    left, right = given[:, KEYPOINTS.index("left_shoulder")], given[:, KEYPOINTS.index("right_shoulder")]
    torch.testing.assert_close(found[:, 1, :2], (left + right)[:, :2] / 2)
    assert found[:, 1, 2].equal(torch.minimum(left[:, 2], right[:, 2]))
    with pytest.raises(ValueError, match="17 COCO points"):
        openpose(found)


def test_mirrors_exchange_left_and_right() -> None:
    for names, mirror in ((KEYPOINTS, COCO_MIRROR), (OPENPOSE, OPENPOSE_MIRROR)):
        for name, partner in zip(names, mirror, strict=True):
            swapped = name.replace("left", "x").replace("right", "left").replace("x", "right")
            assert names[partner] == swapped


@pytest.mark.parametrize("kind", [17, 18])
def test_mirrored_maps_are_maps_of_the_mirrored_pose(kind: int) -> None:
    maps, size, given = HeatMaps(points=kind, sigma=1.0), (64, 32), points()
    images = torch.zeros(3, 3, *size, dtype=torch.uint8)
    flipped = torch.tensor([True, False, True])
    moved = flip({"images": images, "keypoints": given}, flipped)["keypoints"]
    both = flip({"images": images, "heatmaps": maps.draw(given, size)}, flipped)["heatmaps"]
    torch.testing.assert_close(maps.draw(moved, size), both, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], maps.draw(given, size)[0], atol=1e-2)


def test_a_point_lies_where_its_pixel_lies() -> None:
    """Four pixels are a cell; the middle of pixels 4..7 is the middle of cell 1."""
    given = torch.zeros(1, 17, 3)
    given[0, 0] = torch.tensor([5.5, 9.5, 1.0])
    maps = HeatMaps(points=17, sigma=0.5).draw(given, (32, 16))
    assert maps.shape == (1, 17, 8, 4) and float(maps[0, 0, 2, 1]) == 1.0
    assert not maps[0, 1:].any()
    with pytest.raises(ValueError, match="that 4 divides, got 30x16"):
        HeatMaps().size((30, 16))


def test_unknown_poses_are_what_was_chosen() -> None:
    given = points(3)
    given[1] = torch.nan
    with pytest.raises(DataError, match=r"1 of 3 pictures have no pose\. Write them with `vireid data pose"):
        HeatMaps().filled(given, (64, 32))
    zeros = HeatMaps(missing="zeros").filled(given, (64, 32))
    assert not zeros[1].any() and zeros[0].equal(given[0]) and zeros[2].equal(given[2])
    body = HeatMaps(missing="template").filled(given, (64, 32))
    assert body[1].equal(template((64, 32))) and body[0].equal(given[0])
    assert HeatMaps().filled(given[[0, 2]], (64, 32)).equal(given[[0, 2]])


def test_template_is_an_upright_person_who_faces_the_camera() -> None:
    body = dict(zip(KEYPOINTS, template((288, 144)).tolist(), strict=True))
    for name, (x, y, confidence) in body.items():
        partner = name.replace("left", "x").replace("right", "left").replace("x", "right")
        assert 0 < x < 143 and 0 < y < 287 and confidence == 1
        assert body[partner][:2] == pytest.approx([143 - x, y], abs=1e-3)
        assert not name.startswith("left") or x > 71.5  # the left side of someone who faces us is on our right
    heights = [body[f"left_{part}"][1] for part in ("eye", "shoulder", "elbow", "hip", "knee", "ankle")]
    assert heights == sorted(heights) and len(TEMPLATE) == 17


def test_wrong_settings() -> None:
    for wrong, message in (
        ({"points": 25}, "points\n.* 18 or 17"),
        ({"sigma": 0.0}, "sigma\n.* greater than 0"),
        ({"least": 0.0}, "least\n.* greater than 0"),
        ({"missing": "nothing"}, "missing\n.* 'error', 'zeros' or 'template'"),
    ):
        with pytest.raises(ValueError, match=message):
            HeatMaps(**wrong)


# --- from a table to a batch ------------------------------------------------------------------------------------------


def white_dots(root: Path) -> Table:
    """4 people, black pictures 64 x 32 with white squares of 4 pixels, which is where the keypoints 0 and 5 lie."""
    columns: dict[str, list] = {name: [] for name in ("path", "pid", "camid", "modality", "split", "keypoints")}
    for row in range(16):
        pixels, found = np.zeros((64, 32, 3), dtype=np.uint8), np.zeros((17, 3), dtype=np.float32)
        for point, (x, y) in ((0, (4 + 4 * (row % 2), 12)), (5, (20, 40))):
            pixels[y : y + 4, x : x + 4, point % 3] = 255
            found[point] = x + 1.5, y + 1.5, 1.0
        Image.fromarray(pixels).save(root / f"{row}.png")
        cells = (f"{row}.png", row // 4, row % 2 + 1, row % 2, "train", found)
        for column, value in zip(columns.values(), cells, strict=True):
            column.append(value)
    return table_from_columns(root, columns, "dots")


def recipe_of(transform: object, size: tuple[int, int] = (64, 32)) -> Recipe:
    views = tuple(View(modality, transform) for modality in (VISIBLE, INFRARED))  # pyright: ignore[reportArgumentType]
    return Recipe(size, IdentityBatches(pids=4, images=2), views, 1, {}, lambda at: 1.0)


@pytest.mark.parametrize("size", [(64, 32), (128, 64)])
def test_maps_move_with_the_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    """After crop and flip the peak of a map lies on the white square of its point, or both are gone."""
    table = white_dots(tmp_path)
    inner = Chain(PadCrop(12), Flip(0.5), Normalize())
    transform = WithHeatmaps(inner, HeatMaps(points=17, sigma=0.7))
    assert transform.inputs == ("keypoints",)
    batch = next(TrainingData(table, progress=False).batches(recipe_of(transform, size), Progress()))
    assert set(batch.extras) == {"heatmaps"} and batch.extras["heatmaps"].shape == (16, 17, size[0] // 4, size[1] // 4)
    flipped = seen = 0
    for image, maps in zip(batch.images, batch.extras["heatmaps"], strict=True):
        cells = torch.nn.functional.avg_pool2d(image[None], 4)[0]
        for point, channel in ((0, 0), (5, 2)):
            # a mirrored left shoulder is a right one
            here = point if maps[point].max() > 0.2 else COCO_MIRROR[point]
            flipped += point != here and bool(maps[here].max() > 0.2)
            if maps[here].max() < 0.2:
                continue
            peak, brightest = int(maps[here].argmax()), int(cells[channel].argmax())
            width = size[1] // 4
            assert abs(peak // width - brightest // width) <= 1 and abs(peak % width - brightest % width) <= 1
            seen += 1
    assert seen > 16 and flipped > 2


@pytest.mark.parametrize("missing", ["zeros", "template"])
def test_data_without_keypoints(tmp_path: Path, missing: Missing) -> None:
    table = replace(white_dots(tmp_path), extras={})
    maps = HeatMaps(missing=missing)
    data = TrainingData(table, progress=False)
    batch = next(data.batches(recipe_of(WithHeatmaps(Normalize(), maps)), Progress()))
    expected = maps.draw(template((64, 32))[None], (64, 32)) if missing == "template" else torch.zeros(1, 18, 16, 8)
    torch.testing.assert_close(batch.extras["heatmaps"], expected.expand(16, -1, -1, -1))
    with pytest.raises(DataError, match="have no pose"):
        next(data.batches(recipe_of(WithHeatmaps(Normalize(), HeatMaps())), Progress()))


def test_what_a_table_does_not_know(tmp_path: Path) -> None:
    table = white_dots(tmp_path)
    assert unknown_poses(table, "error") == unknown_poses(table, "zeros") == ""
    holes = table.extras["keypoints"].copy()
    holes[[3, 7]] = np.nan
    partly = replace(table, extras={"keypoints": holes})
    assert unknown_poses(partly, "template") == "template for 2 of 16 images"
    with pytest.raises(DataError, match=r"2 of 16 pictures have none \(first 3.png\).*vireid data pose.*missing=zeros"):
        unknown_poses(partly, "error")
    without = replace(table, extras={})
    assert unknown_poses(without, "zeros") == "zeros for 16 of 16 images"
    with pytest.raises(DataError, match=f"no keypoints.npz in {tmp_path}"):
        unknown_poses(without, "error")


def test_maps_of_another_size_are_not_cropped() -> None:
    sample = {"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "heatmaps": torch.zeros(1, 17, 2, 2)}
    with pytest.raises(ValueError, match=r"heatmaps of \(2, 2\) cannot be cropped like images of \(8, 8\)"):
        PadCrop(1)(sample, torch.Generator())
