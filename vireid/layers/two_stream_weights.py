"""Public weights of the two-stream network: a ResNet-50 of ImageNet, or a checkpoint of AGW's released code."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vireid.errors import ArgumentError
from vireid.layers.two_stream import TwoStream
from vireid.layers.weights import fill, new_names

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

    A ResNet (torchvision's names) fills both stems and layer1..4, and leaves non-local blocks and neck as they are; a
    checkpoint of AGW's code or an embedder file of this project fills everything. Raises ValueError otherwise.
    """
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        named = from_resnet(state)
        fill(network, named, ("visible.", "infrared.", "trunk.layer"))
        return [key for key in state if not re.match(r"(conv1|bn1|layer[1-4])\.", key)]
    if any(key.startswith("base_resnet.base.") for key in state):
        named = from_official(state)
        unused = set(fill(network, {new: state[old] for old, new in named.items()}))
        return [key for key in state if key not in named or named[key] in unused]
    if "trunk.layer1.0.conv1.weight" in state:
        return fill(network, state)
    raise ArgumentError(
        "these weights are of no known kind: expected the names of torchvision's resnet50 (conv1.weight, layer1.0...), "
        "of a checkpoint of Cross-Modal-Re-ID-baseline (base_resnet.base.layer1.0...) or of an embedder of this "
        f"project (trunk.layer1.0...); the first names are {', '.join(list(state)[:4]) or 'none at all'}"
    )


def from_resnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet's tensors under the names of TwoStream: conv1 and bn1 twice, once per stem."""
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if re.match(r"(conv1|bn1)\.", key):
            named["visible." + key] = named["infrared." + key] = value
        elif re.match(r"layer[1-4]\.", key):
            named["trunk." + key] = value
    return named


def from_official(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names in a checkpoint of AGW's released code -> names in TwoStream, for the tensors that the network uses."""
    return new_names(state, OFFICIAL)
