"""Training from visible pictures alone: the visible picture again, changed, stands for an infrared one.

A surface reflects infrared light otherwise than visible light, so no formula turns one picture into the other. What
helps is variety: gray levels whose meaning changes from picture to picture, so that a network cannot rely on color and
little on brightness. Each picture has numbers of its own:

    gray  = w_r R + w_g G + w_b B     with w drawn evenly from all weights that are >= 0 and add up to 1
    tone  = gray^e                    with log e even in [-log gamma, log gamma], gray from 0 to 1
    image = 1 - tone                  with probability `invert` (warm is bright in thermal pictures, whatever is worn)

Sources: gray copies as an infrared-like modality (Ye, Shen, Shao, "Visible-Infrared Person Re-Identification via
Homogeneous Augmented Tri-Modal Learning", TIFS 2020); a channel drawn at random in place of fixed weights (Ye et al.,
"Channel Augmented Joint Learning for Visible-Infrared Recognition", ICCV 2021); linear mixes of the channels (Tan et
al., "RLE: A Unified Perspective of Data Augmentation for Cross-Spectral Re-identification", NeurIPS 2024). Tone and
inversion are ours.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vireid.data.table import Table
from vireid.data.transforms import Sample, check_pixels, draw
from vireid.declaration import Number, Share, settings
from vireid.errors import DataError
from vireid.types import INFRARED, VISIBLE


@settings
class PseudoInfrared:
    """uint8 pixels to gray ones that stand for infrared, with weights, tone and inversion drawn for every image."""

    gamma: Annotated[Number, Field(ge=1)] = 2.0
    """Largest exponent of the tone curve; the smallest is 1 / gamma."""
    invert: Share = 0.25
    """Probability that bright and dark change places."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        check_pixels(sample, "PseudoInfrared")
        numbers = draw(len(sample["images"]), generator, 5)
        weights = -torch.log1p(-numbers[:, :3])  # exponential numbers divided by their sum: even over all weights
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        exponent = torch.exp((2 * numbers[:, 3] - 1) * math.log(self.gamma))
        return {**sample, "images": pseudo_infrared(sample["images"], weights, exponent, numbers[:, 4] < self.invert)}


def pseudo_infrared(images: Tensor, weights: Tensor, exponent: Tensor, inverted: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) after weights (N, 3), tone exponent (N,) and inversion (N,), three equal channels."""
    weights, exponent, inverted = (value.to(images.device) for value in (weights, exponent, inverted))
    gray = torch.einsum("nchw,nc->nhw", images.float() / 255, weights.float())
    tone = gray.clamp(0, 1) ** exponent.float()[:, None, None]
    tone = torch.where(inverted[:, None, None], 1 - tone, tone)
    return (tone * 255).round().to(torch.uint8)[:, None].expand(-1, 3, -1, -1)


def with_pseudo_infrared(table: Table) -> tuple[Table, np.ndarray]:
    """The visible rows and the same again as infrared ones, and the row of `table` that each came from.

    Infrared rows are left out. Raises DataError where there is no visible row.
    """
    rows = np.flatnonzero(table.modality == VISIBLE)
    if not len(rows):
        raise DataError(
            "pseudo_infrared=true trains on visible pictures, and the training rows have none; leave it out"
        )
    origin = np.concatenate([rows, rows])
    return replace(table[origin], modality=np.repeat([VISIBLE, INFRARED], len(rows))), origin


def sampled_rows(table: Table, pseudo: bool) -> tuple[Table, np.ndarray]:
    """The rows that a sampler draws from, and the row of `table` that each came from; `pseudo` is of the recipe."""
    return with_pseudo_infrared(table) if pseudo else (table, np.arange(len(table)))
