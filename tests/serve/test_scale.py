"""Many workers: what one process does, whoever is killed. Each test has a session of Ray of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pieces import Deadly, Failing, Waiting, wait_for
from served import crops, make_bundle, quiet

from vireid.serve.archive import Archive
from vireid.serve.bundle import Bundle
from vireid.serve.extractor import FeatureExtractor
from vireid.serve.gallery import Record, open_gallery
from vireid.serve.index import BATCH, Crop, Pictures, index
from vireid.serve.scale import TRIES, Job, ScaleError, _session, index_with_ray

pytest.importorskip("lancedb", reason="extra: search")
pytest.importorskip("ray.data", reason="extra: scale")
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
LONG = BATCH + 24


@pytest.fixture(autouse=True)
def paths(monkeypatch) -> None:
    """Ray's processes import from these."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def opened(folder: Path, bundle: Bundle) -> Archive:
    gallery = open_gallery(folder / "g", bundle.config.dim, bundle.config.digest)
    return Archive(gallery, folder / "g.files")


def job(folder: Path, bundle: Bundle) -> Job:
    return Job(bundle.path, f"lance:{folder / 'g'}", folder / "g.files", device="cpu")


def many(bundle: Bundle) -> list[Crop]:
    """LONG crops, of the same pictures again and again."""
    given = crops(bundle.path.parent)
    return [replace(given[n % len(given)], id=f"long/{n:03}") for n in range(LONG)]


def work(bundle: Bundle, folder: Path) -> list[Waiting | Pictures]:
    """One piece that waits in its middle, and four short ones."""
    given = crops(bundle.path.parent)
    short = [Pictures(tuple(given[at : at + 16])) for at in range(0, 64, 16)]
    return [Waiting("long", tuple(many(bundle)), folder), *short]


def rows(archive: Archive) -> dict[str, Record]:
    """All rows by id, with vectors; an id that is there twice fails."""
    ids = [record.id for record in archive.gallery.rows()]
    assert len(set(ids)) == len(ids)
    return {record.id: record for record in archive.gallery.fetch(ids)}


@pytest.fixture(scope="module")
def expected(bundle, tmp_path_factory) -> Iterator[Archive]:
    """What one process makes of all crops."""
    with closing(opened(tmp_path_factory.mktemp("one"), bundle)) as archive:
        index(archive, FeatureExtractor(bundle, device="cpu"), crops(bundle.path.parent) + many(bundle), say=quiet)
        yield archive


def check_same(archive: Archive, expected: Archive) -> None:
    found, right = rows(archive), rows(expected)
    assert found == right  # all but the vectors
    for id, record in found.items():
        np.testing.assert_allclose(record.vector, right[id].vector, rtol=0, atol=1e-6)
        assert archive.thumbnails.read(id) == expected.thumbnails.read(id) is not None
    assert not list(archive.folder.rglob("*.partial"))


def test_equal_to_one_process_and_faults_are_told_and_end_nothing(bundle, tmp_path, expected):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "go").touch()
    broken = Pictures((Crop("broken", tmp_path / "broken.jpg", "gate"),))
    said = []
    with closing(opened(tmp_path, bundle)) as archive:
        given = [Failing("burning"), broken, *work(bundle, tmp_path), Deadly("deadly")]
        found = index_with_ray(archive, job(tmp_path, bundle), given, workers=2, say=said.append)
        check_same(archive, expected)
        assert (found.added, found.present, len(found.refused)) == (64 + LONG, 0, 1)
        assert "broken.jpg cannot be read as a picture" in found.refused[0]
        assert sorted(found.failed) == [
            "burning: RuntimeError: the disk is on fire",
            f"deadly: ScaleError: its process died {TRIES} times; a damaged file, or too little memory?",
        ]
        assert said[-1] == f"indexed {64 + LONG} pictures, 0 were there; 8 of 8 pieces"


def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost_or_doubled(bundle, tmp_path, expected):
    given = work(bundle, tmp_path)
    killed = []

    def kill() -> None:
        wait_for(lambda: given[0].half_done_by, "the first half of the long piece")
        killed.extend(given[0].half_done_by)
        os.kill(killed[0], signal.SIGKILL)
        (tmp_path / "go").touch()

    with closing(opened(tmp_path, bundle)) as archive:
        killer = threading.Thread(target=kill)
        killer.start()
        found = index_with_ray(archive, job(tmp_path, bundle), given, workers=2, say=quiet)
        killer.join()
        check_same(archive, expected)
    assert len(given[0].half_done_by) == 2 and given[0].half_done_by != 2 * killed
    assert found.failed == () and found.added + found.present == 64 + LONG
    assert found.present >= BATCH  # what the killed process had written


DRIVER = """
import sys; from pathlib import Path; from test_scale import *
folder, bundle = Path(sys.argv[1]), Bundle.open(sys.argv[2])
with closing(opened(folder, bundle)) as archive:
    index_with_ray(archive, job(folder, bundle), work(bundle, folder), workers=2, say=quiet)
"""


def test_the_driver_killed_and_run_again_embeds_only_what_was_missing(bundle, tmp_path, expected):
    short = tempfile.mkdtemp(prefix="vt-")  # sockets have short paths
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(bundle.path)],
        env=os.environ | {"TMPDIR": short}, start_new_session=True,
    )  # fmt: skip
    try:
        long = work(bundle, tmp_path)[0]
        wait_for(lambda: long.half_done_by or process.poll() is not None, "the first half of the long piece")
        assert process.poll() is None
        begun = below(process.pid)
        assert set(long.half_done_by) <= begun and len(begun) > 3
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not [pid for pid in begun if alive(pid)], "the end of Ray's processes")
    shutil.rmtree(short)

    with closing(opened(tmp_path, bundle)) as archive:
        there = rows(archive)
        assert BATCH <= len(there) < 64 + LONG
        written = {id: thumbnail(archive, id).stat().st_mtime_ns for id in there}
        (tmp_path / "go").touch()
        with _session(None, 2):  # one for both calls, as a program of one's own would have it
            found = index_with_ray(archive, job(tmp_path, bundle), work(bundle, tmp_path), workers=2, say=quiet)
            again = index_with_ray(archive, job(tmp_path, bundle), work(bundle, tmp_path), workers=1, say=quiet)
        assert (found.added, found.present) == (64 + LONG - len(there), len(there)) and not found.failed
        assert (again.added, again.present) == (0, 64 + LONG)
        check_same(archive, expected)
        assert {id: thumbnail(archive, id).stat().st_mtime_ns for id in there} == written  # not embedded again


def thumbnail(archive: Archive, id: str) -> Path:
    return archive.thumbnails.folder / archive.thumbnails.name(id)


def below(pid: int) -> set[int]:
    """Every process that this one, or one of these, has begun."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("url", "told"), [("memory:", "gone with its process"), ("milvus:a.db", "one process at a time")]
)
def test_a_gallery_for_one_process_is_refused(bundle, tmp_path, url, told):
    with pytest.raises(ScaleError, match=told):
        Job(bundle.path, url, tmp_path)


def test_workers_and_devices_that_cannot_be_are_refused(bundle, tmp_path):
    with pytest.raises(ScaleError, match="cuda or auto"):
        Job(bundle.path, "g", tmp_path, device="cuda:1")
    with closing(opened(tmp_path, bundle)) as archive, pytest.raises(ScaleError, match="1 or more"):
        index_with_ray(archive, job(tmp_path, bundle), [], workers=0)
