"""Pose: the joints of a person in a picture, and the heat maps that a network reads in their place.

A pose is 17 COCO keypoints (N, 17, 3): x, y in pixels (the middle of pixel 0 lies at 0) and confidence 0..1. A table
has them as `extras["keypoints"]` in pixels of the source picture, a row of NaN where none is known. They are kept
instead of maps (51 numbers a picture) and move with the picture through crop, flip and resize; maps are drawn last:

    S_k(u) = c_k exp(-|u - x_k|^2 / (2 sigma^2))        0 where c_k < least; u, x_k, sigma in cells of the map

OpenPose's 18 points are the 17 in another order, with the neck as the middle of the shoulders.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vireid.data.table import Table
from vireid.data.transforms import COCO_MIRROR, Sample, inputs_of, scale_keypoints
from vireid.declaration import Count, Positive, settings
from vireid.errors import ArgumentError, DataError
from vireid.method import Transform

POINTS = len(COCO_MIRROR)  # 17: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left before right
OPENPOSE_POINTS = 18
SHOULDERS = [5, 6]  # COCO's left and right one
# COCO's number of each of OpenPose's points: nose, neck, right arm, left arm, right leg, left leg, eyes and ears with
# the right one first; the neck's place is filled afterward
OPENPOSE_FROM_COCO = (0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
NECK = 1  # of OpenPose

# An average upright person who faces the camera and fills the picture, as shares of its width and height: heights
# after the segments of Drillis and Contini, "Body Segment Parameters" (1966), arms hanging, a little margin around.
TEMPLATE = (
    (0.50, 0.10), (0.53, 0.085), (0.47, 0.085), (0.57, 0.095), (0.43, 0.095),
    (0.68, 0.20), (0.32, 0.20), (0.73, 0.37), (0.27, 0.37), (0.75, 0.51), (0.25, 0.51),
    (0.60, 0.51), (0.40, 0.51), (0.59, 0.72), (0.41, 0.72), (0.58, 0.94), (0.42, 0.94),
)  # fmt: skip

Missing = Literal["error", "zeros", "template"]


class PoseEstimator(Protocol):
    """Finds the person's joints: uint8 crops (N, 3, H, W), RGB, to (N, 17, 3) x, y in crop pixels and confidence."""

    size: tuple[int, int]  # (height, width) that it works best at

    def __call__(self, images: Tensor) -> Tensor: ...


def openpose(keypoints: Tensor) -> Tensor:
    """COCO's 17 points (N, 17, 3) as OpenPose's 18 (N, 18, 3).

    The neck lies in the middle of the shoulders, with the lower of their confidences.

    >>> points = torch.zeros(1, 17, 3)
    >>> points[0, 5], points[0, 6] = torch.tensor([8.0, 4.0, 0.5]), torch.tensor([2.0, 6.0, 1.0])
    >>> openpose(points)[0, NECK].tolist()
    [5.0, 5.0, 0.5]
    """
    if keypoints.shape[-2:] != (POINTS, 3):
        raise ArgumentError(f"expected {POINTS} COCO points of 3 numbers each, got shape {tuple(keypoints.shape)}")
    both = keypoints[..., SHOULDERS, :]
    neck = torch.cat([both[..., :2].mean(-2), both[..., 2:].amin(-2)], dim=-1)
    points = keypoints[..., list(OPENPOSE_FROM_COCO), :].clone()
    points[..., NECK, :] = neck
    return points


def heatmaps(keypoints: Tensor, size: tuple[int, int], sigma: float = 2.0, least: float = 0.05) -> Tensor:
    """Gaussians (N, K, h, w) of height c around keypoints (N, K, 3); x, y, sigma in cells, `size` is (h, w).

    A point whose confidence is below `least` (or not a number) gives an empty map.

    >>> heatmaps(torch.tensor([[[1.0, 0.0, 0.5]]]), (1, 3), sigma=1.0)[0, 0, 0].tolist()
    [0.3032653331756592, 0.5, 0.3032653331756592]
    """
    x, y, confidence = keypoints.unbind(-1)
    seen = confidence >= least

    def line(places: Tensor, cells: int) -> Tensor:
        """(N, K, cells); a Gaussian in two dimensions is the product of two in one."""
        apart = torch.arange(cells, device=places.device).to(places) - torch.where(seen, places, 0)[..., None]
        return torch.exp(-apart.square() / (2 * sigma**2))

    height = torch.where(seen, confidence, 0)[..., None, None]
    return height * line(y, size[0])[..., :, None] * line(x, size[1])[..., None, :]


