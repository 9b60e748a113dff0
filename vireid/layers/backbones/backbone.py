"""Backbone: what a re-identification network needs of a pretrained image network.

    images (N, 3, H, W) -> stem -> layer1 -> layer2 -> layer3 -> layer4 = maps (N, C, H/stride, W/stride)

A network asks it for modules (a two-stream network for two stems) and for their channels, and for the places of public
weights. A stage may hold no block: it then passes its maps on.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from vireid.layers.weights import fill

Places = Mapping[str, tuple[str, ...]]  # beginning of a name in the backbone -> its beginnings in a network


class Backbone(ABC):
    """A pretrained image network that was chosen by settings; it holds no weights itself.

    Public weights are named `stem.*` and `layer1.*` to `layer4.*` here, as `stem()` and `stages()` name them.
    """

    first: ClassVar[str]  # name of the weight of the convolution that reads the images
    expected: ClassVar[str]  # the names in its public files, for a message

    stem_channels: int
    widths: tuple[tuple[int, ...], ...]  # output channels of the blocks of layer1 to layer4
    stride: int  # pixels for a row of the last maps

    @abstractmethod
    def stem(self, channels: int = 3) -> nn.Module:
        """A new stem: normalized images (N, channels, H, W) to maps (N, stem_channels, ...)."""

    @abstractmethod
    def stages(self) -> list[nn.Sequential]:
        """New stages layer1 to layer4, block by block."""

    @abstractmethod
    def init(self, module: nn.Module) -> None:
        """Start the backbone's parts in `module` as its public implementations do without pretrained weights."""

    @abstractmethod
    def public_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """Names in a public file -> names here; {} where the file is not one of this backbone."""

    def adapted(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of a public file in the form that the part called `name` here has."""
        return tensor

    @property
    def channels(self) -> tuple[int, int, int, int, int]:
        """Channels behind the stem and behind layer1 to layer4."""
        counts = [self.stem_channels]
        for width in self.widths:
            counts.append(width[-1] if width else counts[-1])
        stem, one, two, three, four = counts
        return stem, one, two, three, four

    @property
    def dim(self) -> int:
        """Channels of the last maps."""
        return self.channels[-1]

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a public file under the names here; {} where the file is not one of this backbone."""
        return {own: self.adapted(own, state[key]) for key, own in self.public_names(state).items()}

    def fill(
        self,
        network: nn.Module,
        state: Mapping[str, Tensor],
        places: Places,
        changed: Mapping[str, Tensor] | None = None,
    ) -> list[str] | None:
        """Copy a public file into a network; returns the keys that were not used, None for a file of another kind.

        `places` says where the network has the parts; all of them are filled. `changed` are tensors, by their name
        here, that replace those of the file. Raises ArgumentError for names that are
        missing and for other shapes.
        """
        names = self.public_names(state)
        if not names:
            return None
        tensors = {**self.named(state), **(changed or {})}
        targets = {
            target + own.removeprefix(start): own
            for own in tensors
            for start, beginnings in places.items()
            if own.startswith(start)
            for target in beginnings
        }
        filled = [beginning for beginnings in places.values() for beginning in beginnings]
        unused = fill(network, {target: tensors[own] for target, own in targets.items()}, filled)
        used = {own for target, own in targets.items() if target not in set(unused)}
        return [key for key in state if names.get(key) not in used]


def stage_names(state: Mapping[str, Tensor], stem: str) -> dict[str, str]:
    """Keys of torchvision's form, `layer1.*` to `layer4.*` as they are and those that match `stem` behind `stem.`."""
    names = {key: f"stem.{key}" for key in state if re.match(stem, key)}
    return names | {key: key for key in state if re.match(r"layer[1-4]\.", key)}
