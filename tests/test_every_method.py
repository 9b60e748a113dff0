"""What every method must do, each at a tiny size on the CPU. A method joins by being a file in vireid/methods/.

A method's network is made tiny by those settings of TINY that it has, or by its class attribute `tiny`;
one that refines the embeddings of a `base` is given random ones;
parameters that rightly receive no gradient are listed with the reason in its class attribute `no_gradient`.
"""

from __future__ import annotations

import atexit
import dataclasses
import inspect
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vireid.data.pipeline import TrainingData
from vireid.data.samplers import PivotPairs
from vireid.data.table import Table, table_from_columns
from vireid.declaration import defaults
from vireid.evaluation.embed import Embeddings, embed
from vireid.layers.embedder import Embedder, load_embedder, save_embedder
from vireid.method import Batch, Method, Progress, Recipe
from vireid.methods import find, names
from vireid.training.loop import train
from vireid.training.optim import Constant, Optimizers
from vireid.training.settings import resolve, settings_class
from vireid.types import INFRARED, VISIBLE

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"width": 4, "blocks": (1, 1, 1, 1)}
SIZE, PIDS, STEPS = (64, 32), 4, 20
EPOCHS = {"cajl_plus": 60, "d2rl": 6, "spot": 60}  # of the training that is tested on held-out pictures; 40 elsewhere
NOT_IN_SECONDS = {  # methods whose held-out pictures are not found after a training of a few seconds, and why
    "cmtr": "a transformer from random weights is still at chance after 40 epochs",
    "hicmd": "every step runs generators and critics, and a few seconds are a few steps",
    "mpanet": "its pattern maps are still at chance after 40 epochs",
    "msclnet": "its fused centers are still at chance after 40 epochs",
    "nformer": "it refines the embeddings of others and embeds no picture",
    "contrast": "its batch norms and first layers stay as loaded, which from random weights tell nothing apart",
}
VENUES = (
    "CVPR|ICCV|ECCV|AAAI|IJCAI|NeurIPS|ICLR|ICML|ACM MM|ICME|ICASSP|TPAMI|IJCV|TIP|TMM|TIFS|TCSVT|Pattern Recognition"
    "|arXiv"
)


def refines(name: str) -> bool:
    """Whether a method refines the embeddings of a `base` and has no embedder of its own."""
    return "base" in defaults(settings_class(find(name)))


every_method = pytest.mark.parametrize("name", names())
every_embedder = pytest.mark.parametrize("name", [name for name in names() if not refines(name)])


def build(name: str) -> Method:
    kind = find(name)
    known = defaults(settings_class(kind))
    settings = kind.tiny or {key: value for key, value in TINY.items() if key in known}
    torch.manual_seed(0)
    return kind(PIDS, (1, 2), **settings, **required(name))  # a wrong word in `tiny` is an error


def required(name: str) -> dict[str, str]:
    """The settings without default."""
    return {"base": vectors()} if refines(name) else {}


@cache
def vectors() -> str:
    """A file with a vector for each training row, which says little about the person."""
    folder = Path(tempfile.mkdtemp(prefix="vireid-test-"))
    atexit.register(shutil.rmtree, folder)
    table = people(folder)
    random = np.random.RandomState(0)
    values = random.randn(PIDS, 16)[table.pid] + 2 * random.randn(len(table), 16)
    return str(Embeddings(values.astype(np.float32), table).save(folder / "vectors.npz"))


def stages(name: str) -> tuple[Recipe, ...]:
    """The method's recipes at a tiny size, without warm-up."""
    recipe = find(name).recipe
    changes = {"epochs": 2, "schedule": Constant()}
    found = recipe if isinstance(recipe, tuple) else (recipe,)
    return tuple(
        dataclasses.replace(r, sampler=tiny_sampler(r), size=SIZE if r.views else r.size, **changes) for r in found
    )


