"""Contrast between the modalities against loops over its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vireid.losses.modality_contrast import modality_contrast


def by_definition(a: Tensor, b: Tensor, a_label: list[int], b_label: list[int], temperature: float) -> float:
    """Mean over rows of `a` of the mean over its people's rows of `b` of -log softmax."""
    total = 0.0
    for vector, label in zip(a, a_label, strict=True):
        cosines = [float(vector @ other / vector.norm() / other.norm()) / temperature for other in b]
        norm = math.log(sum(math.exp(c) for c in cosines))
        own = [norm - c for c, other in zip(cosines, b_label, strict=True) if other == label]
        total += sum(own) / len(own)
    return total / len(a)


@pytest.mark.parametrize(("visible", "infrared"), [([0, 1, 2, 3], [2, 0, 3, 1]), ([0, 0, 1], [1, 0, 1, 1])])
def test_both_directions_as_defined(visible: list[int], infrared: list[int]) -> None:
    torch.manual_seed(0)
    v, r = torch.randn(len(visible), 5), 3 * torch.randn(len(infrared), 5)
    loss, _ = modality_contrast(v, r, torch.tensor(visible), torch.tensor(infrared), 0.2)
    expected = by_definition(v, r, visible, infrared, 0.2) + by_definition(r, v, infrared, visible, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_correct_counts_the_nearest_of_the_other_modality() -> None:
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    r = torch.tensor([[0.9, 0.1], [0.8, 0.6]])  # both are nearest to the first; the second visible one finds its own
    _, correct = modality_contrast(v, r, torch.tensor([0, 1]), torch.tensor([0, 1]), 0.1)
    assert correct.item() == pytest.approx(3 / 4)


def test_gradients_pull_a_person_together() -> None:
    torch.manual_seed(1)
    v, r = torch.randn(6, 8, requires_grad=True), torch.randn(6, 8)
    label = torch.arange(6)
    loss, _ = modality_contrast(v, r, label, label, 0.1)
    loss.backward()
    assert v.grad is not None
    moved = v.detach() - 0.05 * v.grad
    after, _ = modality_contrast(moved, r, label, label, 0.1)
    assert after < loss
