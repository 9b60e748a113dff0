"""D2RL: the image level's step, unified images, who moves in which stage, borders of stages, the control, settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import unit_step
from PIL import Image
from torch import Tensor

from vireid import distributed
from vireid.data.pipeline import TrainingData
from vireid.data.samplers import IdentityBatches, UnpairedBatches
from vireid.data.table import table_from_columns
from vireid.data.transforms import Symmetric
from vireid.layers.d2rl import UnifiedResNet, load_unified
from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.unit import CHANNELS, Discriminators, Translators
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.method import Batch, Progress, Recipe
from vireid.methods.d2rl import D2RL, FEATURES, IMAGES
from vireid.training.loop import train
from vireid.training.optim import Constant, Optimizers
from vireid.types import IMAGENET_MEAN, IMAGENET_STD, INFRARED, VISIBLE

GOLDEN = Path(__file__).parents[1] / "golden" / "unit_step_rgb3_ir1.npz"
STAGES = D2RL.recipe
GROUPS = (*IMAGES, *FEATURES)
Weights = dict[str, list[Tensor]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**settings: object) -> D2RL:
    torch.manual_seed(0)
    return D2RL(4, (1, 2), **{**D2RL.tiny, **settings}).train()  # pyright: ignore[reportArgumentType]


def batch(pids: int = 4, images: int = 2, dtype: torch.dtype = torch.float32) -> Batch:
    """Pixels from -1 to 1; infrared images are gray."""
    label = torch.arange(pids).repeat_interleave(images)
    n = len(label)
    pixels = torch.rand(2 * n, 3, 64, 32, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels[n:] = pixels[n:, :1]
    modality = torch.tensor([VISIBLE, INFRARED]).repeat_interleave(n)
    return Batch(pixels, label.repeat(2), modality + 1, modality, modality)


def weights(method: D2RL) -> Weights:
    return {name: [p.detach().clone() for p in group] for name, group in method.params().items()}


def moved(before: Weights, method: D2RL) -> set[str]:
    """Groups of which some parameter has changed."""
    now = weights(method)
    return {n for n in before if any(not a.equal(b) for a, b in zip(before[n], now[n], strict=True))}


def take(method: D2RL, stage: int, iteration: int = 1) -> dict[str, Tensor]:
    """One step of a stage at its own rates."""
    optim = Optimizers(method.params(), STAGES[stage])
    return getattr(method, STAGES[stage].step)(batch(), optim, Progress(stage=stage, iteration=iteration))


# --- the image level --------------------------------------------------------------------------------------------------


def test_step_is_that_of_an_independent_one() -> None:
    """Two phases with given noises: outputs, losses, gradients and the discriminators' Adam, 3 + 1 channels."""
    assert unit_step.check(unit_step.made()) > 100


def test_reference_notices_another_step() -> None:
    for name in ("gen/x_aba", "loss/gen_total", "grad/dis_b.cnns.1.0.conv.weight", "after_dis/dis_a.cnns.0.2.weight"):
        arrays = unit_step.made()
        arrays[name] = arrays[name] + 1e-6
        with pytest.raises(AssertionError, match=name.replace("/", r"\/")):
            unit_step.check(arrays)


def test_recorded_step_of_unit() -> None:
    """x_a visible (2, 3, 32, 24), x_b infrared (2, 1, 32, 24), weights w/*, noises; names as in unit_step."""
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN.name} is kept back; put it there and run this again")
    assert unit_step.check(dict(np.load(GOLDEN))) > 100


