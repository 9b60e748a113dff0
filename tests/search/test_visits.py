"""Visits: tracks of one camera joined to passages, passages grouped into visits, and what is left out."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from galleries import DIGEST, DRIVERS, open_new
from hypothesis import given
from hypothesis import strategies as st

from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Gallery, Record
from vireid.search.searcher import Answer, Marks, Searcher, SearchOptions
from vireid.search.visits import Passage, VisitOptions, Visits, find_visits, spans_of, visits_of

DIM, THRESHOLD = 16, 0.8
PERSON = np.eye(DIM, dtype=np.float32)[0]


class Bar:
    """A calibration with one threshold at every rate."""

    embedder = DIGEST

    def log_odds(self, similarity: Any, pair: Any, prior: float = 0.5) -> Any:
        return 10 * np.asarray(similarity)

    def probability(self, similarity: Any, pair: Any, prior: float = 0.5) -> Any:
        return np.clip(similarity, 0, 1)

    def threshold(self, false_match_rate: float, pair: Any) -> float:
        return THRESHOLD


def row(name: str, camera: str, time_s: float, track: str = "", similarity: float = 0.95) -> Record:
    vector = np.zeros(DIM, np.float32)
    vector[0], vector[1 + len(name) % 14] = similarity, math.sqrt(1 - similarity**2)
    return Record(name, vector, camera, time_s, 0, "", track)


def visits_in(gallery: Gallery, rate: float | None = 0.01, marks: Marks = Marks(), k: int = 2, **words: Any) -> Visits:  # noqa: B008
    searcher = Searcher(None, gallery, Bar())
    options = SearchOptions(per_track=True, false_match_rate=rate, marks=marks)

    def search(count: int) -> Answer:
        return searcher.search_vectors(PERSON[None], [0], count, options=options)

    return find_visits(search, gallery, options=VisitOptions(**words), right=marks.right, k=k)


def filled(*rows: Record) -> Gallery:
    gallery = open_gallery("memory:", dim=DIM, bundle_digest=DIGEST)
    gallery.add(rows)
    return gallery


def spans(visits: Visits) -> list[list[tuple[str, float, float]]]:
    return [[(one.camera, one.first_s, one.last_s) for one in visit.passages] for visit in visits.visits]


def test_tracks_are_joined_across_segments_and_passages_grouped_by_the_gap() -> None:
    gallery = filled(
        row("a1", "gate", 596.0, "v#0000-3", 0.9), row("a2", "gate", 599.0, "v#0000-3"),
        row("a3", "gate", 601.0, "v#0001-1", 0.97), row("a4", "gate", 640.0, "v#0001-1", 0.85),
        row("b1", "hall", 700.0, "7"), row("c1", "gate", 9000.0, "v#0015-2"),
        row("other", "gate", 650.0, "v#0001-2", 0.3),
    )  # fmt: skip
    visits = visits_in(gallery)
    assert spans(visits) == [[("gate", 596.0, 640.0), ("hall", 700.0, 700.0)], [("gate", 9000.0, 9000.0)]]
    first = visits.visits[0].passages[0]
    assert first.tracks == (("gate", "v#0000-3"), ("gate", "v#0001-1")) and first.rows == 4
    assert first.best.record.id == "a3" and visits.visits[0].cameras == ("gate", "hall")
    assert visits.complete and not visits.undated and not visits.simultaneous
    assert len(spans(visits_in(gallery, gap_s=50))) == 3 and len(spans(visits_in(gallery, gap_s=9000))) == 1
    assert [one[0] for one in spans(visits_in(gallery, join_s=1))[0]] == ["gate", "gate", "hall"]


def test_of_two_tracks_at_the_same_time_the_more_similar_one_is_the_person() -> None:
    gallery = filled(
        row("a", "gate", 10.0, "1", 0.99), row("aa", "gate", 20.0, "1", 0.9),
        row("bbb", "gate", 15.0, "2", 0.95), row("cccc", "hall", 15.0, "1", 0.95),
    )  # fmt: skip
    visits = visits_in(gallery)
    assert spans(visits) == [[("gate", 10.0, 20.0), ("hall", 15.0, 15.0)]]
    assert [hit.record.id for hit in visits.simultaneous] == ["bbb"]


def test_rows_without_a_time_are_reported_and_rows_without_a_track_stand_for_themselves() -> None:
    visits = visits_in(filled(row("a", "gate", math.nan, "1"), row("bb", "gate", 5.0), row("ccc", "gate", 8.0)))
    assert [hit.record.id for hit in visits.undated] == ["a"]
    assert spans(visits) == [[("gate", 5.0, 8.0)]] and len(visits.passages[0].tracks) == 2


def test_all_matches_are_taken_however_few_are_requested_first() -> None:
    gallery = filled(*(row(f"r{n}", f"camera {n}", 100.0 * n, "t") for n in range(150)))
    assert len(visits_in(gallery, k=2).passages) == 150


def test_without_a_threshold_the_most_similar_tracks_are_taken_and_a_right_mark_counts() -> None:
    gallery = filled(*(row("r" * (n + 1), "gate", 100.0 * n, f"{n}", 0.9 - 0.1 * n) for n in range(5)))
    assert len(visits_in(gallery, rate=None, k=3).passages) == 3
    assert len(visits_in(gallery, k=5).passages) == 2
    assert {one.best.record.id for one in visits_in(gallery, marks=Marks(right=("rrrr",)), k=5).passages} == {
        "r", "rr", "rrrr"
    }  # fmt: skip
    nobody = visits_in(filled(row("a", "gate", 1.0, "1", 0.2)))
    assert nobody.visits == () and nobody.answer.nobody


@pytest.mark.parametrize("driver", DRIVERS)
def test_spans_of_many_tracks_are_those_of_their_rows(driver: str, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("vireid.search.visits.NAMES", 3)
    gallery = open_new(driver, tmp_path)
    rows = [row(f"{n}", f"camera {n % 3}", 10.0 * n, f"{n // 6 % 4}") for n in range(60)]
    gallery.add(rows)
    for track, span in spans_of(gallery, rows, Filter(after_s=100.0)).items():
        times = [one.time_s for one in rows if (one.camera, one.track) == track and one.time_s >= 100]
        assert (span.first_s, span.last_s, span.rows) == (min(times), max(times), len(times))
    gallery.close()


passages = st.builds(
    lambda camera, first, length: Passage(camera, first, first + length, (), 1, None),  # type: ignore[arg-type]
    st.sampled_from(["gate", "hall"]), st.integers(0, 2000), st.integers(0, 300),
)  # fmt: skip


@given(st.lists(passages, max_size=12), st.integers(1, 400))
def test_visits_are_the_finest_grouping_without_a_longer_gap_inside(given: list[Passage], gap: int) -> None:
    visits = visits_of(given, gap)
    assert sorted(map(id, given)) == sorted(id(one) for visit in visits for one in visit.passages)
    for before, after in pairwise(visits):
        assert after.first_s - before.last_s > gap
    for visit in visits:
        covered = visit.passages[0].last_s
        for one in visit.passages[1:]:
            assert one.first_s - covered <= gap
            covered = max(covered, one.last_s)