@settings
class HeatMaps:
    """How heat maps are drawn from the pose of a picture, and what stands for a pose that is not known."""

    points: Literal[18, 17] = OPENPOSE_POINTS
    """Points of a pose: 18 (OpenPose) or 17 (COCO)."""
    sigma: Positive = 2.0
    """Standard deviation of a point's Gaussian in cells of the map."""
    stride: Count = 4
    """Pixels per cell."""
    least: Annotated[Positive, Field(le=1)] = 0.05
    """Confidence below which a map is empty."""
    missing: Missing = "error"
    """For an unknown pose: error, zeros (empty maps) or template (one average upright person)."""

    def size(self, image: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the maps of an image of this (height, width)."""
        if image[0] % self.stride or image[1] % self.stride:
            raise ArgumentError(f"heat maps need an image size that {self.stride} divides, got {image[0]}x{image[1]}")
        return image[0] // self.stride, image[1] // self.stride

    def filled(self, keypoints: Tensor, image: tuple[int, int]) -> Tensor:
        """Keypoints (N, 17, 3) of images of this (height, width), unknown poses (NaN) replaced as `missing` says."""
        unknown = keypoints.isnan().any(-1).any(-1)
        if self.missing == "error":
            if unknown.any():
                raise DataError(f"{int(unknown.sum())} of {len(keypoints)} pictures have no pose. {TO_DO}")
            return keypoints
        known = keypoints.new_zeros(POINTS, 3) if self.missing == "zeros" else template(image).to(keypoints)
        return torch.where(unknown[:, None, None], known, keypoints)

    def draw(self, keypoints: Tensor, image: tuple[int, int]) -> Tensor:
        """Maps (N, points, h, w) of COCO keypoints (N, 17, 3) in pixels of images of this (height, width)."""
        size = self.size(image)
        points = openpose(keypoints) if self.points == OPENPOSE_POINTS else keypoints
        return heatmaps(scale_keypoints(points, image, size), size, self.sigma, self.least)


def template(image: tuple[int, int]) -> Tensor:
    """(17, 3) the average upright person in an image of this (height, width), confidence 1."""
    shares = torch.tensor(TEMPLATE)
    places = shares * torch.tensor([float(image[1]), float(image[0])]) - 0.5
    return torch.cat([places, torch.ones(POINTS, 1)], dim=1)


@settings
class WithHeatmaps:
    """A view's transform, with keypoints that move along and leave it as `heatmaps` (N, points, h, w)."""

    inner: Transform
    """What is done to images and keypoints before."""
    maps: HeatMaps
    """How the maps are drawn."""

    optional: ClassVar[tuple[str, ...]] = ("keypoints",)  # NaN where the table has none: `maps.missing` decides

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("keypoints", *inputs_of(self.inner))))

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        points = self.maps.filled(sample["keypoints"], size_of(sample["images"]))
        moved = dict(self.inner({**sample, "keypoints": points}, generator))
        points = moved.pop("keypoints")
        return {**moved, "heatmaps": self.maps.draw(points, size_of(moved["images"]))}


def size_of(images: Tensor) -> tuple[int, int]:
    """(height, width) of images (N, 3, H, W)."""
    return images.shape[-2], images.shape[-1]


# --- what a table knows -----------------------------------------------------------------------------------------------

TO_DO = (
    "Write them with `vireid data pose DATA --estimator ...` (ROOT/keypoints.npz is read with the data), or choose "
    "what stands for an unknown pose: missing=zeros (empty heat maps) or missing=template (one average upright person)"
)


def unknown_poses(table: Table, missing: Missing) -> str:
    """What stands for poses that the table does not know, for the stamp; "" when it knows them all.

    Raises DataError for unknown poses where `missing` is "error".
    """
    points = table.extras.get("keypoints")
    unknown = np.ones(len(table), bool) if points is None else np.isnan(points).any(axis=(1, 2))
    if not unknown.any():
        return ""
    if missing == "error":
        why = f"there is no keypoints.npz in {table.root}" if points is None else f"first {table.path[unknown][0]}"
        raise DataError(
            f"heat maps need poses, and {unknown.sum()} of {len(table)} pictures have none ({why}). {TO_DO}"
        )
    return f"{missing} for {unknown.sum()} of {len(table)} images"
