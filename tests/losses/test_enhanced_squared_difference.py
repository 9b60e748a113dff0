"""CAJL's triplet against the recorded arrays, its clamp and the linear continuation."""

import numpy as np
import pytest
import torch
from golden_files import GOLDEN

from vireid.losses.enhanced_squared_difference import enhanced_squared_difference, signed_square
from vireid.losses.weighted_triplet import weighted_distances, weighted_regularized_triplet

SETTINGS = {"sq0": {"square": False}, "sq1": {}, "sq1_a2g3": {"alpha": 2.0, "gamma": 3.0}}


@pytest.mark.parametrize("case", ["mixed", "easy", "hard", "saturated"])
@pytest.mark.parametrize("name", SETTINGS)
def test_recorded_loss_and_gradient(case: str, name: str) -> None:
    golden = np.load(GOLDEN / "caj_enhanced_squared_loss.npz")
    x, label = torch.tensor(golden[f"{case}_x"], requires_grad=True), torch.tensor(golden["labels"])
    out = enhanced_squared_difference(x, label, **SETTINGS[name])
    np.testing.assert_allclose(out.loss.detach(), golden[f"{case}_{name}_loss"], rtol=1e-9)
    out.loss.backward()
    np.testing.assert_allclose(x.grad, golden[f"{case}_{name}_grad"], rtol=1e-9, atol=1e-13)
    if name != "sq1_a2g3":
        np.testing.assert_allclose(weighted_distances(x, label).mu.detach(), golden[f"{case}_mu"], rtol=1e-9)
        assert float(out.correct) == pytest.approx(int(golden[f"{case}_{name}_correct"]) / len(label))
    assert float(out.saturated) == (1 if case == "saturated" and name != "sq0" else 0)


def test_saturation_ends_the_gradient_and_the_linear_continuation_keeps_it() -> None:
    golden = np.load(GOLDEN / "caj_enhanced_squared_loss.npz")
    label = torch.tensor(golden["labels"])
    gradients = {}
    for beyond in ("clamp", "linear"):
        x = torch.tensor(golden["saturated_x"], requires_grad=True)
        out = enhanced_squared_difference(x, label, beyond=beyond)
        out.loss.backward()
        assert x.grad is not None
        gradients[beyond] = float(x.grad.abs().max())
        assert float(out.saturated) == 1 and float(out.loss.detach()) >= 88
    assert gradients["clamp"] == 0 and gradients["linear"] > 0.1


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_continuation_is_smooth_at_the_limit_and_equal_below(gamma: float) -> None:
    limit = (88 / gamma) ** 0.5
    mu = torch.tensor([-2 * limit, -1.0, 0.0, 1.0, limit * (1 - 1e-9), limit * (1 + 1e-9), 2 * limit]).double()
    mu.requires_grad_()
    v = signed_square(mu, gamma, "linear")
    (slope,) = torch.autograd.grad(v.sum(), mu)
    inside = slice(1, 5)
    torch.testing.assert_close(v[inside], signed_square(mu, gamma, "clamp")[inside])
    torch.testing.assert_close(slope[4], slope[5])
    torch.testing.assert_close(slope[5], slope[6])
    torch.testing.assert_close(v[0], -v[6])
    assert float(v.detach()[6]) == pytest.approx(88 * 3)


def test_without_square_and_factors_it_is_wrt() -> None:
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    for softmax in ("official", "exact"):
        out = enhanced_squared_difference(x, label, square=False, softmax=softmax)
        assert out.loss.equal(weighted_regularized_triplet(x, label, softmax).loss)


def test_wrong_settings_are_told() -> None:
    x, label = torch.zeros(2, 1), torch.zeros(2)
    with pytest.raises(ValueError, match="'clamp' or 'linear', got 'stop'"):
        enhanced_squared_difference(x, label, beyond="stop")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"gamma must be positive, got 0\.0"):
        enhanced_squared_difference(x, label, gamma=0.0)
