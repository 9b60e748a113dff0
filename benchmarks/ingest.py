"""Rows a second of indexing pictures and a video, split by step, and searches while rows are added.

    python benchmarks/ingest.py [--run RUN]       a trained run or a bundle; else AGW at its default size, untrained
    python benchmarks/ingest.py --pictures 2000 --seconds 120 --rows 50000

It writes benchmarks/results/ingest.txt, with --run ingest_run.txt.

Pictures are the synthetic set's (288 x 144 JPEG); the video is 1280 x 720 at 25 frames a second (H.264), with six
people who walk, and their boxes come from a file, so no detector is measured. Steps: `look` asks which rows are there,
`decode` opens files or decodes and cuts frames, `embed` resizes and computes vectors, `thumbnail` and `write` write,
`optimize` is what ends an indexing.

Then the pictures are indexed once more into a gallery that holds rows already, by one thread, while others search it
all the time: p50 and p99 of a search before and meanwhile. Afterwards every row that was reported must be there, by
count and by id, and a sample must be its own nearest row; so must be a sample of the rows that were there before.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from machine import describe
from PIL import Image

from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import CONFIG
from vireid.deploy.export import export_bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.ingest.index import Indexed, Piece, index, pieces_of
from vireid.ingest.sources import Crop
from vireid.ingest.video_settings import VideoSettings
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Record
from vireid.synthetic.make import CAMERAS, picture

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "support"))

import small_run  # noqa: E402

WIDTH, HEIGHT, RATE, WALKERS = 1280, 720, 25, 6
BOX = (90, 240)  # width, height in pixels of a walker
STEPS = ("look", "decode", "embed", "thumbnail", "write", "optimize")
K, SAMPLE, DRAWN, ADD = 10, 200, 64, 5000


class Clock:
    """Seconds spent in each step."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STEPS, 0.0)

    def timed(self, step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*given, **more)
            finally:
                self.spent[step] += time.perf_counter() - start

        return run

    @contextlib.contextmanager
    def watch(self, archive: Archive, extractor: FeatureExtractor) -> Iterator[None]:
        """Time the steps of indexing into this archive."""
        gallery: Any = archive.gallery
        kept = (gallery.fetch, gallery.upsert, gallery.optimize, Crop.open, archive.thumbnails.write, extractor.batches)
        gallery.fetch, gallery.upsert = self.timed("look", kept[0]), self.timed("write", kept[1])
        gallery.optimize, Crop.open = self.timed("optimize", kept[2]), self.timed("decode", kept[3])
        archive.thumbnails.write = self.timed("thumbnail", kept[4])
        extractor.batches = self.timed("embed", lambda *given, **more: list(kept[5](*given, **more)))
        try:
            yield
        finally:
            gallery.fetch, gallery.upsert, gallery.optimize, Crop.open = kept[:4]
            archive.thumbnails.write, extractor.batches = kept[4:]


def bundle_of(run: Path | None, folder: Path) -> Bundle:
    """The bundle of a run, or of an untrained AGW of the default size."""
    if run is not None and (run / CONFIG).is_file():
        return Bundle.open(run)
    if run is None:
        small_run.write_people(folder / "data", {"train": 4})
        run = small_run.make_run(folder / "run", folder / "data", words=()).path
    return export_bundle(run, folder / "bundle", onnx=False)


def write_pictures(folder: Path, count: int) -> Path:
    """`count` JPEGs of two cameras; from DRAWN on they are earlier ones again, with another file name."""
    drawn = [np.asarray(picture(pid, CAMERAS["sysu"][pid % 3], 0).image) for pid in range(min(count, DRAWN))]
    for number in range(count):
        place = folder / f"camera {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        shifted = np.roll(drawn[number % len(drawn)], number // len(drawn), axis=1)  # no two alike
        Image.fromarray(shifted).save(place / f"{number:06}.jpg", quality=90)
    return folder


