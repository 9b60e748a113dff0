"""Bridging augmentations: each part does what it says, alone, and parts of a batch see the batch's numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vireid.data.bridging import Bridge
from vireid.data.transforms import Normalize, RankGenerator
from vireid.errors import ArgumentError


def pictures(count: int = 6) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def bridged(bridge: Bridge, images: Tensor, seed: int = 0) -> Tensor:
    return bridge({"images": images}, torch.Generator().manual_seed(seed))["images"]


def test_nothing_is_changed_by_default() -> None:
    assert torch.equal(bridged(Bridge(), pictures()), pictures())


def test_inverted_pictures_are_complements() -> None:
    assert torch.equal(bridged(Bridge(invert=1), pictures()), 255 - pictures())


def test_a_single_channel_or_gray_stands_in_all_three() -> None:
    images = pictures(40)
    out = bridged(Bridge(single_channel=1), images)
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 1], out[:, 2])
    gray = (0.2989 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]).round()
    kinds = [
        [channel for channel in range(3) if torch.equal(one[0], source[channel])]
        or ["gray"] * int((one[0] - g).abs().max() <= 1)
        for one, source, g in zip(out, images, gray, strict=True)
    ]
    assert {kind[0] for kind in kinds} == {0, 1, 2, "gray"}


def test_tone_keeps_the_order_of_gray_levels() -> None:
    ramp = torch.arange(128, dtype=torch.uint8).mul(2).view(1, 1, 16, 8).expand(5, 3, 16, 8).contiguous()
    out = bridged(Bridge(tone=1), ramp).flatten(2).int()
    assert bool((out.diff(dim=2) >= 0).all())
    assert len({tuple(row) for row in out[:, 0].tolist()}) == 5  # every picture has a curve of its own


def test_low_resolution_takes_detail_and_keeps_the_mean() -> None:
    images = pictures()
    out = bridged(Bridge(low_resolution=1), images).float()
    assert bool((out.std((2, 3)) < images.float().std((2, 3))).all())
    assert torch.allclose(out.mean((1, 2, 3)), images.float().mean((1, 2, 3)), atol=8)


def test_local_gains_are_constant_in_a_cell() -> None:
    flat = torch.full((3, 3, 16, 8), 100, dtype=torch.uint8)
    out = bridged(Bridge(local_gain=1), flat)
    cells = out.view(3, 3, 4, 4, 2, 4)
    assert bool((cells == cells[:, :, :, :1, :, :1]).all()) and len(out[0, 0].unique()) > 1
    assert int(out.min()) >= 50 and int(out.max()) <= 150


def test_a_part_of_a_batch_sees_the_numbers_of_the_batch() -> None:
    bridge = Bridge(single_channel=0.5, invert=0.5, tone=0.5, low_resolution=0.5, local_gain=0.5)
    whole = bridge({"images": pictures()}, RankGenerator().of_batch(5, 6, 0))["images"]
    part = bridge({"images": pictures()[4:]}, RankGenerator().of_batch(5, 6, 4))["images"]
    assert torch.equal(whole[4:], part)


def test_it_stands_before_normalize() -> None:
    sample = Normalize()({"images": pictures()}, torch.Generator())
    with pytest.raises(ArgumentError, match="Bridge works on uint8 pixels"):
        Bridge()(sample, torch.Generator())
