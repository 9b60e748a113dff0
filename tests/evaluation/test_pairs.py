"""Pairs by modality, and the camera matrix, against slow loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from toy_tables import toy_embeddings

from vireid.evaluation.camera_matrix import camera_matrix
from vireid.evaluation.metrics import measure
from vireid.evaluation.pairs import KINDS, Pairs, compared, pairs


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_every_pair_counts_once_but_not_within_a_camera(similarity: str) -> None:
    given = toy_embeddings(noise=1.0)
    embeddings = type(given)(given.vectors, given.table, given.stamp, similarity)  # pyright: ignore[reportArgumentType]
    table, by_kind = embeddings.table, pairs(embeddings)
    expected: dict[tuple[str, bool], list[float]] = {}
    for a, b in combinations(range(len(table)), 2):
        same = bool(table.pid[a] == table.pid[b])
        if same and table.camid[a] == table.camid[b]:
            continue
        kind = next(
            k for k, v in KINDS.items() if sorted(v) == sorted((int(table.modality[a]), int(table.modality[b])))
        )
        x, y = (embeddings.vectors[i].astype(float) for i in (a, b))
        value = x @ y / np.linalg.norm(x) / np.linalg.norm(y) if similarity == "cosine" else -np.square(x - y).sum()
        expected.setdefault((kind, same), []).append(float(value))
    assert by_kind.keys() == {kind for kind, same in expected if same} and by_kind
    for kind, values in by_kind.items():
        for same, measured in ((True, values.same), (False, values.other)):
            np.testing.assert_allclose(np.sort(measured), np.sort(expected[kind, same]), rtol=1e-3, atol=1e-4)


def test_overlap_is_0_of_apart_and_1_of_equal_densities() -> None:
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    assert Pairs(values, values).overlap == pytest.approx(1) and Pairs(values, values - 100).overlap == 0
    assert Pairs(values, values + 1).overlap == pytest.approx(0.617, abs=0.04)  # 2 Phi(-1/2)


def test_people_are_drawn_whole() -> None:
    few = pairs(toy_embeddings(), max_pictures=30)
    assert 0 < sum(len(v.same) for v in few.values()) < sum(len(v.same) for v in pairs(toy_embeddings()).values())


def test_camera_matrix_is_the_metric_of_each_pair_of_cameras() -> None:
    embeddings = toy_embeddings(noise=1.5)
    matrix, table = camera_matrix(embeddings), embeddings.table
    assert sorted(matrix.cameras) == table.camids.tolist() and list(matrix.modalities) == sorted(
        matrix.modalities, reverse=True
    )
    for i, query in enumerate(matrix.cameras):
        for j, gallery in enumerate(matrix.cameras):
            q, g = np.flatnonzero(table.camid == query), np.flatnonzero(table.camid == gallery)
            values = compared(embeddings.vectors[q], embeddings.vectors[g], "cosine")
            try:
                expected = measure(values, table.pid[q], table.pid[g], q[:, None] == g[None, :])
            except ValueError:  # none of the queries has a match
                assert np.isnan(matrix.rank1[i, j])
                continue
            assert (matrix.rank1[i, j], matrix.mAP[i, j]) == (expected.rank1, expected.mAP)
