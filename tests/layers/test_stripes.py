"""Stripes: bands pooled and reduced one by one."""

import pytest
import torch
import torch.nn.functional as F

from vireid.layers.stripes import Stripes


@pytest.mark.parametrize("pooling", ["average", "gem"])
@pytest.mark.parametrize("training", [True, False])
def test_equals_bands_one_by_one(pooling: str, training: bool) -> None:
    torch.manual_seed(0)
    layer = Stripes(5, 3, 4, pooling).double().train(training)  # pyright: ignore[reportArgumentType]
    for norm in (module for module in layer.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        for value in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(value)  # pyright: ignore[reportArgumentType]
    maps = torch.rand(8, 5, 6, 2, dtype=torch.float64)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    found = layer(maps)
    assert found.shape == (8, 3, 4) and (found >= 0).all() and (found > 0).any()
    for stripe in range(3):
        band = maps[:, :, 2 * stripe : 2 * stripe + 2].flatten(2)
        pooled = band.mean(2) if pooling == "average" else (band**3).mean(2) ** (1 / 3)
        y = F.conv2d(pooled[:, :, None, None], state[f"reduce.{stripe}.0.weight"][:, :, None, None])[:, :, 0, 0]
        name = f"reduce.{stripe}.1."
        mean, variance = (
            (y.mean(0), y.var(0, unbiased=False))
            if training
            else (state[name + "running_mean"], state[name + "running_var"])
        )
        y = (y - mean) / (variance + 1e-5).sqrt() * state[name + "weight"] + state[name + "bias"]
        torch.testing.assert_close(found[:, stripe], y.relu())


def test_a_stripe_sees_its_band_alone() -> None:
    torch.manual_seed(0)
    layer = Stripes(5, 3, 4).eval()
    maps = torch.rand(2, 5, 6, 2)
    changed = maps.clone()
    changed[:, :, 2:4] += 1
    before, after = layer(maps), layer(changed)
    assert before[:, [0, 2]].equal(after[:, [0, 2]]) and not before[:, 1].equal(after[:, 1])


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 rows cannot be cut into 6 equal stripes.*multiple of 96"):
        Stripes(5, 6, 4)(torch.rand(1, 5, 4, 2))
    with pytest.raises(ValueError, match="parts and a dimension of 1 or more"):
        Stripes(5, 0, 4)
