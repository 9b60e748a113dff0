"""Demo: the pipeline on a laptop: make data, train three methods from a pretrained start, evaluate, write a report.

The table begins with what needs no training on these people: chance, HOG, and the model `night` where this version
comes with it. AGW, CAJL and contrast start from EfficientNet-Lite0 with weights of ImageNet (the extra `weights`), and
are trained for two epochs each, CAJL with a third view of every visible picture. The report on the three runs
holds the same table, and figures where the extra `figures` is installed.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from vireid import models
from vireid.data import datasets
from vireid.data.table import Table
from vireid.deploy.bundle_config import WEIGHTS
from vireid.deploy.model import bundle_of
from vireid.evaluation.embed import Embeddings, embed
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.floors import hog
from vireid.evaluation.results import NAME, Results
from vireid.layers.embedder import load_embedder
from vireid.layers.weights import locate
from vireid.synthetic.make import make
from vireid.workflows.draw import report
from vireid.workflows.options import TrainOptions
from vireid.workflows.report import REPORT
from vireid.workflows.run_rows import split_rows
from vireid.workflows.side_by_side import results_of
from vireid.workflows.train import train_with

log = logging.getLogger(__name__)
PEOPLE, SEED = 1100, 0  # many people with few pictures each: people are what is learned from
IMAGES, TEST_IMAGES = 1, 2  # a camera; with one picture of each test person all draws of the gallery would be equal
SIZE = (192, 96)  # of the pictures, which the methods read at 128 x 64
PICTURES = 4  # queries in a picture of ranked lists
PROTOCOLS = ("sysu/all/single-shot", "sysu/indoor/single-shot")
SHIPPED = "night"
START = "imagenet-lite0"  # what `imagenet` stands for with this backbone
SETTINGS = (  # of all methods: few steps that change little of the start
    "backbone=lite0",
    "depth=11",
    "size=[128,64]",
    "epochs=2",
    "freeze=2",
    "frozen_norms=true",
    "optimizers.backbone=adamw",
    "optimizers.backbone.lr=0.0005",
    "optimizers.head=adamw",
    "optimizers.head.lr=0.005",
    "schedule=cosine",
    "schedule.per_epoch=false",
    "schedule.warmup_steps=50",
)
TRIPLET = (  # of AGW and CAJL, whose own values are for the long, positive vectors of a ResNet-50
    *SETTINGS,
    "attention=false",
    "pooling=average",
    "stripes=8",
    "unit_triplet=true",
    "sampler.pids=16",
    "sampler.images=2",
)
METHODS = {
    "agw": (*TRIPLET, *(f"views.{i}.transform.steps.0.pad=4" for i in (0, 1))),
    "cajl": (
        *TRIPLET,
        "square=false",  # the square of differences below 1 is a weak pull
        *(f"views.{i}.transform.steps.0.pad=4" for i in (0, 1, 2)),  # 4 of 64 columns are what 10 of 144 are
    ),
    "contrast": (*SETTINGS, "sampler.pids=32"),
}


def run_demo(root: Path, progress: bool = True) -> Results:
    """Run the demo in the folder `root` and return its table: chance, HOG, `night`, AGW, CAJL and contrast.

    Data and trainings that are there from an earlier call with the same settings are kept: it then takes seconds.
    Raises MissingPackage where the weights of the start are not installed.
    """
    began = time.monotonic()
    locate(START)  # before minutes of work
    images = {"images_per_camera": IMAGES, "test_images_per_camera": TEST_IMAGES}
    data = make(root / "data", "sysu", people=PEOPLE, seed=SEED, size=SIZE, masks=False, **images)
    log.info("wrote %s: %d synthetic identities, six cameras", data, PEOPLE)
    rows = split_rows(datasets.load(f"sysu={data}"))
    options = TrainOptions(resume=True, progress=progress, weights="imagenet")
    runs = [
        train_with(method, f"sysu={data}", root / method, options, words, as_recorded=False)
        for method, words in METHODS.items()
    ]
    for run in runs:
        run.evaluate(protocols=PROTOCOLS, pictures=PICTURES, progress=progress)
    table = Results((), measured(hog(rows, progress=progress)).rows)
    if SHIPPED in models.names():
        table += measured(shipped(rows, progress))
    table = by_protocol(table + results_of([run.path for run in runs]))
    for run in runs:
        for picture in sorted((run.path / "figures").glob("*.png")):
            log.info("picture: %s", picture)
    paths = [run.path for run in runs]
    for lang, name in REPORT.items():
        log.info("report: %s", report(paths, root / name, lang, table))
    log.info("done in %.0f s; data, runs, tables and pictures are in %s", time.monotonic() - began, root)
    return table


def by_protocol(table: Results) -> Results:
    """The same rows, those of one protocol together."""
    return Results(tuple(sorted(table.rows, key=lambda row: PROTOCOLS.index(row.protocol))), table.floors)


def shipped(rows: Table, progress: bool) -> Embeddings:
    """What the model that comes with vireid makes of the test pictures, as it is."""
    embedder = load_embedder(bundle_of(SHIPPED).path / WEIGHTS)
    return embed(embedder, rows, progress=progress).stamped(**{NAME: SHIPPED, "trained on": "other synthetic people"})


def measured(embeddings: Embeddings) -> Results:
    """The lines of the table for these embeddings, whose stamp names them."""
    results = Results(())
    for protocol in PROTOCOLS:
        results += evaluate(embeddings, datasets.protocol(protocol, embeddings.table))
    return results