def tiny_sampler(recipe: Recipe) -> object:
    if isinstance(recipe.sampler, PivotPairs):  # its batches hold negatives beside the two translated people
        return PivotPairs(pids=2, batches=3, negatives="shared")
    sizes = {"pids": PIDS, "images": 2, "batches": 4}  # of those that the sampler knows
    known = {name: size for name, size in sizes.items() if hasattr(recipe.sampler, name)}
    return dataclasses.replace(recipe.sampler, **known)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Four people, three small pictures of each and modality: a color that differs between people, and noise."""
    root = tmp_path_factory.mktemp("people")
    return TrainingData(people(root), cache_folder=root / "cache", progress=False)


def people(root: Path) -> Table:
    """The table of these pictures, which are written into the folder."""
    random = np.random.RandomState(0)
    columns: dict[str, list] = defaultdict(list)
    for pid in range(PIDS):
        for modality in (VISIBLE, INFRARED):
            color = random.randint(40, 216, 3) if modality == VISIBLE else random.randint(40, 216, 1)
            for i in range(3):
                pixels = np.clip(color + random.randn(*SIZE, 3) * 20, 0, 255).astype(np.uint8)
                path = f"{pid}_{modality}_{i}.png"
                Image.fromarray(pixels).save(root / path)
                keypoints = random.rand(17, 3) * (*SIZE[::-1], 1)
                row = {"path": path, "pid": pid, "camid": modality + 1, "modality": modality, "split": "train"}
                for key, value in {**row, "keypoints": keypoints}.items():
                    columns[key].append(value)
    return table_from_columns(root, columns, "tiny")


@dataclass
class Trained:
    """A method after STEPS steps on one batch, per stage."""

    method: Method
    batch: Batch
    totals: list[list[float]]  # per stage
    touched: set[str]  # parameters that had a gradient other than 0 at some step


@pytest.fixture
def trained(name: str, data: TrainingData) -> Trained:
    return trained_once(name, data)


@cache
def trained_once(name: str, data: TrainingData) -> Trained:
    method, totals, touched = build(name).train(), [], set()
    at = Progress(epochs=1, iterations_per_epoch=STEPS)
    batch: Batch | None = None
    for at.stage, recipe in enumerate(stages(name)):
        at.epoch = at.iteration = 0
        batch = next(iter(method.batches(data, recipe, at)))
        optim, step = Optimizers(method.params(), recipe), getattr(method, recipe.step)
        totals.append([])
        for at.iteration in range(STEPS):
            optim.scale(recipe.schedule(at))
            losses: dict[str, Tensor] = step(batch, optim, at)
            method.after_step(at)
            assert all(torch.isfinite(loss).all() and loss.dim() == 0 for loss in losses.values()), losses
            totals[-1].append(sum(float(loss.detach()) for loss in losses.values()))
            touched |= {n for n, p in method.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert batch is not None
    return Trained(method.eval(), batch, totals, touched)


def embedder_of(trained: Trained) -> Embedder:
    embedder = trained.method.embedder
    assert isinstance(embedder, Embedder)
    return embedder.eval()


def inputs(embedder: Embedder, batch: Batch, rows: int) -> tuple[Tensor, ...]:
    """Random pixels, both modalities in turn, and what else the embedder declares, from the batch."""
    images = torch.randint(0, 256, (rows, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(rows))
    modality = torch.arange(rows) % 2
    return images, modality, *(batch.extras[name][:rows] for name in embedder.inputs)


@every_method
def test_settings_and_recipe_are_valid(name: str) -> None:
    for dataset in ("sysu", "regdb", "llcm", "manifest"):
        words = [f"{key}={value}" for key, value in required(name).items()]
        recipes, settings = resolve(find(name), dataset, ["epochs=3", *words])
        assert [recipe.epochs for recipe in recipes] == [3] * len(recipes)
    with torch.device("meta"):  # the published size builds too
        assert find(name)(395, (1, 2, 3, 4, 5, 6), settings).num_pids == 395


@every_method
def test_every_trainable_parameter_learns(name: str, trained: Trained) -> None:
    listed = trained.method.no_gradient
    trainable = {n for n, p in trained.method.named_parameters() if p.requires_grad}
    excused = {n for n in trainable if any(fnmatch(n, pattern) for pattern in listed)}
    assert not trainable - trained.touched - excused, "no gradient, and no reason in `no_gradient`"
    unused = [pattern for pattern in listed if not any(fnmatch(n, pattern) for n in trainable)]
    assert not unused, "listed in `no_gradient`, but there is no such parameter"
    assert all(len(reason) > 10 for reason in listed.values())


@every_method
def test_every_group_is_named_once(name: str) -> None:
    method = build(name)
    for recipe in stages(name):
        groups = method.params()
        assert set(groups) == set(recipe.optimizers)
        listed = [id(p) for group in groups.values() for p in group]
        assert len(listed) == len(set(listed)), "a parameter stands in two groups"


def textures(root: Path) -> Table:
    """Eight pictures of each person and modality, half of them held out; what shows the person has to be learned.

    The texture of a person in infrared is that of another person in visible light: vectors that compare what is seen,
    as those of an untrained network do, find the wrong one.
    """
    random, columns = np.random.RandomState(0), defaultdict(list)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    kinds = (y // 2 % 2, y // 6 % 2, x // 3 % 2, (x // 4 + y // 4) % 2)
    for pid, modality, i in itertools.product(range(PIDS), (VISIBLE, INFRARED), range(8)):
        texture = np.roll(kinds[(pid + modality) % PIDS], random.randint(0, 12), 0)
        pixels = np.clip(60 + 120 * texture[..., None] + random.randn(*SIZE, 3) * 25, 0, 255).astype(np.uint8)
        path, split = f"{pid}_{modality}_{i}.png", "train" if i < 4 else "test"
        Image.fromarray(pixels).save(root / path)
        row = {"path": path, "pid": pid, "camid": modality + 1, "modality": modality, "split": split}
        for key, value in {**row, "keypoints": random.rand(17, 3) * (*SIZE[::-1], 1)}.items():
            columns[key].append(value)
    return table_from_columns(root, columns, "textures")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in NOT_IN_SECONDS])
def test_training_finds_held_out_pictures_in_the_other_modality(name: str, tmp_path: Path) -> None:
    table, method = textures(tmp_path), build(name)
    epochs = EPOCHS.get(name, 40)
    recipes = tuple(dataclasses.replace(recipe, epochs=epochs) for recipe in stages(name))
    training = TrainingData(table.where("train"), cache_folder=tmp_path / "cache", progress=False)
    held_out = table.where("test")
    before = cross_modal_rank1(method.embedder, held_out)
    train(method, training, tmp_path / "run", recipes=recipes, progress=False)
    assert before <= 1.5 / PIDS and cross_modal_rank1(method.embedder, held_out) >= 2 / PIDS


def cross_modal_rank1(embedder: Embedder, rows: Table) -> float:
    """Share of infrared pictures whose most similar visible picture shows the same person."""
    vectors = embed(embedder.eval(), rows, SIZE, progress=False).vectors
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    query, gallery = rows.modality == INFRARED, rows.modality == VISIBLE
    nearest = (vectors[query] @ vectors[gallery].T).argmax(1)
    return float((rows.pid[gallery][nearest] == rows.pid[query]).mean())


@pytest.mark.parametrize("name", NOT_IN_SECONDS)
def test_losses_fall(name: str, trained: Trained) -> None:
    for totals in trained.totals:
        assert np.mean(totals[-3:]) < np.mean(totals[:3]), totals


class Interrupted(Exception):
    pass


def breaking(method: Method, stage: int, iteration: int) -> Method:
    """The method, whose process dies at an iteration of a stage."""
    whole = method.batches

    def batches(data: TrainingData, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        for batch in whole(data, recipe, at):
            if (at.stage, at.iteration) == (stage, iteration):
                raise Interrupted
            yield batch

    method.batches = batches
    return method


@every_method
def test_resume_equals_no_interruption(name: str, data: TrainingData, tmp_path: Path) -> None:
    recipes = stages(name)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(build(name), data, whole, recipes=recipes, progress=False)
    state = torch.load(whole / "last.pt", weights_only=True)
    per_epoch = state["progress"]["iterations_per_epoch"]
    with pytest.raises(Interrupted):
        method = breaking(build(name), len(recipes) - 1, per_epoch + per_epoch // 2)
        train(method, data, parts, recipes=recipes, progress=False)
    train(build(name), data, parts, recipes=recipes, resume=True, progress=False)
    again = torch.load(parts / "last.pt", weights_only=True)
    assert state["finished"] and again["finished"]
    assert_same(state["method"], again["method"])
    assert_same(state["optimizers"], again["optimizers"])


def assert_same(a: object, b: object, path: str = "") -> None:
    """Bit for bit."""
    if isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple) and len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}.{i}")
    elif isinstance(a, Tensor):
        assert isinstance(b, Tensor) and a.equal(b), path
    else:
        assert a == b, path


@every_embedder
def test_mixed_and_single_modality_batches_agree(name: str, trained: Trained) -> None:
    embedder = embedder_of(trained)
    given = inputs(embedder, trained.batch, 8)
    with torch.no_grad():
        together = embedder(*given)
        assert together.dim() == 2 and len(together) == 8 and torch.isfinite(together).all()
        for modality in (VISIBLE, INFRARED):
            rows = given[1] == modality
            torch.testing.assert_close(embedder(*(x[rows] for x in given)), together[rows], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(embedder(*(x[:1] for x in given)), together[:1], rtol=1e-4, atol=1e-4)
        layers = embedder.layers(embedder.normalize(given[0]), *given[1:])
        torch.testing.assert_close(next(iter(layers.values())), together)


@every_embedder
def test_onnx_equals_torch(name: str, trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from vireid.deploy.onnx import export_onnx

    embedder = embedder_of(trained)
    extras = tuple(trained.batch.extras[name][:2] for name in embedder.inputs)
    path = export_onnx(embedder, SIZE, tmp_path / "embedder.onnx", extras)
    session = runtime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ["embeddings"]
    for rows in (1, 2, 7):
        given = inputs(embedder, trained.batch, rows)
        feed = {key: value.numpy() for key, value in zip(("images", "modality", *embedder.inputs), given, strict=True)}
        (found,) = session.run(None, feed)
        with torch.no_grad():
            np.testing.assert_allclose(found, embedder(*given), rtol=1e-3, atol=1e-4)


LOAD_ALL = """
import sys
from pathlib import Path
from vireid.layers.embedder import load_embedder
for path in map(Path, sys.argv[1:]):
    try:
        load_embedder(path)
        print(path.stem, "loaded")
    except Exception as error:
        print(path.stem, repr(error))
