"""MAUM: banks, the printed losses over whole batches, who sees what, the part model, settings."""

import json
import math
from collections import deque
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from small_batch import TINY, batch
from torch import Tensor

from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.maum import StripedTwoStream
from vireid.losses.unidirectional import unidirectional
from vireid.method import Method, Progress, Recipe
from vireid.methods.maum import MAUM, Proxies, SnapshotBank
from vireid.training.optim import Optimizers
from vireid.types import INFRARED, VISIBLE

NAMES = ["identity", "identity_visible", "identity_infrared", "visible_to_infrared", "infrared_to_visible"]
PARTS = {"parts": 2, "part_dim": 6}


def tiny(**settings: object) -> MAUM:
    torch.manual_seed(0)
    return MAUM(4, (1, 2), **{**TINY, "start_epoch": 0, **settings})  # pyright: ignore[reportArgumentType]


def heads(method: MAUM) -> list[Proxies]:
    found = [head for head in method.proxies if isinstance(head, Proxies)]
    assert len(found) == len(method.proxies)
    return found


def recipe() -> Recipe:
    assert isinstance(MAUM.recipe, Recipe)
    return MAUM.recipe


# --- banks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_bank_holds_the_last_snapshots_oldest_first(size: int) -> None:
    bank, expected = SnapshotBank(size, 2, 3), deque(maxlen=size)
    assert bank.contents().shape == (0, 2, 3) and not bank.valid.any()
    for i in range(8):
        weight = torch.full((2, 3), float(i))
        bank.push(weight)
        expected.append(weight.clone())
        weight += 100  # the bank keeps a copy
        assert bank.contents().equal(torch.stack(list(expected)))
        assert int(bank.valid.sum()) == len(expected) and int(bank.pushed) == i + 1
        held = bank.snapshots[bank.valid]
        assert sorted(held[:, 0, 0].tolist()) == [float(x[0, 0]) for x in expected]


def test_bank_is_state_without_gradient() -> None:
    weight = torch.nn.Parameter(torch.randn(2, 3))
    bank = SnapshotBank(2, 2, 3)
    bank.push(weight)
    before = bank.contents()
    assert before[0].equal(weight) and not before.requires_grad and not bank.snapshots.requires_grad
    with torch.no_grad():
        weight.mul_(5)
    assert bank.contents().equal(before)
    assert not list(bank.parameters()) and set(bank.state_dict()) == {"snapshots", "pushed"}
    again = SnapshotBank(2, 2, 3)
    again.load_state_dict(bank.state_dict())
    for either in (bank, again):
        either.push(weight)
        either.push(weight * 2)
    assert again.contents().equal(bank.contents())
    with pytest.raises(ValueError, match="1 snapshot or more, got 0"):
        SnapshotBank(0, 2, 3)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (1, 1), (1, 2), (1, 3)])
def test_banks_fill_after_the_optimizers_step(start: int, every: int) -> None:
    method, given = tiny(start_epoch=start, enqueue_every=every, snapshots_visible=2, snapshots_infrared=5), batch()
    optim, at = Optimizers(method.params(), recipe()), Progress(epochs=3, iterations_per_epoch=2)
    expected: list[list[Tensor]] = [[], []]
    (head,) = heads(method)
    for at.epoch in range(3):
        for _ in range(2):
            before = [layer.weight.detach().clone() for layer in head.specific]  # pyright: ignore
            method.step(given, optim, at)
            method.after_step(at)
            for m, layer in enumerate(head.specific):
                assert not layer.weight.equal(before[m])  # pyright: ignore[reportCallIssue]
                if at.epoch >= start and at.iteration % every == 0:
                    expected[m].append(layer.weight.detach().clone())  # pyright: ignore
            at.iteration += 1
    for m, size in ((VISIBLE, 2), (INFRARED, 5)):
        assert expected[m] and head.bank(m).contents().equal(torch.stack(expected[m][-size:]))


