"""Public weights of the two-stream network: its backbone's of ImageNet, or a checkpoint of AGW's released code."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vireid.errors import ArgumentError
from vireid.layers.two_stream import TwoStream
from vireid.layers.weights import fill, new_names

PLACES = {"stem.": ("visible.", "infrared."), "layer": ("trunk.layer",)}  # of the backbone's parts in TwoStream

# Names in mangye16/Cross-Modal-Re-ID-baseline (AGW and CAJ; MCLNet's code is of the same family) -> names here. Each of
# its two stems holds a whole ResNet-50, of which only conv1 and bn1 are used; the rest matches nothing here.
OFFICIAL = (
    (r"visible_module\.visible\.(conv1|bn1)\.", r"visible.\1."),
    (r"thermal_module\.thermal\.(conv1|bn1)\.", r"infrared.\1."),
    (r"base_resnet\.base\.(layer[1-4])\.", r"trunk.\1."),
    (r"NL_([23])\.(\d+)\.(theta|phi)\.", r"trunk.nonlocal\1.\2.\3."),
    (r"NL_([23])\.(\d+)\.g\.0\.", r"trunk.nonlocal\1.\2.g."),
    (r"NL_([23])\.(\d+)\.W\.0\.", r"trunk.nonlocal\1.\2.W."),
    (r"NL_([23])\.(\d+)\.W\.1\.", r"trunk.nonlocal\1.\2.bn."),
    (r"bottleneck\.", r"neck."),
)


def load_two_stream(network: TwoStream, state: Mapping[str, Tensor]) -> list[str]:
    """Copy public weights into the network, recognized by their names; returns the keys that were not used.

    A public file of the backbone fills both stems and layer1..4, and leaves non-local blocks and neck as they are; a
    checkpoint of AGW's code or an embedder file of this project fills everything. Raises ArgumentError otherwise.
    """
    public = network.backbone.fill(network, state, PLACES)
    if public is not None:
        return public
    if any(key.startswith("base_resnet.base.") for key in state):
        named = from_official(state)
        unused = set(fill(network, {new: state[old] for old, new in named.items()}))
        return [key for key in state if key not in named or named[key] in unused]
    if any(key.startswith("trunk.layer1.") for key in state):
        return fill(network, state)
    raise ArgumentError(
        f"these weights are of no known kind: expected the names of {network.backbone.expected}, of a checkpoint of "
        "Cross-Modal-Re-ID-baseline (base_resnet.base.layer1.0...) or of an embedder of this project "
        f"(trunk.layer1.0...); the first names are {', '.join(list(state)[:4]) or 'none at all'}"
    )


def from_official(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names in a checkpoint of AGW's released code -> names in TwoStream, for the tensors that the network uses."""
    return new_names(state, OFFICIAL)
