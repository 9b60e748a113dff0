"""Images a second of training beside a plain loop of the same network, which is the limit, and beside the data path.

Of each method, in one run and in turn:

    rows     a plain loop in torch over one batch that lies ready: losses, backward, optimizer; images row by row
    last     the same, images channels last, as vireid lays them out on a CPU
    vireid   vireid's own loop: sampler, gather, transforms, checks, log, with the batches of a real epoch
    data     the batches of that epoch alone: what the loop could take if the network cost nothing

`vireid / best` is the share of the limit that is reached. On a CPU the best of both layouts is the limit. Pictures are
noise, weights are random: time does not depend on them.

    python benchmarks/training.py [--device cuda] [--precision bfloat16] [--compile] [--epochs 3]
                                                              writes benchmarks/results/training.txt
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import describe
from PIL import Image

from vireid.data.pipeline import TrainingData
from vireid.data.table import Table, table_from_columns
from vireid.method import Batch, Method, Progress, Recipe
from vireid.methods import find
from vireid.system import choose_device, keep_freed_memory
from vireid.training.frozen_backbone import hold, without_gradient
from vireid.training.loop import train
from vireid.training.optim import Optimizers
from vireid.types import INFRARED, VISIBLE

RESULT = Path(__file__).parent / "results" / "training.txt"
METHODS = ("agw", "contrast")  # ResNet-50 at its published size; the network of the models that come with vireid
IMAGES = 8  # of a person in each modality


def table_of_noise(root: Path, people: int) -> Table:
    """Small noise pictures, IMAGES of each person in each modality; the cache brings them to the method's size."""
    random = np.random.RandomState(0)
    modality = np.repeat([VISIBLE, INFRARED], people * IMAGES)
    names = [f"{row}.bmp" for row in range(len(modality))]
    for name in names:
        Image.fromarray(random.randint(0, 256, (72, 36, 3), dtype=np.uint8)).save(root / name)
    columns = {
        "path": names,
        "pid": np.tile(np.repeat(np.arange(people), IMAGES), 2),
        "camid": modality + 1,
        "modality": modality,
        "split": ["train"] * len(names),
    }
    return table_from_columns(root, columns, dataset="noise")


def recipe_for(name: str, epochs: int) -> Recipe:
    """The method's recipe."""
    recipe = find(name).recipe
    assert isinstance(recipe, Recipe)
    return replace(recipe, epochs=epochs)


def wait(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def plain(method: Method, recipe: Recipe, batch: Batch, seconds: float, precision: str) -> float:
    """Images a second of a plain loop over one batch, after two steps that are not counted."""
    device, at, steps = batch.images.device, Progress(), 0
    optim = Optimizers(method.params(), recipe).built.values()
    method.train()
    hold(method, recipe)
    with without_gradient(method, recipe):
        start = wait(device)
        while steps < 4 or wait(device) - start < seconds:
            if steps == 2:
                start = wait(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                loss = torch.stack(list(method.losses(batch, at).values())).sum()
            for optimizer in optim:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optim:
                optimizer.step()
            steps += 1
    return (steps - 2) * len(batch) / (wait(device) - start)


def rates(recipe: Recipe, name: str, table: Table, given: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Images a second by the names of the module's docstring."""
    device = choose_device(given.device)
    method = find(name)(num_pids=len(table.pids), camids=(1, 2)).to(device)
    data, at = TrainingData(table, device=device, progress=False), Progress()
    batch = next(iter(data.batches(recipe, at)))
    for layout, form in (("rows", torch.contiguous_format), ("last", torch.channels_last)):
        laid_out = replace(batch, images=batch.images.contiguous(memory_format=form))
        yield layout, plain(method, recipe, laid_out, given.seconds, given.precision)
    with tempfile.TemporaryDirectory() as run:
        folder = train(
            method, data, Path(run) / "run", recipes=recipe, precision=given.precision, compile=given.compile,
            progress=False,
        )  # fmt: skip
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    yield "vireid", max(line["images_per_s"] for line in log if line["event"] == "epoch" and line["epoch"])
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < given.seconds:
        images += sum(len(batch) for batch in data.batches(recipe, at))
    yield "data", images / (wait(device) - start)


def line_of(name: str, found: dict[str, float]) -> str:
    """One line of the result."""
    best = max(found["rows"], found["last"])
    shown = "".join(f"{rate:10.1f}" for rate in found.values())
    return f"{name:10}{shown}{found['vireid'] / best:16.2f}{found['vireid'] / found['data']:16.3f}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="auto")
    words.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    words.add_argument("--compile", action="store_true", help="compile the network in vireid's loop")
    words.add_argument("--epochs", type=int, default=3, help="epochs of vireid's loop; the best but the first counts")
    words.add_argument("--seconds", type=float, default=20, help="of each plain loop")
    given = words.parse_args()
    keep_freed_memory()  # as vireid's loop does, so that both sides have it
    lines = [
        describe(),
        f"images a second, {choose_device(given.device)}, {given.precision}{', compiled' if given.compile else ''}",
        f"{'':10}{'rows':>10}{'last':>10}{'vireid':>10}{'data':>10}{'vireid / best':>16}{'vireid / data':>16}",
    ]
    for name in METHODS:
        recipe = recipe_for(name, given.epochs)
        with tempfile.TemporaryDirectory() as folder:
            table = table_of_noise(Path(folder), recipe.sampler.pids)  # type: ignore[attr-defined]
            lines.append(line_of(name, dict(rates(recipe, name, table, given))))
    print("\n".join(lines))
    RESULT.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
