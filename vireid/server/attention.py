"""Attention: where in a picture the network's last maps are strong, without a gradient.

    energy(y, x) = sum over channels of maps(c, y, x)^2,    scaled to 0 at its tenth percentile and 1 at its largest

The pooled vector is a mean (or generalized mean) of the maps over their places, so places of high energy are those that
made the vector. It says where the network looked and not why two pictures are alike.
"""

from __future__ import annotations

import io
import threading

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vireid.deploy.bundle import Bundle
from vireid.deploy.infrared_detection import is_infrared
from vireid.errors import ArgumentError, VireidError
from vireid.images import resize

MIN_PLACES = 6  # of a map that is worth drawing
# black, purple, red, orange, yellow: brightness grows all the way, so it reads without color too
COLORS = np.array([(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], float)


class Attention:
    """Heat maps of a bundle's embedder. `reason` says why there are none, "" where there are."""

    def __init__(self, bundle: Bundle) -> None:
        self.size, self.filter = bundle.config.size, bundle.config.filter
        self._lock = threading.Lock()
        self._network: nn.Module | None = None
        self.reason = ""
        try:
            if bundle.config.inputs:
                raise ArgumentError(f"{bundle.config.method} also takes {', '.join(bundle.config.inputs)}")
            self._network = bundle.network()
            self.energy(Image.new("RGB", (self.size[1], self.size[0]), "gray"), 0)
        except VireidError as error:
            self.reason = str(error)

    def energy(self, picture: Image.Image, modality: int) -> np.ndarray:
        """Energy (h, w) float32 in 0..1 of the last maps of an RGB picture; ArgumentError if there are none."""
        assert self._network is not None
        pixels = np.array(resize(picture, self.size, self.filter))
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
        maps: list[Tensor] = []

        def keep(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] >= MIN_PLACES:
                maps.append(output)

        with self._lock:
            hooks = [module.register_forward_hook(keep) for module in self._network.modules()]
            try:
                with torch.no_grad():
                    self._network(images, torch.tensor([modality]))
            finally:
                for hook in hooks:
                    hook.remove()
        if not maps:
            raise ArgumentError("this network gives no maps of places, so there is nothing to draw over the picture")
        channels = max(each.shape[1] for each in maps)
        last = [each for each in maps if each.shape[1] == channels][-1]
        energy = last[0].float().square().sum(0).numpy()
        low, high = np.quantile(energy, (0.1, 1.0))  # the weakest tenth is left uncovered
        return np.clip((energy - low) / max(float(high - low), 1e-12), 0, 1).astype(np.float32)

    def overlay(self, picture: Image.Image, modality: int | None = None) -> bytes:
        """A PNG with the sides of the picture (at most 256 pixels), to lay over it; strong places cover it more."""
        if modality is None:
            modality = int(is_infrared(np.asarray(picture)))
        energy = self.energy(picture, modality)
        scale = 256 / max(picture.size)
        sides = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        smooth = Image.fromarray(energy * 255).resize(sides, Image.Resampling.BICUBIC)
        value = np.clip(np.asarray(smooth) / 255, 0, 1)
        place = value * (len(COLORS) - 1)
        low = np.minimum(place.astype(int), len(COLORS) - 2)
        part = (place - low)[..., None]
        color = COLORS[low] * (1 - part) + COLORS[low + 1] * part
        alpha = 255 * np.minimum(0.75, 1.2 * value)
        out = io.BytesIO()
        Image.fromarray(np.dstack([color, alpha]).astype(np.uint8), "RGBA").save(out, "PNG", compress_level=3)
        return out.getvalue()
