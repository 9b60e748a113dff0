"""MPANet: recorded separation and rate, classifiers that learn from each other written out, recipes, weights."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from torch import Tensor

from vireid.data.protocol import Protocol
from vireid.data.samplers import Chunks
from vireid.data.table import Table, table_from_columns
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate
from vireid.losses.center_cluster import center_cluster
from vireid.method import Batch, Progress, Recipe
from vireid.methods.mpanet import MPANet, averaging_rate, overlap
from vireid.training.settings import resolve
from vireid.types import INFRARED, VISIBLE

TINY = {"width": 4, "blocks": (1, 1, 1, 1)}
NAMES = ["separation", "center", "identity", "identity-visible", "identity-infrared", "mutual"]


def batch(pids: int = 4, images: int = 2) -> Batch:
    label = torch.arange(pids).repeat_interleave(images)
    n = len(label)
    noise = torch.randn(2 * n, 3, 64, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    modality = torch.tensor([VISIBLE, INFRARED]).repeat_interleave(n)
    return Batch(noise, label.repeat(2), modality + 1, modality, modality.clone())


def build(**settings: object) -> MPANet:
    torch.manual_seed(0)
    return MPANet(4, (1, 2), **{**TINY, **settings}).double()  # pyright: ignore[reportArgumentType]


def shuffled(given: Batch) -> Batch:
    return given[torch.randperm(len(given), generator=torch.Generator().manual_seed(5))]


def test_recorded_separation() -> None:
    golden = np.load(GOLDEN / "mpanet_separation.npz")
    masks = torch.tensor(golden["masks"])
    np.testing.assert_allclose(overlap(masks), golden["loss"], rtol=1e-9)
    twice = masks.repeat_interleave(2, 2)  # the same maps at twice the resolution: not divided by the area
    np.testing.assert_allclose(overlap(twice), 2 * golden["loss"], rtol=1e-9)
    assert float(overlap(masks[:, :1])) == 0


def test_recorded_rate_of_the_averaged_classifiers() -> None:
    golden = np.load(GOLDEN / "mpanet_update_rate.npz")  # its epochs count from 1
    rates = [averaging_rate(int(epoch) - 1) for epoch in golden["epoch"]]
    np.testing.assert_allclose(rates, golden["update_rate"], rtol=1e-12)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


class Slow:
    """The classifiers' losses image by image, with their own averaged weights."""

    def __init__(self, method: MPANet) -> None:
        self.averages = [method.visible_average.numpy().copy(), method.infrared_average.numpy().copy()]

    def __call__(self, method: MPANet, x: np.ndarray, batch: Batch, epoch: int) -> dict[str, float]:
        live = [c.weight.detach().numpy() for c in (method.visible_classifier, method.infrared_classifier)]
        a = 0.2 * min(100 / (epoch + 1 + 1), 1)  # epochs of the released code count from 1
        self.averages = [(1 - a) * old + a * new for old, new in zip(self.averages, live, strict=True)]
        joint, own, kl = [], ([], []), []
        for row, label, modality in zip(x, batch.label.tolist(), batch.modality.tolist(), strict=True):
            joint.append(-np.log(softmax(method.classifier.weight.detach().numpy() @ row)[label]))
            p, q = softmax(live[modality] @ row), softmax(self.averages[1 - modality] @ row)
            own[modality].append(-np.log(p[label]))
            kl.append((p * np.log(p / q)).sum())
        return {
            "identity": np.mean(joint),
            "identity-visible": np.mean(own[VISIBLE]),  # effective weight 1
            "identity-infrared": np.mean(own[INFRARED]),
            "mutual": 2.5 * np.mean(kl),
        }


