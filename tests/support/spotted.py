"""Frames with people, each a block of one color, and a detector that finds these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

RED = 200  # of a block; green counts them


def frame(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (320, 160)) -> Image.Image:
    """A gray frame of (width, height) with a block in each box (left, top, right, bottom)."""
    picture = Image.new("RGB", size, (90, 90, 90))
    for number, (left, top, right, bottom) in enumerate(boxes):
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=(RED, number, 40))
    return picture


class Spotter:
    """A Detector of the blocks of `frame`; the larger the surer."""

    def __call__(self, frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.found(pixels) for pixels in frames]

    def found(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = list[list[int]](), list[float]()
        is_block = (pixels[..., 0] == RED) & (pixels[..., 2] == 40)
        for number in np.unique(pixels[is_block][:, 1]):
            rows, columns = np.nonzero(is_block & (pixels[..., 1] == number))
            boxes.append([int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1])
            scores.append(len(rows) / pixels[..., 0].size)
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
