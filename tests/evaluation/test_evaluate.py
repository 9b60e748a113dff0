"""evaluate and ranked_rows against the slow evaluator, trial by trial."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_protocol import PROTOCOL, draws, expect, plain
from toy_tables import toy_embeddings

from vireid.data.protocol import Protocol
from vireid.errors import DataError
from vireid.evaluation import evaluate as module
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate, ranked_rows
from vireid.evaluation.rerank import KReciprocal
from vireid.types import INFRARED, VISIBLE


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("block_bytes", [1 << 28, 200])
def test_every_trial_equals_the_slow_evaluator(monkeypatch, similarity, block_bytes):
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    embeddings = toy_embeddings()
    results = evaluate(embeddings, PROTOCOL, similarity=similarity)
    assert [row.trial for row in results.rows] == [0, 1, 2]
    for row in results.rows:
        expect(row, embeddings, PROTOCOL, plain(embeddings, PROTOCOL, row.trial, similarity))
        assert row.stamp == {
            "layer": "neck", "flip": "none", "dataset": "toy", "draw": "toy",
            "similarity": similarity, "refine": "none", "rerank": "none",
        }  # fmt: skip


def test_trials_with_other_queries_are_kept_apart():
    def turned(table):
        return [(g, q) if t % 2 else (q, g) for t, (q, g) in enumerate(draws(table, 4))]

    embeddings = toy_embeddings()
    protocol = Protocol("toy/turned", turned)
    for row in evaluate(embeddings, protocol).rows:
        expect(row, embeddings, protocol, plain(embeddings, protocol, row.trial, "cosine"))


def test_exchanged_roles_are_not_the_other_direction():
    """LLCM's released test compares the drawn gallery with all queries for its second direction: other figures."""

    def one_each(table):
        visible = np.flatnonzero(table.modality == VISIBLE)
        _, first = np.unique(table.pid[visible], return_index=True)
        return [(np.flatnonzero(table.modality == INFRARED), visible[first])]

    honest = Protocol("toy/infrared-to-visible", one_each, cmc_over_pids=True)
    exchanged = Protocol("toy/exchanged", lambda t: [(g, q) for q, g in one_each(t)], cmc_over_pids=True)
    embeddings = toy_embeddings(noise=1.5)
    similarity = plain(embeddings, honest, 0, "cosine")
    (row,), (turned,) = evaluate(embeddings, honest).rows, evaluate(embeddings, exchanged).rows
    expect(row, embeddings, honest, similarity)
    expect(turned, embeddings, exchanged, similarity.T)
    assert (row.metrics.num_queries, turned.metrics.num_queries) == (30, 6)
    # many right images in the gallery: the last of them is found late, which is how the mistake shows
    assert turned.metrics.mINP < row.metrics.mINP


def test_refine_and_rerank_see_one_trial_and_are_stamped():
    embeddings, seen = toy_embeddings(), []

    def halve(own: Embeddings) -> Embeddings:
        seen.append(len(own))
        return Embeddings(own.vectors[:, :4], own.table, own.stamp)

    results = evaluate(embeddings, PROTOCOL, refine=halve)
    assert seen == [50, 50, 50]  # 30 queries and 20 gallery images
    fewer = Embeddings(embeddings.vectors[:, :4], embeddings.table)
    for row in results.rows:
        expect(row, fewer, PROTOCOL, plain(fewer, PROTOCOL, row.trial, "cosine"))
        assert row.stamp["refine"] == "halve"

    rerank = KReciprocal(5, 3)
    for row in evaluate(embeddings, PROTOCOL, rerank=rerank).rows:
        q, g = (embeddings.vectors[rows] for rows in draws(embeddings.table)[row.trial])
        q, g = (torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in (q, g))
        expect(row, embeddings, PROTOCOL, rerank(q, g).numpy())
        assert row.stamp["rerank"] == "k-reciprocal k1=5 k2=3 weight=0.3"


