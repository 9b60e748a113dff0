"""Bridging: changes of pictures that make the modalities of a training set look more alike and less like themselves.

What a network learns from one pair of cameras (say color and near-infrared) it should find again with another (say
thermal). So cues that hold for one pair alone are broken at random:

    single channel    red, green, blue or gray in all channels: Ye et al., "Channel Augmented Joint Learning for
                      Visible-Infrared Recognition", ICCV 2021
    inverted          255 - x: warm may be bright or dark
    tone              x -> contrast (x^gamma - 1/2) + 1/2 + brightness: automatic gain and exposure
    low resolution    reduced and enlarged again: infrared sensors have few pixels
    local gain        a factor for each cell of a 4 x 2 grid: Tan et al., "RLE: A Unified Perspective of Data
                      Augmentation for Cross-Spectral Re-identification", NeurIPS 2024, of which this is a coarse form

The probabilities and ranges are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.data.transforms import GRAY_WEIGHTS, Sample, check_pixels, draw, whole_numbers
from vireid.declaration import Share, settings

REDUCTIONS = (0.25, 0.4, 0.55, 0.7)  # of the sides, at low resolution
GAIN_CELLS = (4, 2)


@settings
class Bridge:
    """Change uint8 pictures (N, 3, H, W) so that less of their modality is left; goes before Normalize."""

    single_channel: Share = 0.0
    """Probability that one channel or the gray levels replace all three."""
    invert: Share = 0.0
    """Probability that dark and bright are exchanged."""
    tone: Share = 0.0
    """Probability of another gamma (0.55 to 1.8), contrast (0.6 to 1.4) and brightness (up to a fifth)."""
    low_resolution: Share = 0.0
    """Probability that the picture is reduced to a fourth up to 0.7 of its sides and enlarged again."""
    local_gain: Share = 0.0
    """Probability of a gain of its own (0.5 to 1.5) in each cell of a 4 x 2 grid."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        check_pixels(sample, "Bridge")
        count = len(sample["images"])
        chosen, values = draw(count, generator, 5), draw(count, generator, 5)  # all are drawn, whatever is used
        gains = draw(count, generator, *GAIN_CELLS)
        device = sample["images"].device
        chosen, values, gains = (part.to(torch.float32).to(device) for part in (chosen, values, gains))
        x = sample["images"].float().div_(255)
        x = one_channel(x, chosen[:, 0] < self.single_channel, whole_numbers(values[:, 0], 4))
        x = torch.where(per_image(chosen[:, 1] < self.invert), 1 - x, x)
        x = torch.where(per_image(chosen[:, 2] < self.tone), toned(x, values[:, 1:4]), x)
        for index, factor in enumerate(REDUCTIONS):
            rows = (chosen[:, 3] < self.low_resolution) & (whole_numbers(values[:, 4], len(REDUCTIONS)) == index)
            x = reduced(x, rows.nonzero()[:, 0], factor)
        x = torch.where(per_image(chosen[:, 4] < self.local_gain), locally_scaled(x, 0.5 + gains), x)
        return {**sample, "images": x.mul_(255).round_().to(torch.uint8)}


def per_image(values: Tensor) -> Tensor:
    """(N,) to (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def one_channel(images: Tensor, chosen: Tensor, channel: Tensor) -> Tensor:
    """Images (N, 3, H, W) with `channel` (N,), 0 to 2 or 3 for the gray levels, in all channels where `chosen` (N,)."""
    gray = (images * images.new_tensor(GRAY_WEIGHTS).view(3, 1, 1)).sum(1, keepdim=True)
    four = torch.cat([images, gray], 1)
    single = four[torch.arange(len(images), device=images.device), channel][:, None]
    return torch.where(per_image(chosen), single, images)


def toned(images: Tensor, uniform: Tensor) -> Tensor:
    """Images 0..1 with gamma, contrast and brightness from uniform numbers (N, 3)."""
    gamma = per_image(torch.exp(0.6 * (2 * uniform[:, 0] - 1)))
    contrast, brightness = per_image(0.6 + 0.8 * uniform[:, 1]), per_image(0.4 * uniform[:, 2] - 0.2)
    return ((images**gamma - 0.5) * contrast + 0.5 + brightness).clamp_(0, 1)


def reduced(images: Tensor, rows: Tensor, factor: float) -> Tensor:
    """Images of which `rows` (n,) are reduced by `factor` (area) and enlarged again (bilinear)."""
    if not len(rows):
        return images
    height, width = images.shape[2:]
    size = max(1, round(height * factor)), max(1, round(width * factor))
    small = F.interpolate(images[rows], size, mode="area")
    large = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    return images.index_copy(0, rows, large)


def locally_scaled(images: Tensor, gains: Tensor) -> Tensor:
    """Images 0..1 times `gains` (N, rows, columns), each for its cell of a grid."""
    return (images * F.interpolate(gains[:, None], images.shape[2:], mode="nearest")).clamp_(0, 1)
