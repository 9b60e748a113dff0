"""What is Milvus's alone, on milvus-lite: purge, kills, one process at a time, loopback, the HNSW planner."""

from __future__ import annotations

import contextlib
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
from vireid.search.gallery import EVERYTHING

pytest.importorskip("pymilvus", reason="extra: milvus")
pytest.importorskip("milvus_lite", reason="extra: milvus")

from vireid.search.drivers import milvus


@pytest.fixture
def run(start_python):
    head = "import sys; from galleries import *; url = sys.argv[1]\n"
    return lambda code, url, **options: start_python("-c", head + code, url, stderr=subprocess.PIPE, **options)


def holds(folder: Path, marker: bytes) -> list[str]:
    """Files below the folder with these bytes in them, compressed columns of Parquet and Arrow files included."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += _plain(pq.read_table(path))
        elif path.suffix == ".arrow" and data:
            data += _plain(pa.ipc.open_stream(data).read_all())
        if marker in data:
            found.append(str(path.relative_to(folder)))
    return found


def _plain(table) -> bytes:
    buffers = [b for column in table.columns for chunk in column.chunks for b in chunk.buffers() if b is not None]
    return b"".join(buffer.to_pybytes() for buffer in buffers)


def test_purge_leaves_no_trace_of_what_was_deleted_or_replaced(tmp_path):
    url = f"milvus:{tmp_path / 'g.db'}"
    gallery = open_gallery(url, dim=DIM, bundle_digest=DIGEST)
    marked = [
        changed(record, id=f"MARKID{n}", camera=f"MARKCAM{n}", path=f"MARKPATH{n}")
        for n, record in enumerate(records(2, seed=8))
    ]
    gallery.add([*records(1500), *marked])
    gallery.optimize()
    for n, record in enumerate(marked):
        assert holds(tmp_path, record.vector.tobytes()) and holds(tmp_path, f"MARKPATH{n}".encode())
    gallery.delete(ids=["MARKID0"])
    replaced = changed(records(1, seed=9)[0], id="MARKID1")
    gallery.upsert([replaced])
    assert holds(tmp_path, marked[0].vector.tobytes()), "deleting alone removes nothing from the disk"
    gallery.purge()
    for n, record in enumerate(marked):
        assert holds(tmp_path, record.vector.tobytes()) == []
        assert holds(tmp_path, f"MARKPATH{n}".encode()) == holds(tmp_path, f"MARKCAM{n}".encode()) == []
    assert holds(tmp_path, b"MARKID0") == []
    kept = [*records(1500), replaced]
    assert list(gallery.rows()) == sorted(kept, key=lambda record: record.id)
    assert ids(gallery.search(unit(3), 10)) == exact(kept, unit(3), 10)
    gallery.close()
    again = open_gallery(url, bundle_digest=DIGEST)
    assert again.count() == 1501
    again.close()


@pytest.mark.parametrize("dropped", [False, True])
def test_a_purge_that_was_killed_is_finished_or_undone_at_the_next_opening(tmp_path, monkeypatch, dropped):
    url = f"milvus:{tmp_path / 'g.db'}"
    gallery = open_gallery(url, dim=DIM)
    gallery.add(records(50))
    client = gallery._client  # type: ignore[attr-defined]
    monkeypatch.setattr(gallery, "_finish_purge", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    if not dropped:
        monkeypatch.setattr(client, "drop_collection", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        gallery.purge()
    assert client.has_collection("vireid_rewritten") and client.has_collection("vireid") is not dropped
    gallery.close()
    again = open_gallery(url)
    assert list(again.rows()) == records(50)
    assert not again._client.has_collection("vireid_rewritten")  # type: ignore[attr-defined]
    again.close()


@pytest.mark.slow
def test_killed_in_the_middle_of_adding_nothing_acknowledged_is_lost_and_a_retry_doubles_nothing(tmp_path, run):
    url = f"milvus:{tmp_path / 'g.db'}"
    writer = """
gallery = open_gallery(url, dim=DIM)
given = records(4000)
for start in range(0, 4000, 20):
    sys.stdin.readline()  # it may go on
    gallery.upsert(given[start:start + 20])
    print(start + 20, flush=True)
