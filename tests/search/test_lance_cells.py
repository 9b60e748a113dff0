"""Cells of a segment: no list with a row that passes is skipped, and lists far from a filter are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vireid.search.drivers import lance_cells
from vireid.search.drivers.lance_cells import Cells
from vireid.search.gallery import EVERYTHING, Filter

ROWS, LIST_ROWS = 4000, 100
RANDOM = np.random.default_rng(0)
TIMES = {
    "spread": RANDOM.uniform(0, 1000, ROWS),
    "some unknown": np.where(RANDOM.random(ROWS) < 0.3, np.nan, RANDOM.uniform(0, 1000, ROWS)),
    "all unknown": np.full(ROWS, np.nan),
    "all equal": np.full(ROWS, 500.0),
    "few": RANDOM.choice([100.0, 200.0, 900.0], ROWS),
}
FILTERS = {
    "none": EVERYTHING,
    "infrared": Filter(modality=1),
    "window": Filter(after_s=200.0, before_s=300.0),
    "visible, from": Filter(modality=0, after_s=900.0),
    "one moment": Filter(after_s=500.0, before_s=500.001),
    "never": Filter(before_s=-1.0),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(lance_cells, "CELL_ROWS", 250)


def passing(where: Filter, modality: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    after = -np.inf if where.after_s is None else where.after_s
    before = np.inf if where.before_s is None else where.before_s
    known = (time_s >= after) & (time_s < before)
    timed = where.after_s is not None or where.before_s is not None
    return (known | ~np.full(ROWS, timed)) & ((modality == where.modality) | (where.modality is None))


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", FILTERS)
def test_every_row_that_passes_lies_in_a_list_that_is_looked_into(times, name):
    modality, where = RANDOM.integers(0, 2, ROWS), FILTERS[name]
    cells, cell = Cells.of(modality, TIMES[times], LIST_ROWS)
    looked = cells.lists_for(where)
    owner = np.repeat(np.arange(len(cells.modality)), np.diff(cells.lists))
    assert set(cell[passing(where, modality, TIMES[times])]) <= set(owner[looked])
    assert (cells.modality[cell] == modality).all() and len(owner) == cells.lists[-1]
    np.testing.assert_array_equal(np.diff(cells.lists), np.maximum(1, np.rint(np.bincount(cell) / LIST_ROWS)))


@pytest.mark.parametrize(
    ("name", "share"), [("none", 1.0), ("infrared", 0.5), ("window", 0.25), ("one moment", 0.15), ("never", 0.0)]
)
def test_a_filter_looks_into_few_lists(name, share):
    cells, _ = Cells.of(RANDOM.integers(0, 2, ROWS), TIMES["spread"], LIST_ROWS)
    assert len(cells.lists_for(FILTERS[name])) <= share * cells.lists[-1] + 1
    assert name == "never" or len(cells.lists_for(FILTERS[name]))


def test_they_come_back_from_a_file(tmp_path: Path):
    cells, _ = Cells.of(RANDOM.integers(0, 2, ROWS), TIMES["some unknown"], LIST_ROWS)
    cells.save(tmp_path / "cells")
    again = Cells.load(tmp_path / "cells")
    for name in ("modality", "first_s", "last_s", "lists"):
        np.testing.assert_array_equal(getattr(again, name), getattr(cells, name))
