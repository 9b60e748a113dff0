"""NFormer: recorded losses, recipe, sets, batches of a base's vectors, what is refused. Runs: test_nformer_run.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from torch import Tensor

from vireid.data.pipeline import TrainingData
from vireid.data.samplers import IdentityBatches
from vireid.data.table import Table, table_from_columns
from vireid.evaluation.embed import Embeddings
from vireid.layers.neighbors import mutual_neighbors
from vireid.layers.refiner import load_refiner
from vireid.losses.hard_triplet import batch_hard_triplet, batch_hard_triplet_in_blocks
from vireid.method import Batch, Progress, Recipe
from vireid.methods.nformer import STAGES, NearbySets, NFormer, WarmupFrom, center_loss
from vireid.training.loop import train
from vireid.training.optim import Adam, Constant, Optimizers

PIDS = 4
exact = {"rtol": 0, "atol": 1e-9}


def small_table() -> Table:
    """Four people, four images of each in each modality, of which there are no pictures."""
    keys = [(m, pid, i) for m in (0, 1) for pid in range(PIDS) for i in range(4)]
    rows = [(f"{m}/{pid}_{i}.png", pid * 10, m + 1, m, "train") for m, pid, i in keys]
    columns = dict(zip(("path", "pid", "camid", "modality", "split"), zip(*rows, strict=True), strict=True))
    return table_from_columns(Path("nowhere"), columns, "small")


def base(folder: Path, dim: int = 16, stamp: dict[str, str] | None = None) -> str:
    """A file of vectors of the small table's rows, near others of the same person."""
    table, random = small_table(), np.random.RandomState(0)
    vectors = random.randn(40, dim)[table.pid] + random.randn(len(table), dim)
    return str(Embeddings(vectors.astype(np.float32), table, stamp or {}).save(folder / "vectors.npz"))


def tiny(folder: Path, **settings: object) -> NFormer:
    torch.manual_seed(0)
    path = folder / "vectors.npz"
    return NFormer(PIDS, (1, 2), **{"base": str(path) if path.exists() else base(folder), **NFormer.tiny, **settings})


def recipes(**changes: object) -> tuple[Recipe, ...]:
    assert isinstance(NFormer.recipe, tuple)
    first, second = (replace(r, epochs=2, schedule=Constant(), **changes) for r in NFormer.recipe)
    return replace(first, sampler=IdentityBatches(4, 2)), replace(second, sampler=NearbySets(12, 2, 8))


def data(**options: object) -> TrainingData:
    return TrainingData(small_table(), progress=False, **options)  # pyright: ignore[reportArgumentType]


# --- losses -----------------------------------------------------------------------------------------------------------


def test_recorded_losses(tmp_path: Path) -> None:
    with np.load(GOLDEN / "nformer_losses.npz") as file:
        given = {name: torch.from_numpy(file[name]) for name in file.files}
    method = NFormer(7, base=base(tmp_path), width=16).double()
    feat, logits = given["feat"].requires_grad_(), given["logits"].requires_grad_()
    batch = Batch(feat, given["labels"], *(given["labels"],) * 3)
    for stage in range(STAGES):
        method.classifiers[stage] = torch.nn.Identity()
        method.centers[stage].data = given["centers"]
        losses = method.losses_of(feat, logits, batch, Progress(stage))
        torch.testing.assert_close(losses["identity"], given["xent_smooth"], **exact)
        torch.testing.assert_close(losses["triplet"], given["triplet"], **exact)
        torch.testing.assert_close(losses["center"], 0.0005 * given["center"], **exact)
        total = torch.stack(list(losses.values())).sum()
        torch.testing.assert_close(total, given["total"], **exact)
        grads = torch.autograd.grad(total, [feat, logits, method.centers[stage]])
        for found, name in zip(grads, ("grad_feat", "grad_logits", "grad_centers_raw"), strict=True):
            torch.testing.assert_close(found, given[name], **exact)
    own = center_loss(feat.detach(), given["labels"], method.centers[0])
    (found,) = torch.autograd.grad(own, [method.centers[0]])
    torch.testing.assert_close(found, given["grad_centers_applied"], **exact)


