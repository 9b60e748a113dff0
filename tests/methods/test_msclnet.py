"""MSCLNet: the printed equations as recorded, which loss moves what, pairs and cameras, bounds, recipe, settings."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_batch import TINY, batch
from torch import Tensor, nn

from vireid.layers.msclnet import NormalizedPooling, Synergy
from vireid.losses.center_cascade import center_cascade
from vireid.method import Batch, Progress, Recipe
from vireid.methods.agw import AGW
from vireid.methods.msclnet import MSCLNet, center_distance, stripe_distance
from vireid.training.optim import Optimizers
from vireid.training.settings import resolve
from vireid.types import INFRARED, VISIBLE

RECORDED = np.load(Path(__file__).parents[1] / "golden" / "msclnet_equations.npz")
TERMS = ["identity", "triplet", "div", "heads", "local", "global", "sub", "intra", "inter"]
OFF = {f"{name}_weight": 0.0 for name in ("agw", "div", "identity", "local", "global", "sub", "intra", "inter")}


def small(**settings: object) -> MSCLNet:
    torch.manual_seed(0)
    return MSCLNet(4, (1, 2), **{**TINY, "parts": 2, "hidden": 8, **settings}).double()  # pyright: ignore


def double_batch() -> Batch:
    given = batch()
    given.images = given.images.double()
    return given


def recorded(name: str, grad: bool = False) -> Tensor:
    return torch.tensor(RECORDED[name], requires_grad=grad)


def five_people(**settings: object) -> MSCLNet:
    """The heads are left out, so that recorded logits can be handed in as g."""
    method = small(**settings)
    method.heads = nn.ModuleList([nn.Identity(), nn.Identity()])
    return method


def test_recorded_printed_equations_and_their_gradients() -> None:
    method = five_people(div_cap=None, local_form="literal", inter_form="literal", unit_length=False, cascade="synergy")
    label, camera = recorded("labels"), recorded("cam_visible")
    given = {name: recorded(name, grad=True) for name in ("logits_visible", "logits_infrared", "f_synergy")}
    stripes = recorded("stripes_synergy", grad=True)
    synergy = method.synergy_losses(given["logits_visible"], given["logits_infrared"], label)
    local = stripe_distance(stripes, recorded("stripes_visible"), "literal")
    distance = center_distance(given["f_synergy"], recorded("f_infrared"), label)
    centers = method.cascade_losses([given["f_synergy"]] * 3, label, [camera, camera])
    found = {"L_div": synergy["div"], "L_t": synergy["heads"], "L_local_literal": local, "L_global": distance}
    found |= {"L_sub": centers["sub"], "L_intra": centers["intra"], "L_inter_literal": centers["inter"]}
    for name, value in found.items():
        np.testing.assert_allclose(value.detach(), RECORDED[name], rtol=1e-9, err_msg=name)
    defaults = small().weights
    of = {"L_div": "div", "L_t": "heads", "L_local_literal": "local", "L_global": "global"}
    of |= {"L_sub": "sub", "L_intra": "intra", "L_inter_literal": "inter"}
    total = torch.stack([defaults[of[name]] * value for name, value in found.items()]).sum()
    np.testing.assert_allclose(total.detach(), RECORDED["total_literal"], rtol=1e-9)
    total.backward()
    for name, value in {**given, "stripes_synergy": stripes}.items():
        np.testing.assert_allclose(value.grad, RECORDED[f"grad_{name}"], rtol=1e-7, atol=1e-10)  # pyright: ignore


def test_recorded_recommended_local_loss_and_instance_norm() -> None:
    found = stripe_distance(recorded("stripes_synergy"), recorded("stripes_visible"))
    np.testing.assert_allclose(found, RECORDED["L_local_recommended"], rtol=1e-9)
    part = NormalizedPooling(12, 3, "average").double()
    part.norm.load_state_dict({"weight": recorded("in_gamma"), "bias": recorded("in_beta")})
    maps = recorded("map_visible")
    np.testing.assert_allclose(part.norm(maps).detach(), RECORDED["map_normalised"], rtol=1e-9, atol=1e-12)
    assert part.norm.eps == float(RECORDED["in_eps"])
    whole, stripes = part(maps)
    positive = np.maximum(RECORDED["map_normalised"], 0)
    np.testing.assert_allclose(whole.detach(), positive.mean((2, 3)), rtol=1e-9)
    for j in range(3):
        np.testing.assert_allclose(stripes[:, j].detach(), positive[:, :, 2 * j : 2 * j + 2].mean((2, 3)), rtol=1e-9)
    # why negative values are cut off: the plain mean of a normalized map is the shift, whatever the picture
    np.testing.assert_allclose(
        RECORDED["map_normalised"].mean((2, 3)), np.tile(RECORDED["in_beta"], (8, 1)), atol=1e-12
    )


def cosine_after_descent(form: str, start: float) -> float:
    """Cosine of two vectors, at first `start`, after the loss has turned one of them."""
    x = torch.tensor([[[start, (1 - start**2) ** 0.5]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    optim = torch.optim.SGD([x], lr=0.05)
    for _ in range(300):
        optim.zero_grad()
        stripe_distance(x, target, form).backward()  # pyright: ignore[reportArgumentType]
        optim.step()
    return float(F.cosine_similarity(x.detach(), target, dim=2))


def test_printed_local_loss_repels_and_the_default_does_not() -> None:
    assert cosine_after_descent("literal", 0.3) < -0.9  # below cos = 1/2 the printed loss turns away
    assert cosine_after_descent("literal", 0.7) > 0.9
    for start in (-0.9, 0.3, 0.7):
        assert cosine_after_descent("attract", start) > 0.98
    equal = torch.rand(2, 3, 5).requires_grad_()  # where rounding would take the root of a negative number
    loss = stripe_distance(equal, equal.detach())
    loss.backward()
    assert torch.isfinite(loss) and equal.grad is not None and torch.isfinite(equal.grad).all()


def test_divergence_is_bounded() -> None:
    z = torch.tensor([[50.0, 0, 0, 0], [0.0, 0, 0, 0]], dtype=torch.float64)
    other = torch.tensor([[0.0, 50, 0, 0], [1.0, 0, 0, 0]], dtype=torch.float64)
    label = torch.tensor([0, 1])
    small_one = float((z[1].softmax(0) * (z[1].log_softmax(0) - other[1].log_softmax(0))).sum())
    for cap, expected in ((1.0, -(1 + small_one) / 2), (None, -(50 + small_one) / 2), (0.01, -0.01)):
        left, right = z.clone().requires_grad_(), other.clone().requires_grad_()
        method = five_people(div_cap=cap)
        found = method.synergy_losses(left, right, label)["div"]
        assert float(found.detach()) == pytest.approx(expected, rel=1e-9)
        assert float(method.watch["divergence"]) == pytest.approx((50 + small_one) / 2)
        found.backward()
        assert right.grad is not None and left.grad is not None
        assert right.grad.any(1).tolist() == [cap is None, cap != 0.01]  # beyond the bound nothing pushes
    pooled = small(div_on="pooled")
    g = [torch.rand(4, 128, dtype=torch.float64) for _ in range(2)]
    p, q = (v.softmax(1) for v in g)
    expected = -((p * (p / q).log()).sum(1)).mean()
    torch.testing.assert_close(pooled.synergy_losses(*g, torch.arange(4))["div"], expected)


def test_the_divergence_takes_back_two_fifths_of_what_the_infrared_head_learns() -> None:
    """Once the visible head is sure, L_div's gradient on the infrared one is that of L_t times - .5 / 1.25."""
    label, method = torch.tensor([0, 3]), five_people()
    sure = 30 * F.one_hot(label, 5).double()
    for certainty, share in ((1.5, -0.4), (0.5, 0.0)):  # probabilities 0.53 and 0.29: below 1 / e the bound of 1 holds
        infrared = (certainty * F.one_hot(label, 5).double()).requires_grad_()
        losses = method.synergy_losses(sure, infrared, label)
        div, heads = (
            torch.autograd.grad(method.weights[name] * losses[name], infrared, retain_graph=True)[0]
            for name in ("div", "heads")
        )
        torch.testing.assert_close(div, share * heads, rtol=1e-9, atol=1e-12)


