"""Choice of the backbone: its settings, which the networks built on it extend, and the backbone that they name.

    resnet50                         He et al., CVPR 2016; 23.5 million parameters              resnet.py
    resnet50-ibn-a, resnet50-ibn-b   the same with instance norms, Pan et al., ECCV 2018        resnet.py
    lite0                            EfficientNet-Lite0, 3.0 million parameters                 lite0.py
    vit-small, vit-base              DeiT's vision transformers, 22 and 86 million              vit_maps.py

The maps of lite0 and of the transformers have negative values, which GeM pooling counts as 0: `pooling=average` sees
them. Published figures of the methods are of resnet50.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from vireid.declaration import Count, defaults, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.backbone import Backbone
from vireid.layers.backbones.lite0 import BLOCKS as LITE0_BLOCKS
from vireid.layers.backbones.lite0 import Lite0Backbone
from vireid.layers.backbones.resnet import ResNet, ResNetSettings
from vireid.layers.backbones.vit_maps import BLOCKS as VIT_BLOCKS
from vireid.layers.backbones.vit_maps import VisionTransformerMaps

BackboneName = Literal["resnet50", "resnet50-ibn-a", "resnet50-ibn-b", "lite0", "vit-small", "vit-base"]
DEPTHS = {"lite0": LITE0_BLOCKS, "vit-small": VIT_BLOCKS, "vit-base": VIT_BLOCKS}  # blocks of what can be cut


def full_name(weights: str, network: object) -> str:
    """The name of public weights that `imagenet` stands for in a network with these settings; others as they are.

    >>> full_name("imagenet", BackboneSettings(backbone="lite0")), full_name("my.pth", BackboneSettings())
    ('imagenet-lite0', 'my.pth')
    """
    if weights != "imagenet" or not isinstance(network, BackboneSettings) or network.backbone == "resnet50":
        return weights
    return f"imagenet-{network.backbone}"


@settings
class BackboneSettings(ResNetSettings):
    """Settings of a network that is built on a backbone; width and blocks are those of a ResNet."""

    width_elsewhere: ClassVar[bool] = False  # whether other parts of the network scale with `width` too

    backbone: BackboneName = "resnet50"
    """Pretrained network that the maps come from."""
    depth: Count | None = None
    """Blocks that are kept of lite0 (16) or of a vision transformer (12); null: all."""

    @model_validator(mode="after")
    def fits_the_backbone(self) -> Self:
        whole = DEPTHS.get(self.backbone)
        if whole is None:
            if self.depth is not None:
                raise ArgumentError(
                    f"depth={self.depth} cuts {', '.join(DEPTHS)}; backbone={self.backbone} needs depth=null, its "
                    "length is set by blocks, e.g. blocks=[3,4,6,3]"
                )
            return self
        if self.depth is not None and self.depth > whole:
            raise ArgumentError(f"backbone={self.backbone} has {whole} blocks; got depth={self.depth}")
        if self.backbone.startswith("vit-") and self.last_stride != 1:
            raise ArgumentError(
                f"all maps of backbone={self.backbone} have one size: last_stride is 1, got {self.last_stride}"
            )
        names = ("blocks",) if self.width_elsewhere else ("width", "blocks")
        own = [name for name in names if getattr(self, name) != defaults(type(self))[name]]
        if own:
            raise ArgumentError(
                f"a ResNet alone takes {' and '.join(own)}; backbone={self.backbone} has fixed widths, depth cuts it"
            )
        return self

    def chosen(self) -> Backbone:
        """The backbone."""
        kinds: dict[str, Callable[[], Backbone]] = {
            "resnet50": lambda: ResNet(self),
            "resnet50-ibn-a": lambda: ResNet(self, "ibn-a"),
            "resnet50-ibn-b": lambda: ResNet(self, "ibn-b"),
            "lite0": lambda: Lite0Backbone(self.depth or LITE0_BLOCKS, self.last_stride),
            "vit-small": lambda: VisionTransformerMaps(384, 6, self.depth or VIT_BLOCKS),
            "vit-base": lambda: VisionTransformerMaps(768, 12, self.depth or VIT_BLOCKS),
        }
        return kinds[self.backbone]()