"""
    process, acknowledged = run(writer, url, stdin=subprocess.PIPE), 0
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n" * 40)  # it does not end before it is killed, however late that is
    process.stdin.flush()
    for _ in range(20):
        acknowledged = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, process.communicate()[0].split())])
    given, gallery = records(4000), open_gallery(url)
    found = list(gallery.rows())
    assert acknowledged <= len(found) < 4000 and found == given[: len(found)]
    gallery.upsert(given)
    assert list(gallery.rows()) == given
    assert ids(gallery.search(unit(3), 10)) == exact(given, unit(3), 10)
    gallery.close()


@pytest.mark.slow
def test_a_second_process_is_told_that_one_at_a_time_may_open_the_file(tmp_path, run):
    url = f"milvus:{tmp_path / 'g.db'}"
    gallery = open_gallery(url, dim=DIM)
    process = run("open_gallery(url)", url)
    assert "GalleryError: milvus-lite could not open" in process.communicate(timeout=300)[1]
    assert process.returncode == 1
    gallery.close()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_milvus_lite_listens_on_loopback_alone(tmp_path):
    """Of this process's own sockets, IPv4 and IPv6."""
    gallery = open_gallery(f"milvus:{tmp_path / 'g.db'}", dim=DIM)
    inodes = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread has closed it
            inodes.add(os.readlink(fd))
    listening = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                listening.append(words[1].split(":")[0])
    gallery.close()
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(listening) <= loopback


def test_more_than_milvus_returns_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vireid.search.drivers.exact.MAX_TIED", 20)
    gallery = open_gallery(f"milvus:{tmp_path / 'g.db'}", dim=DIM)
    given = records(60)
    gallery.add(given)
    assert ids(gallery.search(unit(2), 45)) == exact(given, unit(2), 45)
    gallery.close()


def test_an_index_of_another_kind_is_refused(tmp_path):
    url = f"milvus:{tmp_path / 'g.db'}"
    open_gallery(url + "?index=HNSW#night", dim=DIM).close()
    gallery = open_gallery(url + "#night")
    assert gallery.info().index == "HNSW" and gallery.info().url.endswith("g.db#night")
    gallery.close()
    with pytest.raises(GalleryError, match="made with the index HNSW"):
        open_gallery(url + "?index=FLAT#night")


@pytest.mark.slow
def test_recall_of_hnsw_with_and_without_filters(tmp_path, monkeypatch):
    monkeypatch.setattr(milvus, "EXACT_ROWS", 1000)
    people = crowd(20_000, dim=64, queries=50)
    gallery = open_gallery(f"milvus:{tmp_path / 'g.db'}?index=HNSW", dim=64)
    for batch in people.records(5_000):
        gallery.add(batch)
    gallery.optimize()
    for filter in (EVERYTHING, WIDE, NARROW):
        expected = people.exact(filter)
        found = [{hit.record.id for hit in line} for line in gallery.search(people.queries, 10, filter)]
        recall = np.mean([len(a & b) / 10 for a, b in zip(found, expected, strict=True)])
        assert recall >= 0.99, (filter, recall)
    gallery.close()


def test_a_search_with_a_filter_is_widened_until_its_hits_stay(tmp_path, monkeypatch):
    """A graph search of `ef` rows that sees nearer rows of the other modality first finds few of those that pass."""
    monkeypatch.setattr(milvus, "EXACT_ROWS", 10)
    given = records(600)
    with contextlib.closing(open_gallery(f"milvus:{tmp_path / 'g.db'}?index=HNSW", dim=DIM)) as gallery:
        assert isinstance(gallery, milvus.MilvusGallery)
        gallery.add(given)
        query, everything, asked = unit(1, 2), gallery._candidates, []
        modality = np.array([record.modality for record in given])
        similarity = np.stack([record.vector for record in given]) @ query[0]
        order = np.argsort(np.where(modality == 1, similarity - 2, similarity))[::-1]  # the visible ones are all nearer
        rank = {given[row].id: place for place, row in enumerate(order)}

        def first_of(query, limit, expression, ef):
            asked.append(ef)
            return [hit for hit in everything(query, limit, expression, 4096) if rank[hit["id"]] < ef]

        monkeypatch.setattr(gallery, "_candidates", first_of)
        hits = gallery.search(query, 10, WIDE)
        assert ids(hits) == exact(given, query, 10, WIDE)
        assert asked == [256, 1024, 4096]  # none of the visible 300, all, the same again
        asked.clear()
        gallery.search(query, 10)
        assert asked == [128]  # without a filter, once
