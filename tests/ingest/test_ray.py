"""Many workers: what one process does, whoever is killed. Each test has a session of Ray of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pieces import LONG, SHORT, crops, half_done_by, wait_for
from PIL import Image
from served import make_bundle

from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.errors import ParallelError
from vireid.ingest.index import BATCH, index
from vireid.ingest.ray import TRIES, Job, index_with_ray
from vireid.search.archive import Archive, Thumbnails
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Record

HERE = Path(__file__).parent
RAY = {"RAY_worker_niceness": "0"}  # not 15: beside other tests its workers would wait for minutes
ALL = SHORT + LONG


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    pytest.importorskip("lancedb", reason="extra: search")
    pytest.importorskip("ray.data", reason="extra: scale")
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def opened(folder: Path, bundle: Bundle) -> Archive:
    gallery = open_gallery(folder / "g", bundle.config.dim, bundle.config.digest)
    return Archive(gallery, folder / "g.files")


@pytest.fixture(scope="module")
def expected(bundle, tmp_path_factory) -> Iterator[Archive]:
    """What one process makes of all crops."""
    with closing(opened(tmp_path_factory.mktemp("one"), bundle)) as archive:
        index(archive, FeatureExtractor(bundle, device="cpu"), crops(bundle.path.parent / "data"))
        yield archive


@pytest.fixture
def short_path() -> Iterator[str]:
    """Ray's sockets lie below it, and their paths must be short."""
    folder = tempfile.mkdtemp(prefix="vt-")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(bundle, short_path, start_python):
    """Starts the program of pieces.py, in a process group of its own."""

    def program(folder: Path, *words: str) -> subprocess.Popen:
        code = "import sys, pieces; pieces.main(*sys.argv[1:])"
        environment = RAY | {"TMPDIR": short_path}
        return start_python("-c", code, bundle.path, folder, *words, env=environment, start_new_session=True)

    return program


def told(process: subprocess.Popen) -> list[dict]:
    """What the program said, which has ended well and has left nothing behind."""
    begun = below(process.pid)
    out, _ = process.communicate()
    assert process.returncode == 0
    wait_for(lambda: not any(map(alive, begun)), "the end of Ray's processes")
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]  # Ray prints between


def rows(archive: Archive) -> dict[str, Record]:
    """All rows by id, with vectors; an id that is there twice fails."""
    ids = [record.id for record in archive.gallery.rows()]
    assert len(set(ids)) == len(ids)
    return {record.id: record for record in archive.gallery.fetch(ids)}


def check_same(archive: Archive, expected: Archive) -> None:
    found, right = rows(archive), rows(expected)
    assert found == right  # all but the vectors
    for id, record in found.items():
        np.testing.assert_allclose(record.vector, right[id].vector, rtol=0, atol=1e-6)
        assert archive.thumbnails.read(id) == expected.thumbnails.read(id) is not None
    assert not list(archive.folder.rglob("*.partial"))


@pytest.mark.slow
def test_equal_to_one_process_though_a_worker_is_killed_and_faults_are_told_and_end_nothing(
    bundle, tmp_path, expected, short_path, start
):
    process = start(tmp_path, "faulty", "2")
    wait_for(lambda: half_done_by(tmp_path) or process.poll() is not None, "half of the long piece")
    (killed,) = half_done_by(tmp_path)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: half_done_by(tmp_path) > {killed} or process.poll() is not None, "the same from another process")
    (tmp_path / "go").touch()
    (found,) = told(process)
    with closing(opened(tmp_path, bundle)) as archive:
        check_same(archive, expected)
    assert (found["added"], found["present"]) == (ALL - BATCH, BATCH)  # by the last try
    assert len(found["refused"]) == 1 and "broken.jpg cannot be read as a picture" in found["refused"][0]
    assert sorted(found["failed"]) == [
        "burning: RuntimeError: the disk is on fire",
        f"deadly: ParallelError: its process died {TRIES} times; a damaged file, or too little memory?",
    ]
    assert os.listdir(short_path) == []


