"""One hit per track, against a plain loop over all rows: filters, marks, paging, re-ranking and nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from galleries import DIGEST, DRIVERS, exact, open_new, passes, records, unit

from vireid.evaluation.rerank import KReciprocal
from vireid.search import tracks as module
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import EVERYTHING, Filter, Record
from vireid.search.searcher import Marks, Searcher
from vireid.search.tracks import nearest_tracks, track_of

DIM = 16


def crowd(count: int = 120, tracks: int = 9) -> list[Record]:
    """Crops of a few tracks, much alike within one; the same numbers before two cameras; every tenth has no track."""
    centers = unit(2 * tracks, seed=5)
    found = []
    for n, record in enumerate(records(count)):
        camera, track = n % 2, n // 2 % tracks
        vector = centers[camera * tracks + track] + 0.1 * record.vector
        name = f"{track}" if n % 10 else ""
        where = {"camera": f"cam{camera}", "track": name, "modality": 0}
        found.append(replace(record, vector=(vector / np.linalg.norm(vector)).astype(np.float32), **where))
    return found


GIVEN = crowd()
ROWS = {record.id: record for record in GIVEN}


def best_of_tracks(query: np.ndarray, filter: Filter = EVERYTHING, without: set[Any] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Ids by likeness, the first of each (camera, track), the slow way."""
    seen, kept = set(without), []
    for id in exact(GIVEN, query, len(GIVEN), filter)[0]:
        record = ROWS[id]
        track = (record.camera, record.track) if record.track else ("alone", id)
        if track not in seen:
            seen.add(track)
            kept.append(id)
    return kept


@pytest.fixture
def searcher() -> Searcher:
    gallery = open_gallery("memory:", dim=DIM, bundle_digest=DIGEST)
    gallery.add(GIVEN)
    return Searcher(None, gallery)


def names(answer: Any) -> list[str]:
    return [hit.record.id for hit in answer.hits]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("filter", [EVERYTHING, Filter(cameras=("cam1",)), Filter(tags=("hat",), modality=0)])
def test_each_track_is_there_once_by_its_most_alike_crop(driver: str, filter: Filter, tmp_path: Any) -> None:
    gallery = open_new(driver, tmp_path)
    gallery.add(GIVEN)
    query = unit(1, seed=8)
    expected = best_of_tracks(query, filter)
    for k in (1, 7, len(GIVEN)):
        hits, cut = nearest_tracks(gallery, query, k, filter)
        assert [hit.record.id for hit in hits] == expected[:k] and not cut
    for hit in hits:
        assert np.array_equal(hit.record.vector, ROWS[hit.record.id].vector)
    assert len(expected) < sum(passes(record, filter) for record in GIVEN)
    gallery.close()


def test_a_track_that_fills_the_front_does_not_empty_the_list(searcher: Searcher) -> None:
    query = unit(1, seed=8)
    [first] = exact(GIVEN, query, 1)[0]
    near = [
        replace(ROWS[first], id=f"again {n}", vector=ROWS[first].vector, track="busy", camera="cam0") for n in range(70)
    ]
    searcher.gallery.add(near)
    plain = searcher.search_vectors(query, [0], 5)
    assert {hit.record.track for hit in plain.hits[1:]} == {"busy"}
    answer = searcher.search_vectors(query, [0], 5, per_track=True)
    assert len({track_of(hit.record) for hit in answer.hits}) == 5 == len(answer.hits)
    assert answer.stamp["hits"] == "one per track"


def test_what_is_looked_through_has_an_end_that_is_told(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 30)
    query = unit(1, seed=8)
    most = exact(GIVEN, query, 30)[0]
    hits, cut = nearest_tracks(searcher.gallery, query, 25, EVERYTHING)
    assert cut is True and {hit.record.id for hit in hits} < set(most)
    assert "most similar crops" in searcher.search_vectors(query, [0], 25, per_track=True).stamp["hits"]


def test_pages_of_tracks_join(searcher: Searcher) -> None:
    query = unit(1, seed=8)
    whole = names(searcher.search_vectors(query, [0], 30, per_track=True))
    assert whole == best_of_tracks(query)[:30]
    for k in range(1, 30, 7):
        assert names(searcher.search_vectors(query, [0], k, per_track=True)) == whole[:k]


def test_several_pictures_take_the_best_of_each_track(searcher: Searcher) -> None:
    queries = unit(3, seed=8)
    best = {id: max(float(record.vector @ query) for query in queries) for id, record in ROWS.items()}
    order = sorted(best, key=lambda id: -best[id])
    seen: set[Any] = set()
    expected = [id for id in order if not (track_of(ROWS[id]) in seen or seen.add(track_of(ROWS[id])))]
    assert names(searcher.search_vectors(queries, [0, 0, 1], 12, per_track=True, combine="best")) == expected[:12]


def test_a_wrong_mark_takes_its_track_away_and_a_right_one_moves_the_query(searcher: Searcher) -> None:
    query = unit(1, seed=8)
    first = next(id for id in best_of_tracks(query) if ROWS[id].track)
    marked = searcher.search_vectors(query, [0], 20, per_track=True, marks=Marks(wrong=(first,)))
    gone = track_of(ROWS[first])
    assert gone not in {track_of(hit.record) for hit in marked.hits} and len(marked.hits) == 20
    assert gone in {
        track_of(hit.record) for hit in searcher.search_vectors(query, [0], 60, marks=Marks(wrong=(first,))).hits
    }
    far = best_of_tracks(query)[-1]
    moved = names(searcher.search_vectors(query, [0], 40, per_track=True, marks=Marks(right=(far,))))
    assert moved.index(far) < best_of_tracks(query).index(far)


def test_a_shortlist_of_tracks_is_re_ranked(searcher: Searcher) -> None:
    import torch

    query, rerank = unit(1, seed=8), KReciprocal(k1=6, k2=2)
    shortlist = best_of_tracks(query)[:20]
    vectors = torch.from_numpy(np.stack([ROWS[id].vector for id in shortlist]))
    expected = rerank(torch.from_numpy(query), vectors).numpy()[0]
    answer = searcher.search_vectors(query, [0], 8, per_track=True, rerank=rerank, shortlist=20)
    assert names(answer) == [shortlist[at] for at in np.argsort(-expected, kind="stable")[:8]]
    assert answer.stamp["rerank"].endswith("of 20")


def test_nobody_looks_past_the_tracks_that_were_marked_wrong() -> None:
    class Calibrated:
        embedder = DIGEST

        def __init__(self, bar: float) -> None:
            self.bar = bar

        def probability(self, similarity, pair, prior=0.5):
            return similarity / 2 + 0.5

        def log_odds(self, similarity, pair, prior=0.5):
            return similarity

        def threshold(self, false_match_rate, pair):
            return self.bar

    gallery = open_gallery("memory:", dim=DIM, bundle_digest=DIGEST)
    gallery.add(GIVEN)
    query = next(record.vector for record in GIVEN if record.track)[None]
    [first, second] = best_of_tracks(query)[:2]
    bar = (float(ROWS[first].vector @ query[0]) + float(ROWS[second].vector @ query[0])) / 2

    def nobody(**more: Any) -> bool | None:
        return (
            Searcher(None, gallery, Calibrated(bar)).search_vectors(query, [0], 5, false_match_rate=0.1, **more).nobody
        )

    assert nobody(per_track=True) is False
    assert nobody(per_track=True, marks=Marks(wrong=(first,))) is True  # other crops of that track would reach the bar
    assert nobody(marks=Marks(wrong=(first,))) is False