@pytest.mark.parametrize("epoch", [0, 120])
def test_classifiers_learn_from_each_others_averages(epoch: int) -> None:
    method, given = build(), shuffled(batch())
    for average, live in (("visible_average", "visible_classifier"), ("infrared_average", "infrared_classifier")):
        assert getattr(method, average).equal(getattr(method, live).weight)  # they start as copies
    slow, random = Slow(method), torch.Generator().manual_seed(1)
    for _ in range(3):
        with torch.no_grad():  # as an optimizer would between two steps
            for live in (method.visible_classifier, method.infrared_classifier):
                live.weight += 0.1 * torch.randn(live.weight.shape, generator=random, dtype=torch.float64)
        x = torch.randn(len(given), method.embedder.dim, generator=random, dtype=torch.float64)
        found = method.classifier_losses(x, given.label, given.modality, Progress(epoch=epoch))
        expected = slow(method, x.numpy(), given, epoch)
        assert {k: float(v.detach()) for k, v in found.items()} == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(method.visible_average, slow.averages[VISIBLE], rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(method.infrared_average, slow.averages[INFRARED], rtol=1e-9, atol=1e-15)


def test_teachers_pass_no_gradient_not_even_to_the_embedding() -> None:
    method, given = build(modality_weight=0.0), batch()
    x = torch.randn(16, method.embedder.dim, dtype=torch.float64, requires_grad=True)
    loss = method.classifier_losses(x, given.label, given.modality, Progress())["mutual"]
    (found,) = torch.autograd.grad(loss, x)
    visible = (given.modality == VISIBLE)[:, None]

    def logits(embedding: Tensor, of_visible: Tensor, of_infrared: Tensor) -> Tensor:
        return torch.where(visible, embedding @ of_visible.T, embedding @ of_infrared.T)

    y = x.detach().clone().requires_grad_()
    log_q = logits(x.detach(), method.infrared_average, method.visible_average).log_softmax(1)
    log_p = logits(y, method.visible_classifier.weight, method.infrared_classifier.weight).log_softmax(1)
    (expected,) = torch.autograd.grad(2.5 * (log_p.exp() * (log_p - log_q)).sum() / 16, y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def test_whole_objective() -> None:
    method, given = build(), batch()
    losses = method.losses(given, Progress())
    assert list(losses) == NAMES
    _, masks, pooled, embedding = method.embedder.encode(given.images)
    torch.testing.assert_close(losses["separation"], 0.5 * overlap(masks))
    torch.testing.assert_close(losses["center"], center_cluster(pooled, given.label, 0.7).loss)
    expected = -method.classifier(embedding).log_softmax(1)[torch.arange(16), given.label].mean()
    torch.testing.assert_close(losses["identity"], expected)


def test_modality_weight_is_one_as_the_code_adds_it_and_a_half_as_the_configuration_says() -> None:
    given = batch()
    code, config = (build(modality_sum=s).losses(given, Progress()) for s in ("code", "config"))
    method = build()
    _, _, _, embedding = method.embedder.encode(given.images)
    for modality, name in ((VISIBLE, "visible"), (INFRARED, "infrared")):
        rows = given.modality == modality
        logits = getattr(method, f"{name}_classifier")(embedding[rows])
        plain = torch.nn.functional.cross_entropy(logits, given.label[rows])
        torch.testing.assert_close(code[f"identity-{name}"], plain)
        torch.testing.assert_close(config[f"identity-{name}"], plain / 2)
    torch.testing.assert_close(code["mutual"], config["mutual"])


def test_rows_may_stand_in_any_order() -> None:
    given = batch()
    one, other = build().losses(given, Progress()), build().losses(shuffled(given), Progress())
    for name in NAMES:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-12)


def test_averages_are_state_and_move_in_training_only() -> None:
    method, given = build(), batch()
    assert {"visible_average", "infrared_average"} <= set(method.state_dict())
    assert not [n for n, _ in method.named_parameters() if "average" in n]
    with torch.no_grad():
        method.visible_classifier.weight += 1
    before = method.visible_average.clone()
    method.eval().losses(given, Progress())
    assert method.visible_average.equal(before)
    method.train().losses(given, Progress(epoch=0))
    torch.testing.assert_close(method.visible_average, before + 0.2)


def test_weights_of_zero_leave_losses_out() -> None:
    method = build(separation=0.0, center=0.0, modality_weight=0.0, mutual=0.0, gates=0, parts=0)
    assert list(method.losses(batch(), Progress())) == ["identity"]
    assert "separation" not in build(parts=0).losses(batch(), Progress())


def test_published_counts() -> None:
    with torch.device("meta"):
        method = MPANet(395, (1, 2, 3, 4, 5, 6))
    official = json.loads((GOLDEN / "mpanet_state_keys.json").read_text())
    assert len(method.state_dict()) == len(official) == 334
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == 41_178_182
    # beside these the two averaged classifiers and the neck's frozen bias
    frozen = sum(p.numel() for p in method.parameters() if not p.requires_grad)
    assert frozen + 2 * method.visible_average.numel() == 52_517_958 - 41_178_182
    assert sum(p.numel() for p in method.embedder.parameters()) == 24_204_358  # what is deployed


def people(count: int, images: int) -> Table:
    rows = [(pid, modality, i) for pid in range(count) for modality in (VISIBLE, INFRARED) for i in range(images)]
    pid, modality, _ = np.array(rows).T
    columns = {"path": [f"{p}_{m}_{i}.png" for p, m, i in rows], "pid": pid, "camid": modality + 1}
    return table_from_columns(Path("."), {**columns, "modality": modality, "split": ["train"] * len(rows)}, "regdb")


def test_an_epoch_on_regdb_runs_to_the_end_of_the_sampler() -> None:
    recipe, table = MPANet.recipe_for("regdb"), people(206, 10)
    epoch = list(recipe.sampler.epoch(table, np.random.RandomState(1)))
    assert len(epoch) == 34  # a trainer that trusts the sampler's first length stops at 17
    assert {rows.shape for rows in epoch} == {(2, 60)}  # 12 people x (5 visible + 5 infrared) = 120 images
    used = np.concatenate(epoch, axis=1)
    assert all(len(np.unique(line)) == len(line) for line in used)


def test_settings_can_be_set_by_name() -> None:
    words = ["modality_sum=config", "margin=0.3", "views.1.transform.steps.3.p=0.1", "sampler.pids=4", "parts=2"]
    (recipe,), settings = resolve(MPANet, "regdb", words)
    assert isinstance(recipe, Recipe) and recipe.sampler == Chunks(pids=4, images=5)
    assert (settings.modality_sum, settings.margin, settings.parts) == ("config", 0.3, 2)
    assert recipe.views[1].transform.steps[3].p == 0.1  # pyright: ignore
    assert recipe.views[0].transform.steps[3].p == 0.5  # pyright: ignore


def official(method: MPANet, num_pids: int) -> dict[str, Tensor]:
    """A released checkpoint of this size with random values."""
    own = method.state_dict()
    names = {
        "trunk.stem.": "backbone.",
        "trunk.gate3.squeeze": "backbone.MAM3.channel_attention.0",
        "trunk.gate3.excite": "backbone.MAM3.channel_attention.2",
        "trunk.gate4.squeeze": "backbone.MAM4.channel_attention.0",
        "trunk.gate4.excite": "backbone.MAM4.channel_attention.2",
        "trunk.layer": "backbone.layer",
        "patterns.": "spatial_attention.",
        "neck.": "bn_neck.",
    }
    state: dict[str, Tensor] = {}
    for name, value in own.items():
        short = name.removeprefix("embedder.")
        prefix = next((p for p in names if short.startswith(p)), None)
        if prefix is not None:
            state[names[prefix] + short.removeprefix(prefix)] = torch.rand_like(value.double()).to(value.dtype)
    for head in (
        "classifier",
        "visible_classifier",
        "infrared_classifier",
        "visible_classifier_",
        "infrared_classifier_",
    ):
        state[f"{head}.weight"] = torch.rand(num_pids, method.embedder.dim, dtype=torch.float64)
    return state


def test_released_checkpoint_fills_network_and_all_five_classifiers() -> None:
    method = build(blocks=(3, 4, 6, 3))
    state = official(method, 4)
    keys = set(json.loads((GOLDEN / "mpanet_state_keys.json").read_text()))
    assert set(state) == keys
    assert method.load_weights(state) == []
    assert method.visible_average.equal(state["visible_classifier_.weight"])
    assert method.infrared_average.equal(state["infrared_classifier_.weight"])
    assert method.infrared_classifier.weight.equal(state["infrared_classifier.weight"])
    assert method.classifier.weight.equal(state["classifier.weight"])
    assert method.embedder.neck.running_var.equal(state["bn_neck.running_var"])  # pyright: ignore
    other = MPANet(5, width=4).double()
    before = other.classifier.weight.detach().clone()
    assert sorted(other.load_weights(state)) == sorted(k for k in state if "classifier" in k)  # other people
    assert other.classifier.weight.equal(before)


def test_regdb_distance_is_that_of_the_raw_vectors() -> None:
    """The embedder deploys vectors of any length; "euclidean" compares them as the released code does on RegDB."""
    assert (MPANet.recipe_for("regdb").similarity, MPANet.recipe_for("sysu").similarity) == ("euclidean", "cosine")
    method, table = build(), people(4, 3)
    with torch.no_grad():
        pixels = torch.randint(0, 256, (len(table), 3, 64, 32), dtype=torch.uint8)
        vectors = method.eval().embedder(pixels, torch.from_numpy(table.modality))
    assert not torch.allclose(vectors.norm(dim=1), torch.ones(len(table), dtype=torch.float64))
    random = np.random.RandomState(0)
    raw = (random.randn(len(table), 6) * random.uniform(0.2, 5, (len(table), 1))).astype(np.float32)
    rows = [np.flatnonzero(table.modality == m) for m in (INFRARED, VISIBLE)]
    protocol = Protocol("toy", lambda table: [(rows[0], rows[1])])
    embeddings = Embeddings(raw, table, {})
    distance = ((raw[rows[0]][:, None].astype(np.float64) - raw[rows[1]][None]) ** 2).sum(-1)
    nearest = table.pid[rows[1]][distance.argmin(1)] == table.pid[rows[0]]
    found = evaluate(embeddings, protocol, similarity="euclidean").mean["R1"]
    assert found == pytest.approx(nearest.mean())
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    normalized = evaluate(dataclasses.replace(embeddings, vectors=unit), protocol, similarity="euclidean").mean
    assert normalized == pytest.approx(evaluate(embeddings, protocol).mean)  # on SYSU-MM01: the cosine order
    assert normalized["mAP"] != pytest.approx(evaluate(embeddings, protocol, similarity="euclidean").mean["mAP"])


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="expected code or config, got 'paper'"):
        MPANet(4, modality_sum="paper", **TINY)
    with pytest.raises(ValueError, match=r"update_rate`: expected number >= 0 and <= 1, got 2.0"):
        MPANet(4, update_rate=2.0, **TINY)
    with pytest.raises(ValueError, match="at least one training identity"):
        MPANet(0, **TINY)
    with pytest.raises(ValueError, match="`k_size` is unknown"):
        MPANet(4, k_size=8, **TINY)


def test_bfloat16_autocast_keeps_losses_in_float32() -> None:
    torch.manual_seed(0)
    method, given = MPANet(4, **TINY), batch()
    given.images = given.images.float()
    exact = method.losses(given, Progress())
    torch.manual_seed(0)
    method = MPANet(4, **TINY)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(given, Progress())
    for name in NAMES:
        assert losses[name].dtype == torch.float32, name
    assert float(losses["center"].detach()) == pytest.approx(float(exact["center"].detach()), rel=0.05)
    assert float(losses["identity"].detach()) == pytest.approx(float(exact["identity"].detach()), rel=0.05)