def test_losses_are_weighted_sums_and_terms_of_weight_0_are_left_out() -> None:
    given = batch(dtype=torch.float64)
    plain = unit_step.small(recon=1.0, kl=1.0, cycle=1.0, kl_cycle=1.0)
    images = plain.by_modality(given)
    assert [x.shape[1] for x in images] == list(CHANNELS)
    noise = plain.noise(images, Progress())
    terms, critic = plain.image_losses(images, noise[2:]), plain.critic_losses(images, noise[:2])
    assert list(terms) == ["recon", "kl", "gan", "cycle", "kl_cycle"]
    weighted = {"recon": 10.0, "kl": 0.01, "gan": 1.0, "cycle": 10.0, "kl_cycle": 0.01}
    for name, loss in unit_step.small().image_losses(images, noise[2:]).items():
        torch.testing.assert_close(loss, weighted[name] * terms[name])
    some = unit_step.small(recon=2.0, kl=0.0, gan=3.0, cycle=0.0, kl_cycle=0.0)
    losses = some.image_losses(images, noise[2:])
    assert list(losses) == ["recon", "gan"]
    torch.testing.assert_close(losses["recon"], 2 * terms["recon"])
    torch.testing.assert_close(losses["gan"], 3 * terms["gan"])
    torch.testing.assert_close(some.critic_losses(images, noise[:2])["discriminators"], 3 * critic["discriminators"])


def test_order_of_rows_does_not_matter() -> None:
    method, given = unit_step.small(), batch(dtype=torch.float64)
    images = method.by_modality(given)
    noise = method.noise(images, Progress())[2:]
    turn = torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])
    turned = method.image_losses((images[0][turn], images[1][turn]), [n[turn] for n in noise])
    for name, loss in method.image_losses(images, noise).items():
        torch.testing.assert_close(turned[name], loss)


def test_noise_follows_from_seed_stage_and_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny()
    images = method.by_modality(batch())
    state = torch.get_rng_state()
    first = method.noise(images, Progress(stage=0, iteration=3))
    assert torch.get_rng_state().equal(state)
    assert [n.shape for n in first] == [(8, 16, 16, 8)] * 6
    assert all(not a.equal(b) for i, a in enumerate(first) for b in first[:i])
    torch.manual_seed(5)
    assert all(a.equal(b) for a, b in zip(first, method.noise(images, Progress(iteration=3)), strict=True))
    for other in (Progress(iteration=4), Progress(stage=2, iteration=3)):
        assert not any(a.equal(b) for a, b in zip(first, method.noise(images, other), strict=True))
    restored = D2RL(4, (1, 2), **D2RL.tiny)  # pyright: ignore[reportArgumentType]
    assert not restored.noise(images, Progress(iteration=3))[0].equal(first[0])
    restored.load_state_dict(method.state_dict())
    assert restored.noise(images, Progress(iteration=3))[0].equal(first[0])
    big = torch.cat(method.noise(images, Progress())[:2])
    assert abs(float(big.mean())) < 0.02 and abs(float(big.std()) - 1) < 0.02
    monkeypatch.setattr(distributed, "world", lambda: 2)
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        own = slice(4 * rank, 4 * rank + 4)
        halves.append(method.noise((images[0][own], images[1][own]), Progress(iteration=3)))
    assert all(torch.cat([a, b]).equal(whole) for a, b, whole in zip(*halves, first, strict=True))


def test_shared_latent_is_one_block_of_both() -> None:
    apart, together = Translators(4, 2), Translators(4, 2, share_latent=True)
    count = [sum(p.numel() for p in module.parameters()) for module in (apart, together)]
    block = sum(p.numel() for p in together.last_encoding.parameters())
    assert block and count[0] - count[1] == 2 * block  # two of four blocks per side of the latent space are left
    x = torch.rand(1, 1, 16, 8)
    (gradient,) = torch.autograd.grad(
        together.encode(x, INFRARED).sum(), [together.last_encoding[0].second.conv.weight]
    )  # pyright: ignore
    assert gradient.any()
    method = tiny(share_latent=True, image_blocks=2)
    listed = [id(p) for group in method.params().values() for p in group]
    assert sorted(listed) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert moved(weights(method), method) == set() and take(method, 0)


# --- unified images ---------------------------------------------------------------------------------------------------