def write_video(path: Path, seconds: int) -> tuple[Path, Path]:
    """The video and the file of its boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    people = [
        Image.fromarray(picture(pid, CAMERAS["sysu"][0], 0).image).resize(BOX, Image.Resampling.BILINEAR)
        for pid in range(WALKERS)
    ]
    ground = np.random.default_rng(0).integers(60, 120, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    back = Image.fromarray(ground).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    lines = ["time,left,top,right,bottom,track"]
    with av.open(str(path), "w") as video:
        stream: Any = video.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for number in range(seconds * RATE):
            shown = back.copy()
            for walker, person in enumerate(people):
                way = number * (2 + walker % 3) + walker * 211
                left, top = way % (WIDTH - BOX[0]), 60 + 70 * walker
                shown.paste(person, (left, top))
                passage = f"{walker}-{way // (WIDTH - BOX[0])}"
                lines.append(f"{number / RATE:.3f},{left},{top},{left + BOX[0]},{top + BOX[1]},{passage}")
            video.mux(stream.encode(av.VideoFrame.from_image(shown)))
        video.mux(stream.encode())
    boxes = path.with_suffix(".csv")
    boxes.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, boxes


def measure(name: str, pieces: list[Piece], folder: Path, extractor: FeatureExtractor, unit: str) -> list[str]:
    """Lines about one indexing; `unit` says what was read."""
    gallery = open_gallery(folder, extractor.dim, extractor.bundle.config.digest)
    archive, clock = Archive(gallery, folder.with_suffix(".files")), Clock()
    with clock.watch(archive, extractor):
        start = time.perf_counter()
        found = index(archive, extractor, pieces)
        whole = time.perf_counter() - start
    start = time.perf_counter()
    again = index(archive, extractor, pieces)
    second = time.perf_counter() - start
    assert not found.refused and (again.added, again.present) == (0, found.added) and gallery.count() == found.added
    archive.close()
    shares = "  ".join(f"{step} {100 * spent / whole:.0f} %" for step, spent in clock.spent.items())
    return [
        f"  {name}: {found.added / whole:,.1f} rows/s ({found.added:,} rows in {whole:.1f} s, {unit})",
        f"    {shares}",
        f"    again, when all are there: {again.present / second:,.0f} rows/s",
    ]


def fill(folder: Path, extractor: FeatureExtractor, rows: int) -> Any:
    """A gallery of this many rows of random vectors."""
    gallery = open_gallery(folder, extractor.dim, extractor.bundle.config.digest)
    random = np.random.default_rng(1)
    for first in range(0, rows, ADD):
        vectors = random.standard_normal((min(ADD, rows - first), extractor.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        gallery.upsert(
            Record(f"before/{first + n:08}", vector, f"cam{n % 20}", float(n), n % 2, "")
            for n, vector in enumerate(vectors)
        )
    gallery.optimize()
    return gallery


def search_while(work: Callable[[], Any], gallery: Any, queries: np.ndarray, threads: int) -> tuple[Any, list[float]]:
    """What the work returned, and the milliseconds of each search that threads did meanwhile."""
    done, times, faults = threading.Event(), list[float](), list[BaseException]()

    def search(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            while not done.is_set():
                query = queries[random.integers(len(queries))][None]
                start = time.perf_counter()
                [hits] = gallery.search(query, K)
                times.append(1000 * (time.perf_counter() - start))
                assert len(hits) == K
        except BaseException as error:
            faults.append(error)

    asking = [threading.Thread(target=search, args=(seed,)) for seed in range(threads)]
    for thread in asking:
        thread.start()
    try:
        found = work()
    finally:
        done.set()
        for thread in asking:
            thread.join()
    if faults:
        raise faults[0]
    return found, times


def check_all(gallery: Any, ids: list[str], total: int) -> str:
    """Count, ids and a sample that must be its own nearest row; a line about it."""
    assert gallery.count() == total, f"{gallery.count()} rows, expected {total}"
    there = [record.id for first in range(0, len(ids), ADD) for record in gallery.fetch(ids[first : first + ADD])]
    assert there == ids
    random = np.random.default_rng(2)
    chosen = [str(ids[at]) for at in random.choice(len(ids), min(SAMPLE, len(ids)), replace=False)]
    chosen += [
        f"before/{at:08}" for at in random.choice(total - len(ids), min(SAMPLE, total - len(ids)), replace=False)
    ]
    sample = gallery.fetch(chosen)
    lost = [
        record.id
        for record, hits in zip(sample, gallery.search(np.stack([r.vector for r in sample]), K), strict=True)
        if not any(hit.record.id == record.id and hit.similarity > 0.9999 for hit in hits)
    ]
    assert not lost, f"not found by their own vectors: {lost[:5]}"
    told = f"{total:,} rows counted, {len(ids):,} new ids there, {len(sample)} of {len(sample)} found by themselves"
    return f"    afterwards: {told}"


def concurrent(pieces: list[Piece], folder: Path, extractor: FeatureExtractor, rows: int, threads: int) -> list[str]:
    gallery = fill(folder, extractor, rows)
    archive = Archive(gallery, folder.with_suffix(".files"))
    queries = np.stack([record.vector for record in gallery.fetch([f"before/{n:08}" for n in range(min(rows, 500))])])
    _, alone = search_while(lambda: time.sleep(10), gallery, queries, threads)
    start = time.perf_counter()
    found: Indexed
    found, meanwhile = search_while(lambda: index(archive, extractor, pieces), gallery, queries, threads)
    spent = time.perf_counter() - start
    ids = [crop.id for piece in pieces for crop in piece.crops()]
    assert found.added == len(ids)
    added = f"{found.added:,} are added ({found.added / spent:,.1f} rows/s)"
    lines = [f"  searches of {threads} threads in {rows:,} rows while {added}"]
    for name, times in (("before", alone), ("while added", meanwhile)):
        spread = f"p50 {np.median(times):7.1f}   p99 {np.quantile(times, 0.99):7.1f} ms"
        lines.append(f"    {name:12} {len(times):6} searches   {spread}")
    lines.append(check_all(gallery, ids, rows + found.added))
    archive.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run folder or a bundle")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=120, help="of video")
    parser.add_argument("--rows", type=int, default=50_000, help="that are there before searches begin")
    parser.add_argument("--threads", type=int, default=2, help="that search")
    given = parser.parse_args()
    lines = [describe()]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle = bundle_of(given.run, folder)
        extractor = FeatureExtractor(bundle)
        config = bundle.config
        lines.append(
            f"{config.method}{'' if given.run else ', untrained'}: {config.size[0]} x {config.size[1]} pixels, "
            f"{config.num_params / 1e6:.1f} M parameters, {config.dim} numbers"
        )
        print(*lines, sep="\n", flush=True)
        pictures = list(pieces_of(write_pictures(folder / "pictures", given.pictures)))
        part = measure("pictures", pictures, folder / "g1", extractor, "288 x 144 JPEG")
        print(*part, sep="\n", flush=True)
        lines += part
        video, boxes = write_video(folder / "video/walk.mp4", given.seconds)
        settings = VideoSettings(boxes=boxes, interval_s=0.5)
        unit = f"{given.seconds * RATE:,} frames of {WIDTH} x {HEIGHT}, a crop of each track every half second"
        part = measure("video", list(pieces_of(video, videos=settings)), folder / "g2", extractor, unit)
        print(*part, sep="\n", flush=True)
        lines += part
        part = concurrent(pictures, folder / "g3", extractor, given.rows, given.threads)
        print(*part, sep="\n", flush=True)
        lines += part
    target = HERE / "results" / ("ingest.txt" if given.run is None else "ingest_run.txt")
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
