"""What each method costs beside AGW, all in one run at the published sizes: parameters, multiply-adds, milliseconds.

    python benchmarks/method_cost.py [METHOD]...        writes benchmarks/results/method_cost.txt (default: all)
    python benchmarks/method_cost.py --without-steps    writes method_cost_images.txt, in a tenth of the time

A training step is one on 2 people x 1 picture x 2 modalities of the synthetic set, every stage of a method on its own
line; an image is one of a batch of 2 through the deployed embedder. AGW is measured first and last, and the ratio is to
the mean of the two, which are both shown: their difference tells how quiet the machine was. Multiply-adds are those of
matrix products and convolutions, counted by torch. A method that refines another run's embeddings has no network of its
own for pictures and is left to its own benchmark.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from machine import describe
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vireid.data.datasets import load
from vireid.data.pipeline import TrainingData
from vireid.deploy.onnx import examples
from vireid.method import Method, Progress, Recipe
from vireid.methods import find, names
from vireid.synthetic.make import make
from vireid.training.optim import Optimizers

PEOPLE, CAMERAS = 395, (1, 2, 3, 4, 5, 6)  # the identities and cameras that SYSU-MM01 trains with
STEPS, IMAGES = 1, 2
REFINERS = ("nformer",)


@dataclass
class Cost:
    """Of one method."""

    trained: int
    deployed: int
    multiply_adds: int  # of one image
    image_ms: float
    step_ms: list[float]  # by stage


def seconds(work: Callable[[], object], times: int) -> float:
    """The least of several tries after one that is not counted."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def measure(name: str, data: TrainingData, steps: bool) -> Cost:
    kind = find(name)
    torch.manual_seed(0)
    method = kind(PEOPLE, CAMERAS)
    recipe = kind.recipe_for("sysu")
    stages = recipe if isinstance(recipe, tuple) else (recipe,)
    step_ms = [1000 * step_seconds(method, stage, index, data) for index, stage in enumerate(stages)] if steps else []
    embedder = method.embedder.eval()
    size = stages[-1].size
    images = torch.randint(0, 256, (IMAGES, 3, *size), dtype=torch.uint8)
    modality = torch.arange(IMAGES) % 2
    inputs = [x.repeat(IMAGES // 2, 1, 1, 1) for x in examples(embedder, size)]
    with torch.no_grad():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # else attention is not counted
            embedder(images[:1], modality[:1], *(value[:1] for value in inputs))
        image_ms = 1000 * seconds(lambda: embedder(images, modality, *inputs), STEPS) / IMAGES
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    deployed = sum(p.numel() for p in embedder.parameters())
    return Cost(trained, deployed, counter.get_total_flops() // 2, image_ms, step_ms)


def step_seconds(method: Method, recipe: Recipe, stage: int, data: TrainingData) -> float:
    small = {field.name for field in dataclasses.fields(recipe.sampler)} & {"pids", "images"}  # pyright: ignore
    sampler = dataclasses.replace(recipe.sampler, **{"pids": 2, "images": 1} if len(small) == 2 else {})  # pyright: ignore
    recipe = dataclasses.replace(recipe, sampler=sampler)
    batch = next(iter(method.batches(data, recipe, Progress(stage=stage))))
    late = Progress(stage=stage, epoch=recipe.epochs - 1, epochs=recipe.epochs)  # when every loss and bank is at work
    optim, step = Optimizers(method.params(), recipe), getattr(method, recipe.step)
    method.train()

    def work() -> None:
        step(batch, optim, late)
        method.after_step(late)

    return seconds(work, STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--without-steps", action="store_true")
    steps = not parser.parse_args().without_steps
    chosen = parser.parse_args().methods or [name for name in names() if name not in REFINERS]
    with tempfile.TemporaryDirectory() as folder:
        root = make(Path(folder) / "night", "sysu", people=24, images_per_camera=2, masks=False)
        data = TrainingData(load(f"sysu={root}").where(("train", "val")), progress=False)
        lines = [describe(), __doc__.split("\n\n")[2].replace("\n", " "), ""] if __doc__ else []
        lines.append(HEADER)
        print(HEADER)
        first, found = measure("agw", data, steps), {}
        for name in (name for name in chosen if name != "agw"):
            found[name] = measure(name, data, steps)
            print("\n".join(row(name, found[name], first)), flush=True)
        last = measure("agw", data, steps)
    step_ms = [sum(both) / 2 for both in zip(first.step_ms, last.step_ms, strict=True)]
    mean = replace(first, image_ms=(first.image_ms + last.image_ms) / 2, step_ms=step_ms)
    lines += [*row("agw, first", first, mean), *row("agw, last", last, mean)]
    lines += [line for name, own in found.items() for line in row(name, own, mean)]
    target = Path(__file__).parent / "results" / ("method_cost.txt" if steps else "method_cost_images.txt")
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


HEADER = (
    f"{'method':12} {'trained M':>10} {'deployed M':>11} {'G mult-adds':>12} {'ms/image':>9} {'/ AGW':>6} "
    f"{'ms/step':>9} {'/ AGW':>6}"
)


def row(name: str, own: Cost, agw: Cost) -> list[str]:
    """The table's lines of one method, one for each of its stages."""
    found = []
    for stage, step_ms in enumerate(own.step_ms or [None]):
        label = name if len(own.step_ms) < 2 else f"{name} {stage + 1}"
        step = "" if step_ms is None else f" {step_ms:9.0f} {step_ms / agw.step_ms[0]:6.2f}"
        found.append(
            f"{label:12} {own.trained / 1e6:10.2f} {own.deployed / 1e6:11.2f} {own.multiply_adds / 1e9:12.2f} "
            f"{own.image_ms:9.1f} {own.image_ms / agw.image_ms:6.2f}{step}"
        )
    return found


if __name__ == "__main__":
    main()