def test_unified_image_is_red_green_blue_infrared_whatever_it_came_from() -> None:
    network, given = tiny().embedder, batch()
    mixed = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    images, modality = given.images[mixed], given.modality[mixed]
    unified = network.unify(images, modality)
    assert unified.shape == (16, 4, 64, 32)
    for row in range(16):
        x = images[row : row + 1]
        if modality[row] == VISIBLE:
            made = network.translators.generators[INFRARED](network.translators.encoders[VISIBLE](x))
            expected = torch.cat([x, made], 1)
        else:
            gray = x.mean(1, keepdim=True)
            made = network.translators.generators[VISIBLE](network.translators.encoders[INFRARED](gray))
            expected = torch.cat([made, gray], 1)
        torch.testing.assert_close(unified[row : row + 1], expected, rtol=1e-4, atol=1e-5)


def test_exported_selection_equals_the_one_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given = batch()
    for zeroed in (False, True):
        network = tiny(zero_translated=zeroed).embedder
        by_rows = network.unify(given.images, given.modality)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        torch.testing.assert_close(network.unify(given.images, given.modality), by_rows, rtol=1e-4, atol=1e-5)
        monkeypatch.undo()


def seen_by_stem(network: UnifiedResNet, images: Tensor, modality: Tensor, layer: str) -> Tensor:
    """What the four-channel convolution gets for a layer."""
    seen: list[Tensor] = []
    handle = network.stem.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    network.layers(network.normalize(images), modality)
    handle.remove()
    return seen[{"neck": 0, "translated-zeroed": 1}[layer]]


