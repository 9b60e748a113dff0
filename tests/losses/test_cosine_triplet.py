"""The cosine triplet against recorded arrays, a loop, and its invariances."""

import math

import numpy as np
import pytest
import torch
from golden_files import GOLDEN

from vireid.losses.cosine_triplet import cosine_triplet


def test_equals_the_recorded_loss() -> None:
    with np.load(GOLDEN / "hicmd_triplet.npz") as arrays:
        given = {key: torch.from_numpy(arrays[key]) for key in arrays}
    anchors, targets = given["anchors"].requires_grad_(), given["targets"].requires_grad_()
    loss = cosine_triplet(anchors, given["anchor_labels"], targets, given["target_labels"])
    loss.backward()
    torch.testing.assert_close(loss, given["loss"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(anchors.grad, given["grad_anchors"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(targets.grad, given["grad_targets"], rtol=1e-9, atol=1e-9)


def test_equals_a_loop_and_does_not_depend_on_order_or_length() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    label = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2])
    rows = [0, 2, 7]
    total = 0.0
    for i in rows:
        cosines = [sum(a * b for a, b in zip(x[i].tolist(), y, strict=True)) / math.hypot(*x[i].tolist())
                   / math.hypot(*y) for y in x.tolist()]  # fmt: skip
        p = min(c for c, y in zip(cosines, label, strict=True) if y == label[i])
        n = max(c for c, y in zip(cosines, label, strict=True) if y != label[i])
        total += (max(0.0, n - p + 0.3) + (1 + n) ** 2 + (1 - p) ** 2) / len(rows)
    found = cosine_triplet(x[rows], label[rows], x, label, margin=0.3)
    assert found.item() == pytest.approx(total, abs=1e-6)  # the length is 1e-8 more in it
    order = torch.randperm(9, generator=generator)
    other = cosine_triplet(x[rows] * 3, label[rows], x[order] * torch.arange(1, 10)[:, None], label[order], margin=0.3)
    assert other.item() == pytest.approx(total, abs=1e-6)


def test_an_anchor_without_positive_or_negative_is_told() -> None:
    x = torch.eye(2)
    for labels in ([0, 0], [1, 1]):
        with pytest.raises(ValueError, match="of its identity and one of another"):
            cosine_triplet(x[:1], torch.tensor([0]), x, torch.tensor(labels))
