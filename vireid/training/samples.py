"""Samples: pictures that a method makes while it learns, one named row of a sheet per kind."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vireid.errors import ArgumentError

GAP = 4  # pixels between pictures and around names
INK, PAPER = (0, 0, 0), (255, 255, 255)


def sheet(rows: Mapping[str, Tensor]) -> Image.Image:
    """A picture with one line per entry: its name, then its images (N, 3, H, W), whose values 0..1 are shown.

    Values outside are clipped, which a generator without a last squashing function reaches. Lines may differ in length
    and size. Raises ValueError for anything but such images, and for none.
    """
    if not rows:
        raise ArgumentError("samples() returned no rows; return images (N, 3, H, W) by name, or None")
    for name, images in rows.items():
        if images.dim() != 4 or images.shape[1] != 3 or not len(images) or not images.is_floating_point():
            raise ArgumentError(
                f"samples() gave {name!r} as {images.dtype} {tuple(images.shape)}; expected float images (N, 3, H, W), "
                "N of 1 or more, with values from 0 to 1"
            )
    font = ImageFont.load_default()
    margin = max(int(font.getlength(name)) for name in rows) + 2 * GAP
    width = margin + max(len(images) * (images.shape[3] + GAP) for images in rows.values())
    height = GAP + sum(images.shape[2] + GAP for images in rows.values())
    picture = Image.new("RGB", (width, height), PAPER)
    pen, top = ImageDraw.Draw(picture), GAP
    for name, images in rows.items():
        pen.text((GAP, top), name, fill=INK, font=font)
        # what is not a number is shown black: the pictures are to show what went wrong, not to stop the training
        pixels = (images.detach().float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
        for place, image in enumerate(pixels.permute(0, 2, 3, 1).cpu().numpy()):
            picture.paste(Image.fromarray(image), (margin + place * (image.shape[1] + GAP), top))
        top += images.shape[2] + GAP
    return picture