def test_pixels_become_symmetric_once_and_imagenet_s_for_the_feature_level() -> None:
    network = tiny().embedder.eval()
    images = torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[2:] = images[2:, :1]
    modality = torch.tensor([0, 0, 1, 1])
    training = Symmetric()({"images": images}, torch.Generator())["images"]
    torch.testing.assert_close(network.normalize(images), training, rtol=0, atol=1e-6)
    assert float(training.min()) == -1 and float(training.max()) == 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        x = seen_by_stem(network, images, modality, "neck")
        made = network.translators.translate(training[2:, :1], INFRARED)
    torch.testing.assert_close(x[:2, :3], (images[:2] / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x[2:, 3], (images[2:, 0] / 255 - 0.449) / 0.226, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x[2:, :3], ((made + 1) / 2 - mean) / std, rtol=1e-4, atol=1e-5)


def test_control_does_not_see_translations() -> None:
    network = tiny().embedder.eval()
    images = torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    modality = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        x, whole = (seen_by_stem(network, images, modality, name) for name in ("translated-zeroed", "neck"))
        assert not x[modality == VISIBLE, 3].any() and not x[modality == INFRARED, :3].any()
        assert x[modality == VISIBLE, :3].equal(whole[modality == VISIBLE, :3]) and x[modality == INFRARED, 3].any()
        first = network.layers(network.normalize(images), modality)
        assert list(first) == ["neck", "pooled", "translated-zeroed"]
        expected = network.neck(network.pool(network.trunk(network.stem(x))))
        torch.testing.assert_close(first["translated-zeroed"], expected)
        for p in network.translators.parameters():
            p.normal_()
        second = network.layers(network.normalize(images), modality)
        assert second["translated-zeroed"].equal(first["translated-zeroed"])
        assert not second["neck"].equal(first["neck"])
        assert network(images, modality).equal(second["neck"])


def test_trained_control() -> None:
    method, given = tiny(zero_translated=True), batch()
    network = method.embedder
    unified = network.unify(given.images, given.modality)
    losses = method.feature_losses(unified, given)
    params = list(network.translators.parameters())
    gradients = torch.autograd.grad(
        torch.stack(list(losses.values())).sum(), [network.stem.conv1.weight, *params], allow_unused=True
    )
    assert gradients[0].any() and not any(g is not None and g.any() for g in gradients[1:])
    network.eval()
    layers = network.layers(given.images, given.modality)
    assert list(layers) == ["neck", "pooled"]
    other = tiny().embedder
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(layers["neck"], other.eval().layers(given.images, given.modality)["translated-zeroed"])


# --- stages -----------------------------------------------------------------------------------------------------------


def test_each_stage_moves_its_own_groups() -> None:
    for stage, expected in enumerate((set(IMAGES), set(FEATURES), set(GROUPS))):
        method = tiny()
        before, buffers = weights(method), {n: b.clone() for n, b in method.named_buffers()}
        losses = take(method, stage)
        assert moved(before, method) == expected
        touched = {n for n, p in method.named_parameters() if p.grad is not None and bool(p.grad.any())}
        if stage == 1:
            assert not any(n.startswith(("discriminators", "embedder.translators")) for n in touched)
        same = all(b.equal(buffers[n]) for n, b in method.named_buffers())
        assert same == (stage == 0)  # statistics of batch norms belong to T_F
        image, feature = {"recon", "kl", "gan", "cycle", "kl_cycle", "discriminators"}, {"identity", "triplet"}
        assert set(losses) == (image, feature, image | feature)[stage]


def test_feature_losses_are_the_printed_ones_and_reach_the_translators() -> None:
    method, given = tiny(smoothing=0.1, triplet=0.5, margin=0.4), batch()
    unified = method.embedder.unify(given.images, given.modality)
    losses = method.feature_losses(unified, given)
    _, pooled, embedding = method.embedder.encode(unified, given.modality)
    logits = (embedding @ method.classifier.weight.T).log_softmax(1)
    target = F.one_hot(given.label, 4) * 0.9 + 0.1 / 4
    torch.testing.assert_close(losses["identity"], -(target * logits).sum(1).mean())
    torch.testing.assert_close(losses["triplet"], 0.5 * batch_hard_triplet(pooled, given.label, 0.4))
    translators = method.embedder.translators
    parts = [m for pair in (translators.encoders, translators.generators) for m in pair]
    weights = [next(p for n, p in part.named_parameters() if n.endswith("weight")) for part in parts]
    for gradient in torch.autograd.grad(losses["identity"], weights):
        assert gradient.any()
    assert list(tiny(triplet=0.0).feature_losses(unified.detach(), given)) == ["identity"]


def test_joint_objective_is_the_sum_with_lambda_f() -> None:
    """Gradients of the last stage on E and G are those of L_I, against the stepped D, plus lambda_F times L_F's."""
    method = tiny(lambda_f=0.3, keep_discriminators=True).double()
    given, at = batch(dtype=torch.float64), Progress(stage=2)
    other = tiny(lambda_f=0.3).double()
    other.load_state_dict(method.state_dict())
    losses = method.step_joint(given, Optimizers(method.params(), STAGES[2]), at)
    images = other.by_modality(given)
    noise = other.noise(images, at)
    other.critic_step(images, noise[:2], Optimizers(other.params(), STAGES[2]))
    image = other.image_losses(images, noise[2:])
    feature = other.feature_losses(other.embedder.unify(given.images, given.modality), given)
    for name, loss in feature.items():
        torch.testing.assert_close(losses[name], 0.3 * loss)
    objective = torch.stack(list(image.values())).sum() + 0.3 * torch.stack(list(feature.values())).sum()
    params = [*other.embedder.translators.parameters(), *other.embedder.stem.parameters()]
    expected = torch.autograd.grad(objective, params)
    found = [*method.embedder.translators.parameters(), *method.embedder.stem.parameters()]
    for p, gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-7, atol=1e-9)


def test_image_every_takes_every_so_many_th_row_of_each_modality() -> None:
    given = batch()
    visible, infrared = tiny(image_every=4).by_modality(given, 4)
    assert visible.equal(given.images[[0, 4]])
    torch.testing.assert_close(infrared, given.images[[8, 12]][:, :1])
    few, many = tiny(image_every=4), tiny()
    a, b = take(few, 2), take(many, 2)
    assert a["identity"].equal(b["identity"]) and not a["recon"].equal(b["recon"])


