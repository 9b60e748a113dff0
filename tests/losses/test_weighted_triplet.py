"""WRT against the released code's recorded arrays, a slow loop of the printed equation, and its invariances."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN

from vireid.losses import weighted_triplet
from vireid.losses.weighted_triplet import weighted_distances, weighted_regularized_triplet


@pytest.mark.parametrize("case", ["unit", "norm", "large", "dup"])
def test_recorded_loss_and_gradient(case: str) -> None:
    golden = np.load(GOLDEN / "agw_wrt_loss.npz")
    x = torch.tensor(golden[f"{case}_x"], requires_grad=True)
    label = torch.tensor(golden[f"{case}_labels"])
    pooled = F.normalize(x) if case == "norm" else x
    out = weighted_regularized_triplet(pooled, label)
    np.testing.assert_allclose(out.loss.detach(), golden[f"{case}_loss"], rtol=1e-9)
    assert float(out.correct) == pytest.approx(int(golden[f"{case}_correct"]) / len(label))
    w = weighted_distances(pooled, label)
    np.testing.assert_allclose(w.positive.detach(), golden[f"{case}_ap"], rtol=1e-9)
    np.testing.assert_allclose(w.negative.detach(), golden[f"{case}_an"], rtol=1e-9)
    np.testing.assert_allclose(w.negative_mass, golden[f"{case}_wneg"].sum(1), rtol=1e-9)
    assert float(out.lost) == np.mean(golden[f"{case}_wneg"].sum(1) < 0.5) == (1.0 if case == "large" else 0.0)
    out.loss.backward()
    np.testing.assert_allclose(x.grad, golden[f"{case}_grad"], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("noself", {"softmax": "exact", "own_positive": False}),
        ("self", {"softmax": "exact"}),
        ("self_eps1e6", {"softmax": "official"}),
    ],
)
def test_recorded_readings_of_the_equation(size: str, name: str, settings: dict) -> None:
    golden = np.load(GOLDEN / "c_wrt.npz")
    x, label = torch.tensor(golden[f"x_{size}"]), torch.tensor(golden["labels"])
    w = weighted_distances(x, label, **settings)
    np.testing.assert_allclose(F.softplus(w.mu), golden[f"{size}_{name}_per"], atol=1e-6)
    loss = weighted_regularized_triplet(x, label, **settings).loss
    np.testing.assert_allclose(loss, golden[f"{size}_{name}_mean"], atol=1e-6)


def test_exact_equals_a_loop_over_anchors() -> None:
    random = np.random.RandomState(0)
    x, label = 5 * random.randn(9, 4), np.array([0, 1, 2, 0, 1, 2, 0, 0, 1])
    losses = []
    for i in range(9):
        d = [max(math.dist(x[i], x[j]), 1e-6) for j in range(9)]
        positive = [j for j in range(9) if label[j] == label[i]]
        negative = [j for j in range(9) if label[j] != label[i]]
        far = sum(math.exp(d[j]) * d[j] for j in positive) / sum(math.exp(d[j]) for j in positive)
        near = sum(math.exp(-d[j]) * d[j] for j in negative) / sum(math.exp(-d[j]) for j in negative)
        losses.append(math.log1p(math.exp(far - near)))
    out = weighted_regularized_triplet(torch.tensor(x), torch.tensor(label), "exact")
    assert float(out.loss) == pytest.approx(np.mean(losses), rel=1e-9)
    assert float(out.lost) == 0


@pytest.mark.parametrize("softmax", ["official", "exact"])
def test_order_rotation_and_names_of_people_do_not_matter(softmax: weighted_triplet.Softmax) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 5, dtype=torch.float64, generator=generator)
    label = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator))[0]
    order = torch.randperm(8, generator=generator)
    expected = weighted_regularized_triplet(x, label, softmax)
    for other in ((x[order], label[order]), (x @ rotation + 3, label), (x, 7 - label)):
        got = weighted_regularized_triplet(*other, softmax)
        torch.testing.assert_close(got.loss, expected.loss)


@pytest.mark.parametrize("softmax", ["official", "exact"])
def test_float32_stays_finite_where_negatives_are_hundreds_away(softmax: weighted_triplet.Softmax) -> None:
    x = torch.tensor([[0.0], [0.5], [300.0], [301.0]], requires_grad=True)
    out = weighted_regularized_triplet(x, torch.tensor([0, 0, 1, 1]), softmax)
    out.loss.backward()
    assert torch.isfinite(out.loss) and x.grad is not None and torch.isfinite(x.grad).all()


def test_rows_of_other_processes_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    label = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    expected = weighted_regularized_triplet(x, label)
    whole = {4: x, 0: label}
    monkeypatch.setattr(weighted_triplet, "gather", lambda own: whole[4] if own.is_floating_point() else whole[0])
    assert weighted_regularized_triplet(x[:4], label[:4]).loss.equal(expected.loss)


def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="'official' or 'exact', got 'soft'"):
        weighted_distances(torch.zeros(2, 1), torch.zeros(2), softmax="soft")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="2 rows, 3 labels"):
        weighted_distances(torch.zeros(2, 1), torch.zeros(3))
