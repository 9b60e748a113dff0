"""Marginal center aggregation against the recorded arrays and a loop over the equations."""

import numpy as np
import pytest
import torch
from golden_files import GOLDEN

from vireid.losses.marginal_center import marginal_center_aggregation

IDENTITY = ("id_both_active", "id_pull_only", "id_push_only", "id_inactive")
CAMERA = ("cam_both_active", "cam_pull_only", "cam_missing_class")
RANDOM = np.random.RandomState(0)
X, CENTERS = RANDOM.randn(9, 5), RANDOM.randn(4, 5)
LABEL = np.array([0, 2, 2, 0, 2, 0, 2, 3, 2])  # 3, 5 and 1 rows; class 1 is not in the batch


@pytest.mark.parametrize("case", IDENTITY + CAMERA)
def test_recorded_loss_and_gradients(case: str) -> None:
    golden = np.load(GOLDEN / f"mclnet_{case.partition('_')[0]}_center_loss.npz")
    x, centers = (torch.tensor(golden[f"{case}_{name}"], requires_grad=True) for name in ("x", "centers"))
    loss = marginal_center_aggregation(
        x,
        torch.tensor(golden[f"{case}_labels"]),
        centers,
        sigma=float(golden[f"{case}_sigma"]),
        rho=float(golden[f"{case}_rho"]),
        rows_per_class=8 if case in IDENTITY else None,  # the released code counts cameras only
    )
    np.testing.assert_allclose(loss.detach(), golden[f"{case}_loss"], rtol=1e-9)
    loss.backward()
    assert x.grad is not None and centers.grad is not None
    np.testing.assert_allclose(x.grad, golden[f"{case}_grad_x"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(centers.grad, golden[f"{case}_grad_centers"], rtol=1e-9, atol=1e-12)


def loop(sigma: float, rho: float, hinge: str, rows_per_class: int | None) -> float:
    pulls, pushes = [], []
    for x, y in zip(X, LABEL, strict=True):
        mine = [((z - CENTERS[y]) ** 2).sum() for z, other in zip(X, LABEL, strict=True) if other == y]
        weight = 1 if rows_per_class is None else rows_per_class / len(mine)
        pulls.append(((x - CENTERS[y]) ** 2).sum() - weight * min(mine) - sigma)
        pushes.append(rho - min(((CENTERS[y] - CENTERS[q]) ** 2).sum() for q in range(4) if q != y))
    if hinge == "batch":
        return max(0.0, float(np.mean(pulls))) + max(0.0, float(np.mean(pushes)))
    return float(np.mean(np.maximum(0, pulls)) + np.mean(np.maximum(0, pushes)))


@pytest.mark.parametrize("hinge", ["batch", "sample"])
@pytest.mark.parametrize("rows_per_class", [None, 1, 8])
@pytest.mark.parametrize(("sigma", "rho"), [(0.0, 10.0), (3.0, 3.5), (9.0, 0.0)])
def test_equals_a_loop(hinge: str, rows_per_class: int | None, sigma: float, rho: float) -> None:
    loss = marginal_center_aggregation(
        torch.tensor(X),
        torch.tensor(LABEL),
        torch.tensor(CENTERS),
        sigma=sigma,
        rho=rho,
        hinge=hinge,  # pyright: ignore[reportArgumentType]
        rows_per_class=rows_per_class,
    )
    assert float(loss) == pytest.approx(loop(sigma, rho, hinge, rows_per_class), rel=1e-10, abs=1e-12)


def test_the_hinge_acts_on_the_mean_and_not_on_every_row() -> None:
    x, label = torch.tensor([[0.0], [3.0]]), torch.zeros(2, dtype=torch.int64)
    centers = torch.zeros(1, 1)  # pulls of 0 and 9, their mean is 4.5
    assert float(marginal_center_aggregation(x, label, centers, sigma=5.0)) == 0
    assert float(marginal_center_aggregation(x, label, centers, sigma=5.0, hinge="sample")) == 2


@pytest.mark.parametrize("hinge", ["batch", "sample"])
def test_closed_hinges_give_a_zero_that_can_be_sent_back(hinge: str) -> None:
    x = torch.tensor(X, requires_grad=True)
    loss = marginal_center_aggregation(
        x,
        torch.tensor(LABEL),
        torch.tensor(CENTERS),
        sigma=1e6,
        rho=0.0,
        hinge=hinge,  # pyright: ignore[reportArgumentType]
    )
    assert loss.item() == 0
    loss.backward()
    assert x.grad is not None and not x.grad.any()


def test_the_nearest_row_is_pushed_and_a_row_on_its_center_counts() -> None:
    x = torch.tensor([[1.0], [2.0]], requires_grad=True)
    marginal_center_aggregation(x, torch.zeros(2, dtype=torch.int64), torch.zeros(1, 1), sigma=0.0).backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [-1.0, 2.0]  # 1/2 (2x - 2 * 2x) and 1/2 * 2x
    on_center = marginal_center_aggregation(
        torch.tensor([[0.0], [2.0]]), torch.zeros(2, dtype=torch.int64), torch.zeros(1, 1), sigma=0.0
    )
    assert float(on_center) == 2  # the nearest distance is 0, not that of the next row


def test_a_single_center_has_no_other_to_keep_away_from() -> None:
    center = torch.zeros(1, 1, requires_grad=True)
    loss = marginal_center_aggregation(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64), center)
    loss.backward()
    assert float(loss.detach()) == 0 and center.grad is not None and float(center.grad) == 0


def test_random_centers_at_the_published_size_leave_the_second_hinge_open() -> None:
    """Which is then a constant of about 724, out of the network's reach."""
    centers = torch.randn(395, 2048, generator=torch.Generator().manual_seed(0))
    on_centers = centers.clone().requires_grad_()  # closes the first hinge
    loss = marginal_center_aggregation(on_centers, torch.arange(395), centers)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(724, abs=15)
    assert on_centers.grad is not None and not on_centers.grad.any()


def test_autocast_keeps_the_distances_in_float32() -> None:
    given = torch.tensor(X).float(), torch.tensor(LABEL), torch.tensor(CENTERS).float()
    exact = marginal_center_aggregation(*given, sigma=0.0, rho=10.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert marginal_center_aggregation(*given, sigma=0.0, rho=10.0).equal(exact)


def test_wrong_input_is_refused() -> None:
    x, label = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="'batch' or 'sample', got 'mean'"):
        marginal_center_aggregation(x, label, x, hinge="mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(2,\) and \(4, 5\)"):
        marginal_center_aggregation(x, label, torch.zeros(4, 5))
    with pytest.raises(ValueError, match="are needed"):
        marginal_center_aggregation(x, label[:1], x)
