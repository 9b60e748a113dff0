"""Search in a gallery in a folder beside LanceDB's index and an exact scan, under filters and windows of time, by size.

The gallery is a crowd of near duplicates (`tests/support/crowd.py`) of 512 numbers; the queries are new crops of people
in it. `exact` is a scan with numpy in memory of the rows that pass; `plain` is LanceDB's index as LanceDB searches it
by itself (its own number of probes, refined); `without` is the gallery's search where faiss is missing; `vireid` is the
gallery's search, records included. They take turns at every query. Recall is against `exact`, at 10. Memory is that of
a process that opens the gallery and asks all queries once, under each filter.

    python benchmarks/gallery.py [--rows 10000 100000 1000000] [--queries 100]    writes benchmarks/results/gallery.txt
    python benchmarks/gallery.py --folder PATH          keeps the galleries there and takes them again
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe

from vireid.search.drivers import lance, lance_codes, lance_sidecar
from vireid.search.drivers.lance import LanceGallery
from vireid.search.drivers.lance_rows import condition
from vireid.search.gallery import EVERYTHING, Filter
from vireid.system import folder_bytes

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "support"))

from crowd import NARROW, START_S, WIDE, Crowd, crowd  # noqa: E402

K, DIM = 10, 512
DAYS = (3, 10, 20, 29)
FILTERS = {"no filter": EVERYTHING, "infrared": WIDE, "4 cameras, 3 days": NARROW} | {
    f"{days} days": Filter(after_s=START_S, before_s=START_S + 86400 * days) for days in DAYS
}
READER = """
import sys
import numpy as np
sys.path.append(sys.argv[3])
from gallery import FILTERS, K
from vireid.search.drivers.open import open_gallery
gallery = open_gallery(sys.argv[1])
for filter in FILTERS.values():
    for query in np.load(sys.argv[2]):
        gallery.search(query[None], K, filter)
sizes = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Rss"))
print(*(int(sizes[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")))
"""
Search = Callable[[np.ndarray], list[str]]


def fill(gallery: LanceGallery, people: Crowd) -> list[str]:
    """Add the rows, build LanceDB's indexes with that of vectors, and the sidecar beside it."""
    start = time.perf_counter()
    for batch in people.records(50_000):
        gallery.add(batch)
    added = time.perf_counter()
    with missing_faiss():
        gallery.optimize()
    indexed = time.perf_counter()
    if len(people.vectors) >= lance_sidecar.MIN_ROWS:
        with gallery._writing():
            gallery._sidecar.build(gallery._table.search().limit(None).to_batches(lance.PAGE))
    seconds = added - start, indexed - added, time.perf_counter() - indexed
    return [
        "  added in {:.0f} s with making the records; LanceDB's indexes {:.0f} s, sidecar {:.0f} s".format(*seconds)
    ]


class missing_faiss:
    """A block in which a gallery finds no faiss."""

    def __enter__(self) -> None:
        self.there, lance_codes.available = lance_codes.available, lambda: False

    def __exit__(self, *_: object) -> None:
        lance_codes.available = self.there


def measure(searches: dict[str, Search], people: Crowd, exact: list[set[str]]) -> dict[str, tuple[float, float, float]]:
    """p50 and p99 in milliseconds and recall of one query at a time."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    right: dict[str, list[float]] = {name: [] for name in searches}
    for search in searches.values():
        search(people.queries[0])
    for query, expected in zip(people.queries, exact, strict=True):
        for name, search in searches.items():
            start = time.perf_counter()
            found = search(query)
            times[name].append(1000 * (time.perf_counter() - start))
            right[name].append(len(set(found) & expected) / len(expected))
    return {
        name: (float(np.median(times[name])), float(np.quantile(times[name], 0.99)), float(np.mean(right[name])))
        for name in searches
    }


def compare(gallery: LanceGallery, people: Crowd, filter: Filter) -> dict[str, tuple[float, float, float]]:
    rows = np.flatnonzero(people.mask(filter))
    kept = people.vectors if filter.empty else people.vectors[rows]
    where = condition(filter)

    def scan(query: np.ndarray) -> list[str]:
        similarity = kept @ query
        best = np.argpartition(-similarity, K)[:K]
        return [f"r{row:08}" for row in rows[best[np.argsort(-similarity[best])]]]

    def plain(query: np.ndarray) -> list[str]:
        search = gallery._table.search(query, vector_column_name="vector").distance_type("l2")
        search = search.select(["id", "_distance"]).limit(K)
        search = search.refine_factor(10) if where is None else search.where(where, prefilter=True).refine_factor(10)
        return search.to_arrow()["id"].to_pylist()

    def own(query: np.ndarray) -> list[str]:
        return [hit.record.id for hit in gallery.search(query[None], K, filter)[0]]

    def without(query: np.ndarray) -> list[str]:
        with missing_faiss():
            return own(query)

    searches = {"exact": scan, "plain": plain, "without": without, "vireid": own}
    return measure(searches, people, people.exact(filter, K))


def memory(folder: Path, queries: np.ndarray) -> str:
    """Of a process that searches: private, and mapped files, which the system takes back when it needs memory."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, queries)
        file.flush()
        words = [sys.executable, "-c", READER, str(folder), file.name, str(HERE)]
        private, mapped = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return f"{private} MiB private, {mapped} MiB of mapped files"


def one_size(rows: int, queries: int, kept: Path | None) -> list[str]:
    people = crowd(rows, DIM, queries)
    with contextlib.ExitStack() as stack:
        folder = (kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))) / str(rows)
        gallery = LanceGallery(folder, DIM, None)
        made = fill(gallery, people) if gallery.count() == 0 else []
        sidecar, coder = folder_bytes(folder / lance_sidecar.FOLDER), ""
        if state := gallery._sidecar.current():
            coder = f", {state.coder.candidates} candidates, {state.coder.probed:.0%} of the lists without a filter"
        lines = [
            f"{rows:,} rows: {gallery.info().index}{coder}",
            *made,
            f"  disk: LanceDB {(folder_bytes(folder) - sidecar) / 2**20:,.0f} MiB, sidecar {sidecar / 2**20:,.0f} MiB",
        ]
        print(*lines, sep="\n", flush=True)
        for name, filter in FILTERS.items():
            found = compare(gallery, people, filter)
            passing = int(np.count_nonzero(people.mask(filter)))
            lines.append(f"  {name}: {passing:,} rows pass, {100 * passing / rows:.1f} %")
            ratio = found["without"][0] / found["vireid"][0]
            for each, (p50, p99, recall) in found.items():
                lines.append(f"    {each:8}p50 {p50:7.1f}   p99 {p99:7.1f} ms   recall {recall:.4f}")
            lines[-1] += f"   {ratio:.1f} times as fast as without"
            print(*lines[-5:], sep="\n", flush=True)
        gallery.close()
        lines.append(f"  memory of a reader: {memory(folder, people.queries)}")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="of the galleries; kept, and taken again")
    given = parser.parse_args()
    lines = [describe(), f"vectors of {DIM} numbers, {given.queries} queries, the {K} most similar"]
    print(*lines, sep="\n", flush=True)
    for rows in given.rows:
        lines += one_size(rows, given.queries, given.folder)
    target = HERE / "results" / "gallery.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join([*lines, f"at the end: {describe()}", ""]))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
