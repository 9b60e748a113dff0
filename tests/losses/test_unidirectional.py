"""The unidirectional metric against its printed double sum, written out in loops over Python numbers."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from vireid.losses.unidirectional import unidirectional

SETTINGS = [(16.0, 0.3), (64.0, 0.25), (128.0, 0.25), (1.0, 0.0)]


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def printed(x: Tensor, label: Tensor, proxies: Tensor, alpha: float, delta: float) -> list[float]:
    """log(1 + sum_j sum_i exp(alpha (v_j.x - u_i.x + delta))) per row, as the paper prints it."""
    found = []
    for row, pid in zip(x.double().tolist(), label.tolist(), strict=True):
        row, total = unit(row), 0.0
        references = [(c, unit(p)) for snapshot in proxies.double().tolist() for c, p in enumerate(snapshot)]
        cosines = [(c, sum(a * b for a, b in zip(p, row, strict=True))) for c, p in references]
        for c, negative in cosines:
            for d, positive in cosines:
                if c != pid and d == pid:
                    total += math.exp(alpha * (negative - positive + delta))
        found.append(math.log1p(total))
    return found


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    """Six rows of seven identities, five snapshots of the other modality's proxies, not normalized."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 12, generator=generator, dtype=torch.float64) * 3
    proxies = (
        torch.randn(5, 7, 12, generator=generator, dtype=torch.float64) * torch.rand(5, 7, 1, generator=generator) * 4
    )
    return x, torch.tensor([3, 0, 6, 3, 1, 5]), proxies


@pytest.mark.parametrize(("alpha", "delta"), SETTINGS)
def test_equals_the_printed_double_sum(case: tuple[Tensor, Tensor, Tensor], alpha: float, delta: float) -> None:
    x, label, proxies = case
    expected = torch.tensor(printed(x, label, proxies, alpha, delta), dtype=torch.float64)
    found = unidirectional(x, label, proxies, alpha=alpha, delta=delta)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    single = unidirectional(x.float(), label, proxies.float(), alpha=alpha, delta=delta)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-6)


def test_no_overflow_where_the_printed_sum_overflows(case: tuple[Tensor, Tensor, Tensor]) -> None:
    _, label, proxies = case
    label, proxies = label.clamp(min=1), proxies.float()
    x = (proxies[0, 0] - proxies[:, label].mean(0)).requires_grad_()  # near another identity, far from its own
    cosine = torch.einsum(
        "nd,scd->nsc", torch.nn.functional.normalize(x), torch.nn.functional.normalize(proxies, dim=2)
    )
    wrong, right = cosine[0, :, 0], cosine[0, :, int(label[0])]
    naive = torch.exp(128 * (wrong[:, None] - right[None, :] + 0.25)).sum().log1p()
    assert naive.isinf()  # in float32
    found = unidirectional(x, label, proxies, alpha=128, delta=0.25)
    found.sum().backward()
    assert found.isfinite().all() and found[0] > 88 and x.grad is not None and x.grad.isfinite().all()
    torch.testing.assert_close(found.tolist(), printed(x.detach(), label, proxies, 128, 0.25), rtol=1e-4, atol=1e-4)


def test_small_losses_keep_their_digits(case: tuple[Tensor, Tensor, Tensor]) -> None:
    """Rows next to their proxies, where log(1 + e) of a small e, taken as written, would lose digits in float32."""
    _, label, proxies = case
    proxies = proxies[:1].expand(3, -1, -1) + 0.01 * proxies[2:]
    x = proxies.mean(0)[label]
    for alpha in (12.0, 24.0):
        expected = printed(x, label, proxies, alpha, 0.1)
        assert max(expected) < 0.5 and min(expected) < 1e-3
        found = unidirectional(x.float(), label, proxies.float(), alpha=alpha, delta=0.1)
        torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0)


