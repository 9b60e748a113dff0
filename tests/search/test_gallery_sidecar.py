"""The sidecar of a gallery in a folder: exact answers, appends, deletions, purge to the last byte, processes, kills."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import DIGEST, DIM, FILTERS, changed, exact, ids, passes, records, unit

from vireid.search.drivers import lance, lance_calibration, lance_codes, lance_search, lance_segment
from vireid.search.drivers.lance_vectors import Packed
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter

pytest.importorskip("lancedb", reason="extra: search")
pytest.importorskip("faiss", reason="extra: search")

GIVEN = records(3000)
SMALL = {
    "lance_sidecar.MIN_ROWS": 500,
    "lance_segment.CODED_ROWS": 200,
    "lance_search.FEW_ROWS": 50,
    "lance_codes.LIST_ROWS": 300,
    "lance_cells.CELL_ROWS": 300,
    "lance_calibration.PROBED": (1.0,),  # vectors at random do not lie in lists
}


@pytest.fixture(scope="module", autouse=True)
def small():
    """Codes for galleries of some thousand rows."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(f"vireid.search.drivers.{name}", value)
        yield


def indexed(folder: Path, given=GIVEN):
    gallery: Any = open_gallery(folder / "g", dim=DIM, bundle_digest=DIGEST)
    gallery.add(given)
    gallery.optimize()
    assert gallery.info().index == f"codes of {len(given)} rows"
    return gallery


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A gallery of GIVEN that tests only read."""
    gallery = indexed(tmp_path_factory.mktemp("filled"))
    yield gallery
    gallery.close()


@pytest.fixture
def gallery(tmp_path):
    """A gallery of 1,200 of them, and some vectors twice."""
    found = indexed(tmp_path, GIVEN[:1200])
    yield found
    found.close()


def agrees(gallery, given, filters=("nothing", "modality", "between", "tracks", "everything at once")) -> None:
    """The gallery's sidecar answers, and what an exact scan finds."""
    assert gallery._sidecar.current() is not None
    queries = unit(4, seed=1)
    for name in filters:
        assert ids(gallery.search(queries, 10, FILTERS[name])) == exact(given, queries, 10, FILTERS[name]), name


@pytest.fixture
def run(start_python):
    head = (
        "import sys; from galleries import *\n"
        "from vireid.search.drivers import lance_calibration, lance_cells, lance_codes, lance_search, lance_segment\n"
        "from vireid.search.drivers import lance_sidecar\n"
        "folder = sys.argv[1]\n" + "".join(f"{name} = {value}\n" for name, value in SMALL.items())
    )
    return lambda code, folder: start_python("-c", head + code, folder)


def sidecar(gallery) -> Path:
    return gallery.path / "codes"


def parts(gallery) -> list[dict]:
    return json.loads((sidecar(gallery) / "now.json").read_text())["parts"]


def bits_of(vector: np.ndarray) -> list[bytes]:
    """How a sidecar writes a vector: the upper and the lower bits of its numbers."""
    packed = Packed.of(vector[None])
    return [packed.high.tobytes(), packed.low.tobytes()]


