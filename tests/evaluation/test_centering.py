"""Vectors without what their modality has in common, and the pairs that are read from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vireid.data.datasets import protocol
from vireid.data.table import table_from_columns
from vireid.evaluation.centering import MIN_ROWS, centered, centered_embeddings, modality_means
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.pseudo_pairs import pseudo_pairs

DIM = 32


def people(count: int, images: int = 1, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors, modality and pid: each modality's pictures lie about a center of their own."""
    random = np.random.default_rng(0)
    person, side = random.standard_normal((count, DIM)), 6 * random.standard_normal((2, DIM))
    pid = np.tile(np.repeat(np.arange(count), images), 2)
    modality = np.repeat([0, 1], count * images)
    vectors = person[pid] + side[modality] + noise * random.standard_normal((len(pid), DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), modality, pid


def embeddings_of(count: int, scale: float = 1.0) -> Embeddings:
    vectors, modality, pid = people(count)
    columns = {
        "path": [f"{row}.jpg" for row in range(len(pid))], "pid": pid, "camid": modality + 1, "modality": modality,
        "split": ["test"] * len(pid),
    }  # fmt: skip
    return Embeddings(scale * vectors, table_from_columns(Path("."), columns, "manifest"), {"layer": "neck"})


def test_each_modality_loses_its_own_mean() -> None:
    vectors, modality, _ = people(40)
    means = modality_means(vectors, modality)
    moved = centered(vectors, modality, means)
    assert np.linalg.norm(moved, axis=1) == pytest.approx(1.0, abs=1e-6)
    for kind in (0, 1):
        assert means[kind] == pytest.approx(vectors[modality == kind].mean(0), abs=1e-6)
        row = np.flatnonzero(modality == kind)[3]
        difference = vectors[row] - vectors[modality == kind].mean(0)
        assert moved[row] == pytest.approx(difference / np.linalg.norm(difference), abs=1e-5)


def test_centered_figures_find_people_that_the_modality_hides_and_say_so() -> None:
    given = embeddings_of(MIN_ROWS, scale=3.0)  # the length does not count
    chosen = protocol("manifest/infrared-to-visible", given.table)
    raw, moved = (evaluate(one, chosen) for one in (given, centered_embeddings(given)))
    assert moved.mean["R1"] > 0.9 > raw.mean["R1"]
    assert moved.rows[0].stamp["center"] == "mean of each modality of these images (transductive)"
    assert "center" not in raw.rows[0].stamp


def test_few_images_are_left_as_they_are() -> None:
    given = embeddings_of(MIN_ROWS - 1)
    same = centered_embeddings(given)
    assert np.array_equal(same.vectors, given.vectors)
    assert same.stamp["center"] == f"none (49 visible and 49 infrared rows, {MIN_ROWS} of each modality needed)"


def test_pairs_are_reciprocal_and_the_most_similar_first() -> None:
    vectors, modality, pid = people(60, images=2)
    pairs = pseudo_pairs(vectors, modality, np.arange(len(pid)))
    assert len(pairs) > 40 and (np.diff(pairs.similarity) <= 0).all()
    assert (modality[pairs.visible] == 0).all() and (modality[pairs.infrared] == 1).all()
    assert (pid[pairs.visible] == pid[pairs.infrared]).mean() > 0.9
    unit = centered(vectors, modality, modality_means(vectors, modality))
    similarity = unit[modality == 0] @ unit[modality == 1].T
    assert len(set(pairs.visible)) == len(set(pairs.infrared)) == len(pairs)
    for visible, infrared in zip(pairs.visible, pairs.infrared - (modality == 0).sum(), strict=True):
        assert similarity[visible].argmax() == infrared and similarity[:, infrared].argmax() == visible


def test_groups_are_compared_by_their_mean() -> None:
    vectors, modality, pid = people(60, images=4, noise=1.0)
    alone = pseudo_pairs(vectors, modality, np.arange(len(pid)))
    tracks = pseudo_pairs(vectors, modality, pid + 1000 * modality)
    assert (tracks.visible == tracks.infrared - 1000).mean() > (pid[alone.visible] == pid[alone.infrared]).mean()
    assert (tracks.visible == tracks.infrared - 1000).sum() > 50


def test_one_modality_has_no_pairs() -> None:
    vectors, modality, _ = people(5)
    assert len(pseudo_pairs(vectors[modality == 0], modality[modality == 0], np.arange(5))) == 0