def touched(loss: Tensor, method: MSCLNet) -> set[str]:
    """First words of the parameters that a loss reaches."""
    method.zero_grad()
    loss.backward(retain_graph=True)
    names = {name for name, p in method.named_parameters() if p.grad is not None and bool(p.grad.any())}
    return {"embedder" if name.startswith("embedder.") else name.split(".")[0] for name in names}


def test_which_loss_moves_what() -> None:
    """Equations 14 to 16: synergy losses the extractors, complement losses S alone, the cascade all three."""
    method = small()
    losses = method.losses(double_batch(), Progress())
    assert list(losses) == TERMS
    for name in ("div", "heads"):
        assert touched(losses[name], method) == {"embedder", "normalized", "heads"}, name
    for name in ("local", "global"):
        assert touched(losses[name], method) == {"synergy"}, name
    for name in ("sub", "intra", "inter"):
        assert touched(losses[name], method) == {"embedder", "normalized", "synergy"}, name
    assert touched(losses["identity"], method) == {"embedder", "classifier"}


def test_losses_written_out() -> None:
    method, given = small(), double_batch()
    given.camid = torch.tensor([1, 2, 1, 1, 4, 5, 4, 2, 3, 3, 6, 3, 6, 3, 3, 3])
    losses = method.losses(given, Progress())
    maps, pooled, embedding = method.embedder.encode(given.images, given.modality)
    y, v, r = given.label[:8], slice(0, 8), slice(8, 16)
    normal = []
    for m, rows in ((VISIBLE, v), (INFRARED, r)):
        x = maps[rows]
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        assert not bool(method.normalized[m].norm.bias.any())  # pyright: ignore
        x = x.clamp(min=0)
        normal.append([((part**3).mean((2, 3)) + 1e-12) ** (1 / 3) for part in (x, x[:, :, :2], x[:, :, 2:])])
    logits = [head(g[0]) for head, g in zip(method.heads, normal, strict=True)]
    cross = sum(F.cross_entropy(z, y) for z in logits)
    p, q = (z.softmax(1) for z in logits)
    s = method.synergy
    state = memory = torch.zeros(8, 8, dtype=torch.float64)
    fused = []
    for j in (1, 2):
        x, h = s.reduce(normal[0][j]), s.reduce(normal[1][j]) + state
        state, memory = s.cell(x, h, memory)
        fused.append(s.expand(state))
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)  # noqa: E731
    f = [unit(x) for x in (pooled[v], pooled[r], (fused[0] + fused[1]) / 2)]
    center = lambda x: torch.stack([x[y == k].mean(0) for k in y])  # noqa: E731
    local = 0.0
    for j in (0, 1):
        cosine = (unit(fused[j]) * unit(normal[0][j + 1])).sum(1)
        local = local + (1 - cosine + (2 - 2 * cosine).sqrt()).mean()
    # a name for what every row's camera sees of a person; for the fused row the two cameras of its pair
    cam_v, cam_r = given.camid[v], given.camid[r]
    sub = torch.cat([cam_v, cam_r + 10, 100 * cam_v + cam_r])[:, None]
    cascade = center_cascade(torch.cat(f), y.repeat(3), sub)
    expected = {
        "identity": F.cross_entropy(method.classifier(embedding), given.label),
        "triplet": AGW.triplet_loss(method, pooled, given.label),
        "div": -0.5 * (p * (p / q).log()).sum(1).clamp(max=1).mean(),
        "heads": 1.25 * cross,
        "local": 0.8 * local,
        "global": 1.5 * (center(f[2]) - center(f[1])).square().sum(1).mean(),
        "sub": cascade.sub,
        "intra": cascade.intra,
        "inter": cascade.inter,
    }
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_sub_classes_of_pairs() -> None:
    f = [torch.randn(4, 6, dtype=torch.float64) for _ in range(3)]
    label = torch.tensor([0, 0, 0, 1])
    cam_v, cam_r = torch.tensor([1, 1, 2, 1]), torch.tensor([3, 6, 6, 3])

    def spread(x: Tensor, name: list[str]) -> Tensor:
        rows = [[j for j in range(4) if name[j] == name[i]] for i in range(4)]
        return torch.stack([(x[i] - x[r].mean(0)).square().sum() for i, r in enumerate(rows)]).mean()

    visible, infrared = ["0a", "0a", "0b", "1a"], ["0c", "0f", "0f", "1c"]
    pair = ["0ac", "0af", "0bf", "1ac"]  # all of their own
    each = [spread(F.normalize(x, dim=1), n) for x, n in zip(f, (visible, infrared, pair), strict=True)]
    for way in ("joint", "separate"):  # the same rows and centers, one mean over all or a mean of three
        found = small(cascade=way).cascade_losses(f, label, [cam_v, cam_r])["sub"]
        torch.testing.assert_close(found, torch.stack(each).mean())
    assert float(small(cascade="synergy").cascade_losses(f, label, [cam_v, cam_r])["sub"]) == float(each[2]) == 0
    # one camera number for both modalities is still two sub-classes
    same = small().cascade_losses(f, label, [cam_v, cam_v])
    apart = small().cascade_losses(f, label, [cam_v, cam_v + 7])
    assert all(torch.equal(same[name], apart[name]) for name in same)


def test_joint_centers_draw_the_modalities_together() -> None:
    """Cameras of one modality each: the identity's center lies between the modalities only if they share it."""
    label, camera = torch.zeros(4).long(), torch.ones(4).long()
    x = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64), dim=1)
    f = [row.repeat(4, 1) for row in x]
    joint, separate = (
        small(cascade=way).cascade_losses(f, label, [camera, camera + 1]) for way in ("joint", "separate")
    )
    center = x.mean(0)
    assert float(joint["intra"]) == pytest.approx(float((x - center).square().sum()))  # summed over the sub-classes
    assert float(separate["intra"]) == pytest.approx(0, abs=1e-12)
    on_regdb = small().cascade_losses(f, label, [camera, camera + 1])  # camera = modality
    assert on_regdb["intra"].equal(joint["intra"])


def test_terms_of_weight_zero_are_left_out() -> None:
    given = double_batch()
    rows = {"agw": ["identity", "triplet"], "div": ["div"], "identity": ["heads"]}
    for name in ("agw", "div", "identity", "local", "global", "sub", "intra", "inter"):
        method = small(**{**OFF, f"{name}_weight": 2.0})
        found = method.losses(given, Progress())
        assert list(found) == rows.get(name, [name])
        whole = small().losses(given, Progress())
        for term, value in found.items():
            torch.testing.assert_close(value, 2.0 * whole[term] / small().weights[term])
    method = small(**{**OFF, "agw_weight": 1.0})
    torch.manual_seed(0)
    plain = AGW(4, (1, 2), **TINY).double()  # pyright: ignore[reportArgumentType]
    for name, value in plain.losses(given, Progress()).items():
        torch.testing.assert_close(method.losses(given, Progress())[name], value)


def test_printed_objective_trains() -> None:
    """Equation 17 holds no loss for neck and classifier: they stay."""
    method, given = small(agw_weight=0.0), double_batch()
    assert isinstance(MSCLNet.recipe, Recipe)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    method.step(given, Optimizers(method.params(), MSCLNet.recipe), Progress())
    still = {name for name, p in method.named_parameters() if p.equal(before[name]) and p.requires_grad}
    assert still == {"embedder.neck.weight", "classifier.weight"}


def test_pairs_must_be_the_same_person() -> None:
    for rows in (torch.arange(15), torch.tensor([*range(8), *range(15, 7, -1)])):
        with pytest.raises(ValueError, match="must be the same person"):
            small().losses(double_batch()[rows], Progress())
    order = torch.arange(16).reshape(2, 8).T.flatten()  # visible and infrared in turn
    whole = small().losses(double_batch(), Progress())
    for name, value in small().losses(double_batch()[order], Progress()).items():
        torch.testing.assert_close(value, whole[name])


def test_synergy_reads_stripes_from_the_head_down() -> None:
    torch.manual_seed(0)
    net = Synergy(12, 5, 5).double()
    visible, infrared = torch.rand(2, 3, 4, 12, dtype=torch.float64)
    found = net(visible, infrared)
    assert found.shape == (3, 4, 12)
    other = visible.clone()
    other[:, 2] += 1
    changed = (net(other, infrared) - found).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [False, False, True, True]
    for i in range(3):  # pairs do not mix
        torch.testing.assert_close(net(visible[i : i + 1], infrared[i : i + 1])[0], found[i])
    assert not torch.allclose(net(infrared, visible), found)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net.float()(visible.float(), infrared.float()), found.float(), rtol=1e-4, atol=1e-5)


