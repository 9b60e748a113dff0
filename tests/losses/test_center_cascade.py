"""Center cascade and batch centers: recorded values of the printed equations, a loop over them, bounds, faults."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vireid.losses.batch_centers import batch_centers
from vireid.losses.center_cascade import Inter, center_cascade

RECORDED = np.load(Path(__file__).parents[1] / "golden" / "msclnet_equations.npz")
RANDOM = np.random.RandomState(0)
X = RANDOM.randn(12, 5)
LABEL = np.array([7, 2, 7, 7, 2, 9, 7, 9, 2, 7, 7, 9])  # 6, 3 and 3 rows
PART = RANDOM.randint(0, 2, (12, 2))


def test_recorded_printed_equations() -> None:
    x, label = torch.tensor(RECORDED["f_synergy"]), torch.tensor(RECORDED["labels"])
    found = center_cascade(x, label, torch.tensor(RECORDED["cam_visible"])[:, None], inter="literal")
    for name, value in zip(("L_sub", "L_intra", "L_inter_literal"), found, strict=True):
        np.testing.assert_allclose(value, RECORDED[name], rtol=1e-12)


def loop(x: np.ndarray, label: np.ndarray, part: np.ndarray, inter: str) -> list[float]:
    """Row by row, pair by pair."""
    n = len(x)
    own = [[j for j in range(n) if label[j] == label[i]] for i in range(n)]
    sub = [[j for j in own[i] if tuple(part[j]) == tuple(part[i])] for i in range(n)]
    center = [np.mean([x[j] for j in rows], axis=0) for rows in own]
    to_sub = np.mean([((x[i] - np.mean([x[j] for j in sub[i]], axis=0)) ** 2).sum() for i in range(n)])
    intra = 0.0
    for i in range(n):
        for rows in {tuple(sub[j]) for j in own[i]}:
            intra += ((np.mean([x[j] for j in rows], axis=0) - center[i]) ** 2).sum() / n
    if inter == "literal":
        total = sum(((center[i] - center[j]) ** 2).sum() for i in range(n) for j in range(n) if j != i)
        return [to_sub, intra, -total / (n * (n - 1) / 2)]
    people = [center[list(label).index(y)] for y in sorted(set(label))]
    unit = [c / np.linalg.norm(c) for c in people]
    pairs = [((unit[p] - unit[q]) ** 2).sum() for p in range(len(unit)) for q in range(p)]
    return [to_sub, intra, -float(np.mean(pairs))]


@pytest.mark.parametrize("inter", ["bounded", "literal"])
def test_equals_the_loop_in_any_order(inter: Inter) -> None:
    expected = loop(X, LABEL, PART, inter)
    for order in (np.arange(12), RANDOM.permutation(12)):
        found = center_cascade(*(torch.tensor(v[order]) for v in (X, LABEL, PART)), inter=inter)
        np.testing.assert_allclose(torch.stack(list(found)), expected, rtol=1e-10)


def test_gradients_are_those_of_small_differences() -> None:
    x = torch.tensor(X, requires_grad=True)
    for i in range(3):
        for inter in ("bounded", "literal"):
            assert torch.autograd.gradcheck(
                lambda v, i=i, inter=inter: center_cascade(v, torch.tensor(LABEL), torch.tensor(PART), inter)[i], x
            )


def test_bounded_inter_stays_bounded_where_the_printed_one_does_not() -> None:
    label, part = torch.arange(4).repeat_interleave(2), torch.zeros(8, 1, dtype=torch.long)
    x = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bounded = [float(center_cascade(scale * x, label, part).inter) for scale in (1, 1000)]
    literal = [float(center_cascade(scale * x, label, part, "literal").inter) for scale in (1, 1000)]
    assert bounded[0] == pytest.approx(bounded[1]) and -8 / 3 - 1e-9 <= bounded[0] < 0
    assert literal[1] == pytest.approx(1e6 * literal[0])
    opposite = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    assert float(center_cascade(opposite, torch.tensor([0, 1]), torch.zeros(2, 1).long()).inter) == pytest.approx(-4)
    alone = center_cascade(x, torch.zeros(8).long(), part)
    assert float(alone.inter) == 0


def test_a_sub_class_of_one_row_has_no_loss_of_its_own() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    sub = center_cascade(x, torch.tensor([0, 0, 1, 1]), torch.arange(4)[:, None]).sub
    sub.backward()
    assert sub.item() == 0 and x.grad is not None and not bool(x.grad.any())


def test_batch_centers_by_several_labels() -> None:
    found = batch_centers(torch.tensor(X), torch.tensor(PART))
    for i in range(12):
        same = (PART[i] == PART).all(1)
        np.testing.assert_allclose(found.centers[found.row[i]], X[same].mean(0))
        assert found.keys[found.row[i]].tolist() == PART[i].tolist()
    assert found.keys.tolist() == sorted(found.keys.tolist())


def test_faults() -> None:
    x, label = torch.zeros(4, 2), torch.zeros(4).long()
    with pytest.raises(ValueError, match="got 'wide'"):
        center_cascade(x, label, label[:, None], "wide")  # pyright: ignore
    for part in (label, label[:3, None]):
        with pytest.raises(ValueError, match="are needed, got"):
            center_cascade(x, label, part)
    with pytest.raises(ValueError, match="4 rows, 3 labels"):
        batch_centers(x, label[:3])
