"""Pose input: heat maps of the pose beside pictures, for a bundle whose network takes them (SPOT).

    vitpose:FOLDER, rtmpose:FILE.onnx   an estimator looks at every picture, with weights from your disk
    template                            the same average upright person in every picture
    zeros                               empty maps: the network sees no pose at all

The last two know nothing of the person; they are chosen by name and never taken in silence. A gallery is searched with
the choice that it was made with: vectors of other maps are alike, and not the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from vireid.deploy.bundle import Bundle
from vireid.errors import PoseError, ServiceError
from vireid.system import choose_device

if TYPE_CHECKING:  # torch is imported where a pose is given
    from torch import Tensor

    from vireid.data.pose.heatmaps import PoseEstimator

HEATMAPS = "heatmaps"
NOTHING = np.zeros(0, np.uint8)  # where no estimator looks
CHOICES = "vitpose:FOLDER, rtmpose:FILE.onnx, template or zeros"


class Seen(NamedTuple):
    """What is kept of a picture until its batch is complete: the estimator's crop and how to come back from it."""

    size: tuple[int, int]  # (height, width) of the picture
    crop: np.ndarray = NOTHING  # uint8 (H, W, 3)
    back: np.ndarray = NOTHING  # scale x, scale y, left, top


class Poser:
    """Heat maps by a choice of CHOICES, drawn as the bundle's network was trained with.

    Raises PoseError for another word and for a bundle that takes no heat maps, DataError and others of the estimator.
    """

    def __init__(self, choice: str, bundle: Bundle, device: str = "auto") -> None:
        from vireid.data.pose.heatmaps import HeatMaps

        config = bundle.config
        if HEATMAPS not in config.inputs:
            raise PoseError(f"{config.method} takes pictures alone; leave --pose out")
        self.choice, self.size = choice, config.size
        self.draws = HeatMaps(**(bundle.network().heatmaps or {}))
        self.estimator = _estimator(choice, device)

    def look(self, picture: Image.Image) -> Seen:
        """Prepare one RGB picture; may run in any thread."""
        from vireid.data.pose.sources import letterbox

        size = picture.height, picture.width
        if self.estimator is None:
            return Seen(size)
        return Seen(size, *letterbox(picture, self.estimator.size))

    def maps(self, seen: Sequence[Seen]) -> np.ndarray:
        """Heat maps (N, points, h, w) float32 of the pictures as the network sees them."""
        return self.draws.draw(self.points(seen), self.size).numpy()

    def points(self, seen: Sequence[Seen]) -> Tensor:
        """Keypoints (N, 17, 3) in pixels of pictures of the bundle's size."""
        import torch

        from vireid.data.pose.heatmaps import POINTS, template
        from vireid.data.pose.sources import keypoints_of
        from vireid.data.transforms import scale_keypoints

        if self.estimator is None:
            one = template(self.size) if self.choice == "template" else torch.zeros(POINTS, 3)
            return one.expand(len(seen), -1, -1)
        crops, back = np.stack([each.crop for each in seen]), np.stack([each.back for each in seen])
        keypoints = torch.from_numpy(keypoints_of(self.estimator, crops, back))
        return scale_keypoints(keypoints, torch.tensor([each.size for each in seen]), self.size)


def to_do(bundle: Bundle) -> str:
    """What to do for a bundle that takes heat maps, "" for another."""
    if bundle.config.inputs != (HEATMAPS,):
        return ""
    return f"say with --pose (pose= in Python) where the pose comes from: {CHOICES}"


def check_pose(bundle: Bundle, pose: str | None) -> None:
    """ServiceError at once, and not at the first picture, where the bundle also takes what is not given."""
    if bundle.config.inputs and pose is None:
        advice = to_do(bundle) or "such a bundle is used from Python (FeatureExtractor), with arrays by name"
        raise ServiceError(f"{bundle.config.method} also takes {', '.join(bundle.config.inputs)}; {advice}")


def _estimator(choice: str, device: str) -> PoseEstimator | None:
    kind, _, place = choice.partition(":")
    if choice in ("template", "zeros"):
        return None
    if kind == "vitpose" and place:
        from vireid.data.pose.vitpose import VitPose

        return VitPose(Path(place).expanduser(), choose_device(device))
    if kind == "rtmpose" and place:
        from vireid.data.pose.rtmpose import RTMPose

        # onnxruntime with CUDA is another package than torch's
        return RTMPose(Path(place).expanduser(), "cpu" if device == "auto" else device)
    raise PoseError(f"--pose is {CHOICES}, got {choice[:80]!r}")
