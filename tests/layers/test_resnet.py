"""ResNet parts: torchvision's names and counts, strides, initial values."""

from typing import Any

import pytest
import torch
from torch import nn

from vireid.declaration import configured
from vireid.errors import SettingsError
from vireid.layers.backbones.resnet import ResNetSettings, Stem, init_resnet, stages


def test_names_and_parameter_count_are_torchvisions() -> None:
    with torch.device("meta"):
        network = nn.Module()
        stem = Stem()
        network.conv1, network.bn1 = stem.conv1, stem.bn1
        network.layer1, network.layer2, network.layer3, network.layer4 = stages(ResNetSettings(64, (3, 4, 6, 3), 2))
        network.fc = nn.Linear(2048, 1000)
    keys = set(network.state_dict())
    assert len(keys) == 320  # of torchvision.models.resnet50
    assert sum(p.numel() for p in network.parameters()) == 25_557_032  # as torchvision documents it
    assert {"layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var", "layer4.2.conv3.weight"} <= keys
    assert "layer1.1.downsample.0.weight" not in keys


@pytest.mark.parametrize(("last_stride", "size"), [(1, (4, 2)), (2, (2, 1))])
def test_sizes(last_stride: int, size: tuple[int, int]) -> None:
    stem = Stem(4)
    x = stem(torch.zeros(1, 3, 64, 32))
    assert x.shape == (1, 4, 16, 8)
    for layer, channels in zip(stages(ResNetSettings(4, (1, 1, 1, 1), last_stride)), (16, 32, 64, 128), strict=True):
        x = layer(x)
        assert x.shape[1] == channels
    assert x.shape[2:] == size


def test_the_stride_stands_in_the_3x3_convolution() -> None:
    first = stages(ResNetSettings(4, (1, 1, 1, 1)))[1][0]
    assert (first.conv1.stride, first.conv2.stride, first.downsample[0].stride) == ((1, 1), (2, 2), (2, 2))  # pyright: ignore


def test_initial_spread_is_that_of_the_fan_out() -> None:
    torch.manual_seed(0)
    layer = stages(ResNetSettings(16, (1, 1, 1, 1)))[3]
    init_resnet(layer)
    weight = layer[0].conv2.weight.detach()  # pyright: ignore[reportAttributeAccessIssue]
    assert float(weight.std()) == pytest.approx((2 / (9 * weight.shape[0])) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"blocks": (3, 4, 6)}, "blocks"), ({"width": 0}, "width"), ({"last_stride": 3}, "last_stride")],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        configured(ResNetSettings, None, settings)