def test_faulty_steps_are_refused():
    embeddings = toy_embeddings()
    with pytest.raises(ValueError, match="same 50 rows"):
        evaluate(embeddings, PROTOCOL, refine=lambda e: e[:-1])
    with pytest.raises(ValueError, match=r"rerank must return \(30, 20\), got \(20, 30\)"):
        evaluate(embeddings, PROTOCOL, rerank=lambda q, g: g @ q.T)
    with pytest.raises(ValueError, match="NaN"):
        evaluate(embeddings, PROTOCOL, refine=lambda e: Embeddings(e.vectors * np.float32("nan"), e.table))


def test_bad_embeddings_and_protocols_are_named():
    embeddings = toy_embeddings()
    vectors = embeddings.vectors.copy()
    vectors[[3, 7], 1] = [np.nan, np.inf]
    with pytest.raises(ValueError, match=r"2 of 60 embeddings hold NaN or infinity, the first is that of cam\d/0003"):
        evaluate(replace(embeddings, vectors=vectors), PROTOCOL)
    with pytest.raises(ValueError, match="no trial for this table"):
        evaluate(embeddings, Protocol("toy/none", lambda t: []))
    with pytest.raises(ValueError, match="gallery is empty"):
        evaluate(embeddings, Protocol("toy/empty", lambda t: [(np.arange(3), np.arange(0))]))
    with pytest.raises(ValueError, match="cosine"):
        evaluate(embeddings, PROTOCOL, similarity="dot")
    with pytest.raises(DataError, match="boolean mask"):
        evaluate(embeddings, replace(PROTOCOL, ignore=lambda q, g: np.zeros((1, len(g)), bool)))
    ours = replace(embeddings, table=replace(embeddings.table, partition="trial 3"))
    assert evaluate(ours, PROTOCOL).rows[0].stamp["partition"] == "trial 3"
    with pytest.raises(ValueError, match=r"partition 'trial 3'.*stamped 'trial 1'"):
        evaluate(ours.stamped(partition="trial 1"), PROTOCOL)


def test_vectors_that_tell_nothing_apart_are_reported(caplog):
    embeddings = toy_embeddings()
    equal = np.ones_like(embeddings.vectors)
    rounded = equal * (1 + 1e-7 * np.random.default_rng(0).standard_normal(equal.shape).astype(np.float32))
    for vectors in (equal, rounded):
        caplog.clear()
        row = evaluate(replace(embeddings, vectors=vectors), PROTOCOL).rows[0]
        assert row.stamp["embeddings"] == "all equal" and "all 59 embeddings are equal" in caplog.text
    row = evaluate(replace(embeddings, vectors=equal), PROTOCOL).rows[0]
    assert row.metrics.rank1 == 0  # all similarities are equal, and ties never help
    assert "embeddings" not in evaluate(embeddings, PROTOCOL).rows[0].stamp
    zero = embeddings.vectors.copy()
    zero[[4, 9]] = 0
    with pytest.raises(ValueError, match=r"2 of 59 embeddings are zero, the first is that of cam\d/0004"):
        evaluate(replace(embeddings, vectors=zero), PROTOCOL)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_ranked_rows(monkeypatch, similarity):
    monkeypatch.setattr(module, "BLOCK_BYTES", 400)
    embeddings = toy_embeddings()
    queries, gallery = draws(embeddings.table)[1]
    listed = ranked_rows(embeddings, PROTOCOL, trial=1, k=25, queries=queries[::2], similarity=similarity)
    assert listed.shape == (15, 25)
    similarities = plain(embeddings, PROTOCOL, 1, similarity)[::2]
    for query, row, values in zip(queries[::2], listed, similarities, strict=True):
        counts = np.ones(20, bool) if embeddings.table.camid[query] != 3 else embeddings.table.camid[gallery] != 2
        order = np.argsort(np.where(counts, -values, np.inf), kind="stable")[: counts.sum()]
        assert row[: counts.sum()].tolist() == gallery[order].tolist()
        assert (row[counts.sum() :] == -1).all()
    assert ranked_rows(embeddings, PROTOCOL, k=3).shape == (30, 3)
    with pytest.raises(ValueError, match="trials 0 to 2, got 3"):
        ranked_rows(embeddings, PROTOCOL, trial=3)
    with pytest.raises(ValueError, match="are not queries"):
        ranked_rows(embeddings, PROTOCOL, queries=gallery[:2])
