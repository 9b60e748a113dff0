"""All that only a GPU shows, in one run of under ten minutes: first whether it is right, then how fast it is.

Checks, against the CPU of the same machine; a failed one ends the run:

    step          losses of one AGW step in float32
    embeddings    smallest cosine between the vectors of one network
    evaluation    mAP of the same vectors
    re-ranking    k-reciprocal similarities of the same vectors

Figures: how many operations a second the product of two matrices reaches, in float32 (TF32 off) and bfloat16; training
as in training.py in float32, in bfloat16, and in bfloat16 compiled, with the share of that limit that a step's
operations are; embedding; evaluation at SYSU-MM01's size; re-ranking of 10,000 vectors. Training keeps its pixels on
the card, as it does there by itself. One card and one process.

    python benchmarks/gpu.py                        writes benchmarks/results/gpu.txt
    python benchmarks/gpu.py --device cpu --small   a try without a GPU; writes nothing
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from evaluation import rule, table_of, vectors_of
from machine import describe
from torch.utils.flop_counter import FlopCounterMode
from training import METHODS, line_of, rates, recipe_for, table_of_noise, wait

from vireid.data.pipeline import TrainingData
from vireid.data.protocol import Protocol
from vireid.data.table import Table
from vireid.evaluation.embed import Embeddings, embed
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.rerank import KReciprocal
from vireid.method import Progress
from vireid.methods import find
from vireid.system import choose_device
from vireid.types import INFRARED, VISIBLE

RESULT = Path(__file__).parent / "results" / "gpu.txt"
WAYS = (("float32", False), ("bfloat16", False), ("bfloat16", True))  # precision, compiled


def check(what: str, value: float, limit: float, largest: bool = True) -> str:
    """A line about a checked value; SystemExit where it is beyond its limit."""
    good = value <= limit if largest else value >= limit
    line = f"  {what:14}{value:12.2e}   ({'at most' if largest else 'at least'} {limit:g})"
    if not good:
        raise SystemExit(f"wrong on this device:\n{line}")
    return line


def seconds(act: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """Seconds of the fastest of some calls, after one that is not counted."""
    act()
    found = []
    for _ in range(times):
        start = wait(device)
        act()
        found.append(wait(device) - start)
    return min(found)


def one_draw(queries: int, gallery: int, dim: int) -> tuple[Embeddings, Protocol]:
    """Made-up vectors of infrared queries and a visible gallery, and a protocol of one trial on them."""
    table = table_of(queries, gallery, 96)
    draw = [(np.arange(queries), queries + np.arange(gallery))]
    return Embeddings(vectors_of(table, dim), table), Protocol("benchmark", lambda _: draw, rule, cmc_over_pids=True)


def checks(table: Table, device: torch.device) -> Iterator[str]:
    """The lines of the four checks."""
    recipe = recipe_for("agw", 8, 1)
    here = find("agw")(num_pids=8, camids=(1, 2))
    there = copy.deepcopy(here).to(device)
    losses = []
    for method, where in ((here, torch.device("cpu")), (there, device)):
        batch = next(iter(TrainingData(table, device=where, progress=False).batches(recipe, Progress())))
        with torch.no_grad():
            losses.append({name: float(loss) for name, loss in method.losses(batch, Progress()).items()})
    apart = max(abs(losses[1][name] / value - 1) for name, value in losses[0].items())
    yield check("step", apart, 1e-3)
    rows = table[np.arange(0, len(table), 8)]
    vectors = [
        torch.from_numpy(embed(method.embedder, rows, recipe.picture_size, progress=False).vectors)
        for method in (here, there)
    ]
    yield check("embeddings", float(torch.cosine_similarity(vectors[0], vectors[1]).min()), 0.9999, largest=False)
    embeddings, protocol = one_draw(300, 300, 64)
    means = [evaluate(embeddings, protocol, device=where).summaries[0].mean["mAP"] for where in ("cpu", device)]
    yield check("evaluation", abs(means[0] - means[1]), 1e-4)
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings.vectors), dim=1)
    one, other = (KReciprocal()(unit[:300].to(where), unit[300:].to(where)).cpu() for where in ("cpu", device))
    yield check("re-ranking", float(((one - other).abs() > 1e-4).float().mean()), 0.01)


def matrix_limit(device: torch.device, kind: torch.dtype, side: int) -> float:
    """Floating-point operations a second of the product of two square matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, 10)


def operations(name: str, people: int) -> int:
    """Floating-point operations that one picture costs in a training step: those of the forward pass, three times."""
    method, (height, width) = find(name)(num_pids=people, camids=(1, 2)), recipe_for(name, people, 1).picture_size
    images, modality = torch.zeros(2, 3, height, width), torch.tensor([VISIBLE, INFRARED])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method.eval().embedder.layers(images, modality)
    # in evaluation both stems see every picture: a few percent too many
    return 3 * counter.get_total_flops() // 2


def training(table: Table, given: argparse.Namespace, device: torch.device) -> Iterator[str]:
    """Lines of training.py, and AGW's share of the matrix limit."""
    yield f"{'':10}{'rows':>10}{'last':>10}{'vireid':>10}{'data':>10}{'vireid / best':>16}{'vireid / data':>16}"
    for precision, compiled in WAYS[: 1 if given.small else None]:
        given.precision, given.compile = precision, compiled
        yield f"  {given.precision}{', compiled' if given.compile else ''}"
        kind = torch.bfloat16 if given.precision == "bfloat16" else torch.float32
        limit = matrix_limit(device, kind, 512 if given.small else 8192)
        for name in METHODS:
            found = dict(rates(name, table, given, device))
            share = found["vireid"] * operations(name, given.people) / limit
            yield f"{line_of(name, found)}   {100 * share:.0f} % of the matrix limit of {limit / 1e12:.1f} TFLOP/s"


def others(table: Table, device: torch.device, small: bool) -> Iterator[str]:
    """Embedding, evaluation and re-ranking."""
    network, size = find("agw")(num_pids=8, camids=(1, 2)).embedder.to(device), recipe_for("agw", 8, 1).picture_size
    rows = table[np.arange(len(table)).repeat(1 if small else 8)]
    taken = seconds(lambda: embed(network, rows, size, batch_size=128, progress=False), device, 1)
    yield f"embedding       AGW, {size[0]} x {size[1]}: {len(rows) / taken:.0f} images/s, pictures from the pixel cache"
    queries, gallery, dim = (300, 300, 64) if small else (3803, 3010, 2048)
    embeddings, protocol = one_draw(queries, gallery, dim)
    taken = seconds(lambda: evaluate(embeddings, protocol, device=device), device)
    yield f"evaluation      {queries} x {gallery} x {dim}: {taken:.3f} s"
    images = 500 if small else 10_000
    unit = torch.nn.functional.normalize(torch.randn(images, 512, device=device), dim=1)
    cut = images * 38 // 100
    taken = seconds(lambda: KReciprocal()(unit[:cut], unit[cut:]), device, 1)
    yield f"k-reciprocal    {images} x 512: {taken:.2f} s"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda")
    words.add_argument("--small", action="store_true", help="sizes that a CPU does; writes nothing")
    given = words.parse_args()
    device = choose_device(given.device)
    given.people, given.epochs, given.seconds = (8, 2, 1.0) if given.small else (64, 3, 8.0)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no card"
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say(f"{describe()}, {card}")
    with tempfile.TemporaryDirectory() as folder:
        table = table_of_noise(Path(folder), given.people)
        say("checks against the CPU")
        for part in (checks(table, device), training(table, given, device), others(table, device, given.small)):
            for line in part:
                say(line)
    if not given.small:
        RESULT.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