def test_last_stage_begins_with_fresh_discriminators() -> None:
    def discriminators(method: D2RL) -> list[Tensor]:
        return [p.detach().clone() for p in method.discriminators.parameters()]

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(x.equal(y) for x, y in zip(a, b, strict=True))

    method = tiny()
    take(method, 0)
    trained, state = discriminators(method), torch.get_rng_state()
    method.discriminators.renew(int(method.noise_seed))
    fresh = discriminators(method)
    assert torch.get_rng_state().equal(state) and not any(
        a.equal(b) for a, b in zip(trained, fresh, strict=True) if b.dim() > 1
    )
    spread = torch.cat([p.flatten() for p in fresh if p.dim() > 1])
    assert 0.015 < float(spread.std()) < 0.025 and not any(p.any() for p in fresh if p.dim() == 1)
    torch.manual_seed(99)  # another process, whose random state differs
    method.discriminators.renew(int(method.noise_seed))
    assert same(discriminators(method), fresh)

    def after(iteration: int, **settings: object) -> list[Tensor]:
        again = tiny(**settings)
        take(again, 0)
        assert same(discriminators(again), trained)
        take(again, 2, iteration)
        return discriminators(again)

    def distance(a: list[Tensor], b: list[Tensor]) -> float:
        return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))

    step = 2e-5  # Adam moves by no more than its rate, 1e-5, here
    assert distance(after(0), fresh) < step and distance(after(1), trained) < step
    assert distance(after(0, keep_discriminators=True), trained) < step < distance(fresh, trained)


class Interrupted(Exception):
    pass


