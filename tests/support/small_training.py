"""A small method and training data in memory, shared by the tests of the loop and by the processes they start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vireid import distributed
from vireid.data.pipeline import TrainingData
from vireid.data.table import Table, table_from_columns
from vireid.method import Batch, Method, Progress, Recipe, View
from vireid.methods import find
from vireid.training.loop import train
from vireid.training.optim import SGD, AdamW, Constant, Optimizers, WarmupSteps

PIDS, DIM = 4, 6


@dataclass(frozen=True)
class Draw:
    """Stands for a sampler: `pids` people, two images of each and modality, `batches` times."""

    pids: int = PIDS
    batches: int = 3


@dataclass(frozen=True)
class Same:
    """Stands for a transform."""


def recipe(epochs: int = 3, **changes: object) -> Recipe:
    settings = {
        "size": (2, 3),
        "sampler": Draw(),
        "views": (View(0, Same()), View(1, Same())),
        "epochs": epochs,
        "optimizers": {"trunk": SGD(lr=0.02), "head": AdamW(lr=0.01)},
        "schedule": WarmupSteps(2, (3,)),
    }
    return Recipe(**{**settings, **changes})


def table() -> Table:
    keys = [(m, pid, i) for m in (0, 1) for pid in range(PIDS) for i in range(4)]
    rows = [(f"{m}/{pid}_{i}.png", pid * 10, m + 1, m, "train") for m, pid, i in keys]
    columns = dict(zip(("path", "pid", "camid", "modality", "split"), zip(*rows, strict=True), strict=True))
    return table_from_columns(Path("nowhere"), columns, "small")


class SmallData:
    """Noise images that are a pure function of (seed, stage, epoch, iteration); each rank takes its share of people."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.table = table()
        self.dtype = dtype

    def batches(self, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        at.iterations_per_epoch = recipe.sampler.batches
        for iteration in range(at.iteration - at.epoch * at.iterations_per_epoch, at.iterations_per_epoch):
            random = np.random.RandomState([7, at.stage, at.epoch, iteration])
            label = np.repeat(np.arange(recipe.sampler.pids), 2)
            noise = random.randn(2, len(label), 3, *recipe.size) + label[None, :, None, None, None] * 0.3
            share = slice(distributed.rank() * len(label) // distributed.world(), None)
            share = slice(share.start, share.start + len(label) // distributed.world())
            images = torch.from_numpy(noise[:, share]).flatten(0, 1).to(self.dtype)
            labels = torch.from_numpy(np.tile(label[share], 2))
            view = torch.arange(2).repeat_interleave(len(labels) // 2)
            yield Batch(images, labels, view + 1, view, view)


class Small(Method):
    """A linear trunk with batch norm, dropout, a classifier and a triplet mined over all ranks."""

    recipe: ClassVar[Recipe] = recipe()

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), *, dropout: float = 0.0) -> None:
        super().__init__(num_pids, camids)
        hidden = (nn.Linear(18, DIM), nn.BatchNorm1d(DIM), nn.ReLU())
        self.trunk = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(DIM, DIM))
        self.neck = nn.BatchNorm1d(DIM)
        self.head = nn.Linear(DIM, num_pids, bias=False)
        self.dropout = dropout
        self.register_buffer("bank", torch.zeros(DIM))

    def params(self) -> dict[str, list[nn.Parameter]]:
        return {"trunk": [*self.trunk.parameters(), *self.neck.parameters()], "head": [*self.head.parameters()]}

    def losses(self, batch: Batch, at: Progress) -> dict[str, Tensor]:
        pooled = F.dropout(self.trunk(batch.images), self.dropout)
        self.watch["pooled"] = pooled.detach().mean()
        logits = self.head(self.neck(pooled))
        return {"id": F.cross_entropy(logits, batch.label), "triplet": triplet(pooled, batch.label)}

    def after_step(self, at: Progress) -> None:
        with torch.no_grad():
            self.bank.lerp_(self.head.weight.mean(0), 0.1)

    def alternate(self, batch: Batch, optim: Optimizers, at: Progress) -> dict[str, Tensor]:
        name = "head" if at.iteration % 2 else "trunk"
        losses = self.losses(batch, at)
        optim.step(losses["id"], name)
        return losses


def triplet(x: Tensor, label: Tensor) -> Tensor:
    """Batch-hard triplet loss over the rows of all ranks."""
    x, label = distributed.gather(x), distributed.gather(label)
    distance = (x[:, None] - x[None]).square().sum(-1).clamp_min(1e-12).sqrt()
    same = label[:, None] == label[None]
    positive = distance.masked_fill(~same, -1).amax(1)
    negative = distance.masked_fill(same, float("inf")).amin(1)
    return F.softplus(positive - negative).mean()


def stages() -> tuple[Recipe, Recipe]:
    return recipe(2), recipe(3, step="alternate", schedule=Constant())


def small(dtype: torch.dtype = torch.float32, **settings: float) -> Small:
    torch.manual_seed(3)
    return Small(PIDS, (1, 2), **settings).to(dtype)


def torchrun(script: str, *words: str) -> None:
    """Run a file in two processes under torchrun, which takes a free port; its output is shown where it fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", script, *words]
    support, package = Path(__file__).parent, Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{package}{os.pathsep}{support}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


class DoubleData(TrainingData):
    """The real thing, its images in float64, so that two ways of adding can be told from a mistake."""

    def batches(self, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        return (replace(batch, images=batch.images.double()) for batch in super().batches(recipe, at))


def pictures(root: Path) -> TrainingData:
    """Training data from picture files: four people, four images of each in each modality."""
    made = table()
    for row, name in enumerate(made.path):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.RandomState(row).randint(0, 256, (32, 16, 3), dtype=np.uint8)
        Image.fromarray(noise // 2 + np.uint8(made.pid[row])).save(root / name)
    made = replace(made, root=root)
    rank, world = distributed.rank(), distributed.world()
    return DoubleData(made, rank=rank, world=world, cache_folder=root / f"cache{rank}", progress=False)


def published(name: str) -> tuple[Method, Recipe]:
    """A published method, tiny and in float64, and two epochs of its own recipe."""
    kind = find(name)
    torch.manual_seed(5)
    method = kind(PIDS, (1, 2), width=4, blocks=(1, 1, 1, 1)).double()
    own = kind.recipe if isinstance(kind.recipe, Recipe) else kind.recipe[0]
    return method, replace(own, size=(32, 16), epochs=2, sampler=replace(own.sampler, pids=4, images=2))


def train_published(folder: Path, root: Path, **options: object) -> None:
    for name in ("agw", "cajl"):
        method, own = published(name)
        train(method, pictures(root), folder / name, recipes=own, progress=False, log_every=1, **options)


if __name__ == "__main__":  # started by torchrun or to be killed: small_training.py RUN {twice PICTURES|held|whole}
    torch.set_num_threads(1)
    if sys.argv[2] == "twice":
        from two_processes import compare_in_two_processes

        distributed.start()
        compare_in_two_processes()
        (Path(sys.argv[1]).parent / f"compared_{distributed.rank()}").touch()
        double = torch.float64
        train(small(double), SmallData(double), sys.argv[1], progress=False)  # pyright: ignore[reportArgumentType]
        train_published(Path(sys.argv[1]), Path(sys.argv[3]) / str(distributed.rank()))
        distributed.stop()
    else:

        class Slow(SmallData):
            def batches(self, recipe: Recipe, at: Progress) -> Iterator[Batch]:
                print("training", flush=True)
                for batch in super().batches(recipe, at):
                    time.sleep(0.01)
                    yield batch
                if sys.argv[2] == "held" and (at.stage, at.epoch) == (1, 2):
                    sys.stdin.read()  # it does not end before it is killed, however late that is

        method = small(dropout=0.2)
        train(method, Slow(), sys.argv[1], recipes=stages(), resume=True, log_every=1, progress=False)  # pyright: ignore
