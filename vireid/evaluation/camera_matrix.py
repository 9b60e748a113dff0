"""Camera matrix: rank 1 and mAP of the pictures of one camera as queries among those of another one.

Every camera's pictures are queries and every camera's pictures a gallery, whatever the protocol of the data set says;
a picture does not search for itself. On the diagonal the matches are pictures of the same camera, which neighboring
frames make easy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.metrics import measure
from vireid.evaluation.pairs import compared
from vireid.types import MODALITIES

MAX_PICTURES = 1000  # of one camera as queries and as gallery


@dataclass(frozen=True)
class CameraMatrix:
    """Fractions by camera of the query (row) and of the gallery (column); NaN where no query has a match."""

    cameras: tuple[int, ...]
    modalities: tuple[str, ...]
    rank1: np.ndarray  # (C, C)
    mAP: np.ndarray  # (C, C)


def camera_matrix(embeddings: Embeddings, seed: int = 0) -> CameraMatrix:
    """Rank 1 and mAP of every pair of cameras; at most MAX_PICTURES pictures of each, drawn with `seed`.

    Raises ArgumentError where no camera's pictures have a match.
    """
    table, random = embeddings.table, np.random.default_rng(seed)
    rows = {int(camera): np.flatnonzero(table.camid == camera) for camera in table.camids}
    rows = {camera: np.sort(random.permutation(mine)[:MAX_PICTURES]) for camera, mine in rows.items()}
    cameras = sorted(rows, key=lambda camera: (int(table.modality[rows[camera][0]]), camera))
    rank1, mean_precision = (np.full((len(cameras), len(cameras)), np.nan) for _ in range(2))
    for i, query in enumerate(cameras):
        for j, gallery in enumerate(cameras):
            itself = rows[query][:, None] == rows[gallery][None, :]
            same = table.pid[rows[query]][:, None] == table.pid[rows[gallery]][None, :]
            if not (same & ~itself).any():
                continue
            values = compared(embeddings.vectors[rows[query]], embeddings.vectors[rows[gallery]], embeddings.similarity)
            figures = measure(values, table.pid[rows[query]], table.pid[rows[gallery]], itself)
            rank1[i, j], mean_precision[i, j] = figures.rank1, figures.mAP
    if np.isnan(rank1).all():
        raise ArgumentError("no person has two pictures, so no query has a match; take rows of a test split")
    modalities = tuple(MODALITIES[int(table.modality[rows[camera][0]])] for camera in cameras)
    return CameraMatrix(tuple(cameras), modalities, rank1, mean_precision)
