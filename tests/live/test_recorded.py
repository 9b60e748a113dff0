"""Limits of a watch-list from recorded passages: as many as the budget allows, never above the calibration's."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from watched import DIM, calibrated, person, row, rows_of, turned

from vireid.errors import SettingsError
from vireid.live import recorded
from vireid.live.recorded import recorded_limit
from vireid.live.watchlist import Listed, WatchList
from vireid.search.drivers.memory import MemoryGallery
from vireid.search.gallery import Filter, Record
from vireid.types import VISIBLE

PASSAGES, ROWS = 600, 5  # 3,000 rows; at a false-match rate of 0.01 (threshold 0.7) these allow 30 alarms


def passages(best: np.ndarray) -> list[Record]:
    """A passage of ROWS rows for each similarity, which its middle row has, just now."""
    rows = []
    for number, similarity in enumerate(best.tolist()):
        for place, less in enumerate((0.2, 0.1, 0.0, 0.1, 0.2)):
            one = row(f"{number}/{place}", similarity - less)
            rows.append(replace(one, time_s=time.time() - 60, track=f"track {number}"))
    return rows


def opened(rows: list[Record], rows_per_day: int = 100) -> WatchList:
    gallery = MemoryGallery(DIM, "")
    gallery.add([row("known", 1.0, modality=VISIBLE), *rows])
    listed = Listed(Path("list.yaml"), {"anna": person()}, rows_per_day, 60.0, None, None)
    return WatchList.open(listed, None, gallery, calibrated(), ("gate",))  # type: ignore[arg-type]


def test_as_many_recorded_passages_reach_the_limit_as_the_budget_allows() -> None:
    best = np.linspace(0.3, 0.6, PASSAGES)
    given = opened(passages(best))
    [one] = given.wanted
    limit = given.threshold(one, (VISIBLE, 1))
    assert (best >= limit - 1e-6).sum() == 30 and limit == pytest.approx(best[-30], abs=1e-6)
    assert rows_of(given.events([row("below", limit - 0.01), row("above", limit + 0.01)])) == ["above"]


def test_somebody_who_passes_often_does_not_raise_the_limit() -> None:
    given = opened(passages(np.r_[np.full(40, 0.99), np.linspace(0.3, 0.6, PASSAGES - 40)]))
    assert given.threshold(given.wanted[0], (VISIBLE, 1)) == 0.7  # the calibration's


def test_too_few_recorded_rows_and_old_ones_say_nothing() -> None:
    rows = passages(np.linspace(0.3, 0.6, PASSAGES))
    assert not opened(rows[: -3 * ROWS]).recorded
    given = opened(rows)
    gallery = MemoryGallery(DIM, "")
    gallery.add(rows)
    given.follow(gallery, ("gate",), now=time.time() + recorded.RECORDED_S + 1)
    assert not given.recorded


def test_what_was_not_looked_at_counts_as_the_last_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MAX_ROWS", 40)
    other = np.eye(DIM, dtype=np.float32)[1]  # a second picture, of which 40 passages have rows
    few = [replace(one, vector=one.vector[[0, 2, 3, 1]]) for one in passages(np.full(20, 0.9))]
    more = [replace(row(f"b{place}", 0.0), vector=turned(0.5)[[2, 0, 1, 3]], track=f"b{place}") for place in range(40)]
    gallery = MemoryGallery(DIM, "")
    gallery.add(few + more)
    limit = recorded_limit(
        np.stack([turned(1.0), other]), np.array([VISIBLE, VISIBLE]), gallery, Filter(), calibrated(), 30 / 140
    )
    assert limit == pytest.approx(-8 + 12 * 0.8, abs=1e-4)  # the 40th row of the first picture


def test_recordings_support_a_budget_that_the_calibration_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = passages(np.linspace(0.3, 0.6, PASSAGES))
    with pytest.raises(SettingsError, match=r"goes down to 0\.001"):
        opened(rows, rows_per_day=2000)
    monkeypatch.setattr(recorded, "NEEDED", 1)
    assert opened(rows, rows_per_day=2000).over_budget() == []