@pytest.mark.slow
def test_the_driver_killed_and_run_again_embeds_only_what_was_missing(bundle, tmp_path, expected, start):
    process = start(tmp_path, "sound", "2")
    wait_for(lambda: half_done_by(tmp_path) or process.poll() is not None, "half of the long piece")
    begun = below(process.pid)
    assert half_done_by(tmp_path) < begun
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for pid in begun:  # they follow by themselves, but not where a process like systemd adopts orphans
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, begun)), "the end of Ray's processes")

    with closing(opened(tmp_path, bundle)) as archive:
        there = rows(archive)
        assert BATCH <= len(there) < ALL
        written = {id: thumbnail(archive, id).stat().st_mtime_ns for id in there}
        (tmp_path / "go").touch()
        found, again = told(start(tmp_path, "sound", "2", "1"))
        assert (found["added"], found["present"], found["failed"]) == (ALL - len(there), len(there), [])
        assert (again["added"], again["present"]) == (0, ALL)
        check_same(archive, expected)
        assert {id: thumbnail(archive, id).stat().st_mtime_ns for id in there} == written  # not embedded again


@pytest.mark.slow
def test_the_command_shares_videos_among_workers(bundle, tmp_path, short_path):
    filmed = pytest.importorskip("filmed", reason="extra: video")
    for camera in ("gate", "hall"):
        filmed.film(tmp_path / f"videos/{camera}/a.mp4", filmed.steps(30))
        filmed.boxes_csv(tmp_path / f"boxes-{camera}.csv", filmed.steps(30), video=f"{camera}/a.mp4")
    texts = [(tmp_path / f"boxes-{camera}.csv").read_text().splitlines() for camera in ("gate", "hall")]
    (tmp_path / "boxes.csv").write_text("\n".join(texts[0] + texts[1][1:]))

    def command(name: str, *words: str) -> Archive:
        line = ["index", bundle.path, tmp_path / "videos", "--gallery", tmp_path / name / "g", *words]
        line += ["--boxes", tmp_path / "boxes.csv", "--interval", "0.5"]
        environment = os.environ | RAY | {"TMPDIR": short_path, "PYTHONPATH": str(HERE.parents[1])}
        done = subprocess.run(
            [sys.executable, "-m", "vireid", *map(str, line)], cwd=tmp_path, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "added 24 pictures\n" in done.stdout
        return opened(tmp_path / name, bundle)

    with closing(command("many", "--workers", "2")) as many, closing(command("one")) as one:
        check_same(many, one)
    assert os.listdir(short_path) == []


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
    ("url", "reason"), [("memory:", "gone with its process"), ("milvus:a.db", "one process at a time")]
)
def test_a_gallery_for_one_process_is_refused(tmp_path, url, reason):
    with pytest.raises(ParallelError, match=reason):
        Job(tmp_path, url, tmp_path)


def test_a_numbered_gpu_no_workers_and_the_client_of_ray_are_refused(tmp_path):
    with pytest.raises(ParallelError, match="cuda or auto"):
        Job(tmp_path, "g", tmp_path, device="cuda:1")
    with pytest.raises(ParallelError, match="1 or more"):
        index_with_ray(Job(tmp_path, "g", tmp_path), [], workers=0)
    with pytest.raises(ParallelError, match="--ray auto"):
        index_with_ray(Job(tmp_path, "g", tmp_path), [], address="ray://head:10001")


def test_a_thumbnail_of_two_processes_and_of_one_that_was_killed(tmp_path, monkeypatch):
    thumbnails = Thumbnails(tmp_path)
    path, picture = tmp_path / thumbnails.name("a"), Image.new("RGB", (8, 8))
    partial = path.with_suffix(".partial")
    replace = Path.replace

    def faster(self: Path, target: Path) -> None:
        replace(self, target)  # another process, which wrote the same
        replace(self, target)

    monkeypatch.setattr(Path, "replace", faster)
    thumbnails.write("a", picture)
    assert path.is_file() and not partial.exists()
    partial.write_bytes(path.read_bytes())  # killed before it was renamed
    assert thumbnails.remove(["a", "b"]) == 1
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []
