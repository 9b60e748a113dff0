"""MCLNet: modality classifier and alternating step against recorded arrays, centers, cameras, recipe, settings."""

import copy
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from small_batch import TINY, batch
from torch import Tensor, nn

from vireid.losses.marginal_center import marginal_center_aggregation
from vireid.method import Batch, Method, Progress, Recipe
from vireid.methods.agw import AGW
from vireid.methods.mclnet import MCLNet, ModalityClassifier
from vireid.training.optim import SGD, Optimizers
from vireid.training.settings import resolve

STEP = np.load(GOLDEN / "mclnet_alternating_step.npz")
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def recipe() -> Recipe:
    assert isinstance(MCLNet.recipe, Recipe)
    return MCLNet.recipe


def small(**settings: object) -> MCLNet:
    torch.manual_seed(0)
    return MCLNet(4, (1, 2), **{**TINY, "hidden": 8, **settings}).double()  # pyright: ignore[reportArgumentType]


def double_batch() -> Batch:
    given = batch()
    given.images = given.images.double()
    return given


def released(golden: np.lib.npyio.NpzFile, prefix: str) -> ModalityClassifier:
    state = {key.removeprefix(prefix): torch.tensor(golden[key]) for key in golden.files if key.startswith(prefix)}
    state["bn.running_mean"] = torch.zeros(2)  # of a whole checkpoint
    made = ModalityClassifier(20, 7).double()
    assert sorted(made.load_released(state)) == ["bn.running_mean", "map2.bias", "map2.weight"]
    return made


def test_recorded_modality_classifier() -> None:
    golden = np.load(GOLDEN / "mclnet_modality_classifier.npz")
    method = small()
    method.modality_classifier = released(golden, "w/")
    modality = torch.arange(2).repeat_interleave(8)
    for name, loss_of in (
        ("true", lambda x: method.modality_loss(x, modality)),
        ("confuse", lambda x: method.confusion_loss(x)),
    ):
        feat = torch.tensor(golden["feat"], requires_grad=True)
        loss = loss_of(feat)
        np.testing.assert_allclose(loss.detach(), golden[f"loss_{name}"], **EXACT)
        method.zero_grad()
        loss.backward()
        np.testing.assert_allclose(feat.grad, golden[f"grad_feat_of_loss_{name}"], **EXACT)  # pyright: ignore
        if name == "true":
            d = method.modality_classifier
            for part, recorded in ((d.first, "map1"), (d.second, "map3"), (d.bn, "bn")):
                for kind in ("weight", "bias"):
                    grad = getattr(part, kind).grad
                    np.testing.assert_allclose(grad, golden[f"grad_{recorded}_{kind[0]}"], **EXACT)
    logits = method.modality_classifier(torch.tensor(golden["feat"])).detach()
    np.testing.assert_allclose(logits, golden["logits_train"], **EXACT)
    right = (golden["logits_train"].argmax(1) == modality.numpy()).mean()
    assert float(method.watch["modality_correct"]) == right
    method.eval()
    assert method.modality_classifier(torch.tensor(golden["feat"])).detach().equal(logits)  # of the batch, always


def test_recorded_alternating_step() -> None:
    method = small()
    method.modality_classifier = released(STEP, "w0/")
    optim = Optimizers(method.params(), recipe())
    rates = {name: float(STEP[name]) for name in ("lr", "momentum", "weight_decay")}
    assert recipe().optimizers["modality"] == SGD(**rates, nesterov=True)
    feat = torch.tensor(STEP["feat"], requires_grad=True)
    loss = method.modality_loss(feat.detach(), torch.arange(2).repeat_interleave(8))
    np.testing.assert_allclose(loss.detach(), STEP["loss_D"], **EXACT)
    optim.step(loss, "modality")
    for name, value in released(STEP, "w1/").state_dict().items():
        np.testing.assert_allclose(method.modality_classifier.state_dict()[name], value, rtol=1e-9, atol=1e-12)
    confusion = method.confusion_loss(feat)
    np.testing.assert_allclose(confusion.detach(), STEP["loss_confuse_recomputed"], **EXACT)
    confusion.backward()
    np.testing.assert_allclose(feat.grad, STEP["grad_feat_recomputed"], **EXACT)  # pyright: ignore
    assert np.abs(STEP["grad_feat_recomputed"] - STEP["grad_feat_released_torch12"]).max() > 1e-3


def by_hand(method: MCLNet, given: Batch) -> dict[str, Tensor]:
    """The named parameters after one first step of plain torch, D's before that of everything else."""
    params = dict(method.named_parameters())
    trainable = {name: p for name, p in params.items() if p.requires_grad}
    d = {name: p for name, p in trainable.items() if name.startswith("modality_classifier.")}
    x = method.embedder.encode(given.images, given.modality)

    def logits() -> Tensor:
        hidden = x.pooled @ d["modality_classifier.first.weight"].T + d["modality_classifier.first.bias"]
        y = hidden @ d["modality_classifier.second.weight"].T + d["modality_classifier.second.bias"]
        y = (y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()
        return (y * d["modality_classifier.bn.weight"] + d["modality_classifier.bn.bias"]).log_softmax(1)

    def move(group: dict[str, Tensor], loss: Tensor, rate: float) -> None:
        # Nesterov with momentum 0.9 goes 1.9 times as far in its first step
        grads = torch.autograd.grad(loss, list(group.values()), retain_graph=True)
        for p, g in zip(group.values(), grads, strict=True):
            p.data = p.data - rate * 1.9 * (g + 5e-4 * p.data)

    move(d, -logits()[torch.arange(16), given.modality].mean(), 0.1)
    confusion = -logits().mean()  # with the parameters as they are now
    wrt = AGW.triplet_loss(method, x.pooled, given.label)
    margins = {"sigma": method.settings.sigma, "rho": method.settings.rho}
    ica = marginal_center_aggregation(x.embedding, given.label, method.identity_centers, **margins)
    cca = marginal_center_aggregation(x.embedding, given.camid - 1, method.camera_centers, **margins)
    total = F.cross_entropy(x.embedding @ method.classifier.weight.T, given.label) + wrt + confusion
    total = total + 0.0005 * (ica + cca)
    rest = {name: p for name, p in trainable.items() if name not in d and "nonlocal" not in name}
    fast = {n: p for n, p in rest.items() if n.startswith(("embedder.neck.", "classifier."))}
    slow = {n: p for n, p in rest.items() if n not in fast}
    grads = torch.autograd.grad(total, [*fast.values(), *slow.values()])
    for (name, p), g in zip([*fast.items(), *slow.items()], grads, strict=True):
        p.data = p.data - (0.1 if name in fast else 0.01) * 1.9 * (g + 5e-4 * p.data)
    return {name: p.data for name, p in {**d, **rest}.items()}


def test_step_is_the_classifier_first_and_the_extractor_against_the_new_one() -> None:
    method, given = small(sigma=0.0), double_batch()
    expected = by_hand(copy.deepcopy(method), given)
    losses = method.step(given, Optimizers(method.params(), recipe()), Progress())
    assert list(losses) == ["identity", "triplet", "confusion", "ica", "cca", "modality"]
    found = dict(method.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_confusion_sees_the_step_of_the_classifier(precision: str) -> None:
    """Under autocast too, which would hand out its copies of the weights from before the step."""
    method, given = small().float(), batch()
    calls: list[tuple[Tensor, Tensor]] = []
    method.modality_classifier.register_forward_hook(lambda m, x, y: calls.append((x[0].detach(), y.detach())))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        method.step(given, Optimizers(method.params(), recipe()), Progress())
    (first, before), (second, after) = list(calls)
    assert first.equal(second) and not torch.allclose(before, after, atol=1e-4)
    assert after.dtype == torch.float32
    torch.testing.assert_close(method.modality_classifier(second).detach(), after)


def test_losses_are_the_terms_of_the_step_against_the_classifier_as_it_is() -> None:
    method, given = small(sigma=0.0, images_per_pid=8), double_batch()
    losses = method.losses(given, Progress())
    x = method.embedder.encode(given.images, given.modality)
    assert float(losses["confusion"].detach()) == pytest.approx(float(method.confusion_loss(x.pooled).detach()))
    eight = marginal_center_aggregation(
        x.embedding, given.label, method.identity_centers, sigma=0.0, rho=4500.0, rows_per_class=8
    )
    cameras = marginal_center_aggregation(x.embedding, given.camid - 1, method.camera_centers, sigma=0.0, rho=4500.0)
    torch.testing.assert_close(losses["ica"], 0.0005 * eight)
    torch.testing.assert_close(losses["cca"], 0.0005 * cameras)  # counted, whatever images_per_pid is
    four = small(sigma=0.0, images_per_pid=4).losses(given, Progress())["ica"]
    assert four.equal(small(sigma=0.0).losses(given, Progress())["ica"])  # 2 + 2 images of a person in this batch
    assert not torch.isclose(four, losses["ica"])
    sample = small(hinge="sample").losses(given, Progress())
    expected = marginal_center_aggregation(x.embedding, given.label, method.identity_centers, hinge="sample")
    torch.testing.assert_close(sample["ica"], 0.0005 * expected)


def test_terms_of_weight_zero_are_left_out() -> None:
    given = double_batch()
    method = small(ica=0.0, cca=0.0, centers="learned")
    assert list(method.losses(given, Progress())) == ["identity", "triplet", "confusion"]
    assert method.params()["centers"] == []
    torch.manual_seed(0)
    without = MCLNet(4, **TINY, cca=0.0)
    assert "cca" not in without.losses(batch(), Progress())
    with pytest.raises(ValueError, match="pass camids"):
        MCLNet(4, **TINY)


def test_fixed_centers_are_buffers_that_stay() -> None:
    method, given = small(), double_batch()
    start = {k: v.clone() for k, v in method.state_dict().items() if k.endswith("centers")}
    assert {k: tuple(v.shape) for k, v in start.items()} == {"identity_centers": (4, 128), "camera_centers": (2, 128)}
    optim = Optimizers(method.params(), recipe())
    assert set(optim.built) == {"backbone", "head", "modality"}
    for _ in range(2):
        method.step(given, optim, Progress())
    assert all(method.state_dict()[k].equal(v) for k, v in start.items())
    assert not [name for name, _ in method.named_parameters() if "centers" in name]
    drawn = small().identity_centers
    assert abs(float(drawn.mean())) < 0.15 and float(drawn.std()) == pytest.approx(1, abs=0.1)


def test_learned_centers_follow_their_own_optimizer() -> None:
    method, given = small(centers="learned", sigma=0.0), double_batch()
    x = method.embedder.encode(given.images, given.modality).embedding.detach()
    start = {"identity": method.identity_centers.detach().clone(), "camera": method.camera_centers.detach().clone()}
    extractor = small(sigma=0.0)
    for own in (method, extractor):
        own.step(given, Optimizers(own.params(), recipe()), Progress())
    for name, label in (("identity", given.label), ("camera", given.camid - 1)):
        center = start[name].requires_grad_()
        marginal_center_aggregation(x, label, center, sigma=0.0, rho=4500.0).backward()
        assert center.grad is not None and bool(center.grad.any())
        torch.testing.assert_close(getattr(method, f"{name}_centers"), nn.Parameter(center - 0.5 * center.grad))
    for name, p in extractor.named_parameters():  # whose step does not depend on whether the centers learn
        assert p.equal(method.get_parameter(name)), name
    groups = method.params()
    assert [tuple(p.shape) for p in groups["centers"]] == [(4, 128), (2, 128)]
    assert {k for k in method.state_dict() if "centers" in k} == {k for k in extractor.state_dict() if "centers" in k}


def test_groups_hold_every_trainable_parameter_once() -> None:
    for method in (small(), small(centers="learned")):
        groups = method.params()
        listed = [id(p) for group in groups.values() for p in group]
        assert sorted(listed) == sorted(id(p) for p in method.parameters() if p.requires_grad)
        assert {id(p) for p in groups["modality"]} == {id(p) for p in method.modality_classifier.parameters()}
        assert len(groups["backbone"]) == len(AGW(4, **TINY).params()["backbone"])


@pytest.mark.parametrize(
    ("camids", "given", "labels"),
    [
        ((1, 2), [2, 1, 1], [1, 0, 0]),  # RegDB: one visible, one infrared camera
        ((1, 2, 3, 4, 5, 6), [6, 1, 3], [5, 0, 2]),  # SYSU-MM01
        ((9, 4, 7), [7, 4, 9], [1, 0, 2]),
    ],
)
def test_camera_labels_are_positions_among_the_training_cameras(
    camids: tuple[int, ...], given: list[int], labels: list[int]
) -> None:
    method = MCLNet(4, camids, **TINY)
    assert method.camera_label(torch.tensor(given)).tolist() == labels
    assert len(method.camera_centers) == len(camids) and method.state_dict()["cameras"].tolist() == sorted(camids)
    for other in (0, 8, 10):
        with pytest.raises(ValueError, match="this method was built for"):
            method.camera_label(torch.tensor([*given, other]))


def test_settings_by_name() -> None:
    words = ["centers=learned", "images_per_pid=8", "hinge=sample", "schedule.extractor.milestones=[50,100]"]
    (own,), settings = resolve(MCLNet, "sysu", [*words, "optimizers.centers.lr=0.1"])
    method: Method = MCLNet(4, (1, 2), **{**asdict(settings), **TINY})
    optim = Optimizers(method.params(), own)
    optim.scale(own.schedule(Progress(epoch=50)))
    assert optim.lr == pytest.approx({"backbone": 0.001, "head": 0.01, "modality": 0.1, "centers": 0.1})
    (_,), settings = resolve(MCLNet, "sysu", ["images_per_pid=null"])
    assert settings.images_per_pid is None
    for wrong in ({"hinge": "mean"}, {"centers": "moving"}, {"images_per_pid": 0}):
        with pytest.raises(ValueError, match="got"):
            small(**wrong)


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        method, learned = MCLNet(395, (1, 2, 3, 4, 5, 6)), MCLNet(395, (1, 2, 3, 4, 5, 6), centers="learned")
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(method.embedder) == 23_550_351  # deployed: AGW's
    assert count(method.modality_classifier) == 262_534
    assert count(method) == 24_359_311 + 262_534
    assert count(learned) - count(method) == (395 + 6) * 2048
