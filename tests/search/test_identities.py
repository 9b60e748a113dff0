"""Identities: tracks grouped by log-odds, simultaneous tracks of one camera kept apart, scores of a grouping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from galleries import DIGEST

from vireid.errors import SearchError
from vireid.evaluation.identity_scores import identity_scores
from vireid.search import identities as module
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Gallery, Record
from vireid.search.identities import IdentityOptions, grouped, identities_of

DIM = 16


class Odds:
    """Log-odds that rise with the similarity, across modalities from a lower one on."""

    def log_odds(self, similarity: Any, pair: tuple[int, int], prior: float = 0.5) -> Any:
        return 20 * (np.asarray(similarity) - (0.6 if pair[0] == pair[1] else 0.3)) + np.log(prior / (1 - prior))


def row(person: int, camera: str, time_s: float, track: str, modality: int = 0, seed: int = 0) -> Record:
    vector = np.random.default_rng(seed + 97 * person).standard_normal(DIM) * 0.05
    vector[person] += 1
    name = f"{camera}/{track}/{time_s:g}/{person}"
    vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Record(name, vector, camera, time_s, modality, "", track, str(person))


def filled(rows: list[Record]) -> Gallery:
    gallery = open_gallery("memory:", dim=DIM, bundle_digest=DIGEST)
    gallery.add(rows)
    return gallery


def test_tracks_of_one_person_are_one_identity_over_cameras_and_modalities() -> None:
    rows = [
        row(p, c, 100 * p + t, f"{p}", int(c == "night"), t)
        for p in range(4)
        for c in ("gate", "night")
        for t in (0, 1)
    ]
    identities = identities_of(filled(rows), Odds())
    assert {frozenset(one.ids) for one in identities} == {
        frozenset(r.id for r in rows if r.pid == str(p)) for p in range(4)
    }
    assert all(len(one.tracks) == 2 and one.cameras == ("gate", "night") for one in identities)
    only = identities_of(filled(rows), Odds(), Filter(cameras=("gate",)))
    assert [len(one.ids) for one in only] == [2, 2, 2, 2]
    assert len(identities_of(filled(rows), Odds(), options=IdentityOptions(prior=1e-12))) == 8


def test_two_tracks_that_one_camera_sees_at_once_are_two_people_however_alike() -> None:
    rows = [
        row(0, "gate", 10, "a"), row(0, "gate", 20, "a", seed=1), row(0, "gate", 15, "b", seed=2),
        row(0, "hall", 15, "c", seed=3), row(0, "gate", 30, "d", seed=4),
    ]  # fmt: skip
    identities = identities_of(filled(rows), Odds())
    together = [{track.track[1] for track in one.tracks} for one in identities]
    assert len(together) == 2 and not any({"a", "b"} <= names for names in together)
    assert len(identities_of(filled(rows), Odds(), options=IdentityOptions(cannot_link=False))) == 1


def test_no_group_holds_a_pair_that_is_apart() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        count = int(random.integers(2, 40))
        odds = random.normal(2, 3, (count, count))
        apart = np.triu(random.random((count, count)) < 0.2, 1)
        apart |= apart.T
        labels = grouped(odds + odds.T, apart)
        assert not (apart & (labels[:, None] == labels[None, :])).any()


def test_more_tracks_than_are_grouped_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TRACKS", 3)
    gallery = filled([row(p, "gate", p, f"{p}") for p in range(4)])
    with pytest.raises(SearchError, match="more than 3 tracks"):
        identities_of(gallery, Odds())
    assert identities_of(filled([]), Odds()) == [] and len(identities_of(filled([row(0, "a", 1, "")]), Odds())) == 1


def test_scores_of_right_and_wrong_groupings() -> None:
    pytest.importorskip("reid_hota", reason="extra: identities")
    cameras, times, truth = ["a"] * 4 + ["b"] * 2, [1, 1, 2, 2, 5, 6], list("xyxyxy")
    right = identity_scores(cameras, times, truth, list("pqpqpq"))
    assert right == pytest.approx({"IDF1": 1, "HOTA": 1, "AssA": 1})
    # one of six pictures has a label of its own: 5 of 6 in ID-F1; association of 5 pictures is 1, 1, 1, 2/3, 2/3, 1/3
    split = identity_scores(cameras, times, truth, list("pqpqrq"))
    assert split["IDF1"] == pytest.approx(5 / 6) and split["HOTA"] < 1
    twice = identity_scores(["a"] * 2, [1, 1], ["x", "x"], ["p", "p"])
    assert twice["IDF1"] == pytest.approx(1)
