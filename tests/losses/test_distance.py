"""Pairwise distances against the recorded arrays."""

import numpy as np
import torch
from golden_files import GOLDEN

from vireid.losses.distance import pairwise_distance


def test_recorded_distances() -> None:
    golden = np.load(GOLDEN / "agw_pdist.npz")
    d = pairwise_distance(torch.tensor(golden["a"]), torch.tensor(golden["b"]))
    np.testing.assert_allclose(d, golden["euclid"], rtol=1e-9)
    np.testing.assert_allclose(d.square(), golden["squared_np"], rtol=1e-9)


def test_equal_vectors_are_1e_6_apart_with_a_finite_gradient() -> None:
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    d = pairwise_distance(x, x)
    torch.testing.assert_close(d.detach(), torch.full((2, 2), 1e-6, dtype=torch.float64))
    d.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_autocast_does_not_reach_the_product() -> None:
    x = 100 + torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = pairwise_distance(x, x)
    assert inside.equal(pairwise_distance(x, x))


def test_l2_normalization_of_the_released_code_is_torchs() -> None:
    golden = np.load(GOLDEN / "agw_l2norm.npz")
    y = torch.nn.functional.normalize(torch.tensor(golden["x"]))
    np.testing.assert_allclose(y, golden["y"], rtol=1e-12)
