"""What is LanceDB's alone: several processes, kills, purge to the last byte, the planner and old versions.

The sidecar, which answers in place of LanceDB's index where faiss is installed, is in test_gallery_sidecar.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from crowd import NARROW, WIDE, crowd
from galleries import DIGEST, DIM, changed, exact, ids, records, unit

from vireid.errors import GalleryError
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import EVERYTHING, Filter

pytest.importorskip("lancedb", reason="extra: search")

from vireid.search.drivers import lance, lance_codes

GIVEN = records(300)


@pytest.fixture(autouse=True)
def no_faiss(monkeypatch):
    monkeypatch.setattr(lance_codes, "available", lambda: False)


@pytest.fixture
def run(start_python):
    head = "import sys; from galleries import *; folder = sys.argv[1]\n"
    return lambda code, folder, **options: start_python("-c", head + code, folder, **options)


def holds(folder: Path, marker: bytes) -> list[str]:
    """Files below the folder with these bytes in them."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and marker in p.read_bytes()]


@pytest.mark.slow
def test_two_processes_read_while_a_third_writes_and_see_its_rows(tmp_path, run):
    gallery = open_gallery(tmp_path / "g", dim=DIM, bundle_digest=DIGEST)
    gallery.add(GIVEN[:20])
    reader = """
gallery, seen = open_gallery(folder), []
print("open", flush=True)
while not seen or seen[-1] < 300:
    seen.append(gallery.count())
    assert len(gallery.search(unit(2), 5)[0]) == 5
    print(seen[-1], flush=True)
assert seen == sorted(seen)
"""
    readers = [run(reader, tmp_path / "g") for _ in range(2)]
    for process in readers:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
    for start in range(20, 300, 20):
        gallery.add(GIVEN[start : start + 20])
        for process in readers if start in (100, 200) else ():  # rows are seen as they come
            while int(process.stdout.readline()) < start + 20:
                pass
    assert [process.communicate(timeout=300) and process.returncode for process in readers] == [0, 0]


@pytest.mark.slow
def test_processes_that_upsert_the_same_new_ids_do_not_double_them(tmp_path, run):
    open_gallery(tmp_path / "g", dim=DIM).close()
    writer = """
gallery = open_gallery(folder)
for start in range(0, 300, 15):
    gallery.upsert(records(300)[start:start + 15])
"""
    writers = [run(writer, tmp_path / "g") for _ in range(3)]
    assert [process.communicate(timeout=300) and process.returncode for process in writers] == [0, 0, 0]
    assert list(open_gallery(tmp_path / "g").rows()) == GIVEN


@pytest.mark.slow
def test_reading_goes_on_while_another_process_purges(tmp_path, run):
    gallery = open_gallery(tmp_path / "g", dim=DIM)
    gallery.add(GIVEN)
    purger = """
import itertools, pathlib
gallery = open_gallery(folder)
for n in itertools.count():
    gallery.delete(ids=[f"r{n:05}"] if n < 8 else ["none"])
    gallery.upsert(records(300)[100:110])
    gallery.purge()
    print(n, flush=True)
    if n >= 7 and pathlib.Path(folder, "..", "enough").exists():
        break
"""
    process = run(purger, tmp_path / "g")
    assert process.stdout is not None and process.stdout.readline() == "0\n"
    for _ in range(10):
        assert len(gallery.search(unit(1), 10)[0]) == 10 and 292 <= len(list(gallery.rows())) < 300
    (tmp_path / "enough").touch()
    process.communicate(timeout=300)
    assert process.returncode == 0 and gallery.count() == 292