def test_banks_are_saved_with_the_method_and_not_with_the_embedder(tmp_path: Path) -> None:
    method = tiny(**PARTS, snapshots_visible=2, snapshots_infrared=3)
    for at in (Progress(iteration=i) for i in range(4)):
        method.after_step(at)
    state = method.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if "snapshots" in name}
    assert shapes == {
        f"proxies.{branch}.banks.{m}.snapshots": (size, 4, dim)
        for branch, dim in enumerate((128, 6, 6))
        for m, size in enumerate((2, 3))
    }
    other = tiny(**PARTS, snapshots_visible=2, snapshots_infrared=3)
    other.load_state_dict(state)
    for a, b in zip(heads(method), heads(other), strict=True):
        assert all(a.bank(m).contents().equal(b.bank(m).contents()) for m in (VISIBLE, INFRARED))
        assert [len(a.bank(m).contents()) for m in (VISIBLE, INFRARED)] == [2, 3]
    save_embedder(method.embedder, tmp_path / "embedder.safetensors")
    with safe_open(tmp_path / "embedder.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if "prox" in name or "bank" in name or "shared" in name]  # noqa: SIM118


# --- losses ---------------------------------------------------------------------------------------------------------


def cross_entropy(x: Tensor, label: Tensor, weight: Tensor) -> float:
    """Mean over rows of -log( exp(w_y x) / sum_k exp(w_k x) ), in loops."""
    total = 0.0
    for row, y in zip(x.tolist(), label.tolist(), strict=True):
        logits = [sum(a * b for a, b in zip(w, row, strict=True)) for w in weight.tolist()]
        total -= math.log(math.exp(logits[y]) / sum(math.exp(z) for z in logits))
    return total / len(x)


def test_cross_entropies_are_the_printed_ones() -> None:
    torch.manual_seed(0)
    head = Proxies(12, 7, (3, 5)).double()
    for layer in (head.shared, *head.specific):
        torch.nn.init.normal_(layer.weight)  # pyright: ignore[reportArgumentType]
    x, label = torch.randn(14, 12, dtype=torch.float64), torch.randint(0, 7, (14,))
    modality = torch.tensor([0, 1] * 4 + [1] * 4 + [0] * 2)  # six visible and eight infrared rows, mixed
    losses = head.identity_losses(x, label, modality)
    visible, infrared = modality == VISIBLE, modality == INFRARED
    assert (int(visible.sum()), int(infrared.sum())) == (6, 8)
    weights = [layer.weight.detach() for layer in (head.shared, *head.specific)]  # pyright: ignore
    expected = [
        cross_entropy(x, label, weights[0]),
        cross_entropy(x[visible], label[visible], weights[1]),
        cross_entropy(x[infrared], label[infrared], weights[2]),
    ]
    assert [float(losses[name].detach()) for name in NAMES[:3]] == pytest.approx(expected, rel=1e-12)


def test_each_modality_meets_its_own_classifier_and_the_other_ones_copies() -> None:
    torch.manual_seed(0)
    head = Proxies(12, 7, (3, 5)).double()
    x, label = torch.randn(10, 12, dtype=torch.float64, requires_grad=True), torch.randint(0, 7, (10,))
    modality = torch.tensor([0, 1] * 5)
    for _ in range(4):
        for layer in (head.shared, *head.specific):
            torch.nn.init.normal_(layer.weight)  # pyright: ignore[reportArgumentType]
        head.push()

    def touched(loss: Tensor) -> tuple[list[bool], list[str]]:
        """Rows and parameters that receive a gradient."""
        names, params = zip(*head.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, [x, *params], allow_unused=True, retain_graph=True)
        rows = [False] * len(x) if found[0] is None else found[0].ne(0).any(1).tolist()
        return rows, [name for name, g in zip(names, found[1:], strict=True) if g is not None and bool(g.any())]

    visible, infrared = (modality == VISIBLE).tolist(), (modality == INFRARED).tolist()
    losses = head.identity_losses(x, label, modality)
    assert touched(losses["identity"]) == ([True] * 10, ["shared.weight"])
    assert touched(losses["identity_visible"]) == (visible, ["specific.0.weight"])
    assert touched(losses["identity_infrared"]) == (infrared, ["specific.1.weight"])
    detached = head.identity_losses(x, label, modality, detach=True)
    assert touched(detached["identity"]) == ([True] * 10, ["shared.weight"])
    assert touched(detached["identity_infrared"]) == ([False] * 10, ["specific.1.weight"])
    found = head.unidirectional_losses(x, label, modality, 16, 0.3)
    assert touched(found["visible_to_infrared"]) == (visible, [])
    assert touched(found["infrared_to_visible"]) == (infrared, [])
    for m, other, name in ((VISIBLE, INFRARED, NAMES[3]), (INFRARED, VISIBLE, NAMES[4])):
        bank = head.bank(other).contents()
        assert len(bank) == (3, 4)[other]
        rows = modality == m
        expected = unidirectional(x[rows], label[rows], bank, alpha=16, delta=0.3).mean()
        torch.testing.assert_close(found[name], expected)


@pytest.mark.parametrize("settings", [{}, {"neck": True, "alpha": 8.0, "delta": 0.0, "specific": 0.5, "beta": 0.25}])
def test_losses_of_the_global_model(settings: dict) -> None:
    method, given = tiny(**settings), batch()
    losses = method.losses(given, Progress())
    assert list(losses) == NAMES
    assert not any(losses[name].detach() for name in NAMES[3:])  # nothing is stored yet
    method.after_step(Progress())
    losses = method.losses(given, Progress(iteration=1))
    assert {name: float(value) for name, value in method.watch.items()} == {
        "snapshots_visible": 1,
        "snapshots_infrared": 1,
    }
    maps, pooled, x = method.embedder.encode(given.images, given.modality)
    torch.testing.assert_close(pooled, maps.mean((2, 3)))
    assert x is pooled if not settings else x is not pooled
    (head,) = heads(method)
    v, i = given.modality == VISIBLE, given.modality == INFRARED
    weights = [layer.weight for layer in (head.shared, *head.specific)]
    w, beta = settings.get("specific", 1.0), settings.get("beta", 1.0)
    options = {"alpha": settings.get("alpha", 32.0), "delta": settings.get("delta", 0.2)}
    expected = {
        "identity": F.cross_entropy(x @ weights[0].T, given.label),  # pyright: ignore
        "identity_visible": w * F.cross_entropy(x[v] @ weights[1].T, given.label[v]),  # pyright: ignore
        "identity_infrared": w * F.cross_entropy(x[i] @ weights[2].T, given.label[i]),  # pyright: ignore
        "visible_to_infrared": beta * unidirectional(x[v], given.label[v], weights[2][None], **options).mean(),  # pyright: ignore
        "infrared_to_visible": beta * unidirectional(x[i], given.label[i], weights[1][None], **options).mean(),  # pyright: ignore
    }
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_stripes_are_averaged() -> None:
    method, given = tiny(**PARTS), batch()
    method.after_step(Progress())
    losses = method.losses(given, Progress())
    assert list(losses) == NAMES + [f"stripes_{name}" for name in NAMES]
    branches = method.embedder.branches(given.images, given.modality)
    assert [tuple(x.shape) for x in branches] == [(16, 128), (16, 6), (16, 6)]
    single = [method.branch_losses(i, x, given) for i, x in enumerate(branches)]
    for name in NAMES:
        torch.testing.assert_close(losses[name], single[0][name])
        torch.testing.assert_close(losses[f"stripes_{name}"], (single[1][name] + single[2][name]) / 2)
        assert not single[1][name].equal(single[2][name])
    own = [head.bank(VISIBLE).contents() for head in heads(method)]
    assert not own[1].equal(own[2])  # every stripe has proxies of its own
    alone = tiny(**PARTS, with_global=False).losses(given, Progress())
    assert list(alone) == [f"stripes_{name}" for name in NAMES]


def test_without_unidirectional_losses_no_bank_fills() -> None:
    method, given = tiny(beta=0), batch()
    method.after_step(Progress())
    assert list(method.losses(given, Progress())) == NAMES[:3]
    assert not any(head.bank(m).valid.any() for head in heads(method) for m in (VISIBLE, INFRARED))


# --- the part model's network ---------------------------------------------------------------------------------------


def test_part_embedding_is_global_and_stripes_of_length_one() -> None:
    network = tiny(**PARTS, neck=True).embedder.eval()
    given = batch()
    with torch.no_grad():
        layers = network.layers(given.images, given.modality)
        maps, pooled, embedding = network.encode(given.images, given.modality)
        assert list(layers) == ["joined", "neck", "pooled", "stripes"]
        assert layers["pooled"].equal(pooled) and layers["neck"].equal(embedding) and not embedding.equal(pooled)
        branches = network.branches(given.images, given.modality)
        expected = torch.cat([x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in branches], 1)
        torch.testing.assert_close(layers["joined"], expected)
        torch.testing.assert_close(layers["stripes"], torch.cat(branches[1:], 1))
        upper = torch.cat([maps[:, :, :2], torch.zeros_like(maps[:, :, 2:])], 2)
        assert network.stripes is not None and network.stripes(upper)[:, 0].equal(branches[1])  # from top to bottom
        alone = tiny(**PARTS, with_global=False).embedder.eval().layers(given.images, given.modality)
    assert list(alone) == ["joined", "pooled", "stripes"] and alone["joined"].shape == (16, 12)


@pytest.mark.parametrize("settings", [{}, {"neck": True}, PARTS, {**PARTS, "with_global": False, "pooling": "gem"}])
def test_file_gives_the_same_network_back(tmp_path: Path, settings: dict) -> None:
    network = tiny(**settings).embedder.eval()
    save_embedder(network, tmp_path / "embedder.safetensors")
    again = load_embedder(tmp_path / "embedder.safetensors")
    images, modality = torch.full((2, 3, 64, 32), 100, dtype=torch.uint8), torch.tensor([0, 1])
    with torch.no_grad():
        assert again(images, modality).equal(network(images, modality))
    other = tiny(**settings)
    assert other.load_weights(again.state_dict()) == []
    assert all(v.equal(again.state_dict()[k]) for k, v in other.embedder.state_dict().items())


def test_part_model_as_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from vireid.deploy.onnx import export_onnx

    network = tiny(**PARTS, neck=True).embedder.eval()
    session = runtime.InferenceSession(export_onnx(network, (64, 32), tmp_path / "parts.onnx"))
    for rows in (1, 3):
        images = torch.randint(0, 256, (rows, 3, 64, 32), dtype=torch.uint8)
        modality = torch.arange(rows) % 2
        (found,) = session.run(None, {"images": images.numpy(), "modality": modality.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), network(images, modality), rtol=1e-3, atol=1e-4)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "count", "deployed"), [({}, 25_944_448, 23_517_568), ({"parts": 6}, 35_882_368, 29_815_168)]
)
def test_numbers_of_the_page(settings: dict, count: int, deployed: int) -> None:
    with torch.device("meta"):
        method = MAUM(395, **settings)
    assert sum(p.numel() for p in method.parameters()) == count
    assert sum(p.numel() for p in method.embedder.parameters()) == deployed
    docs = Path(__file__).parents[2] / "docs" / "methods"
    for page in ("maum.md", "maum.zh.md"):
        text = (docs / page).read_text("utf-8")
        assert f"{count:,}" in text and f"{deployed:,}" in text
    banks = sum(b.numel() * b.element_size() for name, b in method.named_buffers() if name.endswith("snapshots"))
    assert banks == 2 * 16 * 395 * (2048 + settings.get("parts", 0) * 512) * 4


