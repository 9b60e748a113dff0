"""Center cluster against the recorded arrays, a slow loop, and what its recorded form cannot do."""

import numpy as np
import pytest
import torch
from golden_files import GOLDEN

from vireid.losses.center_cluster import center_cluster


@pytest.mark.parametrize("case", ["near", "mid", "m03", "far"])
def test_recorded_loss_and_gradient(case: str) -> None:
    golden = np.load(GOLDEN / "mpanet_center_cluster_loss.npz")
    x = torch.tensor(golden[f"{case}_x"], requires_grad=True)
    found = center_cluster(x, torch.tensor(golden[f"{case}_labels"]), float(golden[f"{case}_margin"]))
    for name, value in (("pull", found.pull), ("push", found.push), ("loss", found.loss)):
        np.testing.assert_allclose(value.detach(), golden[f"{case}_{name}"], rtol=1e-9, atol=1e-13)
    found.loss.backward()
    np.testing.assert_allclose(x.grad, golden[f"{case}_grad"], rtol=1e-9, atol=1e-13)


def slow(x: np.ndarray, label: np.ndarray, margin: float) -> tuple[float, float]:
    people = sorted(set(label.tolist()))
    centers = {p: np.mean([v for v, y in zip(x, label, strict=True) if y == p], axis=0) for p in people}
    pull = np.mean([np.sqrt(((v - centers[y]) ** 2).sum()) for v, y in zip(x, label.tolist(), strict=True)])
    hinges = [
        np.mean([max(0.0, margin - float(np.linalg.norm(centers[p] - centers[q]))) for q in people if q != p])
        for p in people
    ]
    return float(pull), float(np.mean(hinges))


def test_any_order_and_any_number_of_rows_a_person() -> None:
    random = np.random.RandomState(0)
    label = random.permutation(np.repeat([5, 2, 40, 7], [1, 3, 4, 6]))
    x = random.randn(len(label), 8) * 0.2
    found = center_cluster(torch.tensor(x), torch.tensor(label))
    pull, push = slow(x, label, 0.7)
    assert push > 0.05
    assert float(found.pull) == pytest.approx(pull, rel=1e-12)
    assert float(found.push) == pytest.approx(push, rel=1e-12)


def test_vectors_at_their_center_and_equal_centers_keep_gradients_finite() -> None:
    x = torch.ones(4, 3, requires_grad=True)  # two people at the same place
    found = center_cluster(x, torch.tensor([0, 0, 1, 1]))
    assert float(found.pull.detach()) == 0 and float(found.push.detach()) == pytest.approx(0.7)
    found.loss.backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_one_person_has_nobody_to_be_pushed_from() -> None:
    found = center_cluster(torch.tensor([[0.0], [2.0]]), torch.tensor([3, 3]))
    assert (float(found.pull), float(found.push)) == (1.0, 0.0)


def test_small_distances_between_long_vectors_survive_float32_and_autocast() -> None:
    torch.manual_seed(0)
    shift = 50 * torch.randn(1, 4096)
    label = torch.arange(8).repeat_interleave(4)
    x = shift + 1e-2 * torch.randn(8, 1, 4096).expand(8, 4, 4096).reshape(32, 4096)
    with torch.autocast("cpu", torch.bfloat16):
        found = center_cluster(x, label, 0.95)
    assert found.loss.dtype == torch.float32
    exact = center_cluster(x.double(), label, 0.95)
    assert float(exact.push) > 0.01
    assert float(found.push) == pytest.approx(float(exact.push), rel=1e-3)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="3 rows, 2 labels"):
        center_cluster(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long))