@pytest.mark.slow
def test_killed_in_the_middle_of_adding_nothing_acknowledged_is_lost_and_a_retry_doubles_nothing(tmp_path, run):
    open_gallery(tmp_path / "g", dim=DIM, bundle_digest=DIGEST).close()
    writer = """
gallery = open_gallery(folder)
given = records(4000)
for start in range(0, 4000, 20):
    sys.stdin.readline()  # it may go on
    gallery.upsert(given[start:start + 20])
    print(start + 20, flush=True)
"""
    given, acknowledged = records(4000), 0
    for after in (3, 40):  # at once, and once the small files have been folded
        process = run(writer, tmp_path / "g", stdin=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n" * (after + 20))  # it does not end before it is killed, however late that is
        process.stdin.flush()
        for _ in range(after):
            acknowledged = max(acknowledged, int(process.stdout.readline()))
        os.kill(process.pid, signal.SIGKILL)
        rest = process.communicate()[0].split()
        acknowledged = max([acknowledged, *map(int, rest)])
        gallery = open_gallery(tmp_path / "g")
        found = list(gallery.rows())
        assert acknowledged <= len(found) < 4000 and found == given[: len(found)]
        assert len(found) % 20 == 0  # a call is there as a whole or not at all
        gallery.close()
    again = open_gallery(tmp_path / "g")
    again.upsert(given)
    assert list(again.rows()) == given
    assert ids(again.search(unit(3), 10)) == exact(given, unit(3), 10)


@pytest.mark.parametrize("indexed", [False, True])
def test_purge_leaves_no_trace_of_what_was_deleted_or_replaced(tmp_path, monkeypatch, indexed):
    monkeypatch.setattr(lance, "INDEX_ROWS", 1000 if indexed else 10**9)
    marked = [
        changed(record, id=f"MARKID{n}", camera=f"MARKCAM{n}", path=f"MARKPATH{n}", track=f"MARKTRACK{n}",
                pid=f"MARKPID{n}", tags=(f"MARKTAG{n}",), thumbnail=f"MARKTHUMB{n}")
        for n, record in enumerate(records(3, seed=8))
    ]  # fmt: skip
    texts = ("ID", "CAM", "PATH", "TRACK", "PID", "TAG", "THUMB")
    gallery = open_gallery(tmp_path / "g", dim=DIM)
    gallery.add([*records(1500), *marked])  # one large file, nearly all of which stays
    gallery.optimize()
    assert (gallery.info().index == "IVF_RQ of 1503 rows") == indexed
    for n, record in enumerate(marked):
        assert holds(tmp_path, record.vector.tobytes()), "a vector that cannot be found proves nothing"
        assert n or all(holds(tmp_path, f"MARK{text}{n}".encode()) for text in texts)  # later ones are compressed
    gallery.delete(ids=["MARKID0"])
    gallery.delete(where=Filter(pids=("MARKPID1",)))
    replaced = changed(records(1, seed=9)[0], id="MARKID2")
    gallery.upsert([replaced])
    assert holds(tmp_path, marked[0].vector.tobytes()), "deleting alone removes nothing from the disk"
    gallery.purge()
    for n, record in enumerate(marked):
        assert holds(tmp_path, record.vector.tobytes()) == []
        assert [text for text in texts if holds(tmp_path, f"MARK{text}{n}".encode())] == (["ID"] if n == 2 else [])
    assert gallery.count() == 1501
    kept = [*records(1500), replaced]
    assert list(gallery.rows()) == sorted(kept, key=lambda record: record.id)
    if indexed:
        assert gallery.info().index == "IVF_RQ of 1501 rows"
    assert ids(gallery.search(unit(3), 10)) == exact(kept, unit(3), 10)


def test_purge_shrinks_the_index_with_the_rows(tmp_path, monkeypatch):
    """The quantized vectors of deleted rows are copies of a kind, and go too."""
    monkeypatch.setattr(lance, "INDEX_ROWS", 1000)
    people = crowd(4000, dim=32, queries=1)
    gallery = open_gallery(tmp_path / "g", dim=32)
    for batch in people.records(4000):
        gallery.add(batch)
    gallery.optimize()

    def index_bytes() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "g").rglob("auxiliary.idx"))

    before = index_bytes()
    gallery.delete(ids=[f"r{n:08}" for n in range(0, 4000, 4)])
    gallery.purge()
    assert gallery.count() == 3000 and before > index_bytes() > 0
    assert index_bytes() < 0.85 * before


def test_old_versions_do_not_pile_up_after_a_purge(tmp_path):
    gallery = open_gallery(tmp_path / "g", dim=DIM)
    for record in GIVEN[:30]:
        gallery.upsert([record])
    versions = tmp_path / "g" / "records.lance" / "_versions"
    assert len(list(versions.glob("*.manifest"))) > 20
    gallery.purge()
    assert len(list(versions.glob("*.manifest"))) == 1
    assert list(gallery.rows()) == GIVEN[:30]


def test_many_small_writes_are_folded(tmp_path, monkeypatch):
    monkeypatch.setattr(lance, "FOLD_EVERY", 8)
    gallery = open_gallery(tmp_path / "g", dim=DIM)
    for record in GIVEN[:40]:
        gallery.add([record])
    assert gallery._table.stats()["fragment_stats"]["num_fragments"] < 9  # type: ignore[attr-defined]
    assert gallery.count() == 40


