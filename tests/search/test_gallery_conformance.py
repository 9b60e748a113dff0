"""One suite for every driver of the gallery: the answer of an exact scan, and rows kept and lost as told."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from galleries import (
    DIGEST,
    DIM,
    DRIVERS,
    FILTERS,
    HOSTILE,
    changed,
    exact,
    ids,
    open_new,
    passes,
    place,
    records,
    unit,
)

from vireid.errors import GalleryError
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import EVERYTHING, Filter, Record, newest_first

PERSISTENT = [driver for driver in DRIVERS if driver != "memory"]
GIVEN = records(120)


@pytest.fixture(scope="module", params=DRIVERS)
def filled(request, tmp_path_factory):
    """A gallery of GIVEN that tests only read."""
    gallery = open_new(request.param, tmp_path_factory.mktemp("filled"))
    assert gallery.add(GIVEN) == len(GIVEN)
    yield gallery
    gallery.close()


@pytest.fixture(params=DRIVERS)
def gallery(request, tmp_path):
    """An empty gallery."""
    found = open_new(request.param, tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("name", FILTERS)
def test_search_count_and_rows_agree_with_an_exact_scan_under_every_filter(filled, name):
    filter, queries = FILTERS[name], unit(8, seed=1)
    kept = [record for record in GIVEN if passes(record, filter)]
    assert filled.count(filter) == len(kept)
    assert ids(filled.search(queries, 10, filter)) == exact(GIVEN, queries, 10, filter)
    assert list(filled.rows(filter)) == sorted(kept, key=lambda record: record.id)
    assert (len(kept) == 0) == (name == "nobody") and (len(kept) < len(GIVEN)) == (name != "nothing")


def test_similarity_is_the_cosine_and_falls(filled):
    queries = unit(5, seed=2)
    vectors = {record.id: record.vector for record in GIVEN}
    for query, line in zip(queries, filled.search(queries, 20), strict=True):
        found = [hit.similarity for hit in line]
        assert found == sorted(found, reverse=True)
        for hit in line:
            assert hit.similarity == pytest.approx(float(vectors[hit.record.id].astype(float) @ query), abs=1e-7)


def test_a_record_comes_back_as_it_was_given(filled):
    query = GIVEN[17].vector[None]
    (hit,) = filled.search(query, 1)[0]
    assert hit.record == GIVEN[17] and hit.record.vector.shape == (0,)
    assert hit.similarity == pytest.approx(1, abs=1e-6)
    (hit,) = filled.search(query, 1, with_vectors=True)[0]
    assert hit.record.vector.dtype == np.float32 and np.array_equal(hit.record.vector, GIVEN[17].vector)
    unknown_time = next(record for record in GIVEN if math.isnan(record.time_s))
    (found,) = filled.fetch([unknown_time.id])
    assert found == unknown_time and np.array_equal(found.vector, unknown_time.vector)


def test_k_larger_than_what_there_is(filled):
    assert ids(filled.search(unit(2), 10_000)) == exact(GIVEN, unit(2), 10_000)
    few = FILTERS["everything at once"]
    assert len(filled.search(unit(1), 10_000, few)[0]) == filled.count(few) > 0
    assert filled.search(unit(1), 5, FILTERS["nobody"]) == [[]]


def test_rows_in_pages(filled):
    expected = sorted(record.id for record in GIVEN)
    found, after = [], ""
    while page := [record.id for record in filled.rows(limit=50, after_id=after)]:
        found, after = found + page, page[-1]
    assert found == expected
    assert list(filled.rows(limit=0)) == [] and list(filled.rows(after_id=expected[-1])) == []
    assert all(record.vector.shape == (0,) for record in filled.rows(limit=3))


@pytest.mark.parametrize("name", FILTERS)
def test_the_newest_rows_in_pages(filled, name):
    kept = [record for record in GIVEN if passes(record, FILTERS[name])]
    expected = sorted(kept, key=lambda record: newest_first((record.time_s, record.id)))
    found, after = [], None
    while page := filled.newest(FILTERS[name], 7, after):
        found += page
        after = (page[-1].time_s, page[-1].id)
    assert found == expected and all(record.vector.shape == (0,) for record in found)


def test_fetch_keeps_the_order_and_names_what_is_unknown(filled):
    wanted = ["r00040", "r00002", "r00040"]
    assert [record.id for record in filled.fetch(wanted)] == wanted
    with pytest.raises(GalleryError, match=r"2 of these ids are not in the gallery.*'nope', 'x'"):
        filled.fetch(["nope", "r00001", "x"])
    assert [record.id for record in filled.fetch(["nope", "r00001"], missing="skip")] == ["r00001"]
    assert filled.fetch([]) == []
    with pytest.raises(GalleryError, match="list of ids"):
        filled.fetch("r00001")


def test_a_sample_is_spread_evenly_over_the_ids(filled):
    some = filled.sample(5)
    assert [record.id for record in some] == ["r00000", "r00030", "r00060", "r00089", "r00119"]
    assert all(np.array_equal(record.vector, GIVEN[int(record.id[1:])].vector) for record in some)
    hats = [record.id for record in GIVEN if passes(record, FILTERS["one tag"])]
    assert [record.id for record in filled.sample(99, FILTERS["one tag"])] == hats
    assert [record.id for record in filled.sample(2, FILTERS["one tag"])] == [hats[0], hats[-1]]
    assert filled.sample(3, FILTERS["nobody"]) == []


def test_facets_and_info(filled):
    facets = filled.facets()
    assert facets.tracks == len({(record.camera, record.track) for record in GIVEN})
    assert facets.cameras == {f"cam{n}": 24 for n in range(5)} and facets.modalities == {0: 60, 1: 60}
    assert facets.tags == {"bag": 60, "hat": 40, "kid": 24}
    known = [record.time_s for record in GIVEN if not math.isnan(record.time_s)]
    assert (facets.first_s, facets.last_s) == (min(known), max(known))
    info = filled.info()
    assert (info.dim, info.rows, info.bundle_digest) == (DIM, 120, DIGEST)
    assert info.size_bytes is None or info.size_bytes > 120 * DIM * 4


def test_an_empty_gallery_answers(gallery):
    assert gallery.count() == 0 and gallery.info().rows == 0
    assert gallery.search(unit(2), 5) == [[], []] and gallery.search(np.zeros((0, DIM), np.float32), 5) == []
    assert list(gallery.rows()) == [] and gallery.fetch(["x"], missing="skip") == []
    assert gallery.delete(ids=["x"]) == 0 and gallery.delete(where=Filter(modality=1)) == 0
    assert gallery.add([]) == 0 and gallery.upsert([]) == 0
    assert math.isnan(gallery.facets().first_s) and gallery.facets().cameras == {}
    gallery.optimize()
    gallery.purge()
    assert gallery.add(GIVEN[:1]) == 1 and gallery.count() == 1


def test_equal_vectors_are_ordered_by_id_even_where_k_cuts_through_them(gallery):
    same = unit(1)[0]
    given = [changed(record, vector=same) for record in records(60)] + records(40, seed=3, prefix="x")
    order = np.random.default_rng(0).permutation(len(given))
    gallery.add([given[at] for at in order])
    for k in (1, 7, 59, 61):
        assert ids(gallery.search(same[None], k)) == exact(given, same[None], k)
    assert ids(gallery.search(same[None], 3, Filter(modality=1))) == exact(given, same[None], 3, Filter(modality=1))


def test_add_refuses_what_is_there_and_upsert_replaces_it(gallery):
    gallery.add(GIVEN[:10])
    with pytest.raises(GalleryError, match="1 of these ids is in the gallery already: 'r00003'"):
        gallery.add([*GIVEN[20:25], GIVEN[3]])
    assert gallery.count() == 10  # nothing of a refused call
    moved = changed(GIVEN[3], vector=unit(1, seed=9)[0], camera="moved", tags=("new",), time_s=5.0)
    assert gallery.upsert([moved, *GIVEN[10:12]]) == 3
    assert gallery.count() == 12 and gallery.count(Filter(cameras=("moved",))) == 1
    (found,) = gallery.fetch(["r00003"])
    assert found == moved and np.array_equal(found.vector, moved.vector)
    assert ids(gallery.search(moved.vector[None], 1)) == [["r00003"]]
    for _ in range(3):
        gallery.upsert(GIVEN[:12])
    assert gallery.count() == 12
    for call in (gallery.add, gallery.upsert):
        with pytest.raises(GalleryError, match="'r00050' comes twice"):
            call([GIVEN[50], GIVEN[51], GIVEN[50]])
    assert gallery.count() == 12


def test_delete_by_id_and_by_filter(gallery):
    gallery.add(GIVEN)
    assert gallery.delete(ids=["r00000", "unknown", "r00119"]) == 2
    assert gallery.delete(ids=["r00000"]) == 0
    kept = [record for record in GIVEN[1:119]]
    for name in ("between", "all tags", "pids", "no pid", "everything at once", "nobody"):
        gone = [record for record in kept if passes(record, FILTERS[name])]
        assert gallery.delete(where=FILTERS[name]) == len(gone)
        kept = [record for record in kept if record not in gone]
        assert gallery.count() == len(kept)
        assert ids(gallery.search(unit(3), 15)) == exact(kept, unit(3), 15)
    assert [record.id for record in gallery.rows()] == [record.id for record in kept]
    gallery.add([record for record in GIVEN if record not in kept])  # deleted ids are free again
    assert ids(gallery.search(unit(3), 15)) == exact(GIVEN, unit(3), 15)


def test_delete_wants_to_be_told_what(gallery):
    gallery.add(GIVEN[:5])
    for wrong in ({}, {"ids": ["a"], "where": Filter(modality=0)}, {"ids": []}, {"where": EVERYTHING}, {"ids": "r1"}):
        with pytest.raises(GalleryError, match=r"delete takes ids or a filter|everything|list of ids"):
            gallery.delete(**wrong)
    assert gallery.count() == 5


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (unit(2) * 1.01, "length 1.01, expected 1"),
        (np.zeros((2, DIM), np.float32), "length 0, expected 1"),
        (np.full((2, DIM), np.nan, np.float32), "NaN"),
        (np.where(np.arange(DIM) == 3, np.inf, unit(2)).astype(np.float32), "infinite"),
        (unit(2, dim=DIM + 1), f"of {DIM} numbers|N, {DIM}"),
        (np.eye(DIM, dtype=np.int64)[:2], "floats"),
        (np.zeros((2, 0), np.float32), f"of {DIM} numbers|N, {DIM}"),
    ],
    ids=["long", "zero", "nan", "infinite", "dimension", "integers", "empty"],
)
def test_wrong_vectors_are_refused_everywhere(gallery, vectors, message):
    gallery.add(GIVEN[:3])
    bad = [changed(GIVEN[50], vector=vectors[0])]
    for call in (gallery.add, gallery.upsert):
        with pytest.raises(GalleryError, match=message):
            call(bad if vectors.dtype.kind == "i" else GIVEN[10:12] + bad)
    with pytest.raises(GalleryError, match=message):
        gallery.search(vectors, 5)
    assert gallery.count() == 3


def test_wrong_queries_are_refused(filled):
    for k in (0, -1, 1.5):
        with pytest.raises(GalleryError, match="number of hits"):
            filled.search(unit(1), k)
    with pytest.raises(GalleryError, match="vectors"):
        filled.search(unit(1)[0], 5)
    half = unit(1).astype(np.float16)  # not quite of length 1, but as near as float16 comes
    assert filled.search(half, 3)[0][0].record.id == exact(GIVEN, half.astype(np.float32), 1)[0][0]


def test_hostile_texts_are_kept_and_found_and_change_nothing_else(gallery):
    vectors = unit(len(HOSTILE), seed=5)
    given = [
        Record(
            f"id {text}", vectors[n], camera=text, time_s=float(n), modality=0, path=f"p/{text}", track=text, pid=text,
            tags=(text, "all"), thumbnail=text,
        )
        for n, text in enumerate(HOSTILE)
    ]  # fmt: skip
    gallery.add(GIVEN[:30])
    gallery.add(given)
    assert gallery.fetch([record.id for record in given]) == given
    for n, text in enumerate(HOSTILE):
        filters = [Filter(cameras=(text,)), Filter(tags=(text,)), Filter(pids=(text,)), Filter(tracks=(text,))]
        for filter in [*filters, Filter(tags=("all", text), cameras=(text, "x"))]:
            assert ids(gallery.search(vectors[n][None], 5, filter)) == [[f"id {text}"]], text
        assert gallery.count(Filter(without_ids=(f"id {text}",))) == 29 + len(HOSTILE)
        assert [r.id for r in gallery.rows(Filter(cameras=(text,)), after_id=f"id {text}")] == []
    gallery.upsert([changed(record, time_s=-1.0) for record in given])
    assert gallery.count(Filter(before_s=0.0)) == len(HOSTILE)
    for n, record in enumerate(given, 1):
        assert gallery.delete(ids=[record.id]) == 1
        assert gallery.count() == 30 + len(HOSTILE) - n


def test_long_texts(gallery):
    longest = changed(
        GIVEN[0], id="i" * 512, path="夜" * 1365, tags=tuple(f"{n:0>256}" for n in range(64)), thumbnail="t" * 4096
    )
    gallery.add([longest])
    assert gallery.fetch([longest.id]) == [longest]
    assert gallery.count(Filter(tags=longest.tags)) == 1
    many = tuple(f"{n:0>200}" for n in range(5000))  # 1 MB of conditions
    assert gallery.count(Filter(without_ids=many)) == 1 and gallery.count(Filter(cameras=many)) == 0
    assert gallery.delete(ids=[*many, longest.id]) == 1


def test_threads_read_and_write_one_gallery(gallery):
    gallery.add(GIVEN[:60])
    queries, failures = unit(4), []
    expected = exact(GIVEN[:60], queries, 5, Filter(without_ids=tuple(record.id for record in GIVEN[60:])))

    def read():
        try:
            for _ in range(8):
                hidden = Filter(without_ids=tuple(record.id for record in GIVEN[60:]))
                assert ids(gallery.search(queries, 5, hidden)) == expected
        except BaseException as error:
            failures.append(error)

    def write(start):
        try:
            for at in range(start, 120, 2):
                gallery.upsert([GIVEN[at]])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    threads += [threading.Thread(target=write, args=(start,)) for start in (60, 61)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [record.id for record in gallery.rows()] == [record.id for record in GIVEN]


@pytest.mark.parametrize("driver", PERSISTENT)
def test_what_was_written_is_there_after_reopening(driver, tmp_path):
    url = place(driver, tmp_path)
    gallery = open_gallery(url, dim=DIM, bundle_digest=DIGEST)
    gallery.add(GIVEN)
    gallery.delete(where=Filter(cameras=("cam2",)))
    gallery.upsert([changed(GIVEN[0], pid="someone")])
    gallery.close()
    kept = [changed(GIVEN[0], pid="someone"), *(record for record in GIVEN[1:] if record.camera != "cam2")]
    again = open_gallery(url)
    assert again.dim == DIM and again.info().bundle_digest == DIGEST
    assert list(again.rows()) == kept
    assert ids(again.search(unit(4), 9)) == exact(kept, unit(4), 9)
    again.add([GIVEN[2]])
    again.optimize()
    again.purge()
    assert again.count() == len(kept) + 1
    again.close()
    once_more = open_gallery(url, dim=DIM, bundle_digest=DIGEST)
    assert once_more.count() == len(kept) + 1
    once_more.close()


@pytest.mark.parametrize("driver", PERSISTENT)
def test_another_bundle_or_dimension_is_refused(driver, tmp_path):
    url = place(driver, tmp_path)
    with pytest.raises(GalleryError, match="there is no gallery"):
        open_gallery(url)
    assert list(tmp_path.iterdir()) == []  # and none was begun
    open_gallery(url, dim=DIM, bundle_digest=DIGEST).close()
    with pytest.raises(GalleryError, match=r"holds embeddings of bundle aaaaaaaaaaaa.*this is bundle bbbbbbbbbbbb"):
        open_gallery(url, bundle_digest="b" * 64)
    with pytest.raises(GalleryError, match=f"vectors of {DIM} numbers, not {DIM + 1}"):
        open_gallery(url, dim=DIM + 1, bundle_digest=DIGEST)
    open_gallery(url).close()


@pytest.mark.parametrize("driver", PERSISTENT)
def test_a_gallery_of_an_unknown_bundle_takes_no_named_one(driver, tmp_path):
    url = place(driver, tmp_path)
    open_gallery(url, dim=DIM).close()
    with pytest.raises(GalleryError, match="of an unknown bundle"):
        open_gallery(url, bundle_digest=DIGEST)
