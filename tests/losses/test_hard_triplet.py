"""Batch-hard triplet against the recorded arrays and a loop."""

import numpy as np
import pytest
import torch
from golden_files import GOLDEN

from vireid.losses.hard_triplet import batch_hard_triplet


@pytest.mark.parametrize("case", ["a", "b"])
def test_recorded_loss_and_gradient(case: str) -> None:
    golden = np.load(GOLDEN / "agw_batch_hard_triplet.npz")
    x = torch.tensor(golden[f"{case}_x"], requires_grad=True)
    loss = batch_hard_triplet(x, torch.tensor(golden[f"{case}_labels"]), float(golden[f"{case}_margin"]))
    np.testing.assert_allclose(loss.detach(), golden[f"{case}_loss"], rtol=1e-9)
    loss.backward()
    np.testing.assert_allclose(x.grad, golden[f"{case}_grad"], rtol=1e-9, atol=1e-13)


def test_equals_a_loop() -> None:
    random = np.random.RandomState(0)
    x, label = random.randn(8, 3), np.array([0, 0, 1, 1, 2, 2, 0, 1])
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    terms = [max(0, 0.3 + d[i][label == label[i]].max() - d[i][label != label[i]].min()) for i in range(8)]
    assert float(batch_hard_triplet(torch.tensor(x), torch.tensor(label))) == pytest.approx(np.mean(terms), rel=1e-9)


def test_one_person_alone_has_loss_zero() -> None:
    assert float(batch_hard_triplet(torch.randn(3, 2), torch.zeros(3))) == 0


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 rows, 3 labels"):
        batch_hard_triplet(torch.zeros(2, 1), torch.zeros(3))