def test_centers_take_the_step_of_the_unweighted_loss_once_all_else_has_stepped(tmp_path: Path) -> None:
    method = tiny(tmp_path, center=0.25)
    at, stages = Progress(), recipes()
    batch = next(method.batches(data(), stages[0], at))
    before, start = method.refiner.project(batch.images)[0].detach(), method.centers[0].detach().clone()
    other, weight = method.centers[1].detach().clone(), method.refiner.transformer.layers[0].qkv.weight  # pyright: ignore
    method.step(batch, Optimizers(method.params(), stages[0]), at)
    expected = start.clone()
    for label in range(PIDS):
        mine = batch.label == label
        expected[label] -= 0.5 * 2 / len(batch) * (start[label] - before[mine]).sum(0)
    torch.testing.assert_close(method.centers[0].detach(), expected)
    assert method.centers[1].equal(other) and weight.grad is None  # what the stage does not reach stays
    assert not tiny(tmp_path, center=0.0).params()["centers"]


@pytest.mark.parametrize("block_bytes", [1 << 28, 300])
def test_triplet_in_blocks_is_the_triplet(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr("vireid.losses.hard_triplet.BLOCK_BYTES", block_bytes)
    x = torch.randn(30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for label in (torch.arange(30) % 7, torch.arange(30) // 29, torch.arange(30)):
        grads = []
        for loss in (batch_hard_triplet(x, label), batch_hard_triplet_in_blocks(x, label)):
            grads.append((loss.detach(), *torch.autograd.grad(loss, [x])))
        for found, expected in zip(*grads, strict=True):
            torch.testing.assert_close(found, expected, **exact)
    assert batch_hard_triplet_in_blocks(x, torch.zeros(30)).item() == 0
    with pytest.raises(ValueError, match="one label per row"):
        batch_hard_triplet_in_blocks(x, torch.zeros(3))


# --- recipe -----------------------------------------------------------------------------------------------------------


def test_warm_up_of_no_epochs_starts_at_the_full_rate() -> None:
    assert WarmupFrom(warmup_epochs=0)(Progress())["network"] == 1


def test_defaults_are_the_published_ones(tmp_path: Path) -> None:
    method = NFormer(PIDS, base=base(tmp_path))
    own = method.refiner.settings
    assert (own.k, own.k_cross, own.landmarks) == (20, 10, 5)
    assert len(method.refiner.transformer.layers) == 4 and method.refiner.transformer.layers[0].dropout.p == 0.1


def test_numbers_of_the_page(tmp_path: Path) -> None:
    count = {}
    for dim in (2048, 256):
        (tmp_path / str(dim)).mkdir()
        with torch.device("meta"):
            method = NFormer(395, base=base(tmp_path / str(dim), dim))
        count[dim] = sum(p.numel() for p in method.parameters()), sum(p.numel() for p in method.refiner.parameters())
    layers = sum(p.numel() for p in method.refiner.transformer.layers.parameters())
    assert layers == 3_159_040  # as the released code's
    docs = Path(__file__).parents[2] / "docs" / "methods"
    for page in ("nformer.md", "nformer.zh.md"):
        text = (docs / page).read_text("utf-8")
        assert all(f"{number:,}" in text for number in (*count[2048], layers)), count


def test_sets_are_drawn_from_the_nearest_by_inner_product() -> None:
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 201)[:, None] / 50
    sampler, centers, spans = NearbySets(length=50, sets=2), set(), []
    for seed in range(40):
        center = np.random.RandomState(seed).randint(200)
        rows = sampler.draw(vectors, np.random.RandomState(seed))
        ranks = (vectors @ vectors[center]).argsort(descending=True).argsort()[rows]
        assert len(set(rows.tolist())) == 50 and int(ranks.max()) < 100
        centers.add(center)
        spans.append(int(ranks.max()) + 1)
    assert len(centers) > 30 and min(spans) < 65 and max(spans) > 85  # of 50 (1 + u) nearest
    assert [sampler.size(n) for n in (10, 83, 84, 10_000)] == [6, 49, 50, 50]
    assert [NearbySets().size(n) for n in (4_120, 34_167)] == [2472, 7000]
    assert [NearbySets().iterations(n) for n in (34_167, 59, 3)] == [569, 1, 1]
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        NearbySets(sets=0)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_of_the_first_stage_hold_vectors_of_both_modalities(tmp_path: Path) -> None:
    method, at, table = tiny(tmp_path), Progress(), small_table()
    vectors = Embeddings.load(tmp_path / "vectors.npz").vectors
    batches = list(method.batches(data(), recipes()[0], at))
    assert len(batches) == at.iterations_per_epoch == 16 // 8 + 1
    for batch in batches:
        assert batch.modality.tolist() == [0] * 8 + [1] * 8 and batch.label[:8].equal(batch.label[8:])
        for x, label, modality in zip(batch.images, batch.label, batch.modality, strict=True):
            (row,) = np.flatnonzero((vectors == x.numpy()).all(1))
            assert (table.label[row], table.modality[row]) == (label, modality)
    again = list(method.batches(data(), recipes()[0], Progress(iteration=1)))
    assert len(again) == len(batches) - 1 and again[0].images.equal(batches[1].images)
    assert not next(method.batches(data(seed=1), recipes()[0], Progress())).images.equal(batches[0].images)


def test_batches_of_the_second_stage_are_sets_of_projected_vectors(tmp_path: Path) -> None:
    method, at = tiny(tmp_path).train(), Progress(1)
    neck = method.refiner.projection_neck
    neck.running_mean.normal_()  # pyright: ignore[reportOptionalMemberAccess]
    kept = neck.running_mean.clone()  # pyright: ignore[reportOptionalMemberAccess]
    batches = list(method.batches(data(), recipes()[1], at))
    assert len(batches) == at.iterations_per_epoch == 2 and neck.training
    assert kept.equal(neck.running_mean)  # pyright: ignore[reportArgumentType]
    vectors = torch.from_numpy(Embeddings.load(tmp_path / "vectors.npz").vectors)
    with torch.no_grad():
        projected = method.refiner.eval().project(vectors)[1]
    for batch in batches:
        assert len(batch) == 24 and batch.extras["set"].tolist() == [0] * 12 + [1] * 12
        assert batch.extras["landmark"].view(2, 12, 2).sum(1).eq(3).all()  # three a set and layer
        assert not batch.images.requires_grad
        for s in range(2):
            rows = [int((projected - x).abs().sum(1).argmin()) for x in batch.images[batch.extras["set"] == s]]
            assert len(set(rows)) == 12
            torch.testing.assert_close(batch.images[batch.extras["set"] == s], projected[rows])
    assert not batches[0].extras["landmark"].equal(batches[1].extras["landmark"])
    again = next(method.batches(data(), recipes()[1], Progress(1, iteration=1)))
    assert again.images.equal(batches[1].images) and again.extras["landmark"].equal(batches[1].extras["landmark"])


def test_shares_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    method = tiny(tmp_path)
    with pytest.raises(ValueError, match="3 processes cannot share 2 sets"):
        next(method.batches(data(world=3), recipes()[1], Progress(1)))
    with pytest.raises(ValueError, match="3 processes cannot share 8 images"):
        next(method.batches(data(world=3), recipes()[0], Progress(0)))


@pytest.mark.parametrize("normalize", [True, False])
def test_second_stage_sees_what_test_sees(tmp_path: Path, normalize: bool) -> None:
    method = tiny(tmp_path, train_normalize=normalize).eval()
    batch = next(method.batches(data(), recipes()[1], Progress(1)))
    before, behind = method.vectors(batch, Progress(1))
    for s in range(2):
        one = batch[batch.extras["set"] == s]
        x = torch.nn.functional.normalize(one.images, dim=1) if normalize else one.images
        landmarks = torch.stack([one.extras["landmark"][:, layer].nonzero()[:, 0] for layer in range(2)])
        lists = mutual_neighbors(one.images, 6, 3, one.modality)
        found = method.refiner.transformer(x[None], lists, landmarks)
        torch.testing.assert_close(before[batch.extras["set"] == s], found.tokens[0])
        torch.testing.assert_close(behind[batch.extras["set"] == s], found.refined[0])
    assert 1 <= float(method.watch["neighbors"]) <= 6


def test_pictures_and_sizes_are_not_its_own(tmp_path: Path) -> None:
    for changes in ({"size": (64, 32)}, {"filter": "bilinear"}):
        with pytest.raises(ValueError, match="pictures are its base's"):
            next(tiny(tmp_path).batches(data(), replace(recipes()[0], **changes), Progress()))
    with pytest.raises(ValueError, match="the base has to be the folder of a run"):
        tiny(tmp_path, augment=True)


def test_base_of_other_people_is_refused(tmp_path: Path) -> None:
    table = small_table()
    method = NFormer(PIDS, base=base(tmp_path, stamp={"data": table.fingerprint}))
    method.check(table)
    with pytest.raises(ValueError, match="vectors of a run on the same rows"):
        method.check(table[:-1])
    method = NFormer(PIDS, base=base(tmp_path))
    more = replace(table, path=np.char.add(table.path, "x"))
    with pytest.raises(ValueError, match=r"no vector for 32 of 32 training rows, the first is 0/0_0\.pngx"):
        method.check(more)
    with pytest.raises(ValueError, match="no vector for"):
        train(tiny(tmp_path), TrainingData(more, progress=False), tmp_path / "run", recipes=recipes(), progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no run folder"):
        NFormer(PIDS, base=str(tmp_path / "nothing"))


def test_released_weights(tmp_path: Path) -> None:
    method, other = tiny(tmp_path), tiny(tmp_path)
    with torch.no_grad():
        for p in other.refiner.parameters():
            p.normal_()
    assert method.load_weights(other.refiner.state_dict()) == []
    assert all(p.equal(q) for p, q in zip(method.refiner.parameters(), other.refiner.parameters(), strict=True))
    alone = {k: v for k, v in tiny(tmp_path).refiner.state_dict().items() if k.startswith("transformer")}
    assert method.load_weights({**alone, "classifier.weight": torch.zeros(751, 8)}) == ["classifier.weight"]
    assert method.refiner.projection.weight.equal(other.refiner.projection.weight)
    with pytest.raises(ValueError, match="do not fit"):
        method.load_weights({"nothing": torch.zeros(1)})


def test_training_separates_people(tmp_path: Path) -> None:
    """Vectors that mean little alone are drawn to those of their person."""
    method = tiny(tmp_path, landmarks=2)
    stages = recipes()
    fast = {**stages[1].optimizers, "network": Adam(lr=3e-3)}
    stages = (replace(stages[0], epochs=15), replace(stages[1], epochs=15, optimizers=fast))
    train(method, data(), tmp_path / "run", recipes=stages, progress=False)
    again = load_refiner(tmp_path / "run" / "refiner.safetensors")
    table = small_table()
    vectors, modality = (
        torch.from_numpy(Embeddings.load(tmp_path / "vectors.npz").vectors),
        torch.from_numpy(table.modality),
    )
    with torch.no_grad():
        gaps = [gap(x, table.label) for x in (again.tokens(vectors), again(vectors, modality))]  # pyright: ignore
    assert gaps[1] > gaps[0] + 0.05
    about = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert about["base"]["path"] == str(tmp_path / "vectors.npz") and about["base"]["dim"] == 16
    assert not (tmp_path / "run" / "embedder.safetensors").exists()


def gap(x: Tensor, label: np.ndarray) -> float:
    """Mean cosine of images of one person over that of others."""
    cosine, same = x @ x.T, torch.from_numpy(label[:, None] == label[None])
    return float(cosine[same].mean() - cosine[~same].mean())
