"""HOG: against a slow reading of the paper pixel by pixel, what it does not see, and its row in a table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vireid.data import datasets
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.hog import hog, hog_embeddings
from vireid.synthetic.make import make


def slow_hog(gray: np.ndarray) -> list[float]:
    """One picture, pixel by pixel: votes to the two directions around the gradient's, blocks one after the other."""
    height, width = gray.shape
    root = [[math.sqrt(value) for value in line] for line in gray.tolist()]
    cells = [[[0.0] * 9 for _ in range(width // 8)] for _ in range(height // 8)]
    for y in range(height // 8 * 8):
        for x in range(width // 8 * 8):
            up, down, left, right = max(y - 1, 0), min(y + 1, height - 1), max(x - 1, 0), min(x + 1, width - 1)
            dy = (root[down][x] - root[up][x]) / (down - up)
            dx = (root[y][right] - root[y][left]) / (right - left)
            degrees = math.degrees(math.atan2(dy, dx)) % 180
            first = int(degrees // 20)
            share = degrees / 20 - first
            cells[y // 8][x // 8][first % 9] += math.hypot(dx, dy) * (1 - share)
            cells[y // 8][x // 8][(first + 1) % 9] += math.hypot(dx, dy) * share
    vector: list[float] = []
    for r in range(height // 8 - 1):
        for c in range(width // 8 - 1):
            block = [*cells[r][c], *cells[r][c + 1], *cells[r + 1][c], *cells[r + 1][c + 1]]
            for limit in (0.2, math.inf):
                length = math.sqrt(sum(value**2 for value in block) + 1e-6)
                block = [min(value / length, limit) for value in block]
            vector += block
    return vector


def test_equals_the_slow_reference():
    gray = np.random.default_rng(0).integers(0, 256, (3, 34, 27)).astype(np.uint8)  # no multiples of 8
    gray[2] = np.linspace(0, 255, 27).astype(np.uint8)  # one direction only
    vectors = hog(gray)
    assert vectors.shape == (3, 3 * 2 * 36) and vectors.dtype == np.float32
    for vector, picture in zip(vectors, gray, strict=True):
        np.testing.assert_allclose(vector, slow_hog(picture), atol=2e-5)


def test_does_not_see_polarity_nor_contrast():
    root = np.random.default_rng(1).uniform(0, 10, (1, 32, 32))
    there = hog(root**2)
    np.testing.assert_allclose(hog((10 - root) ** 2), there, atol=1e-4)
    np.testing.assert_allclose(hog((root / 2) ** 2), there, atol=1e-4)
    assert np.abs(hog(np.swapaxes(root, 1, 2) ** 2) - there).max() > 0.05


def test_shapes_are_checked():
    with pytest.raises(ArgumentError, match=r"\(N, H, W\).*got \(32, 32\)"):
        hog(np.zeros((32, 32)))
    with pytest.raises(ArgumentError, match="16 pixels"):
        hog(np.zeros((1, 32, 15)))
    assert not hog(np.full((1, 16, 16), 7)).any()  # a flat picture has no direction


def test_finds_people_across_the_modalities(tmp_path):
    root = make(tmp_path / "set", people=24, images_per_camera=1, size=(64, 32), workers=1, masks=False)
    table = datasets.load(f"sysu={root}").where("test")
    embeddings = hog_embeddings(table, progress=False)
    assert embeddings.vectors.shape == (len(table), 15 * 7 * 36)
    protocol = datasets.protocol("sysu/all/single-shot", table)
    results = evaluate(embeddings, protocol)
    assert results.rows[0].stamp["layer"] == "HOG" and results.rows[0].stamp["size"] == "128x64 lanczos"
    random = np.random.default_rng(0).normal(size=(len(table), 64)).astype(np.float32)
    assert results.mean["mAP"] > evaluate(Embeddings(random, table), protocol).mean["mAP"] + 0.05
    with pytest.raises(DataError, match="no rows"):
        hog_embeddings(table[:0])
