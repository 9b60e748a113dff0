"""Tests of vireid/training/optim.py: named groups, one verb, schedules."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from torch import nn

from vireid.method import Progress, Recipe
from vireid.training.optim import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    IterationSteps,
    LossNotFinite,
    Optimizers,
    Steps,
    WarmupCosine,
    WarmupSteps,
)


def two_groups(**specs):
    params = {name: [nn.Parameter(torch.tensor([1.0, 2.0]))] for name in specs}
    recipe = Recipe((1, 1), None, (), 1, specs, Constant())
    return params, Optimizers(params, recipe)


def test_gradients_land_only_in_the_named_groups():
    params, optim = two_groups(a=SGD(0.1), b=SGD(0.1))
    a, b = params["a"][0], params["b"][0]
    optim.step((a * b).sum(), "a")
    assert b.grad is None and b.tolist() == [1.0, 2.0]
    assert a.grad is not None and not torch.equal(a, torch.tensor([1.0, 2.0]))


def test_a_group_that_steps_again_starts_from_zero_and_leaves_the_other_gradients():
    params, optim = two_groups(a=SGD(0.0), b=SGD(0.0))
    a, b = params["a"][0], params["b"][0]
    optim.step((3 * a).sum() + (5 * b).sum())
    optim.step((2 * a).sum(), "a")
    assert a.grad.tolist() == [2.0, 2.0] and b.grad.tolist() == [5.0, 5.0]


def test_a_parameter_that_the_loss_does_not_use_is_left_alone():
    params, optim = two_groups(a=SGD(0.1, weight_decay=1.0), b=AdamW(0.1))
    optim.step(params["a"][0].sum())
    assert params["b"][0].tolist() == [1.0, 2.0] and params["b"][0].grad is None


@pytest.mark.parametrize(("spec", "kind"), [(SGD(0.1), "SGD"), (Adam(0.1), "Adam"), (AdamW(0.1), "AdamW")])
def test_each_kind_steps_as_torch_does(spec, kind):
    params, optim = two_groups(main=spec)
    twin = nn.Parameter(params["main"][0].detach().clone())
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4} if kind == "SGD" else {}
    expected = getattr(torch.optim, kind)([twin], lr=0.1, **options)
    for _ in range(3):
        optim.step((params["main"][0] ** 3).sum())
        expected.zero_grad()
        (twin**3).sum().backward()
        expected.step()
    assert torch.equal(params["main"][0], twin)


def test_clip_bounds_the_norm_of_a_group():
    params, optim = two_groups(a=SGD(0.0, clip=0.5), b=SGD(0.0))
    optim.step((30 * params["a"][0]).sum() + (40 * params["b"][0]).sum())
    assert params["a"][0].grad.norm() == pytest.approx(0.5, abs=1e-5)
    assert params["b"][0].grad.tolist() == [40.0, 40.0]


def test_a_loss_that_is_not_finite_is_named_before_anything_changes():
    params, optim = two_groups(a=SGD(0.1))
    a = params["a"][0]
    with pytest.raises(LossNotFinite, match="id=3, triplet=nan") as caught:
        optim.step({"id": a.sum(), "triplet": (a * float("nan")).sum()})
    assert set(caught.value.losses) == {"id", "triplet"}
    assert a.tolist() == [1.0, 2.0] and a.grad is None


def test_named_losses_are_summed():
    params, optim = two_groups(a=SGD(0.0))
    optim.step({"x": params["a"][0].sum(), "y": 2 * params["a"][0].sum()})
    assert params["a"][0].grad.tolist() == [3.0, 3.0]


def test_backward_runs_outside_autocast():
    seen = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append(torch.is_autocast_enabled("cpu"))
            return grad

    params, optim = two_groups(a=SGD(0.1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        optim.step(Probe.apply(params["a"][0]).sum())
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False]


def test_names_that_do_not_agree_are_both_listed():
    recipe = Recipe((1, 1), None, (), 1, {"trunk": SGD(0.1)}, Constant())
    with pytest.raises(ValueError, match=r"\['head'\].*\['trunk'\]"):
        Optimizers({"head": [nn.Parameter(torch.ones(1))]}, recipe)
    with pytest.raises(ValueError, match="none of them trainable"):
        Optimizers({"trunk": [nn.Parameter(torch.ones(1), requires_grad=False)]}, recipe)
    _, optim = two_groups(a=SGD(0.1))
    with pytest.raises(ValueError, match=r"no optimizer is called \['b'\].*\['a'\]"):
        optim.step(torch.ones((), requires_grad=True), "b")


def test_scale_sets_the_rate_from_the_spec():
    _, optim = two_groups(a=SGD(0.1), b=Adam(0.2))
    optim.scale(0.5)
    optim.scale(0.5)
    assert optim.lr == {"a": 0.05, "b": 0.1}
    optim.scale({"a": 1.0, "b": 0.0})
    assert optim.lr == {"a": 0.1, "b": 0.0}
    with pytest.raises(ValueError, match=r"schedule names \['a'\]"):
        optim.scale({"a": 1.0})


def test_state_goes_round():
    params, optim = two_groups(a=SGD(0.1), b=AdamW(0.1))
    loss = lambda p: (p["a"][0] ** 2).sum() + (p["b"][0] ** 2).sum()  # noqa: E731
    optim.step(loss(params))
    twins, twin = two_groups(a=SGD(0.1), b=AdamW(0.1))
    for name in params:
        twins[name][0].data.copy_(params[name][0].data)
    twin.load_state_dict(copy.deepcopy(optim.state_dict()))
    optim.step(loss(params))
    twin.step(loss(twins))
    assert all(torch.equal(params[name][0], twins[name][0]) for name in params)
    with pytest.raises(ValueError, match=r"\['a'\].*\['a', 'b'\]"):
        twin.load_state_dict({"a": {}})


def test_warmup_steps_are_the_recorded_rates_of_agw():
    golden = np.load(GOLDEN / "agw_lr_schedule.npz")
    schedule = WarmupSteps()
    factors = np.array([schedule(Progress(epoch=int(e))) for e in golden["epoch"]])
    rates = factors[:, None] * [0.01, 0.1, 0.1]  # backbone, neck, classifier
    np.testing.assert_allclose(rates, golden["lr_backbone_bn_classifier"], rtol=1e-12)


def test_other_schedules():
    assert [Steps((2, 4), 0.5)(Progress(epoch=e)) for e in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    halved = IterationSteps(every=4, gamma=0.5)
    assert [halved(Progress(epoch=9, iteration=i)) for i in (0, 3, 4, 7, 8)] == [1, 1, 0.5, 0.5, 0.25]
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        IterationSteps(every=0)
    assert WarmupSteps(0, (1,), 0.1)(Progress(epoch=0)) == 1 == Constant()(Progress(epoch=9))
    cosine = [Cosine(2, final=0.1)(Progress(epoch=e, epochs=6)) for e in range(6)]
    assert cosine[:3] == [0.5, 1.0, 1.0] and cosine[4] == pytest.approx(0.55)
    assert all(a > b for a, b in itertools.pairwise(cosine[2:])) and cosine[5] > 0.1
    fine = Cosine(1, per_epoch=False)
    at = [Progress(epoch=i // 4, iteration=i, epochs=3, iterations_per_epoch=4) for i in range(12)]
    rates = [fine(a) for a in at]
    assert rates[:5] == [0, 0.25, 0.5, 0.75, 1.0] and rates[8] == pytest.approx(0.5)


def test_warmup_cosine_is_pmt_s():
    """timm's rule as hulu88/PMT calls it: epochs from 1, the cosine runs from the start, the last is lowest."""
    factors = [WarmupCosine()(Progress(epoch=e, epochs=24)) for e in range(24)]
    assert factors[:2] == pytest.approx([0.34, 0.67])
    expected = [0.01 + 0.99 * (1 + math.cos(math.pi * (e + 1) / 24)) / 2 for e in range(2, 24)]
    assert factors[2:] == pytest.approx(expected) and factors[-1] == pytest.approx(0.01)
    assert max(factors) == factors[2] == pytest.approx(0.962321, abs=1e-6)
    plain = [WarmupCosine(0, final=0.2)(Progress(epoch=e, epochs=2)) for e in range(2)]
    assert plain == pytest.approx([0.6, 0.2])
    fine = WarmupCosine(1, start=0.2, final=0.1, per_epoch=False)
    at = [Progress(epoch=i // 4, iteration=i, epochs=3, iterations_per_epoch=4) for i in range(13)]
    assert [fine(a) for a in at[:4]] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [fine(a) for a in at[4:]] == pytest.approx(
        [0.1 + 0.45 * (1 + math.cos(math.pi * i / 12)) for i in range(4, 13)]
    )


def test_a_warm_up_in_steps_replaces_that_in_epochs() -> None:
    at = lambda iteration: Progress(epoch=iteration // 5, iteration=iteration, epochs=4, iterations_per_epoch=5)  # noqa: E731
    kinds = (
        (WarmupSteps(10, (3,), 0.5, warmup_steps=4), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0], 0.5),
        (Cosine(3, 0.0, False, warmup_steps=4), [0.25, 0.5, 0.75, 1.0, 1.0], 0.0),
        (WarmupCosine(3, 0.2, 0.0, False, warmup_steps=4), [0.4, 0.6, 0.8, 1.0], 0.0),
    )
    for schedule, first, last in kinds:
        assert [schedule(at(i)) for i in range(len(first))][: len(first) - 1] == pytest.approx(first[:-1])
        values = [schedule(at(i)) for i in range(20)]
        assert values[-1] == pytest.approx(last, abs=0.06) and max(values) <= 1
        assert values[4:] == sorted(values[4:], reverse=True), "it only falls behind the warm-up"
    assert WarmupSteps(4)(Progress(epoch=1)) == 0.5


def test_a_step_on_an_empty_group_does_nothing() -> None:
    recipe = Recipe((1, 1), None, (), 1, {"trunk": SGD(0.1), "head": SGD(0.1)}, Constant())
    head = nn.Parameter(torch.ones(1))
    optim = Optimizers({"trunk": [], "head": [head]}, recipe)
    optim.step(head.sum(), "trunk")
    assert head.item() == 1
    optim.step(head.sum(), "trunk", "head")
    assert head.item() < 1
    with pytest.raises(LossNotFinite):
        optim.step(head.sum() * float("nan"), "trunk")
