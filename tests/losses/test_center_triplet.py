"""Center triplet against the recorded arrays and a slow loop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vireid.losses.center_triplet import center_triplet

RECORDED = np.load(Path(__file__).parents[1] / "golden" / "c_center_triplet.npz")


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Recorded vectors of both modalities, label and modality."""
    both = np.concatenate([RECORDED["f_vis"], RECORDED["f_ir"]])  # (10, 4, 6)
    label = torch.arange(5).repeat(2).repeat_interleave(4)
    return torch.from_numpy(both).flatten(0, 1), label, torch.arange(2).repeat_interleave(20)


@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_recorded_sum_and_mean(margin: float) -> None:
    x, label, modality = rows()
    for reduction in ("sum", "mean"):
        found = center_triplet(x, label, modality, margin, reduction)  # pyright: ignore[reportArgumentType]
        assert float(found) == pytest.approx(float(RECORDED[f"m{margin}_{reduction}"]), abs=1e-9)
    each = np.concatenate([RECORDED[f"m{margin}_per_v"], RECORDED[f"m{margin}_per_t"]])
    assert each.sum() == pytest.approx(float(RECORDED[f"m{margin}_sum"]))


def test_order_of_the_rows_does_not_matter() -> None:
    x, label, modality = rows()
    mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    found = center_triplet(x[mixed], label[mixed] * 7 + 3, modality[mixed])
    torch.testing.assert_close(found, center_triplet(x, label, modality))
    torch.testing.assert_close(center_triplet(x, label, 1 - modality), center_triplet(x, label, modality))


def slow(x: np.ndarray, label: np.ndarray, modality: np.ndarray, margin: float) -> float:
    people = sorted(set(label.tolist()))
    center = {(p, m): x[(label == p) & (modality == m)].mean(0) for p in people for m in (0, 1)}
    total = 0.0
    for p in people:
        for m in (0, 1):
            near = np.linalg.norm(center[p, m] - center[p, 1 - m])
            far = min(np.linalg.norm(center[p, m] - center[q, k]) for q in people if q != p for k in (0, 1))
            total += max(0.0, margin + near - far)
    return total


def test_any_number_of_rows_a_person() -> None:
    random = np.random.RandomState(0)
    label = np.repeat([4, 4, 1, 1, 9, 9], [1, 3, 2, 2, 5, 1])
    modality = np.repeat([0, 1, 0, 1, 0, 1], [1, 3, 2, 2, 5, 1])
    x = random.randn(len(label), 5)
    given = torch.tensor(x), torch.tensor(label), torch.tensor(modality)
    assert float(center_triplet(*given, 0.8, "sum")) == pytest.approx(slow(x, label, modality, 0.8), rel=1e-9)
    assert float(center_triplet(*given, 0.8)) == pytest.approx(slow(x, label, modality, 0.8) / 6, rel=1e-9)


def test_gradient_runs_through_the_centers() -> None:
    x, label, modality = rows()
    assert torch.autograd.gradcheck(lambda v: center_triplet(v, label, modality, 1.0), (x.requires_grad_(),))
    alone = x[:4].detach().repeat(2, 1).requires_grad_()  # centers on top of each other, and nobody else
    loss = center_triplet(alone, torch.zeros(8, dtype=torch.int64), torch.arange(2).repeat_interleave(4))
    loss.backward()
    assert float(loss.detach()) == 0 and alone.grad is not None and not alone.grad.any()


def test_small_distances_between_long_vectors_are_kept() -> None:
    x = torch.full((4, 2048), 1.0)
    x[1, 0] += 0.01
    x[2:] += 10
    found = center_triplet(x, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), margin=452.55, reduction="sum")
    far = float((x[2] - x[0]).double().norm())
    assert float(found) == pytest.approx(4 * (452.55 - far) + 0.02, abs=1e-3)


def test_wrong_input_is_refused() -> None:
    x, label, modality = rows()
    with pytest.raises(ValueError, match=r"both modalities of the batch; labels \[4\]"):
        center_triplet(x[:36], label[:36], modality[:36])
    with pytest.raises(ValueError, match="one label and modality per row"):
        center_triplet(x, label[:3], modality)
    with pytest.raises(ValueError, match="'mean' or 'sum', got 'none'"):
        center_triplet(x, label, modality, reduction="none")  # pyright: ignore[reportArgumentType]
