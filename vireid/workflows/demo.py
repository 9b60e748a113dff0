"""Demo: the pipeline on a laptop: make data, train a small AGW and a small CAJL, evaluate, show table and pictures."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from vireid.evaluation.results import Results
from vireid.synthetic.make import make
from vireid.workflows.compare import chance
from vireid.workflows.options import TrainOptions
from vireid.workflows.side_by_side import results_of
from vireid.workflows.train import train_with

log = logging.getLogger(__name__)
PEOPLE, IMAGES, SEED = 800, 2, 0  # many people with few pictures each: from scratch, people are what is learned from
PROTOCOLS = ("sysu/all/single-shot", "sysu/indoor/single-shot")
SETTINGS = (  # of both methods: a fourth of ResNet-50's width, four bottlenecks, a third of the image's sides
    "width=16",
    "blocks=[1,1,1,1]",
    "size=[96,48]",
    "sampler.pids=16",
    "sampler.images=2",
    "optimizers.backbone.lr=0.05",  # the published tenth of the head's rate is for pretrained weights
    "schedule.warmup_epochs=1",
)
METHODS = {
    "agw": (
        *SETTINGS,
        "epochs=8",
        "schedule.milestones=[6,7]",
        *(f"views.{i}.transform.steps.0.pad=3" for i in (0, 1)),
    ),
    "cajl": (
        *SETTINGS,
        "epochs=9",  # its pictures are harder: erased, and with exchanged channels
        "schedule.milestones=[7,8]",
        "square=false",  # the square slows the start from scratch, where differences are below 1
        *(f"views.{i}.transform.steps.0.pad=3" for i in (0, 1, 2)),  # 3 of 48 columns are what 10 of 144 are
    ),
}


def run_demo(root: Path, progress: bool = True) -> Results:
    """Run the demo in the folder `root` and return its table: chance, AGW and CAJL.

    Data and trainings that are there from an earlier call with the same settings are kept: it then takes seconds.
    """
    began = time.monotonic()
    data = make(root / "data", "sysu", people=PEOPLE, images_per_camera=IMAGES, seed=SEED, masks=False)
    log.info("wrote %s: %d synthetic identities, six cameras", data, PEOPLE)
    options, runs = TrainOptions(resume=True, progress=progress), {}
    for method, overrides in METHODS.items():
        runs[method] = train_with(method, f"sysu={data}", root / method, options, overrides, as_recorded=False)
        runs[method].evaluate(protocols=PROTOCOLS, progress=progress)
    table = chance(runs["agw"].path / "embeddings" / "neck.npz", PROTOCOLS, SEED)
    table += results_of([run.path for run in runs.values()])
    for run in runs.values():
        for picture in sorted((run.path / "figures").glob("*.png")):
            log.info("picture: %s", picture)
    log.info("done in %.0f s; data, runs, tables and pictures are in %s", time.monotonic() - began, root)
    return table
