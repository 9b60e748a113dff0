"""Choice of the backbone: its settings, which the networks built on it extend, and the backbone that they name."""

from __future__ import annotations

from typing import ClassVar, Literal

from vireid.declaration import settings
from vireid.layers.backbones.backbone import Backbone
from vireid.layers.backbones.resnet import ResNet, ResNetSettings

BackboneName = Literal["resnet50"]


@settings
class BackboneSettings(ResNetSettings):
    """Settings of a network that is built on a backbone."""

    width_elsewhere: ClassVar[bool] = False  # whether parts beside a ResNet scale with `width`

    backbone: BackboneName = "resnet50"
    """Pretrained network that the maps come from."""

    def chosen(self) -> Backbone:
        """The backbone."""
        return ResNet(self)