def test_other_files_and_foreign_tables_are_no_galleries(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(GalleryError, match="is not a vireid gallery and is not empty"):
        open_gallery(tmp_path / "photos", dim=DIM)
    (tmp_path / "file").write_text("x")
    with pytest.raises(GalleryError, match="is not a vireid gallery and is not empty"):
        open_gallery(tmp_path / "file", dim=DIM)
    import lancedb

    lancedb.connect(str(tmp_path / "foreign")).create_table("records", data=[{"vector": [1.0, 2.0], "id": "a"}])
    with pytest.raises(GalleryError, match="is not a gallery that vireid wrote"):
        open_gallery(tmp_path / "foreign")


def test_a_closed_gallery_says_so(tmp_path):
    gallery = open_gallery(tmp_path / "g", dim=DIM)
    gallery.close()
    for call in (lambda: gallery.count(), lambda: gallery.add(GIVEN[:1])):
        with pytest.raises(GalleryError, match="was closed"):
            call()


def test_the_planner_compares_few_rows_and_looks_everywhere_under_a_filter(tmp_path, monkeypatch):
    monkeypatch.setattr(lance, "INDEX_ROWS", 1000)
    monkeypatch.setattr(lance, "EXACT_ROWS", 500)
    people = crowd(3000, dim=32, queries=5)
    gallery = open_gallery(tmp_path / "g", dim=32)
    for batch in people.records():
        gallery.add(batch)
    assert gallery._probes(3000, False) is None  # type: ignore[attr-defined] # no index yet
    gallery.optimize()
    assert gallery._probes(500, True) is None and gallery._probes(501, True) == 55  # type: ignore[attr-defined]
    assert gallery._probes(3000, False) == 14  # type: ignore[attr-defined]
    gallery.add([changed(record, camera="cam99") for record in records(30, dim=32, prefix="new")])  # not in the index
    assert gallery.count(Filter(cameras=("cam99",))) == 30
    (hit,) = gallery.search(unit(30, dim=32)[7:8], 1)[0]
    assert hit.record.id == "new00007"
    gallery.optimize()
    assert gallery.info().index == "IVF_RQ of 3030 rows"


def test_an_index_is_trained_anew_when_the_gallery_has_grown(tmp_path, monkeypatch):
    monkeypatch.setattr(lance, "INDEX_ROWS", 300)
    gallery = open_gallery(tmp_path / "g", dim=DIM)
    assert gallery._trained_on() == 0  # type: ignore[attr-defined]
    for rows, trained in ((300, 300), (900, 300), (1200, 1200)):
        gallery.upsert(records(rows))
        gallery.optimize()
        assert gallery._trained_on() == trained  # type: ignore[attr-defined]
        assert gallery.info().index == f"IVF_RQ of {rows} rows"


@pytest.mark.slow
def test_recall_at_10_of_100_000_rows_with_and_without_filters(tmp_path):
    people = crowd(100_000, queries=100)
    gallery = open_gallery(tmp_path / "g", dim=512)
    for batch in people.records(25_000):
        gallery.add(batch)
    gallery.optimize()
    assert gallery.info().index == "IVF_RQ of 100000 rows"
    searches = {
        EVERYTHING: "index, some probes", WIDE: "index, all probes", NARROW: "scan",
        Filter(cameras=tuple(f"cam{n}" for n in range(0, 20, 2))): "index, all probes",
    }  # fmt: skip
    for filter, how in searches.items():
        if filter.cameras and filter is not NARROW:
            keep = people.camera % 2 == 0
            expected = [{f"r{np.flatnonzero(keep)[at]:08}" for at in np.argsort(-(people.vectors[keep] @ q))[:10]}
                        for q in people.queries]  # fmt: skip
        else:
            expected = people.exact(filter)
        probes = gallery._probes(gallery.count(filter), not filter.empty)  # type: ignore[attr-defined]
        assert (probes is None) == (how == "scan"), filter
        found = [{hit.record.id for hit in line} for line in gallery.search(people.queries, 10, filter)]
        recall = np.mean([len(a & b) / 10 for a, b in zip(found, expected, strict=True)])
        assert recall >= (1.0 if how == "scan" else 0.99), (filter, recall)