def test_groups_hold_every_trainable_parameter_once() -> None:
    method = tiny(**PARTS, neck=True)
    names = {id(p): name for name, p in method.named_parameters()}
    groups = {group: {names[id(p)] for p in params} for group, params in method.params().items()}
    trainable = {name for name, p in method.named_parameters() if p.requires_grad}
    assert groups["head"] | groups["backbone"] == trainable and not groups["head"] & groups["backbone"]
    assert {name.split(".")[0] for name in groups["backbone"]} == {"embedder"}
    assert {".".join(name.split(".")[:2]) for name in groups["backbone"]} == {
        "embedder.visible",
        "embedder.infrared",
        "embedder.trunk",
    }
    assert sum(name.startswith("proxies.") for name in groups["head"]) == 9


def test_erasing_and_defaults() -> None:
    own = recipe()
    white = torch.full((200, 3, 32, 16), 255, dtype=torch.uint8)
    for view in own.views:
        inner = view.transform({"images": white}, torch.Generator().manual_seed(0))["images"][:, :, 10:-10, 4:-4]
        # crops bring black borders in; a rectangle brings the only values that are neither black nor white
        gray = ((inner[:, 0] < 2.2) & (inner[:, 0] > 0)).flatten(1).any(1)
        assert 0.1 < float(gray.double().mean()) < 0.5
    defaults = MAUM(4, **TINY)  # pyright: ignore[reportArgumentType]
    own = defaults.settings
    assert (own.alpha, own.delta, own.beta, own.specific) == (32, 0.2, 1, 1)
    assert (own.start_epoch, own.enqueue_every) == (10, 1)
    assert isinstance(defaults.embedder.neck, torch.nn.Identity) and defaults.embedder.stripes is None
    assert [len(bank.snapshots) for bank in heads(defaults)[0].banks] == [16, 16]  # pyright: ignore


