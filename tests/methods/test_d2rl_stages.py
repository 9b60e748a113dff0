"""D2RL: who moves in which stage, the losses of the stages, borders of stages, samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_d2rl import STAGES, batch, moved, take, tiny, weights
from torch import Tensor

from vireid.data.pipeline import TrainingData
from vireid.data.samplers import IdentityBatches, UnpairedBatches
from vireid.data.table import table_from_columns
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.method import Batch, Progress, Recipe
from vireid.methods.d2rl import D2RL, FEATURES, IMAGES
from vireid.training.loop import train
from vireid.training.optim import Constant, Optimizers
from vireid.types import INFRARED, VISIBLE

pytestmark = pytest.mark.usefixtures("one_thread")
GROUPS = (*IMAGES, *FEATURES)


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
    method, given = tiny(label_smoothing=0.1, triplet=0.5, margin=0.4), batch()
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


def test_rate_that_a_stage_does_not_use_is_refused() -> None:
    method = tiny()
    for stage, name in ((0, "features"), (0, "head"), (1, "translators"), (1, "discriminators")):
        recipe = STAGES[stage]
        changed = {**recipe.optimizers, name: replace(recipe.optimizers[name], lr=0.5)}
        optim = Optimizers(method.params(), replace(recipe, optimizers=changed))
        with pytest.raises(ValueError, match=rf"stage {stage} does not train `{name}`.*\.{name}\.lr=0\.5"):
            getattr(method, recipe.step)(batch(), optim, Progress(stage=stage))


def test_without_adversary_the_discriminators_rest() -> None:
    method = tiny(gan=0.0)
    before = weights(method)
    assert set(take(method, 0)) == {"recon", "kl", "cycle", "kl_cycle"}
    assert moved(before, method) == {"translators"}
