"""Indexing a video, killed at every kind of moment and run again, leaves what an uninterrupted run leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")
pytest.importorskip("trackers", reason="needs the extra `video`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("lancedb", reason="needs the extra `search`")
from filmed import film, steps
from served import make_bundle

from vireid.deploy.bundle import Bundle
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Record

HERE = Path(__file__).parent

# Indexes FOLDER/v into FOLDER/PLACE in segments of two seconds and batches of three, tells every step, and waits to be
# killed at the nth step of a kind.
WORKER = """
import contextlib, sys
from pathlib import Path
folder, place, rows, kind, nth = Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
from filmed import Walkers
from vireid.ingest import index as module
from vireid.search.archive import Archive, Thumbnails
from vireid.deploy.extractor import FeatureExtractor
from vireid.search.drivers.open import open_gallery
from vireid.ingest import boxes
from vireid.ingest import segments as segment
from vireid.ingest.video_settings import VideoSettings
counts = {}

def tell(step):
    counts[step] = counts.get(step, 0) + 1
    print(step, flush=True)
    if (step, counts[step]) == (kind, nth):
        print("here", flush=True)
        sys.stdin.read()

def telling(step, call):
    def told(*given, **more):
        found = call(*given, **more)
        tell(step)
        return found
    return told

@contextlib.contextmanager
def replacing(path):
    with kept(path) as partial:
        yield partial
        tell("partial")  # written, and not yet in its place

kept, boxes.replacing = boxes.replacing, replacing
module.BATCH, segment.FRAMES = 3, 4
walkers = telling("detect", Walkers())
segment.detector_of = lambda settings: walkers
segment.write_boxes = telling("boxes", segment.write_boxes)
Thumbnails.write = telling("thumbnail", Thumbnails.write)
extractor = FeatureExtractor(folder / "bundle", device="cpu")
gallery = open_gallery(folder / place, extractor.dim, extractor.bundle.config.digest)
gallery.upsert = telling("upsert", gallery.upsert)
archive = Archive(gallery, folder / (place + ".files"))
settings = VideoSettings(detector=folder / "detector", segment_s=2.0, fps=10, interval_s=0.5)
pieces = module.pieces_of(folder / "v", videos=settings, start_s=float("nan"), store=archive.folder / "boxes")
print(module.index(archive, extractor, pieces, rows=rows), flush=True)
"""

MOMENTS = [  # one after the other on one gallery, each in the run that goes on from the one before
    ("detect", 2), ("partial", 1), ("boxes", 1), ("thumbnail", 2), ("upsert", 1), ("detect", 3),
]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("killed"))


def prepare(folder: Path, bundle: Bundle) -> None:
    (folder / "bundle").symlink_to(bundle.path)
    film(folder / "v/gate/a.mp4", steps(55))
    film(folder / "v/hall/b.mkv", steps(12), people=1)
    (folder / "detector").mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (folder / "detector" / name).write_bytes(b"{}")


def work(folder: Path, place: str, rows: str, kind: str = "none", nth: int = 0) -> list[str]:
    """The steps that were told by a run that ended, or was killed at the nth step of a kind."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent / "support"), str(HERE.parents[1])]), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), place, rows, kind, str(nth)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line.strip())
        if told[-1] == "here":
            os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert (process.returncode, told[-1]) == (-signal.SIGKILL, "here") if kind != "none" else process.returncode == 0
    return told


def contents(folder: Path, place: str) -> tuple[list[Record], np.ndarray, dict[str, bytes]]:
    """Rows, vectors, and all files of an archive but its marks."""
    gallery = open_gallery(folder / place)
    rows = list(gallery.rows())
    vectors = np.stack([record.vector for record in gallery.fetch([row.id for row in rows])])
    files = folder / (place + ".files")
    names = sorted(path.relative_to(files) for path in files.rglob("*") if path.is_file())
    return rows, vectors, {str(name): (files / name).read_bytes() for name in names if "marks" not in str(name)}


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["crops", "tracks"])
def test_killed_anywhere_and_run_again(tmp_path: Path, bundle: Bundle, rows: str) -> None:
    prepare(tmp_path, bundle)
    whole = work(tmp_path, "whole", rows)
    expected = contents(tmp_path, "whole")
    steps_of = [step for step in whole if step in ("detect", "partial", "boxes", "thumbnail", "upsert")]
    moments = MOMENTS if rows == "crops" else [("thumbnail", 2)]
    detected = 0
    for kind, nth in moments:
        detected += work(tmp_path, "g", rows, kind, nth).count("boxes")
        kept = list(open_gallery(tmp_path / "g").rows())
        assert {row.id for row in kept} <= {row.id for row in expected[0]}
        assert all((tmp_path / "g.files/thumbnails" / row.thumbnail).is_file() for row in kept)
    last = work(tmp_path, "g", rows)
    assert detected + last.count("boxes") == steps_of.count("boxes") == 4  # no segment was detected twice to its end
    found = contents(tmp_path, "g")
    assert found[0] == expected[0] and len({row.id for row in found[0]}) == len(found[0]) > 6
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[2] == expected[2] and not [name for name in found[2] if "partial" in name]
    if rows == "crops":
        again = work(tmp_path, "g", rows)
        assert not {"detect", "thumbnail", "upsert"} & set(again) and contents(tmp_path, "g")[0] == expected[0]
