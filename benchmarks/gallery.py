"""Search in a gallery of LanceDB beside an exact scan and beside the plain index, with and without a filter.

The gallery is a crowd of near duplicates (`tests/support/crowd.py`) of 512 numbers; the queries are new crops of people
in it. `exact` is a scan with numpy in memory of the rows that pass; `plain` is the same index as LanceDB searches it by
itself (its own number of probes, refined); `vireid` is the gallery's own search, records included. Recall is against
`exact`, at 10.

    python benchmarks/gallery.py [--rows 1000000] [--queries 100]        writes benchmarks/results/gallery.txt
    python benchmarks/gallery.py --folder PATH                           keeps the gallery there and takes it again
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe

from vireid.search.drivers.lance import LanceGallery
from vireid.search.drivers.lance_rows import condition
from vireid.search.gallery import EVERYTHING, Filter

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "serve"))

from crowd import NARROW, WIDE, Crowd, crowd  # noqa: E402

K, DIM = 10, 512
FILTERS = {"no filter": EVERYTHING, "infrared": WIDE, "4 cameras, 3 days": NARROW}


def fill(gallery: LanceGallery, people: Crowd) -> list[str]:
    start = time.perf_counter()
    for batch in people.records(50_000):
        gallery.add(batch)
    added = time.perf_counter() - start
    start = time.perf_counter()
    gallery.optimize()
    built = time.perf_counter() - start
    rows = len(people.vectors)
    return [
        f"  added {rows / added:,.0f} rows/s ({added:.0f} s with making the records), indexes built in {built:.0f} s"
    ]


def measure(search: Callable[[np.ndarray], list[str]], people: Crowd, exact: list[set[str]]) -> str:
    """p50, p99 and recall of one query at a time."""
    times, right = [], []
    for query, expected in zip(people.queries, exact, strict=True):
        start = time.perf_counter()
        found = search(query)
        times.append(1000 * (time.perf_counter() - start))
        right.append(len(set(found) & expected) / len(expected))
    return f"p50 {np.median(times):7.1f}   p99 {np.quantile(times, 0.99):7.1f} ms   recall {np.mean(right):.4f}"


def compare(gallery: LanceGallery, people: Crowd, name: str, filter: Filter) -> list[str]:
    rows = np.flatnonzero(people.mask(filter))
    share = len(rows) / len(people.vectors)
    kept = people.vectors if filter.empty else people.vectors[rows]
    exact = people.exact(filter, K)
    where = condition(filter)

    def scan(query: np.ndarray) -> list[str]:
        similarity = kept @ query
        best = np.argpartition(-similarity, K)[:K]
        return [f"r{row:08}" for row in rows[best[np.argsort(-similarity[best])]]]

    def plain(query: np.ndarray) -> list[str]:
        search = (
            gallery._table.search(query, vector_column_name="vector")
            .distance_type("l2")
            .select(["id", "_distance"])
            .limit(K)
        )
        search = search.refine_factor(10) if where is None else search.where(where, prefilter=True).refine_factor(10)
        return search.to_arrow()["id"].to_pylist()

    def own(query: np.ndarray) -> list[str]:
        return [hit.record.id for hit in gallery.search(query[None], K, filter)[0]]

    lines = [f"  {name}: {len(rows):,} rows pass, {100 * share:.1f} %"]
    for label, search in (("exact", scan), ("plain", plain), ("vireid", own)):
        search(people.queries[0])
        lines.append(f"    {label:7}{measure(search, people, exact)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="of the gallery; a temporary one if left out")
    given = parser.parse_args()
    lines = [describe(), f"{given.rows:,} rows of {DIM} numbers, {given.queries} queries, the {K} most alike"]
    people = crowd(given.rows, DIM, given.queries)
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "gallery"
        gallery = LanceGallery(folder, DIM, None)
        if gallery.count() == 0:
            lines += fill(gallery, people)
        print(*lines, sep="\n", flush=True)
        info = gallery.info()
        lines.append(
            f"  {info.index}; {(info.size_bytes or 0) / 2**20:,.0f} MiB, of which {2 * given.rows / 2**10:,.0f} vectors"
        )
        for name, filter in FILTERS.items():
            lines += compare(gallery, people, name, filter)
            print(*lines[-4:], sep="\n", flush=True)
        gallery.close()
    text = "\n".join([*lines, ""])
    target = HERE / "results" / "gallery.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
