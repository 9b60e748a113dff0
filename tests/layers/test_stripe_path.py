"""Local shortest path against the recorded arrays, all paths of a table, and what the distance promises."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vireid.layers.stripe_path import path_distance, path_table, range_normalized, stripe_costs

RECORDED = np.load(Path(__file__).parents[1] / "golden" / "c_lsp.npz")


def recorded(name: str) -> Tensor:
    return torch.from_numpy(RECORDED[name])


def paths(height: int, width: int, at: tuple[int, int] = (0, 0)) -> Iterator[list[tuple[int, int]]]:
    """Every way from a cell to the bottom right by steps right and down."""
    i, j = at
    if at == (height - 1, width - 1):
        yield [at]
    if i + 1 < height:
        yield from ([at, *rest] for rest in paths(height, width, (i + 1, j)))
    if j + 1 < width:
        yield from ([at, *rest] for rest in paths(height, width, (i, j + 1)))


def test_recorded_costs_tables_and_distances() -> None:
    vis, ir = recorded("vis"), recorded("ir")
    cost = stripe_costs(range_normalized(vis), range_normalized(ir))
    torch.testing.assert_close(cost, recorded("cost"), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path_table(cost), recorded("table"), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path_distance(vis, ir), recorded("lsp"), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(recorded("lsp"), recorded("lsp_brute"))
    torch.testing.assert_close(path_distance(vis.float(), ir.float()).double(), recorded("lsp"), rtol=1e-4, atol=0)
    # the recurrence alone, with the cells of AlignedReID
    found = path_table(recorded("alignedreid_cost"))[..., -1, -1]
    torch.testing.assert_close(found, recorded("alignedreid_lsp"))


@pytest.mark.parametrize("case", range(int(RECORDED["n_rand"])))
def test_recorded_tables_of_any_shape(case: int) -> None:
    cost = recorded(f"rand{case}_cost")
    table = path_table(cost)
    torch.testing.assert_close(table, recorded(f"rand{case}_table"))
    assert float(table[-1, -1]) == pytest.approx(float(RECORDED[f"rand{case}_brute"]), abs=1e-10)


def test_cheapest_of_all_paths() -> None:
    assert len(list(paths(6, 6))) == int(RECORDED["n_paths"]) == 252
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 6), (1, 4), (4, 1), (3, 5)):
        cost = torch.rand(7, *shape, generator=generator, dtype=torch.float64)
        expected = [min(sum(float(c[cell]) for cell in path) for path in paths(*shape)) for c in cost]
        assert path_table(cost)[..., -1, -1].tolist() == pytest.approx(expected, rel=1e-12)


def test_recorded_best_path_costs_the_distance_and_takes_the_gradient() -> None:
    cost = recorded("cost").requires_grad_()
    total = path_table(cost)[..., -1, -1]
    total.sum().backward()
    steps = recorded("best_path")  # (5, 4, 11, 2)
    expected = torch.zeros_like(cost)
    for v in range(5):
        for i in range(4):
            expected[v, i, steps[v, i, :, 0], steps[v, i, :, 1]] = 1
    torch.testing.assert_close((expected * cost).sum((2, 3)), total)
    gradient = cost.grad
    assert gradient is not None
    torch.testing.assert_close((gradient * cost).sum((2, 3)), total)
    different = gradient.ne(expected).any(3).any(2).nonzero().tolist()
    assert different == [[1, 1]]  # the image that is the other one shifted: ways above and below the diagonal are equal
    assert gradient[1, 1].unique().tolist() == [0, 0.5, 1]


def test_gradient_of_the_stripes() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(n, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    assert torch.autograd.gradcheck(path_distance, (a, b))


def test_blind_to_scale_and_shift_of_a_stripe_and_symmetric() -> None:
    vis, ir, expected = recorded("vis"), recorded("ir"), recorded("lsp")
    torch.testing.assert_close(path_distance(recorded("vis_affine"), ir), expected)
    torch.testing.assert_close(path_distance(recorded("vis_affine"), ir), recorded("lsp_affine"))
    scale, shift = torch.rand(5, 6, 1, dtype=torch.float64) + 0.5, torch.randn(5, 6, 1, dtype=torch.float64)
    torch.testing.assert_close(path_distance(vis * scale + shift, ir), expected)
    torch.testing.assert_close(path_distance(ir, vis), expected.T)
    assert not torch.allclose(path_distance(-vis, ir), expected)


def test_an_image_is_not_at_distance_0_from_itself() -> None:
    vis = recorded("vis")
    assert (path_distance(vis, vis).diagonal() > 1).all()
    one = vis[:, :1]
    assert not path_distance(one, one).diagonal().any()  # a single stripe has nowhere to go


def test_a_shifted_body_stays_near() -> None:
    generator = torch.Generator().manual_seed(2)
    body, other = torch.rand(2, 6, 64, generator=generator)
    shifted = torch.cat([torch.rand(1, 64, generator=generator), body[:-1]])
    same, another = path_distance(shifted[None], torch.stack([body, other]))[0]
    assert same < another
    straight = (range_normalized(shifted) - range_normalized(torch.stack([body, other]))).abs().sum((1, 2))
    assert straight[0] > 0.8 * straight[1]  # stripe against stripe of the same height sees next to no difference


def test_bounded_by_one_per_channel_and_cell() -> None:
    generator = torch.Generator().manual_seed(3)
    for x in (torch.randn(20, 4, 8, generator=generator), torch.rand(20, 4, 8, generator=generator).round()):
        distance = path_distance(x, x) / (7 * 8)
        assert (distance >= 0).all() and (distance <= 1 + 1e-6).all()
    opposite = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    assert path_distance(opposite[:1], opposite[1:]).item() == 2  # the bound is reached


def test_constant_stripes_are_zero_with_a_finite_gradient() -> None:
    x = torch.full((1, 2, 7), 0.3, requires_grad=True)  # no float32: its mean is off by rounding
    found = range_normalized(x)
    assert not found.any()
    path_distance(x, torch.rand(2, 2, 7)).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.abs().max() < 10


def test_batches_and_halves() -> None:
    generator = torch.Generator().manual_seed(4)
    a, b = torch.randn(3, 2, 4, 8, generator=generator), torch.randn(3, 5, 6, 8, generator=generator)
    found = path_distance(a, b)  # with another number of stripes
    assert found.shape == (3, 2, 5)
    for i in range(3):
        torch.testing.assert_close(found[i], path_distance(a[i], b[i]))
    with torch.autocast("cpu", torch.bfloat16):
        under = path_distance(a, b)
    assert under.dtype == torch.float32 and under.equal(found)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stripes \(N, h, d\) and \(M, k, d\) are needed"):
        path_distance(torch.rand(2, 3, 4), torch.rand(2, 3, 5))
    with pytest.raises(ValueError, match="one or more cells"):
        path_table(torch.rand(3, 0, 2))
