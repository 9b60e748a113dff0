"""A protocol over the toy tables and what the slow evaluator expects of it."""

from __future__ import annotations

import numpy as np
import pytest
from slow_evaluator import slow_figures

from vireid.data.protocol import Protocol
from vireid.types import INFRARED, VISIBLE


def camera_3_ignores_2(query, gallery):
    return (query.camid[:, None] == 3) & (gallery.camid == 2)


def draws(table, count=3, size=20):
    queries, visible = np.flatnonzero(table.modality == INFRARED), np.flatnonzero(table.modality == VISIBLE)
    return [(queries, np.random.default_rng(t).choice(visible, size, replace=False)) for t in range(count)]


PROTOCOL = Protocol("toy/drawn", draws, camera_3_ignores_2, cmc_over_pids=True, stamp={"draw": "toy"})


def expect(row, embeddings, protocol, similarity):
    queries, gallery = list(protocol.trials(embeddings.table))[row.trial]
    ignored = protocol.ignore(embeddings.table[queries], embeddings.table[gallery])
    pid = embeddings.table.pid
    cmc, mean_ap, mean_inp, valid = slow_figures(
        similarity, pid[queries], pid[gallery], ignored, protocol.cmc_over_pids
    )
    np.testing.assert_allclose(row.metrics.cmc, cmc, atol=1e-6)
    assert (row.metrics.mAP, row.metrics.mINP) == (pytest.approx(mean_ap, abs=1e-6), pytest.approx(mean_inp, abs=1e-6))
    assert (row.metrics.num_queries, row.metrics.num_valid, row.num_gallery) == (len(queries), valid, len(gallery))


def plain(embeddings, protocol, trial, similarity):
    queries, gallery = (
        embeddings.vectors[rows].astype(float) for rows in list(protocol.trials(embeddings.table))[trial]
    )
    if similarity == "cosine":
        queries, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
        return queries @ gallery.T
    return -((queries[:, None] - gallery) ** 2).sum(2)
