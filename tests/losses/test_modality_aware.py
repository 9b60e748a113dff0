"""Modality-aware losses of CMTR: recorded values of the printed equations, both centers, invariances, gradients."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.layers.cmtr import remove_modality
from vireid.losses import modality_aware
from vireid.losses.modality_aware import Center, Distance, Reduction, modality_aware_center, modality_aware_identity

GOLDEN = Path(__file__).parents[1] / "golden" / "c_cmtr_mae.npz"


def recorded() -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Arrays, cleaned embeddings (24, 10), label and modality; visible rows first."""
    golden = {name: torch.as_tensor(value) for name, value in np.load(GOLDEN).items()}
    f = torch.cat([golden["f_vis"].flatten(0, 1), golden["f_ir"].flatten(0, 1)])
    label, modality = golden["ids"].repeat_interleave(3).repeat(2), torch.arange(2).repeat_interleave(12)
    cleaned = remove_modality(f, modality, torch.stack([golden["phi_vis"], golden["phi_ir"]]))
    return golden, cleaned, label, modality


@pytest.mark.parametrize("center", ["identity", "modality"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_recorded_center_loss(center: Center, reduction: Reduction) -> None:
    golden, g, label, modality = recorded()
    loss = modality_aware_center(g, label, modality, center=center, reduction=reduction)
    torch.testing.assert_close(loss, golden[f"mac_{center}_{reduction}"], rtol=0, atol=1e-9)
    per = golden[f"mac_{center}_per"].sum() if reduction == "sum" else golden[f"mac_{center}_per"].mean()
    torch.testing.assert_close(loss, per, rtol=0, atol=1e-9)
    assert abs(float(loss) - float(golden["mac_WRONG_SIGN_sum"])) > 0.9


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_recorded_identity_loss(reduction: Reduction) -> None:
    golden, g, label, _ = recorded()
    logits = g @ golden["W_id"].T
    loss = modality_aware_identity(logits, label, reduction)
    torch.testing.assert_close(loss, golden[f"maid_{reduction}"], rtol=0, atol=1e-9)
    torch.testing.assert_close(logits.softmax(1), golden["prob"].reshape(24, 9), rtol=0, atol=1e-9)


def test_floor_is_log_2_and_moving_to_the_center_lowers_the_loss() -> None:
    golden, g, label, modality = recorded()
    centers = torch.stack([g[label == one].mean(0) for one in label])
    assert float(golden["mac_floor_sum"]) == pytest.approx(24 * math.log(2))
    values = [
        float(modality_aware_center(g + share * (centers - g), label, modality, reduction="sum"))
        for share in (0, 0.5, 0.9, 1)
    ]
    assert values == sorted(values, reverse=True) and values[-1] == pytest.approx(24 * math.log(2), abs=1e-4)


def test_a_center_per_modality_joins_nothing() -> None:
    """With the printed center a shift of one modality costs nothing, with the identity's it does."""
    _, g, label, modality = recorded()
    shifted = g + 5.0 * modality[:, None]
    losses = {
        center: [float(modality_aware_center(x, label, modality, center=center)) for x in (g, shifted)]
        for center in ("identity", "modality")
    }
    assert losses["modality"][1] == pytest.approx(losses["modality"][0])
    assert losses["identity"][1] > losses["identity"][0] + 1


@pytest.mark.parametrize("center", ["identity", "modality"])
def test_order_rotation_and_swap_of_modalities_do_not_matter(center: Center) -> None:
    _, g, label, modality = recorded()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(24, generator=generator)
    rotation = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64, generator=generator))[0]
    expected = modality_aware_center(g, label, modality, center=center)
    for given in (
        (g[order], label[order], modality[order]),
        (g @ rotation + 2, label, 1 - modality),
        (g, 9 - label, modality),
    ):
        torch.testing.assert_close(modality_aware_center(*given, center=center), expected)


@pytest.mark.parametrize("distance", ["euclidean", "squared", "normalized"])
def test_people_with_different_numbers_of_images(distance: Distance) -> None:
    g = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 6.0], [1.0, 1.0], [5.0, 4.0]], dtype=torch.float64)
    label, modality = torch.tensor([4, 4, 4, 1, 1]), torch.tensor([0, 1, 1, 0, 1])
    x = F.normalize(g + 1) if distance == "normalized" else g + 1
    expected = 0.0
    for i in range(5):
        mates = [j for j in range(5) if label[j] == label[i]]
        middle = [sum(float(x[j, c]) for j in mates) / len(mates) for c in range(2)]
        d = math.dist(x[i].tolist(), middle)
        expected += math.log1p(math.exp(d * d if distance == "squared" else d)) / 5
    loss = modality_aware_center(g + 1, label, modality, distance=distance)
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_gradient_is_that_of_finite_differences_and_reaches_the_center() -> None:
    _, g, label, modality = recorded()
    g = g[:6].clone().requires_grad_()
    label, modality = torch.tensor([0, 0, 1, 1, 0, 1]), modality[:6]
    assert torch.autograd.gradcheck(lambda x: modality_aware_center(x, label, modality), (g,))


def test_equal_rows_have_a_finite_gradient_and_far_ones_a_finite_loss() -> None:
    x = torch.ones(4, 3, requires_grad=True)
    loss = modality_aware_center(x, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-5)
    assert x.grad is not None and torch.isfinite(x.grad).all()
    far = modality_aware_center(torch.tensor([[0.0], [2000.0]]), torch.zeros(2).long(), torch.tensor([0, 1]))
    assert float(far) == pytest.approx(1000)


def test_half_precision_keeps_its_distances() -> None:
    _, g, label, modality = recorded()
    g = g.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = modality_aware_center(g, label, modality)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, modality_aware_center(g.float(), label, modality))


def test_rows_of_other_processes_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gather` gives the whole batch in place of the rows that this process holds."""
    _, g, label, modality = recorded()
    per_row = F.cross_entropy(g, label, reduction="none")
    expected = modality_aware_center(g, label, modality), modality_aware_identity(g, label)
    own = slice(0, 12)
    whole = {g[own].double().sum().item(): g, label[own].sum().item(): label, modality[own].sum().item(): modality}
    whole[per_row[own].sum().item()] = per_row
    monkeypatch.setattr(modality_aware, "gather", lambda x: whole[x.sum().item()])
    assert modality_aware_center(g[own], label[own], modality[own]).equal(expected[0])
    assert modality_aware_identity(g[own], label[own]).equal(expected[1])


def test_wrong_words_are_refused() -> None:
    _, g, label, modality = recorded()
    with pytest.raises(ValueError, match="center is 'identity' or 'modality', got 'batch'"):
        modality_aware_center(g, label, modality, center="batch")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="distance is 'euclidean', 'squared' or 'normalized', got 'cosine'"):
        modality_aware_center(g, label, modality, distance="cosine")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="reduction is 'mean' or 'sum', got 'max'"):
        modality_aware_center(g, label, modality, reduction="max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="one label per row"):
        modality_aware_center(g, label[:3], modality)