class Breaking:
    """Training data whose process dies where it is told to."""

    def __init__(self, data: TrainingData, stage: int, iteration: int) -> None:
        self.data, self.table, self.place = data, data.table, (stage, iteration)

    def batches(self, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        for given in self.data.batches(recipe, at):
            if (at.stage, at.iteration) == self.place:
                raise Interrupted
            yield given


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    root, random = tmp_path_factory.mktemp("people"), np.random.RandomState(0)
    columns: dict[str, list] = defaultdict(list)
    for pid in range(4):
        for modality in (VISIBLE, INFRARED):
            color = random.randint(40, 216, 3 if modality == VISIBLE else 1)
            for i in range(2):
                path = f"{pid}_{modality}_{i}.png"
                pixels = np.clip(color + random.randn(64, 32, 3) * 20, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / path)
                row = {"path": path, "pid": pid, "camid": modality + 1, "modality": modality, "split": "train"}
                for key, value in row.items():
                    columns[key].append(value)
    return TrainingData(table_from_columns(root, columns, "tiny"), cache_folder=root / "cache", progress=False)


def short() -> tuple[Recipe, ...]:
    """Two epochs of two batches per stage, at rates at which a wrong step shows."""
    samplers = (UnpairedBatches(images=3, batches=2), *[IdentityBatches(pids=2, images=2)] * 2)
    rates = ({IMAGES: 1e-3}, {FEATURES: 1e-2}, {IMAGES: 1e-3, FEATURES: 1e-2})
    found = []
    for recipe, sampler, chosen in zip(STAGES, samplers, rates, strict=True):
        lr = {name: rate for names, rate in chosen.items() for name in names}
        optimizers = {name: replace(spec, lr=lr.get(name, 0.0)) for name, spec in recipe.optimizers.items()}
        changes = {"size": (64, 32), "sampler": sampler, "epochs": 2, "schedule": Constant(), "optimizers": optimizers}
        found.append(replace(recipe, **changes))  # pyright: ignore[reportArgumentType]
    return tuple(found)


def test_resume_at_every_border_equals_no_interruption(data: TrainingData, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(), data, whole, recipes=short(), progress=False)
    expected = torch.load(whole / "last.pt", weights_only=True)
    counts = [r.epochs * 2 if isinstance(r.sampler, UnpairedBatches) else r.epochs * 3 for r in short()]
    # the first batch of the first stage's second epoch, the first batches of the other stages, and inside their epochs
    places = [(0, 2), (0, 3), (1, 0), (1, 4), (2, 0), (2, 1), (2, counts[2] - 1)]
    for stage, iteration in places:
        with pytest.raises(Interrupted):
            broken = Breaking(data, stage, iteration)
            train(tiny(), broken, parts, recipes=short(), resume=True, progress=False)  # pyright: ignore[reportArgumentType]
    method = tiny()
    train(method, data, parts, recipes=short(), resume=True, progress=False)
    found = torch.load(parts / "last.pt", weights_only=True)
    assert expected["progress"] == found["progress"] and found["finished"]
    for name, value in expected["method"].items():
        assert value.equal(found["method"][name]), name
    for group in GROUPS:
        for key, state in expected["optimizers"][group]["state"].items():
            for name, value in state.items():
                assert torch.equal(
                    torch.as_tensor(value), torch.as_tensor(found["optimizers"][group]["state"][key][name])
                )
    sheets = {stage: sorted(p.name for p in (whole / "samples").glob(f"{stage}-*.png")) for stage in range(3)}
    assert sheets == {stage: [f"{stage}-000.png", f"{stage}-001.png"] for stage in range(3)}


def test_samples_show_what_the_network_sees() -> None:
    method, given = tiny().eval(), batch(images=3)
    with torch.no_grad():
        rows = method.samples(given, Progress())
        unified = (method.embedder.unify(given.images, given.modality) + 1) / 2
    kinds = ("", " rebuilt", " as {other}", " and back", " unified")
    names = [
        name + kind.format(other=other)
        for name, other in (("visible", "infrared"), ("infrared", "visible"))
        for kind in kinds
    ]
    assert list(rows) == names
    for name, images in rows.items():
        assert images.shape == (6, 3, 64, 64 if name.endswith("unified") else 32), name  # every second of twelve rows
        assert float(images.min()) >= 0 and float(images.max()) <= 1
    for first, name in ((0, "visible"), (12, "infrared")):
        expected = unified[first : first + 12 : 2]
        torch.testing.assert_close(rows[f"{name} unified"][..., :32], expected[:, :3], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rows[f"{name} unified"][:, 1, :, 32:], expected[:, 3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        rows["visible as infrared"], unified[:12:2, 3:].expand(-1, 3, -1, -1), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(rows["infrared as visible"], unified[12::2, :3], rtol=1e-4, atol=1e-5)


# --- recipes, weights, settings ---------------------------------------------------------------------------------------


def test_rate_that_a_stage_does_not_use_is_refused() -> None:
    method = tiny()
    for stage, name in ((0, "features"), (0, "head"), (1, "translators"), (1, "discriminators")):
        recipe = STAGES[stage]
        changed = {**recipe.optimizers, name: replace(recipe.optimizers[name], lr=0.5)}
        optim = Optimizers(method.params(), replace(recipe, optimizers=changed))
        with pytest.raises(ValueError, match=rf"stage {stage} does not train `{name}`.*\.{name}\.lr=0\.5"):
            getattr(method, recipe.step)(batch(), optim, Progress(stage=stage))


def resnet_state(method: D2RL) -> dict[str, Tensor]:
    """What torchvision's file would hold for a ResNet of this size."""
    generator = torch.Generator().manual_seed(3)
    state = {n: v for n, v in method.embedder.stem.state_dict().items() if n != "conv1.weight"}
    state |= method.embedder.trunk.state_dict() | {
        "conv1.weight": torch.zeros(4, 3, 7, 7),
        "fc.weight": torch.zeros(1000, 128),
    }
    return {
        n: torch.randn(v.shape, generator=generator) if v.is_floating_point() else torch.tensor(7)
        for n, v in state.items()
    }


def test_imagenet_fills_the_feature_level_with_a_widened_first_convolution() -> None:
    method = tiny()
    state, before = resnet_state(method), {n: p.clone() for n, p in method.embedder.translators.named_parameters()}
    assert method.load_weights(state) == ["fc.weight"]
    conv1 = method.embedder.stem.conv1.weight
    assert conv1[:, :3].equal(state["conv1.weight"] * 0.75)
    torch.testing.assert_close(conv1[:, 3], state["conv1.weight"].sum(1) / 4)
    gray = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(
        method.embedder.stem.conv1(gray.expand(-1, 4, -1, -1)),
        F.conv2d(gray.expand(-1, 3, -1, -1), state["conv1.weight"], stride=2, padding=3),
    )
    assert method.embedder.trunk.layer4[0].conv3.weight.equal(state["layer4.0.conv3.weight"])  # pyright: ignore
    assert all(p.equal(before[n]) for n, p in method.embedder.translators.named_parameters())
    with pytest.raises(ValueError, match="of no known kind: expected the names of torchvision's resnet50"):
        method.load_weights({"base_resnet.base.layer1.0.conv1.weight": torch.zeros(1)})
    del state["layer4.0.conv3.weight"]
    with pytest.raises(ValueError, match=r"layer4.0.conv3.weight .* is missing"):
        method.load_weights(state)


@pytest.mark.parametrize("settings", [{}, {"share_latent": True}, {"zero_translated": True}])
def test_file_gives_the_same_network_back(tmp_path: Path, settings: dict) -> None:
    network = tiny(**settings).embedder.eval()
    save_embedder(network, tmp_path / "embedder.safetensors")
    again = load_embedder(tmp_path / "embedder.safetensors")
    images, modality = torch.full((2, 3, 64, 32), 100, dtype=torch.uint8), torch.tensor([0, 1])
    with torch.no_grad():
        assert again(images, modality).equal(network(images, modality))
    other = tiny(**settings)
    for p in other.parameters():
        torch.nn.init.zeros_(p)
    assert load_unified(other.embedder, again.state_dict()) == []
    assert all(v.equal(again.state_dict()[k]) for k, v in other.embedder.state_dict().items())


def test_numbers_of_the_page() -> None:
    with torch.device("meta"):
        method = D2RL(395)
    count = sum(p.numel() for p in method.parameters())
    deployed = sum(p.numel() for p in method.embedder.parameters())
    assert (count, deployed) == (63_128_842, 45_783_684)
    docs = Path(__file__).parents[2] / "docs" / "methods"
    for page in ("d2rl.md", "d2rl.zh.md"):
        text = (docs / page).read_text("utf-8")
        assert f"{count:,}" in text and f"{deployed:,}" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recon": -1.0}, "`recon`: expected number >= 0, got -1.0"),
        ({"recon": 0.0, "cycle": 0.0, "gan": 0.0}, "one of the weights recon, gan and cycle must be above 0"),
        ({"lambda_f": 0.0}, "`lambda_f`: expected number > 0"),
        ({"image_every": 0}, "`image_every`: expected whole number >= 1"),
        ({"smoothing": 1.0}, "`smoothing`: expected number >= 0 < 1"),
        ({"image_blocks": 0}, "`image_blocks`: expected whole number >= 1"),
        ({"scales": 0}, "`scales`: expected whole number >= 1"),
        ({"blocks": (1, 1)}, "`blocks`: expected list of 4 whole numbers >= 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_wrong_images_are_refused() -> None:
    network = tiny().embedder.eval()
    with pytest.raises(ValueError, match="multiples of 4, got 66x32; change size"):
        network(torch.zeros(1, 3, 66, 32, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"modality must be 0 \(visible\) or 1 \(infrared\), got \[2\]"):
        network(torch.zeros(1, 3, 64, 32, dtype=torch.uint8), torch.tensor([2]))


@pytest.mark.parametrize(("height", "width"), [(96, 48), (64, 64), (128, 60), (64, 33), (96, 32), (48, 24), (260, 68)])
@pytest.mark.parametrize(("scales", "layers"), [(1, 4), (2, 3), (3, 4), (3, 3), (4, 2)])
def test_size_check_says_what_the_discriminators_take(height: int, width: int, scales: int, layers: int) -> None:
    critics = Discriminators(2, layers, scales)
    images = torch.zeros(1, 3, height, width)
    try:
        maps = critics[0](images)
    except ValueError as error:
        assert "reflection by 1" in str(error)
        with pytest.raises(ValueError, match=rf"{height}x{width} are too small .* of scales={scales} and"):
            critics.check_size(height, width)
    else:
        assert len(maps) == scales
        critics.check_size(height, width)


def test_without_adversary_the_discriminators_rest() -> None:
    method = tiny(gan=0.0)
    before = weights(method)
    assert set(take(method, 0)) == {"recon", "kl", "cycle", "kl_cycle"}
    assert moved(before, method) == {"translators"}
