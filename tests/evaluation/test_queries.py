"""The figures of every query: equal to the averages of the table, kept in queries.csv, re-ranked where requested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_protocol import PROTOCOL, plain
from toy_tables import toy_embeddings

from vireid.errors import DataError
from vireid.evaluation.evaluate import evaluate, evaluate_queries, ranked_rows
from vireid.evaluation.queries import COLUMNS, read_queries, write_queries
from vireid.evaluation.rerank import KReciprocal


def test_averages_of_the_queries_are_the_figures_of_the_trial() -> None:
    embeddings = toy_embeddings(noise=1.5)
    results, queries = evaluate_queries(embeddings, PROTOCOL)
    assert results == evaluate(embeddings, PROTOCOL) and len(queries) == len(results.rows) == 3
    for row, one in zip(results.rows, queries, strict=True):
        valid = one.first_rank > 0
        assert (len(valid), int(valid.sum())) == (row.metrics.num_queries, row.metrics.num_valid)
        assert np.isnan(one.AP[~valid]).all() and np.nanmean(one.AP) == pytest.approx(row.metrics.mAP)
        assert np.nanmean(one.INP) == pytest.approx(row.metrics.mINP)
        assert one.nearest.shape == (len(valid), 0 if one.trial else 10)


def test_nearest_images_are_those_of_the_ranked_list() -> None:
    embeddings = toy_embeddings(noise=1.5)
    one = evaluate_queries(embeddings, PROTOCOL, nearest=25)[1][0]
    listed = ranked_rows(embeddings, PROTOCOL, k=25)
    width = one.nearest.shape[1]
    assert np.array_equal(one.nearest, listed[:, :width]) and (listed[:, width:] == -1).all()
    gallery = PROTOCOL.trials(embeddings.table)[0][1]
    values = plain(embeddings, PROTOCOL, 0, "cosine")
    place = {int(row): number for number, row in enumerate(gallery)}
    for query in range(0, len(one.queries), 7):
        for row, value in zip(one.nearest[query], one.similarity[query], strict=True):
            assert row == -1 or value == pytest.approx(values[query, place[int(row)]], abs=1e-5)


def test_the_file_keeps_other_conditions_and_drops_other_networks(tmp_path: Path) -> None:
    path, embeddings = tmp_path / "queries.csv", toy_embeddings(noise=1.5).stamped(embedder="one", images="i")
    plain_ones = evaluate_queries(embeddings, PROTOCOL)[1]
    write_queries(path, plain_ones)
    lines = list(read_queries(path))
    assert len(lines) == sum(len(one.queries) for one in plain_ones)
    first = plain_ones[0]
    assert lines[0]["query"] == first.table.path[first.queries[0]] and float(lines[0]["AP"]) == pytest.approx(
        first.AP[0], abs=1e-6
    )
    assert lines[0]["nearest_1"] == first.table.path[first.nearest[0, 0]] and lines[-1]["nearest_1"] == ""
    reranked = evaluate_queries(embeddings, PROTOCOL, rerank=KReciprocal(5, 2))[1]
    write_queries(path, reranked)
    write_queries(path, reranked)  # takes the place of its own lines alone
    both = list(read_queries(path))
    assert len(both) == 2 * len(lines) and both[len(lines) :] == lines
    assert both[0]["rerank"].startswith("k-reciprocal") and both[-1]["rerank"] == "none"
    write_queries(path, evaluate_queries(embeddings.stamped(embedder="two"), PROTOCOL)[1])
    assert {line["embedder"] for line in read_queries(path)} == {"two"}
    assert [file.name for file in tmp_path.iterdir()] == ["queries.csv"]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queries.csv"
    with pytest.raises(DataError, match="vireid evaluate"):
        list(read_queries(path))
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"line 1: .*missing: protocol, trial, .*; unknown: a, b\."):
        list(read_queries(path))
    path.write_text(",".join(COLUMNS) + "\n1,2\n")
    with pytest.raises(DataError, match=r"line 2: expected 29 cells like the header"):
        list(read_queries(path))
