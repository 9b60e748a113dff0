"""The protocols of the mixed gallery and normalized scores, against plain loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vireid.data import datasets
from vireid.data.mixed_gallery import expanded
from vireid.data.table import Table, table_from_columns
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate, ranked_rows
from vireid.evaluation.rerank import KReciprocal

PEOPLE, DIM = 12, 8


def table(dataset: str = "manifest") -> Table:
    """Three pictures of each person by each of six cameras, as SYSU-MM01 numbers them."""
    cameras = np.tile(np.repeat([1, 2, 3, 4, 5, 6], 3), PEOPLE)
    pid = np.repeat(np.arange(PEOPLE), 18)
    columns = {
        "path": [f"{p}/{n}.jpg" for n, p in enumerate(pid)],
        "pid": pid,
        "camid": cameras,
        "modality": np.isin(cameras, (3, 6)).astype(int),
        "split": ["test"] * len(pid),
        "frame": np.arange(len(pid)) % 5,
    }
    return table_from_columns(Path("toy"), columns, dataset)


def embeddings(dataset: str = "manifest") -> Embeddings:
    """People plus a strong common direction of each modality: wrong pictures of one's own modality come first."""
    random, rows = np.random.default_rng(0), table(dataset)
    person, modality = random.standard_normal((PEOPLE, DIM)), 3 * random.standard_normal((2, DIM))
    vectors = person[rows.pid] + modality[rows.modality] + 0.7 * random.standard_normal((len(rows), DIM))
    return Embeddings(vectors.astype(np.float32), rows, {"layer": "neck"})


def means(given: Embeddings) -> np.ndarray:
    """(2, 2) mean similarity of different pictures of each pair of modalities."""
    unit = given.vectors / np.linalg.norm(given.vectors, axis=1, keepdims=True)
    similarity, kinds, found = unit @ unit.T, given.table.modality, np.zeros((2, 2))
    for one in (0, 1):
        for other in (0, 1):
            pair = (kinds[:, None] == one) & (kinds == other) & ~np.eye(len(kinds), dtype=bool)
            found[one, other] = similarity[pair].mean()
    return found


def slow_figures(given: Embeddings, cross_modal: bool, normalized: bool, room: bool) -> tuple[float, float]:
    """Rank 1 and mAP by a loop over queries."""
    rows, unit = given.table, given.vectors / np.linalg.norm(given.vectors, axis=1, keepdims=True)
    first, precision = [], []
    for q in range(len(rows)):
        score = (unit @ unit[q]).astype(np.float64)
        if normalized:
            score -= means(given)[rows.modality[q]][rows.modality]
        counts = rows.camid != rows.camid[q]
        if room and rows.camid[q] in (2, 3):
            counts &= ~np.isin(rows.camid, (2, 3))
        if cross_modal:
            counts &= ~((rows.pid == rows.pid[q]) & (rows.modality == rows.modality[q]))
        right = (rows.pid == rows.pid[q])[counts][np.argsort(-score[counts])]
        first.append(right[0])
        places = np.flatnonzero(right) + 1
        precision.append(np.mean(np.arange(1, len(places) + 1) / places))
    return float(np.mean(first)), float(np.mean(precision))


@pytest.mark.parametrize("dataset", ["manifest", "sysu"])
def test_the_four_figures_are_those_of_a_plain_loop_and_normalization_finds_more_across(dataset):
    given, found = embeddings(dataset), {}
    for name in expanded([f"{dataset}/mixed-gallery"]):
        _, _, counted, scores = name.split("/")
        [row] = evaluate(given, datasets.protocol(name, given.table)).rows
        rank1, mean_precision = slow_figures(given, counted == "cross-modal", scores == "normalized", dataset == "sysu")
        assert row.metrics.rank1 == pytest.approx(rank1) and row.metrics.mAP == pytest.approx(mean_precision)
        assert row.metrics.num_queries == len(given.table) and ("scores" in row.stamp) is (scores == "normalized")
        assert ("between cameras 2 and 3" in row.stamp["ignored"]) is (dataset == "sysu")
        found[counted, scores] = row.metrics.mAP
    assert found["cross-modal", "normalized"] > 1.5 * found["cross-modal", "raw"]


def test_ranked_rows_of_a_normalized_protocol_are_in_its_order():
    given = embeddings()
    rows = given.table
    protocol = datasets.protocol("manifest/mixed-gallery/all/normalized", rows)
    unit = given.vectors / np.linalg.norm(given.vectors, axis=1, keepdims=True)
    score = unit @ unit[7] - means(given)[rows.modality[7]][rows.modality]
    order = [at for at in np.argsort(-score) if rows.camid[at] != rows.camid[7]]
    assert ranked_rows(given, protocol, k=9, queries=np.array([7]))[0].tolist() == order[:9]


def test_rules_of_a_manifest_and_names_that_are_unknown():
    given = table()
    protocol = datasets.protocol("manifest/mixed-gallery/all/raw/ignore-frame", given)
    assert protocol.name.endswith("/all/raw/ignore-frame") and "same frame" in protocol.stamp["ignored"]
    [(queries, gallery)] = protocol.trials(given)
    mask = protocol.ignore(given[queries], given[gallery])
    expected = (given.camid[:, None] == given.camid) | (given.extras["frame"][:, None] == given.extras["frame"])
    assert mask is not None and np.array_equal(mask, expected)
    with pytest.raises(ArgumentError, match="did you mean 'sysu/mixed-gallery/all/raw'"):
        datasets.protocol("sysu/mixed-gallery/all/row", table("sysu"))
    with pytest.raises(ArgumentError, match="the mixed gallery is sysu/mixed-gallery"):
        datasets.protocol("sysu/all/mixed-gallery", table("sysu"))
    with pytest.raises(ArgumentError, match="`ignore` belongs to manifest"):
        datasets.protocol("sysu/mixed-gallery/all/raw", table("sysu"), ["frame"])
    assert not any("mixed-gallery" in name for name in datasets.protocols_for(table("sysu")))  # only where it is named


def test_what_cannot_be_normalized_is_said():
    given = embeddings()
    protocol = datasets.protocol("manifest/mixed-gallery/all/normalized", given.table)
    with pytest.raises(ArgumentError, match="leave the re-ranking out"):
        evaluate(given, protocol, rerank=KReciprocal())
    few = given[np.r_[np.flatnonzero(given.table.modality == 0), np.flatnonzero(given.table.modality == 1)[:29]]]
    with pytest.raises(DataError, match="30 or more infrared images in the gallery, there are 29"):
        evaluate(few, protocol)
    visible = replace(given.table, modality=np.zeros(len(given.table), np.int64))
    with pytest.raises(DataError, match="infrared ones are missing"):
        protocol.trials(visible)
