"""The cost of the data path beside the cost of a training step, both on the CPU in one run.

Data path: rows of the sampler, gather from the memory map, copy, and all of CAJL's transforms (crop, flip, normalize,
erase, exchange) for three views of 32 pictures at 288 x 144. Step: one AGW step (ResNet-50, batch of 64; a CAJL step
has 96 and takes half as long again, so the printed share is the larger one). The data path runs while nothing else
does; in training it works ahead in a thread of its own.

    python benchmarks/data_path.py            writes benchmarks/results/data_path.txt
    python benchmarks/data_path.py --steps 0  the data path alone
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe
from PIL import Image

from vireid.data.pipeline import TrainingData
from vireid.data.table import Table, table_from_columns
from vireid.data.transforms import (
    ChannelExchange,
    ChannelJitter,
    Erase,
    Flip,
    Normalize,
    PadCrop,
    RankGenerator,
    Sample,
)
from vireid.method import Progress, Transform
from vireid.types import INFRARED, VISIBLE

RESULT = Path(__file__).parent / "results" / "data_path.txt"
PEOPLE, IMAGES = 64, 8  # 1,024 pictures
LIMIT = 0.10  # the share of a step that the data path may take


def table_of_noise(root: Path) -> Table:
    """Small noise pictures; the cache makes them 288 x 144."""
    random = np.random.RandomState(0)
    modality = np.repeat([VISIBLE, INFRARED], PEOPLE * IMAGES)
    names = [f"{row}.bmp" for row in range(len(modality))]
    for name in names:
        Image.fromarray(random.randint(0, 256, (72, 36, 3), dtype=np.uint8)).save(root / name)
    columns = {
        "path": names,
        "pid": np.tile(np.repeat(np.arange(PEOPLE), IMAGES), 2),
        "camid": modality + 1,
        "modality": modality,
        "split": ["train"] * len(names),
    }
    return table_from_columns(root, columns, dataset="noise")


def seconds(work: Callable[[], object], times: int) -> float:
    """Seconds per call, the first one left out."""
    work()
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def transform_times(table: Table) -> list[str]:
    """Milliseconds of each transform on one view of 32 pictures."""
    generator = RankGenerator().of_batch(0, whole=32, first=0)
    rows = np.random.RandomState(0).randint(0, len(table), 32)
    pixels = TrainingData(table, progress=False)._load((288, 144), "lanczos")
    assert isinstance(pixels, np.ndarray)

    def gather() -> Sample:
        return {"images": torch.from_numpy(np.asarray(pixels)[rows]).permute(0, 3, 1, 2)}

    lines, sample = [f"  {'gather':16} {1e3 * seconds(gather, 20):7.2f} ms"], gather()
    steps: list[Transform] = [PadCrop(), Flip(), Normalize(), Erase(), ChannelExchange(), ChannelJitter()]
    for step in steps:
        taken = seconds(lambda step=step, sample=sample: step(sample, generator), 20)
        lines.append(f"  {type(step).__name__:16} {1e3 * taken:7.2f} ms")
        sample = step(sample, generator)
    return lines


def data_path(table: Table, batches: int) -> float:
    """Seconds per batch of 96 from the sampler to normalized, augmented images."""
    from vireid.methods.cajl import CAJL

    recipe = CAJL.recipe
    assert not isinstance(recipe, tuple)
    data, at = TrainingData(table, progress=False), Progress()

    def epoch() -> int:
        return sum(1 for _ in data.batches(recipe, at))

    return seconds(epoch, max(1, round(batches / epoch()))) / at.iterations_per_epoch


def step_time(table: Table, steps: int) -> float:
    """Seconds of one AGW training step on a batch of 64."""
    from vireid.methods.agw import AGW
    from vireid.training.optim import Optimizers

    recipe, at = AGW.recipe, Progress()
    assert not isinstance(recipe, tuple)
    method = AGW(num_pids=PEOPLE)
    optim = Optimizers(method.params(), recipe)
    batch = next(TrainingData(table, progress=False).batches(recipe, at))
    return seconds(lambda: method.step(batch, optim, at), steps)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    words.add_argument("--steps", type=int, default=2, help="training steps to time; 0 leaves the step out")
    words.add_argument("--batches", type=int, default=50, help="batches to time")
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = table_of_noise(Path(folder))
        lines = [
            describe(),
            "one view of 32 pictures, 288 x 144:",
            *transform_times(table),
        ]
        path_s = data_path(table, given.batches)
        lines.append(f"data path, CAJL batch of 96:        {1e3 * path_s:10.1f} ms")
        print("\n".join(lines), flush=True)
        if not given.steps:
            return
        step_s = step_time(table, given.steps)
    ratio = path_s / step_s
    more = [
        f"training step, AGW, batch of 64:    {1e3 * step_s:10.1f} ms",
        f"data path / step:                   {100 * ratio:10.2f} %   (must be below {100 * LIMIT:.0f} %)",
    ]
    print("\n".join(more))
    RESULT.parent.mkdir(exist_ok=True)
    partial = RESULT.with_suffix(".partial")
    partial.write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
    partial.replace(RESULT)
    if ratio >= LIMIT:
        raise SystemExit(f"the data path takes {100 * ratio:.1f} % of a step, at most {100 * LIMIT:.0f} % is allowed")


if __name__ == "__main__":
    main()