def test_partially_filled_bank(case: tuple[Tensor, Tensor, Tensor]) -> None:
    x, label, proxies = case
    valid = torch.tensor([True, True, False, False, False])
    found = unidirectional(x, label, proxies, alpha=16, delta=0.3, valid=valid)
    expected = printed(x, label, proxies[:2], 16, 0.3)
    torch.testing.assert_close(found.tolist(), expected, rtol=1e-12, atol=1e-12)
    zeros = torch.where(valid[:, None, None], proxies, 0.0)  # what places without a snapshot hold
    assert unidirectional(x, label, zeros, alpha=16, delta=0.3, valid=valid).equal(found)
    one = unidirectional(x, label, proxies[:1], alpha=16, delta=0.3)
    torch.testing.assert_close(one.tolist(), printed(x, label, proxies[:1], 16, 0.3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_bank_is_zero_with_zero_gradient(dtype: torch.dtype) -> None:
    x = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    nothing = torch.zeros(2, 5, 3, dtype=dtype)
    found = unidirectional(x, torch.tensor([0, 1, 2, 4]), nothing, alpha=128, valid=torch.zeros(2, dtype=torch.bool))
    found.sum().backward()
    assert found.tolist() == [0.0] * 4 and x.grad is not None and not x.grad.any()


def test_gradient_reaches_rows_and_never_proxies(case: tuple[Tensor, Tensor, Tensor]) -> None:
    x, label, proxies = case
    x, proxies = x.clone().requires_grad_(), proxies.clone().requires_grad_()
    unidirectional(x, label, proxies, alpha=16, delta=0.3).mean().backward()
    assert proxies.grad is None and x.grad is not None
    step = 1e-5
    for i, j in ((0, 0), (2, 7), (5, 11)):
        moved = []
        for sign in (1, -1):
            other = x.detach().clone()
            other[i, j] += sign * step
            moved.append(math.fsum(printed(other, label, proxies.detach(), 16, 0.3)) / 6)
        assert float(x.grad[i, j]) == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-7)


def test_lengths_and_order_of_snapshots_do_not_matter(case: tuple[Tensor, Tensor, Tensor]) -> None:
    x, label, proxies = case
    found = unidirectional(x, label, proxies, alpha=16, delta=0.3)
    torch.testing.assert_close(unidirectional(x * 7, label, proxies / 9, alpha=16, delta=0.3), found)
    torch.testing.assert_close(unidirectional(x, label, proxies.flip(0), alpha=16, delta=0.3), found)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(unidirectional(x[order], label[order], proxies, alpha=16, delta=0.3), found[order])


def test_falls_while_a_row_moves_to_its_proxies(case: tuple[Tensor, Tensor, Tensor]) -> None:
    x, label, proxies = case
    x, target = torch.nn.functional.normalize(x), torch.nn.functional.normalize(proxies[:1], dim=2)
    steps = [
        unidirectional((1 - t) * x + t * target[0, label], label, target, alpha=8, delta=0.1)
        for t in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert all((later < earlier).all() for earlier, later in itertools.pairwise(steps))


def test_bfloat16_autocast_changes_nothing(case: tuple[Tensor, Tensor, Tensor]) -> None:
    x, label, proxies = case[0].float(), case[1], case[2].float()
    expected = unidirectional(x, label, proxies)
    with torch.autocast("cpu", torch.bfloat16):
        assert unidirectional(x, label, proxies).equal(expected)


def test_wrong_input_is_refused() -> None:
    x, label, proxies = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), torch.randn(2, 5, 3)
    for wrong in ((x, label[:2], proxies), (x[:, :2], label, proxies), (x, label, proxies[0])):
        with pytest.raises(ValueError, match=r"proxies \(S, C, D\) are needed, got"):
            unidirectional(*wrong)
    for few in (proxies[:0], proxies[:, :1]):
        with pytest.raises(ValueError, match="two or more identities"):
            unidirectional(x, label, few)
    with pytest.raises(ValueError, match="alpha must be positive, got 0"):
        unidirectional(x, label, proxies, alpha=0)
