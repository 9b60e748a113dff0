"""GeM and its siblings against the recorded arrays of the released code."""

import numpy as np
import pytest
import torch
from golden_files import GOLDEN

from vireid.layers.pooling import GeM, LearnedGeM, pool


def test_gem_is_the_released_one() -> None:
    golden = np.load(GOLDEN / "agw_gem.npz")
    x = torch.tensor(golden["x"], requires_grad=True)
    y = GeM()(x)
    np.testing.assert_allclose(y.detach(), golden["y"], rtol=1e-9)
    y.backward(torch.tensor(golden["grad_out"]))
    np.testing.assert_allclose(x.grad, golden["grad_x"], rtol=1e-9, atol=1e-12)
    assert float(y.detach()[0, 0]) == pytest.approx(1e-4)  # an empty channel: the cube root of the 1e-12


def test_learned_gem_is_that_of_the_survey() -> None:
    golden = np.load(GOLDEN / "agw_gem_survey_learnable.npz")
    x = torch.tensor(golden["x"], requires_grad=True)
    layer = LearnedGeM().double()
    y = layer(x)
    np.testing.assert_allclose(y.detach(), golden["y"][:, :, 0, 0], rtol=1e-9)
    y.backward(torch.tensor(golden["grad_out"]))
    np.testing.assert_allclose(x.grad, golden["grad_x"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.p.grad, golden["grad_p"], rtol=1e-9)


def test_gem_lies_between_mean_and_maximum() -> None:
    x = torch.rand(3, 5, 4, 2, generator=torch.Generator().manual_seed(0))
    mean, gem, most = pool("average")(x), pool("gem")(x), x.amax((2, 3))
    assert (mean < gem).all() and (gem < most).all()
    torch.testing.assert_close(GeM(p=1.0)(x), mean)


def test_half_precision_maps_are_pooled_in_float32() -> None:
    x = torch.rand(2, 3, 4, 2).bfloat16()
    assert {pool(kind)(x).dtype for kind in ("gem", "gem-learned", "average")} == {torch.float32}


def test_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="gem, gem-learned, average, got 'max'"):
        pool("max")  # pyright: ignore[reportArgumentType]
