"""Forgetting for good: seconds and bytes on the disk, by identity, by camera and by age, and what is left in the files.

A gallery of LanceDB with its index (`tests/support/crowd.py`, 512 numbers, 50 crops of a person), a small thumbnail for
each row that goes. `Archive.forget` deletes and purges; afterwards every file is searched for the id and for the bytes
of the vector of rows that went. `delete alone` hides the rows; removing thumbnails and purging follow on it.

    python benchmarks/retention.py [--rows 100000]        writes benchmarks/results/retention.txt
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Record

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "support"))

from crowd import CROPS, DAYS, START_S, Crowd, crowd  # noqa: E402

DIM, SOUGHT = 512, 20  # numbers of a vector; rows that went and are searched for
KEPT_DAYS = 0.9 * DAYS  # by age a tenth goes
RULES = {
    "one identity": Filter(pids=("person 7",)),
    "one camera": Filter(cameras=("cam3",)),
    f"older than {KEPT_DAYS:.0f} days": Filter(before_s=START_S + 86400 * (DAYS - KEPT_DAYS)),
}


def records(people: Crowd) -> Iterable[list[Record]]:
    for batch in people.records(50_000):
        yield [replace(record, pid=f"person {int(record.id[1:]) // CROPS}") for record in batch]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def left(folder: Path, gone: list[Record]) -> int:
    """Files with the id or the vector of a row that went. Ids may be compressed: a vector is the surer sign."""
    marks = [mark for record in gone for mark in (record.id.encode(), record.vector.tobytes())]
    found = 0
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += any(mark in content for mark in marks)
    return found


def measure(archive: Archive, place: Path, name: str, filter: Filter) -> str:
    ids = [record.id for record in archive.gallery.rows(filter)]
    gone = archive.gallery.fetch(ids[:: max(1, len(ids) // SOUGHT)][:SOUGHT])
    picture = Image.fromarray(np.zeros((128, 64, 3), np.uint8))
    for id in ids:
        archive.thumbnails.write(id, picture)
    before, files_before = size(place), left(place, gone)
    start = time.perf_counter()
    archive.gallery.delete(where=filter)
    deleted_s = time.perf_counter() - start
    hidden, files_hidden = size(place), left(place, gone)
    start = time.perf_counter()
    forgotten = archive.forget(ids=ids)  # the rows are gone from sight; thumbnails and bytes are not
    forgot_s = time.perf_counter() - start
    after, files_after = size(place), left(place, gone)
    if files_after or archive.gallery.count(filter):
        raise SystemExit(f"{name}: {files_after} files still hold what was deleted")
    assert files_before, "rows that cannot be found prove nothing"
    sizes = f"{before / 1e6:.1f} -> {hidden / 1e6:.1f} -> {after / 1e6:.1f} MB"
    files = f"found in {files_before} -> {files_hidden} -> {files_after} files"
    times = f"delete {deleted_s:.2f} s, then {forgotten.thumbnails:,} thumbnails and purge {forgot_s:.1f} s"
    return f"{name:20} {len(ids):6,} rows   {times}   {sizes}   {files}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    given = parser.parse_args()
    people = crowd(given.rows, DIM, queries=1)
    lines = [describe(), f"{given.rows:,} rows of {DIM} numbers; bytes are of the gallery's folder"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "gallery"
        with closing(Archive(open_gallery(place, DIM), Path(folder) / "files")) as archive:
            for batch in records(people):
                archive.gallery.add(batch)
            archive.gallery.optimize()
            lines.append(f"index: {archive.gallery.info().index}")
            for name, filter in RULES.items():
                lines.append(measure(archive, place, name, filter))
                print(lines[-1], flush=True)
            start = time.perf_counter()
            archive.gallery.purge()
            lines.append(f"purge with nothing to remove: {time.perf_counter() - start:.1f} s")
    out = HERE / "results" / "retention.txt"
    out.write_text("\n".join(lines) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main()
