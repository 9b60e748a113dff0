"""Where poses come from: pictures seen by an estimator, OpenPose's JSON files, arrays on disk, or a template.

A source is called with rows of a table and returns keypoints (R, 17, 3) in pixels of the source pictures, NaN for a
picture of which it knows nothing or in which it found nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from vireid.arrays_file import read_arrays
from vireid.data.pose.heatmaps import NECK, OPENPOSE_FROM_COCO, OPENPOSE_POINTS, POINTS, PoseEstimator, template
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.images import read
from vireid.json_file import parsed

BODY_25 = 25  # points of OpenPose's newer model
# BODY_25's number of each of OpenPose's 18: the middle of the hips is number 8, feet come last
OPENPOSE_FROM_BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
PADDING = 1.25  # top-down estimators learned with a quarter more than the person's box
BATCH = 32


class PoseSource(Protocol):
    """Gives keypoints (R, 17, 3), in pixels of the source pictures, for the rows of a table; NaN where it has none."""

    def __call__(self, table: Table) -> np.ndarray: ...


def coco(points: np.ndarray) -> np.ndarray:
    """Points (..., K, 3) as COCO's (..., 17, 3): K = 17, 18 (OpenPose, whose neck is left out) or 25 (BODY_25)."""
    count = points.shape[-2]
    if points.shape[-1] != 3 or count not in (POINTS, OPENPOSE_POINTS, BODY_25):
        raise DataError(
            f"expected x, y, confidence of 17 COCO points, or of OpenPose's 18 or 25, got {points.shape[-2:]}"
        )
    if count == POINTS:
        return points
    if count == BODY_25:
        points = points[..., list(OPENPOSE_FROM_BODY_25), :]
    back = {number: place for place, number in enumerate(OPENPOSE_FROM_COCO) if place != NECK}
    return points[..., [back[number] for number in range(POINTS)], :]


class OpenPoseFolder:
    """OpenPose's output of `--write_json`, in picture pixels: FOLDER/a/b_keypoints.json for the picture a/b.jpg.

    FOLDER/a_b_keypoints.json is looked for next, for which pictures were copied into one folder under such names. Of
    several people in a picture the one with the largest sum of confidences counts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"no folder of OpenPose's JSON files at {folder}; give the folder of --write_json")

    def __call__(self, table: Table) -> np.ndarray:
        return np.stack([self.read(str(path)) for path in table.path])

    def read(self, path: str) -> np.ndarray:
        """(17, 3) of the picture at this path of the table."""
        stem = path.rpartition(".")[0] or path
        files = [self.folder / f"{name}_keypoints.json" for name in (stem, stem.replace("/", "_"))]
        file = next((f for f in files if f.is_file()), None)
        if file is None:
            return np.full((POINTS, 3), np.nan, dtype=np.float32)
        try:
            people = [np.array(p["pose_keypoints_2d"], np.float32) for p in parsed(file.read_bytes())["people"]]
            people = [coco(points.reshape(-1, 3)) for points in people if points.size]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DataError(
                f"{file} is not an output of OpenPose ({error}); expected people with pose_keypoints_2d"
            ) from error
        best = max(people, key=lambda points: points[:, 2].sum(), default=None)
        if best is None or not best[:, 2].any():
            return np.full((POINTS, 3), np.nan, dtype=np.float32)
        return best


class PoseArrays:
    """A .npz file with `path` (K,) and `keypoints` (K, 17, 3), as `vireid data pose` and the synthetic set write it, or
    with one array (17, 3) per picture under the picture's path. OpenPose's 18 and 25 points are taken too.
    """

    def __init__(self, file: Path) -> None:
        try:
            arrays = read_arrays(file)
        except ValueError as error:
            raise DataError(f"{file} is no .npz file of keypoints: {error}") from error
        paths: list[str] = list(arrays)
        points: list[np.ndarray] = list(arrays.values())
        if "path" in arrays or "keypoints" in arrays:
            if not {"path", "keypoints"} <= arrays.keys() or not alike(arrays["path"], arrays["keypoints"]):
                raise DataError(f"{file}: expected `path` (K,) and `keypoints` (K, 17, 3), found {', '.join(arrays)}")
            paths, points = [str(path) for path in arrays["path"]], list(arrays["keypoints"])
        try:
            known = [coco(np.asarray(each, dtype=np.float32)) for each in points]
        except (DataError, IndexError, ValueError, TypeError) as error:
            raise DataError(f"{file}: {error}") from error
        self.known = dict(zip(paths, known, strict=True))

    def __call__(self, table: Table) -> np.ndarray:
        nothing = np.full((POINTS, 3), np.nan, dtype=np.float32)
        return np.stack([self.known.get(str(path), nothing) for path in table.path])


def alike(paths: np.ndarray, points: np.ndarray) -> bool:
    """Whether there are points for each path."""
    return paths.ndim == 1 and points.ndim > 0 and len(paths) == len(points)


class Template:
    """The same average upright person in every picture: says nothing about the person's pose."""

    def __call__(self, table: Table) -> np.ndarray:
        pictures = (read(table.full_path(row)) for row in range(len(table)))
        return np.stack([template((picture.height, picture.width)).numpy() for picture in pictures])


class Pictures:
    """An estimator on pictures, each of which is put into a crop of the estimator's size with its proportions kept."""

    def __init__(self, estimator: PoseEstimator, batch_size: int = BATCH) -> None:
        if batch_size < 1:
            raise ArgumentError(f"batch_size is 1 or more pictures, got {batch_size}")
        self.estimator, self.batch_size = estimator, batch_size

    def __call__(self, table: Table) -> np.ndarray:
        keypoints = [self.estimate(table[start : start + self.batch_size]) for start in self.starts(table)]
        return np.concatenate(keypoints)

    def starts(self, table: Table) -> Iterator[int]:
        yield from range(0, len(table), self.batch_size)

    def estimate(self, table: Table) -> np.ndarray:
        size = self.estimator.size
        crops = np.empty((len(table), *size, 3), dtype=np.uint8)
        back = np.empty((len(table), 4), dtype=np.float64)
        for row in range(len(table)):
            crops[row], back[row] = letterbox(read(table.full_path(row)), size)
        return keypoints_of(self.estimator, crops, back)


def keypoints_of(estimator: PoseEstimator, crops: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Keypoints (N, 17, 3) in pixels of the pictures that `letterbox` made crops (N, H, W, 3) and back (N, 4) of."""
    points = estimator(torch.from_numpy(crops).permute(0, 3, 1, 2)).double().cpu().numpy()
    points[..., :2] = (points[..., :2] + 0.5 - back[:, None, 2:]) / back[:, None, :2] - 0.5
    points[..., 2] = points[..., 2].clip(0, 1)
    return points.astype(np.float32)


def letterbox(picture: Image.Image, size: tuple[int, int], padding: float = PADDING) -> tuple[np.ndarray, np.ndarray]:
    """Crop uint8 (height, width, 3) with the whole picture in its middle, and (scale x, scale y, left, top) of it.

    The picture takes 1 / padding of the side that limits it; the rest is black.
    """
    height, width = size
    scale = min(height / picture.height, width / picture.width) / padding
    w, h = max(round(scale * picture.width), 1), max(round(scale * picture.height), 1)
    left, top = (width - w) // 2, (height - h) // 2
    crop = np.zeros((height, width, 3), dtype=np.uint8)
    crop[top : top + h, left : left + w] = np.asarray(picture.resize((w, h), Image.Resampling.BILINEAR))
    return crop, np.array([w / picture.width, h / picture.height, left, top])