def holds(folder: Path, marker: bytes) -> list[str]:
    """Files below the folder with these bytes in them."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and marker in p.read_bytes()]


@pytest.mark.parametrize("name", FILTERS)
def test_answers_are_those_of_an_exact_scan_under_every_filter(filled, name):
    agrees(filled, GIVEN, [name])


def test_similarity_is_exact_to_float32_and_records_come_back_as_they_were_given(filled):
    (hit,) = filled.search(GIVEN[17].vector[None], 1, with_vectors=True)[0]
    assert hit.record == GIVEN[17] and np.abs(hit.record.vector - GIVEN[17].vector).max() < 1e-6
    query = unit(1, seed=4)
    for hit in filled.search(query, 20)[0]:
        vector = GIVEN[int(hit.record.id[1:])].vector
        assert hit.similarity == pytest.approx(vector.astype(float) @ query[0].astype(float), abs=1e-6)
    many = tuple(record.id for record in GIVEN[: lance_search.HIDDEN + 1])
    for hidden in (many[:3], many):
        queries = np.stack([record.vector for record in GIVEN[:2]])
        assert ids(filled.search(queries, 5, Filter(without_ids=hidden))) == exact(
            GIVEN, queries, 5, Filter(without_ids=hidden)
        )
    assert len(filled.search(query, 5000)[0]) == 3000 and filled.search(query, 5, FILTERS["nobody"]) == [[]]


def test_equal_vectors_are_ordered_by_id_even_where_there_are_more_than_candidates(tmp_path):
    same = unit(1)[0]
    given = [changed(record, vector=same) for record in records(700)] + records(500, seed=3, prefix="x")
    gallery = indexed(tmp_path, [given[at] for at in np.random.default_rng(0).permutation(len(given))])
    assert gallery._sidecar.current().coder.candidates < 700
    for k in (1, 7, 699, 701):
        assert ids(gallery.search(same[None], k)) == exact(given, same[None], k)


def test_rows_that_come_are_found_without_a_build_and_segments_stay_few(gallery):
    name = gallery._sidecar.current().coder_name
    for start in range(1200, 1400, 10):
        gallery.add(GIVEN[start : start + 10])
    gallery.upsert(GIVEN[1390:1700])  # some are there
    assert 1 < len(parts(gallery)) <= 13 and gallery.info().index == "codes of 1700 rows"
    agrees(gallery, GIVEN[:1700])
    gallery.optimize()
    assert len(parts(gallery)) <= 3 and gallery._sidecar.current().coder_name == name
    agrees(gallery, GIVEN[:1700])
    gallery.add(GIVEN[1700:2600])
    gallery.optimize()  # twice as many as the codes were fitted to
    assert gallery._sidecar.current().coder_name != name and gallery._sidecar.current().coder.rows == 2600
    agrees(gallery, GIVEN[:2600])


def test_deleted_and_replaced_rows_are_not_found(gallery):
    gallery.delete(ids=[record.id for record in GIVEN[:40]])
    gallery.delete(where=FILTERS["all tags"])
    kept = [record for record in GIVEN[40:1200] if not passes(record, FILTERS["all tags"])]
    agrees(gallery, kept)
    moved = [changed(record, vector=vector) for record, vector in zip(kept[:30], unit(30, seed=7), strict=True)]
    gallery.upsert(moved)
    agrees(gallery, moved + kept[30:])
    assert sum(part["dead_rows"] for part in parts(gallery)) == 40 + 30 + (1160 - len(kept))
    gallery.delete(where=Filter(modality=0))
    gallery.optimize()  # half of the rows are dead
    assert sum(part["dead_rows"] for part in parts(gallery)) == 0
    agrees(gallery, [record for record in moved + kept[30:] if record.modality == 1])
    gallery.delete(where=Filter(modality=1))
    assert gallery.search(unit(1), 3) == [[]]
    gallery.add(GIVEN[:3])
    agrees(gallery, GIVEN[:3])


def test_purge_leaves_no_bytes_of_what_was_deleted_or_replaced(tmp_path):
    marked = [
        changed(record, id=f"MARKID{n}", camera=f"MARKCAM{n}", path=f"MARKPATH{n}", track=f"MARKTRACK{n}",
                pid=f"MARKPID{n}", tags=(f"MARKTAG{n}",), thumbnail=f"MARKTHUMB{n}")
        for n, record in enumerate(records(3, seed=8))
    ]  # fmt: skip
    texts = ("ID", "CAM", "PATH", "TRACK", "PID", "TAG", "THUMB")
    gallery = indexed(tmp_path, [*GIVEN[:1200], *marked])
    signs = [bits for record in marked for bits in bits_of(record.vector)]
    signs += [f"MARK{text}{n}".encode() for text in texts for n in range(3)]
    assert all(holds(sidecar(gallery), sign) for sign in signs), "bytes that cannot be found prove nothing"
    codes_before = [path.read_bytes() for path in sidecar(gallery).glob("*/codes")]
    gallery.delete(ids=["MARKID0"])
    gallery.delete(where=Filter(pids=("MARKPID1",)))
    replaced = changed(records(1, seed=9)[0], id="MARKID2")
    gallery.upsert([replaced])
    assert holds(sidecar(gallery), signs[0]), "deleting alone removes nothing from the disk"
    gallery.purge()
    assert [sign for sign in signs if holds(tmp_path, sign)] == [b"MARKID2"]
    codes = [path for path in sidecar(gallery).glob("*/codes") if path.read_bytes() not in codes_before]
    assert len(codes) == len(codes_before) == 1
    agrees(gallery, [*GIVEN[:1200], replaced])


def test_packed_vectors_keep_similarities_and_are_not_packed_again_by_a_merge(gallery):
    random = np.random.default_rng(0)
    for dim in (1, 7, 512):
        vectors = random.standard_normal((200, dim)).astype(np.float32)
        vectors[:50] *= random.random((50, dim)) ** 6  # few numbers carry most of it
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        packed = Packed.of(vectors)
        assert np.abs(packed.vectors @ vectors.T - vectors @ vectors.T).max() < 2e-6
        rough = packed.rough(np.arange(200), vectors[0])
        assert np.abs(rough - packed.vectors @ vectors[0]).max() <= packed.slack < 1e-3
    before = gallery._sidecar.current().segments[0].packed[np.array([7])]
    gallery.delete(ids=["r00000"])
    gallery.purge()
    after = gallery._sidecar.current().segments[0].packed[np.array([6])]
    assert all(np.array_equal(getattr(before, name), getattr(after, name)) for name in ("high", "low", "step"))


def test_where_codes_find_too_few_there_is_no_sidecar_until_the_gallery_has_grown(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lance, "INDEX_ROWS", 500)
    monkeypatch.setattr(lance_calibration, "MAX_CANDIDATES", 20)  # far too few
    gallery: Any = open_gallery(tmp_path / "g", dim=DIM, bundle_digest=DIGEST)
    gallery.add(GIVEN[:700])
    gallery.optimize()
    assert gallery._sidecar.current() is None and not sidecar(gallery).exists()
    said = r"IVF_RQ of 700 rows \(codes find \d+\.\d % of the most similar rows of this gallery, fewer than 99\.7 %\)"
    assert re.fullmatch(said, gallery.info().index) and "searched by LanceDB's own index" in caplog.text
    assert ids(gallery.search(unit(4), 10)) == exact(GIVEN[:700], unit(4), 10)
    monkeypatch.undo()
    gallery.add(GIVEN[700:1300])
    gallery.optimize()
    assert "codes find" in gallery.info().index, "not tried again before the gallery has grown to twice its size"
    gallery.add(GIVEN[1300:1400])
    gallery.optimize()
    assert gallery.info().index == "codes of 1400 rows" and "vector" not in gallery._indexed()
    agrees(gallery, GIVEN[:1400])


def test_calibration_looks_for_others_than_the_query_and_its_track(gallery):
    state = gallery._sidecar.current()
    queries = lance_calibration.Queries.of(state.segments)
    (true,) = lance_calibration._true(state.segments, queries, [[None]])
    for vector, row, track, found in zip(queries.vectors, queries.rows, queries.tracks, true, strict=True):
        others = [
            (float(vector @ record.vector), at)
            for at, record in enumerate(GIVEN[:1200])
            if at != row and (not track or record.track != track)
        ]
        assert set(found) == {at for _, at in sorted(others)[-10:]}


def test_small_galleries_have_none(tmp_path):
    gallery = open_gallery(tmp_path / "g", dim=DIM)
    gallery.add(GIVEN[:499])
    gallery.optimize()
    assert gallery.info().index == "none, every row is compared" and not sidecar(gallery).exists()


def test_without_faiss_lancedb_answers_and_the_next_optimize_with_it_builds_again(gallery, monkeypatch):
    monkeypatch.setattr(lance, "INDEX_ROWS", 1000)
    other = open_gallery(gallery.path)
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "faiss", None)
        lance_codes.available.cache_clear()
        assert gallery._sidecar.current() is None
        assert ids(gallery.search(unit(4), 10)) == exact(GIVEN[:1200], unit(4), 10)
        gallery.add(GIVEN[1200:1300])
        assert not sidecar(gallery).exists()
        gallery.optimize()
        assert gallery.info().index == "IVF_RQ of 1300 rows"
    lance_codes.available.cache_clear()
    assert ids(other.search(unit(4), 10)) == exact(GIVEN[:1300], unit(4), 10)
    other.optimize()
    assert gallery.info().index == "codes of 1300 rows" and "vector" not in gallery._indexed()
    agrees(gallery, GIVEN[:1300])


def test_a_table_that_went_on_without_its_sidecar_is_searched_itself(gallery):
    reader: Any = open_gallery(gallery.path)
    gallery._table.delete("id = 'r00000'")  # as a writer that was killed between its two commits
    assert reader._sidecar.current() is None
    assert ids(reader.search(GIVEN[0].vector[None], 3)) == exact(GIVEN[1:1200], GIVEN[0].vector[None], 3)
    gallery.add(GIVEN[1200:1210])
    assert not sidecar(gallery).exists()
    gallery.optimize()
    agrees(reader, GIVEN[1:1210])


def test_while_a_writer_is_between_its_commits_readers_see_the_state_before(gallery):
    reader = open_gallery(gallery.path)
    with gallery._writing():
        gallery._table.delete("id = 'r00000'")
        agrees(reader, GIVEN[:1200])
        gallery._sidecar.delete(["r00000"])
    agrees(reader, GIVEN[1:1200])


def test_writers_that_are_faster_than_a_reader_do_not_hide_the_sidecar(gallery, monkeypatch):
    reader: Any = open_gallery(gallery.path)
    read, writes = reader._sidecar._read, iter(range(1200, 1205))

    def read_and_be_late():
        state = read()
        for at in itertools.islice(writes, 1):  # a whole write between the two looks of the reader
            gallery.add(GIVEN[at : at + 1])
        return state

    monkeypatch.setattr(reader._sidecar, "_read", read_and_be_late)
    state = reader._sidecar.current()
    assert state is not None and state.rows == 1205


@pytest.mark.parametrize("hurt", ["high", "records", "codes", "now.json", "absent"])
def test_a_damaged_sidecar_costs_a_rebuild(gallery, hurt, caplog):
    for path in [*sidecar(gallery).glob(f"*/{hurt}"), *sidecar(gallery).glob(hurt)]:
        path.write_bytes(path.read_bytes()[:20])
    if hurt == "absent":
        for path in sidecar(gallery).glob("*/high"):
            path.unlink()
    again = open_gallery(gallery.path)
    assert ids(again.search(unit(4), 10)) == exact(GIVEN[:1200], unit(4), 10)
    assert "damaged" in caplog.text
    again.optimize()
    agrees(again, GIVEN[:1200])


def test_a_sidecar_that_cannot_be_written_does_not_stop_a_write(gallery, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lance_segment, "write", full)
    gallery.add(GIVEN[1200:1210])
    assert "could not be written" in caplog.text and not sidecar(gallery).exists()
    assert ids(gallery.search(unit(4), 10)) == exact(GIVEN[:1210], unit(4), 10)


@pytest.mark.slow
def test_processes_read_while_others_write(gallery, run):
    reader = """
