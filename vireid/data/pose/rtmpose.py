"""RTMPose: keypoints by an ONNX file, from one distribution over columns and one over rows for each point (SimCC).

Jiang, Lu, Zhang, Ma, Han, Lyu, Li, Chen: "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose", arXiv
2023; Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022:

    x = argmax of the columns' vector / bins per pixel, y alike; confidence = the smaller of the two maxima, in 0..1

The network is given RGB pixels normalized by ImageNet's statistics. That it was trained on RGB was not checked against
its training code: if poses of a real file look poor, exchange red and blue first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.data.pose.heatmaps import POINTS
from vireid.errors import ArgumentError
from vireid.types import IMAGENET_MEAN, IMAGENET_STD


class RTMPose:
    """A PoseEstimator from an ONNX file with one input (N, 3, H, W) and outputs (N, 17, bins W) and (N, 17, bins H).

    Raises ValueError without onnxruntime, and for a file of another form.
    """

    def __init__(self, file: str | Path, device: str | torch.device = "cpu") -> None:
        file = Path(file)
        if not file.is_file():
            raise ArgumentError(f"no ONNX file at {file}; give the .onnx of an RTMPose model")
        try:
            import onnxruntime
        except ImportError as error:
            raise ArgumentError("RTMPose needs the export extra: pip install 'vireid[export]'") from error
        gpu = torch.device(device).type == "cuda"
        if gpu and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ArgumentError("this onnxruntime has no CUDA; pip install onnxruntime-gpu, or use --device cpu")
        providers = [*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"]
        try:
            self.session = onnxruntime.InferenceSession(str(file), providers=providers)
        except Exception as error:  # onnxruntime's errors have no common class
            raise ArgumentError(f"{file} is not an ONNX file that onnxruntime reads: {error}") from error
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        shape = list(inputs[0].shape)
        if len(inputs) != 1 or len(outputs) != 2 or len(shape) != 4 or not all(isinstance(n, int) for n in shape[1:]):
            raise ArgumentError(
                f"{file} takes {[list(i.shape) for i in inputs]} and gives {len(outputs)} outputs; expected one input "
                "(N, 3, H, W) of fixed H, W and two outputs (columns, rows)"
            )
        self.name: str = inputs[0].name
        self.file, self.size = file, (int(shape[2]), int(shape[3]))
        self.fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None  # batch that the file insists on
        if self.fixed not in (None, 1):
            raise ArgumentError(f"{file} takes batches of {self.fixed} alone; export it with batch 1 or any batch")

    def __call__(self, images: Tensor) -> Tensor:
        """Keypoints (N, 17, 3) in pixels of uint8 crops (N, 3, H, W)."""
        height, width = images.shape[-2:]
        pixels = images.float()
        if (height, width) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        values = ((pixels / 255 - mean) / std).numpy()
        parts = np.split(values, len(values)) if self.fixed else [values]
        outputs = [self.session.run(None, {self.name: part}) for part in parts]
        columns, rows = (torch.from_numpy(np.concatenate([np.asarray(f[i]) for f in outputs])) for i in range(2))
        points = self.decode(columns, rows)
        scale = points.new_tensor([width / self.size[1], height / self.size[0]])
        return torch.cat([(points[..., :2] + 0.5) * scale - 0.5, points[..., 2:]], dim=-1)

    def decode(self, columns: Tensor, rows: Tensor) -> Tensor:
        """(N, 17, 3) in pixels of the network's input from its two outputs (N, 17, bins W) and (N, 17, bins H)."""
        height, width = self.size
        bins = columns.shape[-1] / width
        if columns.shape[1] != POINTS or rows.shape[1] != POINTS or rows.shape[-1] / height != bins or bins < 1:
            raise ArgumentError(
                f"{self.file} gives {tuple(columns.shape)} and {tuple(rows.shape)} for images of {self.size}; expected "
                f"{POINTS} points with as many bins per pixel in both directions, columns first"
            )
        (high_x, x), (high_y, y) = columns.max(-1), rows.max(-1)
        return torch.stack([x / bins, y / bins, torch.minimum(high_x, high_y).clamp(0, 1)], dim=-1)