def test_official_weights_of_agw_fill_network_and_neck() -> None:
    full = json.loads((Path(__file__).parents[1] / "golden" / "agw_state_keys.json").read_text())
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in full.items():
        sizes = [n if n in (1, 3, 7) else 6 if n == 395 else n // 16 for n in shape]
        state[name] = torch.rand(sizes, generator=generator) + 0.1 if sizes else torch.tensor(1)
    for neck in (False, True):
        method = MAUM(6, width=4, neck=neck)
        unused = method.load_weights(state)
        trunk = method.embedder.trunk.state_dict()
        assert trunk["layer4.2.conv3.weight"].equal(state["base_resnet.base.layer4.2.conv3.weight"])
        assert ("bottleneck.weight" in unused) != neck
        assert "classifier.weight" in unused and "NL_2.0.theta.weight" in unused


def test_training_too_short_for_the_banks_is_refused() -> None:
    method = tiny(start_epoch=10)
    short = Recipe(**{**vars(recipe()), "epochs": 10})
    with pytest.raises(ValueError, match=r"begin to fill in epoch 10, but training has 10 epochs: set start_epoch"):
        method.batches(None, short, Progress())  # pyright: ignore[reportArgumentType]
    assert isinstance(method, Method)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": -1}, "parts`: expected whole number >= 0, got -1"),
        ({"with_global": False}, "with_global=False needs parts"),
        ({"with_global": False, "neck": True, **PARTS}, "no global embedding for neck=True"),
        ({"enqueue_every": 0}, "enqueue_every`: expected whole number >= 1, got 0"),
        ({"start_epoch": -1}, "start_epoch`: expected whole number >= 0, got -1"),
        ({"alpha": 0.0}, "positive alpha"),
        ({"specific": 0.0}, "trained with a positive weight"),
        ({"snapshots_infrared": 0}, "snapshots_infrared`: expected whole number >= 1, got 0"),
        ({"pooling": "max"}, "pooling`: expected gem or gem-learned or average, got 'max'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_network_without_method() -> None:
    with pytest.raises(ValueError, match="4 rows cannot be cut into 3"):
        StripedTwoStream(width=4, blocks=(1, 1, 1, 1), parts=3).eval()(
            torch.zeros(1, 3, 64, 32, dtype=torch.uint8), torch.tensor([0])
        )
