"""Re-ranking by centered vectors, against plain numpy; and where a gallery has too few rows or tracks for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from galleries import DIGEST, changed, records

from vireid.search.centering import Centering
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Gallery, Record
from vireid.search.searcher import Answer, Searcher

PEOPLE, SHOTS, DIM = 15, 4, 16


def rows_of(people: int = PEOPLE, shots: int = SHOTS) -> list[Record]:
    """`shots` crops of each person by a visible and by an infrared camera, each modality about a center of its own."""
    random = np.random.default_rng(5)
    person, side = random.standard_normal((people, DIM)), 3 * random.standard_normal((2, DIM))
    made = []
    for number, record in enumerate(records(people * 2 * shots)):
        who, modality = number // (2 * shots), number % 2
        vector = person[who] + side[modality] + 0.4 * random.standard_normal(DIM)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        track = f"t{who}"
        made.append(
            changed(record, vector=vector, camera=f"cam{modality}", track=track, modality=modality, pid=str(who))
        )
    return made


GIVEN = rows_of()
QUERIES = [next(row for row in GIVEN if row.modality == kind) for kind in (0, 1)]


def filled(rows: Sequence[Record]) -> Gallery:
    gallery = open_gallery("memory:", dim=DIM, bundle_digest=DIGEST)
    gallery.add(rows)
    return gallery


def search(searcher: Searcher, queries: Sequence[Record], k: int = 60, **words: object) -> Answer:
    vectors, kinds = np.stack([row.vector for row in queries]), [row.modality for row in queries]
    rerank = Centering(searcher.overview)
    return searcher.search_vectors(vectors, kinds, k, Filter(modality=1), rerank=rerank, **words)


def expected(rows: Sequence[Record], query: np.ndarray, mean: np.ndarray) -> list[str]:
    """Infrared rows by the cosine of the query less a mean and of the rows less their own."""
    infrared = [row for row in rows if row.modality == 1]
    vectors = np.stack([row.vector for row in infrared]).astype(np.float64)
    moved = vectors - vectors.mean(0)
    similarity = moved @ (query - mean) / np.linalg.norm(moved, axis=1)
    return [infrared[at].id for at in np.argsort(-similarity, kind="stable")]


def mean_of(rows: Sequence[Record], modality: int) -> np.ndarray:
    return np.mean([row.vector for row in rows if row.modality == modality], 0, dtype=np.float64)


def test_the_order_is_that_of_centered_vectors_and_the_similarity_stays() -> None:
    searcher, query = Searcher(None, filled(GIVEN)), QUERIES[0]
    plain = searcher.search_vectors(query.vector[None], [0], 60, Filter(modality=1))
    answer = search(searcher, [query])
    ids = [hit.record.id for hit in answer.hits]
    assert ids == expected(GIVEN, query.vector, mean_of(GIVEN, 0)) != [hit.record.id for hit in plain.hits]
    assert answer.stamp["rerank"] == "center (mean of each modality of the gallery) of 60"
    similarity = {hit.record.id: hit.similarity for hit in plain.hits}
    assert all(hit.similarity == similarity[hit.record.id] for hit in answer.hits)

    def right(found: Answer) -> int:
        return sum(hit.record.pid == query.pid for hit in found.hits[:SHOTS])

    assert right(answer) > right(plain)


def test_pictures_of_both_modalities_lose_the_mean_of_both() -> None:
    answer = search(Searcher(None, filled(GIVEN)), QUERIES)
    query = np.mean([row.vector for row in QUERIES], 0, dtype=np.float64)
    query /= np.linalg.norm(query)
    mean = (mean_of(GIVEN, 0) + mean_of(GIVEN, 1)) / 2
    assert [hit.record.id for hit in answer.hits] == expected(GIVEN, query, mean)
    best = search(Searcher(None, filled(GIVEN)), QUERIES, combine="best")
    assert len(best.hits) == 60 and best.stamp["combine"] == "best"


def test_the_means_follow_the_gallery() -> None:
    gallery, query = filled(GIVEN[:104]), QUERIES[0]
    searcher = Searcher(None, gallery)
    assert [hit.record.id for hit in search(searcher, [query]).hits] == expected(
        GIVEN[:104], query.vector, mean_of(GIVEN[:104], 0)
    )
    gallery.add(GIVEN[104:])  # more than a tenth
    assert [hit.record.id for hit in search(searcher, [query]).hits] == expected(GIVEN, query.vector, mean_of(GIVEN, 0))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (GIVEN[:80], "40 visible and 40 infrared rows, 50 of each modality needed"),
        ([row for row in GIVEN if row.modality == 1], "0 visible rows, 50 of each modality needed"),
        (rows_of(5, 12), "5 visible and 5 infrared tracks, 12 of each modality needed"),
    ],
)
def test_few_rows_or_tracks_keep_the_plain_order(rows: list[Record], reason: str) -> None:
    searcher, query = Searcher(None, filled(rows)), QUERIES[0]
    plain = searcher.search_vectors(query.vector[None], [0], 40, Filter(modality=1))
    answer = search(searcher, [query], 40)
    assert [hit.record.id for hit in answer.hits] == [hit.record.id for hit in plain.hits]
    assert answer.stamp["rerank"] == f"none (center: {reason})"
