"""Demo: the whole way on a laptop: make data, train a small AGW and a small CAJL, evaluate, show table and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from vireid.commands.retrieval import evaluate_run, results_of
from vireid.commands.training import train_run
from vireid.datasets import protocols_for
from vireid.datasets.synthetic import make
from vireid.retrieval.embed import Embeddings
from vireid.retrieval.evaluate import evaluate
from vireid.retrieval.results import NAME, Results

PEOPLE, IMAGES, SEED = 60, 6, 0
PROTOCOLS = ("sysu/all/single-shot", "sysu/indoor/single-shot")
SETTINGS = (  # of both methods: a network of an eighth of ResNet-50's width on small images
    "width=16",
    "blocks=[1,1,1,1]",
    "size=[96,48]",
    "epochs=12",
    "sampler.pids=8",
    "sampler.images=4",
    "schedule.warmup_epochs=2",
    "schedule.milestones=[8,11]",
)
METHODS = {"agw": SETTINGS, "cajl": SETTINGS}


def run_demo(root: Path, progress: bool = True, say: Callable[[str], None] = print) -> Results:
    """Run the demo in the folder `root` and return its table: chance, AGW and CAJL.

    Data and trainings that are there from an earlier call with the same settings are kept: it then takes seconds.
    """
    began = time.monotonic()
    data = make(root / "data", "sysu", people=PEOPLE, images_per_camera=IMAGES, seed=SEED)
    say(f"wrote {data}: {PEOPLE} people who never were, six cameras")
    runs = {}
    for method, settings in METHODS.items():
        runs[method] = train_run(
            method, f"sysu={data}", run=root / method, settings=settings, resume=True, progress=progress, say=say
        )
        evaluate_run(runs[method], PROTOCOLS, progress=progress, say=say)
    table = chance(runs["agw"] / "embeddings" / "neck.npz") + results_of(list(runs.values()))
    for run in runs.values():
        for picture in sorted((run / "figures").glob("*.png")):
            say(f"picture: {picture}")
    say(f"done in {time.monotonic() - began:.0f} s; data, runs, tables and pictures are in {root}")
    return table


def chance(embeddings: Path) -> Results:
    """What vectors without any content reach on the same images."""
    import numpy as np

    real = Embeddings.load(embeddings)
    noise = np.random.RandomState(SEED).randn(len(real), 64).astype(np.float32)
    random = Embeddings(noise, real.table, {NAME: "chance", "layer": "random vectors"})
    found = Results(())
    for name in PROTOCOLS:
        found += evaluate(random, protocols_for(real.table)[name])
    return found
