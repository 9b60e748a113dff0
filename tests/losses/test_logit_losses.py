"""Losses between logits (softened KL, consistency) against the recorded arrays."""

import numpy as np
import torch
from golden_files import GOLDEN

from vireid.losses.consistency import consistency
from vireid.losses.softened_kl import softened_kl


def test_recorded_softened_kl() -> None:
    golden = np.load(GOLDEN / "caj_kl_T3.npz")
    logits = torch.tensor(golden["pred_logits"], requires_grad=True)
    target = torch.tensor(golden["target_logits"], requires_grad=True)
    loss = softened_kl(logits, target)
    np.testing.assert_allclose(loss.detach(), golden["loss"], rtol=1e-9)
    loss.backward()
    np.testing.assert_allclose(logits.grad, golden["grad_pred"], rtol=1e-9, atol=1e-15)
    assert target.grad is None


def test_recorded_consistency() -> None:
    golden = np.load(GOLDEN / "cajplus_consistency.npz")
    weak = torch.tensor(golden["weak_logits"], requires_grad=True)
    strong = torch.tensor(golden["strong_logits_detached"], requires_grad=True)
    loss = consistency(weak, strong)
    np.testing.assert_allclose(loss.detach(), golden["loss"], rtol=1e-9)
    loss.backward()
    np.testing.assert_allclose(weak.grad, golden["grad_weak"], rtol=1e-9, atol=1e-15)
    assert strong.grad is None


def test_both_are_least_where_the_logits_agree() -> None:
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    other = z + torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert softened_kl(z + 2, z) < 1e-5 < softened_kl(other, z)
    assert consistency(z + 2, z) < consistency(other, z)
