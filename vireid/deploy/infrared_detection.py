"""Modality from the picture alone: infrared pictures have no color.

Near-infrared cameras deliver one gray value three times, and so do thermal ones; a lossy codec and sensor noise add a
little color to each pixel. So a picture is averaged over a grid of 16 x 8 cells, where such color vanishes, and

    chroma = the 95th percentile over the cells of max(R, G, B) - min(R, G, B), in gray levels

is held against a bar. Five of a hundred cells may be colored, a caption burnt into the picture for instance.
What this cannot see: a black-and-white photograph counts as infrared; thermal pictures in false colors and infrared
cameras with a colored cast count as visible. Measured error rates stand in docs/serve/bundle.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vireid.errors import ArgumentError

GRID = (16, 8)  # cells: rows, columns; a person's picture is about twice as high as wide
SHARE = 0.95
BAR = 5.5  # gray levels; between the real and the synthetic pictures that were measured
STEEPNESS = 4.0


@dataclass(frozen=True)
class Judgment:
    """Whether a picture is infrared, how sure that is (0.5 to 1) and its chroma in gray levels."""

    infrared: bool
    confidence: float
    chroma: float


def chroma(picture: np.ndarray) -> float:
    """Color of a uint8 picture (H, W, 3) in gray levels; 0 for a gray one.

    >>> chroma(np.full((4, 4, 3), (90, 70, 80), np.uint8))
    20.0
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ArgumentError(f"a picture is uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
    rows, columns = GRID
    cells = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BOX)).reshape(-1, 3)
    return float(np.quantile(cells.max(1).astype(np.int64) - cells.min(1), SHARE))


def judge(picture: np.ndarray) -> Judgment:
    """The modality of a uint8 picture (H, W, 3) with its confidence, which grows with the distance from the bar.

    The confidence 1 / (1 + (chroma / BAR)^4), or one minus that, is a scale, not a measured probability.
    """
    color = chroma(picture)
    infrared = 1 / (1 + (color / BAR) ** STEEPNESS)
    return Judgment(color < BAR, max(infrared, 1 - infrared), color)


def is_infrared(picture: np.ndarray) -> bool:
    """Whether a uint8 picture (H, W, 3) was taken by an infrared camera."""
    return judge(picture).infrared
