"""Part triplets against the recorded arrays, loops, and what the printed form without a hinge would give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vireid.layers.stripe_path import path_distance
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.part_triplet import batch_hard, part_triplet, path_triplet

RECORDED = np.load(Path(__file__).parents[1] / "golden" / "c_pa.npz")
MARGIN = float(RECORDED["margin"])


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Recorded stripes (12, 4, 5), label and modality, in the order of the recorded anchors."""
    both = np.concatenate([RECORDED["f_vis"], RECORDED["f_ir"]])  # (6, 2, 4, 5)
    label, modality = torch.from_numpy(RECORDED["pid"]), torch.from_numpy(RECORDED["modality"])
    return torch.from_numpy(both).flatten(0, 1), label, modality


def test_recorded_sums() -> None:
    x, label, modality = rows()
    found = part_triplet(x, label, modality, reduction="sum")
    assert float(found) == pytest.approx(float(RECORDED["pa_sum_all"]), abs=1e-9)
    later = part_triplet(x[:, 1:], label, modality, reduction="sum")
    assert float(later) == pytest.approx(float(RECORDED["pa_sum_from2"]), abs=1e-9)
    # the mean is over the anchors, stripes add up
    mean = part_triplet(x, label, modality)
    assert float(mean) == pytest.approx(float(RECORDED["pa_sum_all"]) / 12, abs=1e-9)
    assert float(mean) == pytest.approx(float(RECORDED["pa_mean_all"]) * 4, abs=1e-9)


def test_recorded_hinges_of_every_anchor_and_stripe() -> None:
    x, label, modality = rows()
    distance = torch.cdist(x.transpose(0, 1), x.transpose(0, 1))  # (4, 12, 12)
    found = batch_hard(distance, label, modality, MARGIN, "both")
    torch.testing.assert_close(found.T, torch.from_numpy(RECORDED["per"]), rtol=1e-6, atol=1e-9)
    expected = np.maximum(MARGIN + RECORDED["hard_pos"] - RECORDED["hard_neg"], 0)
    torch.testing.assert_close(found.T, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_it_is_hinged() -> None:
    x, label, modality = rows()
    open_sum = float((MARGIN + RECORDED["hard_pos"] - RECORDED["hard_neg"]).sum())
    assert open_sum == pytest.approx(float(RECORDED["pa_nohinge_sum_all"]), abs=1e-9) and open_sum < 0
    assert float(part_triplet(x, label, modality, reduction="sum")) > 0
    # people far apart: the printed form goes on falling, the hinged one is 0 and pulls no more
    far = (x + 100 * label[:, None, None]).requires_grad_()
    for loss in (part_triplet, path_triplet):
        pushed = loss(far, label, modality, **({} if loss is part_triplet else {"scale": 1e6, "margin": -1.0}))
        pushed.backward()
        assert float(pushed.detach()) == 0 and far.grad is not None and not far.grad.any()


def test_each_stripe_is_a_batch_hard_triplet() -> None:
    x, label, modality = rows()
    expected = sum(batch_hard_triplet(stripe, label, MARGIN) for stripe in x.unbind(1))
    torch.testing.assert_close(part_triplet(x, label, modality), expected, rtol=1e-6, atol=1e-9)


def test_recorded_path_distances_and_losses() -> None:
    x, label, modality = rows()
    distance = path_distance(x, x)
    expected = torch.from_numpy(RECORDED["lsp_pair"])
    itself = torch.eye(12, dtype=torch.bool)
    torch.testing.assert_close(distance.masked_fill(itself, 0), expected)
    assert (distance.diagonal() > 0).all()  # which is why an anchor is no positive of its own
    for name, candidates in (("pa_lsp", "both"), ("pa_lsp_cross", "cross")):
        each = batch_hard(distance, label, modality, MARGIN, candidates)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(each, torch.from_numpy(RECORDED[f"{name}_per"]))
        found = path_triplet(x, label, modality, candidates=candidates, scale=1.0)  # pyright: ignore[reportArgumentType]
        assert float(found) == pytest.approx(float(RECORDED[f"{name}_mean"]), abs=1e-9)
        total = path_triplet(x, label, modality, candidates=candidates, scale=1.0, reduction="sum")  # pyright: ignore
        assert float(total) == pytest.approx(12 * float(RECORDED[f"{name}_mean"]), abs=1e-9)


def test_path_is_divided_by_the_channels() -> None:
    x, label, modality = rows()
    divided = batch_hard(path_distance(x, x) / 5, label, modality, 0.3, "both").mean()
    torch.testing.assert_close(path_triplet(x, label, modality), divided)
    # so that its size does not grow with the width of a stripe
    generator = torch.Generator().manual_seed(0)
    sizes = []
    for channels in (16, 256):
        wide = torch.rand(12, 6, channels, generator=generator)
        sizes.append(float(path_distance(wide, wide).mean()) / channels)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.3) and 1 < sizes[1] < 5


def test_an_anchor_is_not_its_own_positive() -> None:
    """Two images of a person with equal stripes in them: the farthest positive is the other image."""
    generator = torch.Generator().manual_seed(1)
    image, other = torch.rand(2, 3, 8, generator=generator, dtype=torch.float64)
    flat = image[:1].expand(3, 8)  # of equal stripes: it lies on itself
    x = torch.stack([flat, flat, image, other])
    label, modality = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    distance = path_distance(x, x)
    assert float(distance[0, 0]) == float(distance[0, 1]) == 0 < float(distance[2, 2])
    each = batch_hard(distance, label, modality, 1000.0, "both")
    positive = torch.stack([distance[0, 1], distance[1, 0], distance[2, 3], distance[3, 2]])
    negative = torch.stack([distance[0, 2:].min(), distance[1, 2:].min(), distance[2, :2].min(), distance[3, :2].min()])
    torch.testing.assert_close(each, 1000 + positive - negative)


@pytest.mark.parametrize("loss", [part_triplet, path_triplet])
@pytest.mark.parametrize("candidates", ["both", "cross"])
def test_gradient(loss, candidates: str) -> None:
    x, label, modality = rows()
    options = {"candidates": candidates, "margin": 2.0}
    assert torch.autograd.gradcheck(lambda v: loss(v, label, modality, **options), (x.requires_grad_(),))


def test_order_and_precision() -> None:
    x, label, modality = rows()
    mixed = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for loss in (part_triplet, path_triplet):
        expected = loss(x, label, modality)
        torch.testing.assert_close(loss(x[mixed], label[mixed], modality[mixed]), expected)
        with torch.autocast("cpu", torch.bfloat16):
            under = loss(x.float(), label, modality)
        assert under.dtype == torch.float32
        torch.testing.assert_close(under.double(), expected, rtol=1e-4, atol=1e-5)


def test_without_a_negative_it_is_0() -> None:
    x, _, modality = rows()
    x.requires_grad_()
    for loss in (part_triplet, path_triplet):
        found = loss(x, torch.zeros(12, dtype=torch.int64), modality)
        found.backward()
        assert float(found.detach()) == 0 and x.grad is not None and not x.grad.any()


def test_wrong_input_is_refused() -> None:
    x, label, modality = rows()
    for loss in (part_triplet, path_triplet):
        with pytest.raises(ValueError, match=r"stripes \(N, S, d\)"):
            loss(x.flatten(1), label, modality)
        with pytest.raises(ValueError, match="got 'other' and 'mean'"):
            loss(x, label, modality, candidates="other")