assert not [module for module in sys.modules if module.startswith("vireid.methods")]
"""


@cache
def loaded_elsewhere(folder: Path) -> str:
    """What one fresh process says that loads the embedder of every method and imports none of them."""
    for name in names():
        if not refines(name):
            save_embedder(build(name).embedder, folder / f"{name}.safetensors")
    paths = map(str, folder.glob("*.safetensors"))
    return subprocess.run([sys.executable, "-c", LOAD_ALL, *paths], check=True, capture_output=True, text=True).stdout


@every_embedder
def test_embedder_file_needs_no_method(name: str, trained: Trained, data: TrainingData, tmp_path: Path) -> None:
    embedder = embedder_of(trained)
    save_embedder(embedder, tmp_path / "embedder.safetensors")
    given = inputs(embedder, trained.batch, 3)
    with torch.no_grad():
        assert load_embedder(tmp_path / "embedder.safetensors")(*given).equal(embedder(*given))
    assert f"{name} loaded" in loaded_elsewhere(data.table.root).splitlines()


@every_method
def test_docstring_names_the_paper(name: str) -> None:
    about = inspect.getmodule(find(name)).__doc__ or ""
    assert re.search(rf"\b({VENUES})\b,? \(?(19|20)\d\d", about.replace("\n", " ")), "venue and year of the paper"
