"""Floors: what needs no training under the same protocol, beside which a figure can be read: chance and HOG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vireid.data.protocol import Protocol
from vireid.data.table import Table
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.hog import hog_embeddings
from vireid.evaluation.results import NAME, Results

CHANCE, HOG = "chance", "HOG (no training)"
DIM = 64  # of the random vectors


def chance(table: Table, protocol: Protocol, seed: int = 0) -> Results:
    """What random vectors reach on the rows of the table, as rows named `chance`; errors as `evaluate`."""
    noise = np.random.RandomState(seed).randn(len(table), DIM).astype(np.float32)
    stamp = {NAME: CHANCE, "layer": "random vectors", "images": table.fingerprint}
    return evaluate(Embeddings(noise, table, stamp), protocol)


def hog(table: Table, folder: Path | None = None, progress: bool = True) -> Embeddings:
    """HOG vectors of the rows, named in their stamp; `folder` is that of the pixel cache. DataError, PictureError."""
    described = hog_embeddings(table, folder=folder, progress=progress)
    return described.stamped(**{NAME: HOG, "images": table.fingerprint})