gallery, rows = open_gallery(folder), 0
print("open", flush=True)
while rows < 2000:  # as the sidecar has them: LanceDB has them first
    rows = gallery._sidecar.current().rows  # there is always one
    assert len(gallery.search(unit(2), 10, Filter(modality=1))[0]) == 10
print(ids(gallery.search(unit(2), 10)))
"""
    writer = """
gallery = open_gallery(folder)
for start in range(1200, 2000, 40):
    gallery.upsert(records(3000)[start:start + 40])
"""
    readers = [run(reader, gallery.path) for _ in range(2)]
    for process in readers:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
    writers = [run(writer, gallery.path) for _ in range(2)]
    assert [process.communicate(timeout=300) and process.returncode for process in writers] == [0, 0]
    for process in readers:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0 and out == f"{exact(GIVEN[:2000], unit(2), 10)}\n"
    agrees(gallery, GIVEN[:2000])


@pytest.mark.slow
@pytest.mark.parametrize("call", ["optimize", "purge", "upsert"])
def test_killed_at_any_moment_no_answer_is_lost(gallery, call, run):
    writer = f"""
from vireid.search.drivers import lance_sidecar
lance_sidecar.GROWN = 1  # builds every time
gallery = open_gallery(folder)
for n in range(10_000):
    print(n, flush=True)
    if "{call}" == "upsert":
        gallery.upsert(records(1200)[n % 100:n % 100 + 300])
    else:
        gallery.{call}()
"""
    for after in (0.0, 0.05, 0.2):
        process = run(writer, gallery.path)
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        time.sleep(after)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        again = open_gallery(gallery.path)
        assert ids(again.search(unit(4), 10)) == exact(GIVEN[:1200], unit(4), 10)
        again.optimize()
        agrees(again, GIVEN[:1200])
        assert len(list(sidecar(again).iterdir())) == 2 + len(parts(again))  # nothing is left over
        again.close()
