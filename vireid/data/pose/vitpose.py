"""ViTPose: keypoints by a vision transformer of the `transformers` package, from a folder of weights on this machine.

Xu, Zhang, Zhang, Tao: "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation", NeurIPS 2022. The
network gives one map per point; the place is its maximum, refined by the slopes of the logarithm around it (Zhang et
al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020). Cells and pixels share their
corners' middles (Huang et al., "The Devil Is in the Details", CVPR 2020): pixel = cell (W - 1) / (w - 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.data.pose.heatmaps import POINTS
from vireid.errors import ArgumentError, DataError
from vireid.json_file import read_json
from vireid.types import IMAGENET_MEAN, IMAGENET_STD


class VitPose:
    """A PoseEstimator from `folder`, which holds config.json and model.safetensors as the Hub has them.

    Raises ValueError without the package, for another kind of model or for one of other points than COCO's 17.
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu") -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ArgumentError(
                f"no ViTPose model in {folder}: expected config.json and model.safetensors; download them"
            )
        about = read_json(folder / "config.json", DataError, "download the model again")
        kind = about.get("model_type") if isinstance(about, dict) else None
        if kind != "vitpose":
            raise ArgumentError(f"{folder} holds a model of type {kind!r}, expected vitpose")
        try:
            from transformers import VitPoseForPoseEstimation
        except ImportError as error:
            raise ArgumentError("ViTPose needs the package transformers: pip install transformers") from error
        self.model: Any = VitPoseForPoseEstimation.from_pretrained(folder, local_files_only=True)
        self.model = self.model.to(device).eval()
        backbone = self.model.config.backbone_config
        if self.model.config.num_labels != POINTS:
            raise ArgumentError(f"{folder} finds {self.model.config.num_labels} points, expected COCO's {POINTS}")
        self.size: tuple[int, int] = (int(backbone.image_size[0]), int(backbone.image_size[1]))
        self.experts = getattr(backbone, "num_experts", 1) > 1  # ViTPose+ asks whose points: those of COCO are number 0
        mean, std = statistics(folder / "preprocessor_config.json")
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Keypoints (N, 17, 3) in pixels of uint8 crops (N, 3, H, W), and the height of the map as confidence."""
        height, width = images.shape[-2:]
        pixels = images.to(self.mean.device).float()
        if (height, width) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        pixels = (pixels / 255 - self.mean) / self.std
        whose = {"dataset_index": torch.zeros(len(images), dtype=torch.int64, device=pixels.device)}
        maps = self.model(pixels, **(whose if self.experts else {})).heatmaps.float()
        points = peaks(maps)
        cells = points.new_tensor([maps.shape[-1] - 1, maps.shape[-2] - 1])
        places = points[..., :2] / cells * (points.new_tensor([self.size[1], self.size[0]]) - 1)
        scale = places.new_tensor([width / self.size[1], height / self.size[0]])
        places = (places + 0.5) * scale - 0.5
        return torch.cat([places, points[..., 2:].clamp(0, 1)], dim=-1).cpu()


def statistics(file: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of the pixels, from the model's own settings where they are there, else ImageNet's."""
    about = read_json(file, DataError, "download the model again") if file.is_file() else {}
    if not isinstance(about, dict):
        raise DataError(f"{file} holds no names and values; download the model again")
    return about.get("image_mean", list(IMAGENET_MEAN)), about.get("image_std", list(IMAGENET_STD))


def peaks(maps: Tensor, sigma: float = 0.8, radius: int = 5) -> Tensor:
    """(N, K, 3) x, y in cells and height of the maximum of each map (N, K, h, w), refined below a cell.

    The maps are smoothed by a Gaussian of `sigma` cells, cut off at `radius` (the values of `transformers`), and one
    Newton step is taken on their logarithm.
    """
    count, points, _, w = maps.shape
    height, best = maps.flatten(2).max(-1)
    x, y = best % w, best // w
    line = torch.exp(-torch.arange(-radius, radius + 1).to(maps).square() / (2 * sigma**2))
    line = line / line.sum()
    padded = F.pad(maps.flatten(0, 1)[:, None], (radius,) * 4, mode="replicate")
    smooth = F.conv2d(F.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    log = F.pad(smooth.clamp(1e-3, 50).log(), (1, 1, 1, 1), mode="replicate").view(count, points, -1)

    def at(dx: int, dy: int) -> Tensor:
        """The logarithm beside each maximum."""
        return log.gather(2, ((y + 1 + dy) * (w + 2) + x + 1 + dx)[..., None])[..., 0]

    middle, right, left, below, above = at(0, 0), at(1, 0), at(-1, 0), at(0, 1), at(0, -1)
    dx, dy = (right - left) / 2, (below - above) / 2
    xx, yy = right - 2 * middle + left, below - 2 * middle + above
    xy = (at(1, 1) - right - below + 2 * middle - left - above + at(-1, -1)) / 2
    curvature = xx * yy - xy * xy
    firm = (curvature > 1e-9) & (xx < 0)  # a maximum in both directions; a flat map is left where it is
    step = torch.stack([xy * dy - yy * dx, xy * dx - xx * dy], -1) / torch.where(firm, curvature, 1)[..., None]
    places = torch.stack([x, y], -1) + torch.where(firm[..., None], step, 0)
    return torch.cat([places, height[..., None]], dim=-1)
