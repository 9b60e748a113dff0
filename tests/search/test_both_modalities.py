"""Hits of both modalities in one list: order, matches, prior, and what is kept of the gallery, against plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from galleries import DIGEST, changed, records

from vireid.deploy.calibration import Calibration, Pair, Row
from vireid.evaluation.rerank import KReciprocal
from vireid.search import overview, tracks
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Gallery, Record
from vireid.search.searcher import Marks, Searcher

PEOPLE, SHOTS, DIM = 10, 4, 16
BARS = {"visible/visible": 0.8, "visible/infrared": 0.34, "infrared/infrared": 0.9}


def night() -> list[Record]:
    """SHOTS crops of each person by a visible and by an infrared camera; pictures of one modality are much alike."""
    random = np.random.default_rng(3)
    person, kind = random.standard_normal((PEOPLE, DIM)), 2 * random.standard_normal((2, DIM))
    rows = []
    for number, record in enumerate(records(PEOPLE * 2 * SHOTS)):
        who, modality = number // (2 * SHOTS), number % 2
        vector = person[who] + kind[modality] + 0.5 * random.standard_normal(DIM)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        where = {"camera": f"cam{modality}", "track": f"t{who}", "modality": modality, "pid": f"p{who}"}
        rows.append(changed(record, vector=vector, **where))
    return rows


GIVEN = night()
QUERY = next(record for record in GIVEN if record.modality == 1)
OTHERS = [record for record in GIVEN if record.id != QUERY.id]


def similarity(record: Record) -> float:
    return float(np.float32(record.vector.astype(np.float64) @ QUERY.vector.astype(np.float64)))


def calibration(**missing: Any) -> Calibration:
    def table(offset: float, slope: float, bar: float) -> Pair:
        rows = tuple(Row(threshold=bar, false_match_rate=rate, false_non_match_rate=0.1) for rate in (0.01,))
        return Pair(same_pairs=500, other_pairs=4000, people=40, offset=offset, slope=slope, cllr=0.5, rows=rows)

    lines = {"visible/visible": (-8, 9), "visible/infrared": (-6, 16), "infrared/infrared": (-16, 20)}
    pairs = {name: table(*line, BARS[name]) for name, line in lines.items() if name not in missing}
    given = {"embedder": DIGEST, "dataset": "x", "split": "val", "images": "", "people": "unseen", "ignored": ""}
    return Calibration(**given, pairs=pairs, missing={})  # type: ignore[arg-type]


def filled(rows: Sequence[Record] = tuple(OTHERS)) -> Gallery:
    gallery = open_gallery("memory:", dim=DIM, bundle_digest=DIGEST)
    gallery.add(rows)
    return gallery


def ask(searcher: Searcher, k: int, **words: Any) -> Any:
    return searcher.search_vectors(QUERY.vector[None], [1], k, **words)


def names(answer: Any) -> list[str]:
    return [hit.record.id for hit in answer.hits]


def log_odds(record: Record) -> float:
    return -6 + 16 * similarity(record) if record.modality == 0 else -16 + 20 * similarity(record)


def matches(record: Record) -> bool:
    return similarity(record) >= (0.34 if record.modality == 0 else 0.9)


def test_hits_are_ordered_by_the_log_odds_of_their_pair_and_not_by_similarity() -> None:
    answer = ask(Searcher(None, filled(), calibration()), 20)
    expected = sorted(OTHERS, key=lambda record: -log_odds(record))
    assert names(answer) == [record.id for record in expected[:20]]
    assert [hit.order for hit in answer.hits] == pytest.approx([log_odds(record) for record in expected[:20]])
    by_similarity = sorted(OTHERS, key=lambda record: -similarity(record))
    assert {record.modality for record in by_similarity[:20]} == {1}  # what a plain search shows
    assert {hit.record.modality for hit in answer.hits} == {0, 1} and answer.stamp["scores"] == "log-odds"


@pytest.mark.parametrize("calibrated", [None, calibration(**{"visible/infrared": True})])
def test_without_a_table_for_every_pair_the_mean_of_each_pair_is_subtracted(calibrated: Any) -> None:
    searcher = Searcher(None, filled(), calibrated)
    answer = ask(searcher, 20)
    of_kind = [np.stack([record.vector for record in OTHERS if record.modality == kind]) for kind in (0, 1)]
    similar = of_kind[1] @ of_kind[1].T
    means = [(of_kind[1] @ of_kind[0].T).mean(), similar[~np.eye(len(similar), dtype=bool)].mean()]
    score = {record.id: similarity(record) - means[record.modality] for record in OTHERS}
    expected = sorted(score, key=lambda each: -score[each])[:20]
    assert names(answer) == expected and "centered" in answer.stamp["scores"]
    assert [hit.order for hit in answer.hits] == pytest.approx([score[each] for each in expected], abs=1e-5)
    assert {hit.record.modality for hit in answer.hits[:8]} == {0, 1}
    right = next(record for record in OTHERS if record.modality == 0)
    marked = ask(searcher, 5, marks=Marks(right=(right.id,)))
    moved = QUERY.vector + 0.75 * right.vector
    moved /= np.linalg.norm(moved)
    score = {record.id: float(record.vector @ moved - (of_kind[record.modality] @ moved).mean()) for record in OTHERS}
    assert names(marked) == sorted(score, key=lambda each: -score[each])[:5]


def test_a_gallery_of_one_modality_or_of_few_rows_is_ordered_by_similarity() -> None:
    infrared = ask(Searcher(None, filled()), 9, where=Filter(modality=1))
    assert infrared.stamp["scores"] == "similarity"
    assert [hit.order for hit in infrared.hits] == [hit.similarity for hit in infrared.hits]
    few = [record for record in OTHERS if record.modality == 1][:29] + [r for r in OTHERS if r.modality == 0]
    answer = ask(Searcher(None, filled(few)), 9)
    assert answer.stamp["scores"] == "similarity (fewer than 30 infrared rows)"
    assert names(answer) == [record.id for record in sorted(few, key=lambda record: -similarity(record))[:9]]


def test_matches_come_first_and_are_counted_beyond_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(None, filled(), calibration())
    count = sum(map(matches, OTHERS))
    expected = sorted(OTHERS, key=lambda record: (not matches(record), -log_odds(record)))
    assert 5 < count < 60 and expected != sorted(OTHERS, key=lambda record: -log_odds(record))
    for k in (1, 5, 40, 79):
        answer = ask(searcher, k, false_match_rate=0.01)
        assert names(answer) == [record.id for record in expected[:k]]  # so that pages join
        assert [hit.match for hit in answer.hits] == [matches(record) for record in expected[:k]]
        assert (answer.matches.count, answer.matches.complete, answer.nobody) == (count, True, False)
    marked = ask(searcher, 3, false_match_rate=0.01, marks=Marks(wrong=(expected[0].id,)))
    assert marked.matches.count == count - 1
    reranked = ask(searcher, 79, false_match_rate=0.01, rerank=KReciprocal(k1=8, k2=3))
    assert reranked.matches.count == count and names(reranked) != names(ask(searcher, 79, false_match_rate=0.01))
    monkeypatch.setattr(tracks, "MAX_COUNTED", 3)
    cut = ask(searcher, 2, false_match_rate=0.01).matches
    assert not cut.complete and cut.count < count


def test_tracks_that_match_are_counted_once_for_each_camera() -> None:
    answer = ask(Searcher(None, filled(), calibration()), 2, false_match_rate=0.01, per_track=True)
    assert answer.matches.count == len({(record.camera, record.track) for record in OTHERS if matches(record)})
    both = [changed(record, camera="day and night") for record in OTHERS]
    shown = ask(Searcher(None, filled(both), calibration()), 40, per_track=True)
    assert sorted(hit.record.track for hit in shown.hits) == sorted(f"t{who}" for who in range(PEOPLE))


def test_the_prior_is_one_of_all_tracks_searched() -> None:
    searcher = Searcher(None, filled(), calibration())
    answer = ask(searcher, 5)
    assert (answer.rows, answer.tracks, answer.prior) == (79, 2 * PEOPLE, 1 / (2 * PEOPLE))
    for hit in answer.hits:
        odds = np.exp(hit.order) / (2 * PEOPLE - 1)
        assert hit.probability == pytest.approx(odds / (1 + odds))
    narrow = ask(searcher, 5, where=Filter(cameras=("cam0",)))
    assert (narrow.rows, narrow.tracks) == (40, PEOPLE)
    nothing = ask(searcher, 5, where=Filter(cameras=("elsewhere",)), false_match_rate=0.01)
    assert (nothing.rows, nothing.tracks, nothing.prior, nothing.nobody) == (0, 0, 0.5, True)
    assert ask(searcher, 5, prior=0.5).prior == 0.5


def test_a_cohort_is_drawn_again_when_rows_go_and_not_for_each_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = filled()
    kept = overview.Overview(gallery)
    first = kept.cohort(0)
    assert len(first) == 40 and kept.cohort(0) is first
    gallery.add([changed(OTHERS[0], id=f"new {number}", modality=0) for number in range(4)])
    assert kept.cohort(0) is first  # a tenth more
    gallery.add([changed(OTHERS[0], id="one more", modality=0)])
    assert len(kept.cohort(0)) == 45
    gallery.delete(ids=["one more"])
    second = kept.cohort(0)
    assert len(second) == 44  # a deleted vector is not kept
    monkeypatch.setattr(overview, "AGE_S", 0.0)
    assert kept.cohort(0) is not second
    kept.clear()
    monkeypatch.setattr(overview, "COHORT", 7)
    assert len(kept.cohort(0)) == 7 and len(kept.cohort(1)) == 7