def test_bfloat16_step_is_near_the_float32_one() -> None:
    expected = small().float().losses(batch(), Progress())
    with torch.autocast("cpu", torch.bfloat16):
        found = small().float().losses(batch(), Progress())
    for name, value in found.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, expected[name], rtol=0.1, atol=0.1)


def test_nothing_of_training_is_deployed() -> None:
    method, plain = small(), AGW(4, (1, 2), **TINY)  # pyright: ignore[reportArgumentType]
    assert type(method.embedder) is type(plain.embedder) and method.embedder.settings == plain.embedder.settings
    assert method.embedder.state_dict().keys() == plain.embedder.state_dict().keys()


def test_groups_hold_every_trainable_parameter_once() -> None:
    for method in (small(), small(head_neck=False, normalized_pooling="gem-learned")):
        groups = method.params()
        listed = [id(p) for group in groups.values() for p in group]
        assert sorted(listed) == sorted(id(p) for p in method.parameters() if p.requires_grad)
        assert len(groups["backbone"]) == len(AGW(4, **TINY).params()["backbone"])  # pyright: ignore
    assert not [name for name, _ in small(head_neck=False).heads.named_parameters() if ".0." in name]


def test_settings_by_name() -> None:
    words = ["div_cap=null", "local_form=literal", "cascade=separate", "schedule.milestones=[5]", "parts=3"]
    (own,), settings = resolve(MSCLNet, "sysu", [*words, "schedule.factors=[0.2]", "schedule.warmup_epochs=0"])
    assert own.schedule(Progress(epoch=5)) == 0.2 and own.schedule(Progress(epoch=4)) == 1
    method = MSCLNet(4, (1, 2), **{**asdict(settings), **TINY})
    given = method.settings
    assert (given.div_cap, given.local_form, given.cascade) == (None, "literal", "separate")
    for wrong, expected in (
        ({"div_on": "maps"}, "logits or pooled, got 'maps'"),
        ({"local_form": "repel"}, "attract or literal, got 'repel'"),
        ({"inter_form": "open"}, "bounded or literal, got 'open'"),
        ({"cascade": "all"}, "joint or separate or synergy, got 'all'"),
        ({"parts": 0}, "whole number >= 1, got 0"),
        ({"hidden": 0}, "whole number >= 1, got 0"),
        ({"rounds": -1}, "whole number >= 0, got -1"),
        ({"div_cap": 0.0}, "number > 0 or null, got 0.0"),
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`: expected {expected}"):
            small(**wrong)
    with pytest.raises(ValueError, match="cannot be cut into 3 equal stripes"):
        small(parts=3).losses(double_batch(), Progress())  # maps of four rows
    with pytest.raises(ValueError, match="every milestone has a factor"):
        type(own.schedule)(milestones=(1, 2), factors=(0.5,))  # pyright: ignore


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        method = MSCLNet(395, (1, 2, 3, 4, 5, 6))
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(method.embedder) == 23_550_351  # deployed: AGW's
    assert count(method.synergy) == 5_514_240
    assert count(method) == 24_359_311 + 5_514_240 + 2 * (395 * 2048 + 2 * 2048) + 2 * 2 * 2048
    assert count(method) == 31_507_855
