"""How search in a gallery in a folder grows with rows, with clients and while rows are added, beside other libraries.

The rows are those of gallery.py. `vireid` is the gallery's search, records included; `plain` is LanceDB's search of
every row, as the sidecar takes the place of its index; usearch and hnswlib hold all vectors in memory, zvec in a
folder (all three: HNSW, ef 256). These are measured without filter and records, where they are installed. They take
turns at every query, and a ratio is to vireid in the same run. Clients are threads of one process. The last part embeds
synthetic pictures with `night` and measures the recall of the codes on these vectors, which are no random clusters.

    python benchmarks/growth.py [--rows 10000 100000 1000000] [--pictures 6000]    writes benchmarks/results/growth.txt
    python benchmarks/growth.py --rows 10000000 --dim 128 --folder PATH    keeps the gallery there for another run
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gallery import DIM, FILTERS, K, Search, memory
from gallery import measure as measure_in_turn
from machine import describe

from vireid.deploy.model import Model
from vireid.search.drivers import lance_sidecar
from vireid.search.drivers.lance import LanceGallery
from vireid.search.gallery import EVERYTHING, Filter, Record
from vireid.synthetic.make import CAMERAS, picture
from vireid.system import folder_bytes
from vireid.types import INFRARED, ModalityOrAuto

from crowd import Crowd, crowd, largest  # isort: skip  # gallery.py says where it is

RESULT = Path(__file__).parent / "results" / "growth.txt"
CLIENTS = (1, 4, 16)
LINKS, EF = 16, 256  # of HNSW
PART = 1_000_000  # rows in memory at once; larger galleries are compared without the other libraries
SHOTS, SEED = 3, 71  # pictures of a synthetic person at a camera
SHOWN = ("no filter", "infrared", "4 cameras, 3 days", "3 days", "10 days")


@dataclass(frozen=True)
class Peer:
    name: str
    search: Search
    seconds: float  # to build
    memory_mib: float | None = None  # as the library says it


def peers(vectors: np.ndarray, folder: Path) -> Iterator[Peer]:
    """Those of the other libraries that are installed; `folder` is for what they write."""
    names = np.arange(len(vectors))
    try:
        import zvec
    except ImportError:
        pass
    else:
        start = time.perf_counter()
        graph_of = zvec.HnswIndexParam(metric_type=zvec.MetricType.IP, m=LINKS)
        field = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, vectors.shape[1], index_param=graph_of)
        rows = zvec.create_and_open(path=str(folder / "zvec"), schema=zvec.CollectionSchema(name="rows", vectors=field))
        for first in range(0, len(vectors), 1000):
            part = zip(names[first : first + 1000], vectors[first : first + 1000].tolist(), strict=True)
            rows.insert([zvec.Doc(id=str(name), vectors={"vector": vector}) for name, vector in part])
        rows.optimize()
        wide = zvec.HnswQueryParam(ef=EF)

        def search(query: np.ndarray) -> list[str]:
            return rows_of(
                doc.id for doc in rows.query(zvec.Query("vector", vector=query.tolist(), param=wide), topk=K)
            )

        yield Peer("zvec", search, time.perf_counter() - start)
    try:
        from usearch.index import Index
    except ImportError:
        pass
    else:
        start = time.perf_counter()
        index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=LINKS, expansion_search=EF)
        index.add(names, vectors)
        yield Peer("usearch", lambda query: rows_of(index.search(query, K).keys), time.perf_counter() - start,
                   index.memory_usage / 2**20)  # fmt: skip
    try:
        import hnswlib
    except ImportError:
        pass
    else:
        start = time.perf_counter()
        graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
        graph.init_index(len(vectors), M=LINKS)
        graph.add_items(vectors, names)
        graph.set_ef(EF)
        yield Peer("hnswlib", lambda query: rows_of(graph.knn_query(query, k=K)[0][0]), time.perf_counter() - start)


def rows_of(numbers: Any) -> list[str]:
    return [f"r{int(row):08}" for row in numbers]


def plain_of(gallery: LanceGallery) -> Search:
    def search(query: np.ndarray) -> list[str]:
        found = gallery._table.search(query, vector_column_name="vector").distance_type("l2")
        return found.select(["id", "_distance"]).limit(K).refine_factor(10).to_arrow()["id"].to_pylist()

    return search


def own_of(gallery: LanceGallery, where: Filter) -> Search:
    return lambda query: [hit.record.id for hit in gallery.search(query[None], K, where)[0]]


def one_size(rows: int, dim: int, queries: int, kept: Path | None) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        root = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder, answers = root / f"{rows}x{dim}", root / f"{rows}x{dim}.json"
        people = crowd(min(rows, PART), dim, queries)
        gallery = LanceGallery(folder, dim, None)
        made = [] if answers.exists() else [made_now(gallery, people, rows, answers)]
        sidecar = folder_bytes(folder / lance_sidecar.FOLDER) / 2**20
        yield f"{rows:,} rows of {dim} numbers: {gallery.info().index}"
        yield from made
        yield f"  disk: sidecar {sidecar:,.0f} MiB, in all {folder_bytes(folder) / 2**20:,.0f} MiB"
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        others = list(peers(people.vectors, scratch)) if rows == len(people.vectors) else []
        best = {name: [set(line) for line in lines] for name, lines in json.loads(answers.read_text()).items()}
        yield from times(gallery, people, best, others)
        yield from clients(gallery, people)
        yield from while_added(gallery, people)
        gallery.close()
        yield f"  memory of a reader: {memory(folder, people.queries)}"


def made_now(gallery: LanceGallery, first: Crowd, rows: int, answers: Path) -> str:
    """Add rows in parts of PART that memory holds, index them, and write the K most alike by filter; what it took."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in SHOWN}
    people, adding = first, 0.0
    for seed in range(1, 1 + -(-rows // PART)):
        start = time.perf_counter()
        for batch in people.records(50_000):
            gallery.add(batch)
        adding += time.perf_counter() - start
        for name in SHOWN:
            found[name].append(people.nearest(first.queries, FILTERS[name], K))
        if seed * PART < rows:
            people = crowd(min(PART, rows - seed * PART), first.vectors.shape[1], 1, seed, after=people)
    start = time.perf_counter()
    gallery.optimize()
    seconds = time.perf_counter() - start
    best = {name: largest(*(np.concatenate(each, 1) for each in zip(*found[name], strict=True)), K) for name in SHOWN}
    answers.write_text(json.dumps({name: [rows_of(line) for line in places] for name, (_, places) in best.items()}))
    return f"  added in {adding:.1f} s with making the records, optimize {seconds:.1f} s"


def times(gallery: LanceGallery, people: Crowd, best: dict[str, list[set[str]]], others: list[Peer]) -> Iterator[str]:
    """p50, p99 and recall, one query at a time; the other libraries without a filter."""
    for other in others:
        size = "" if other.memory_mib is None else f", {other.memory_mib:,.0f} MiB"
        yield f"  {other.name} built in {other.seconds:.1f} s{size}"
    for name in SHOWN:
        searches = {"vireid": own_of(gallery, FILTERS[name])}
        if FILTERS[name].empty:
            searches |= {"plain": plain_of(gallery)} | {other.name: other.search for other in others}
        found = measure_in_turn(searches, people, best[name])
        for each, (p50, p99, recall) in found.items():
            ratio = p50 / found["vireid"][0]
            line = f"  {name}, {each:8} p50 {p50:7.2f}   p99 {p99:7.2f} ms   recall {recall:.4f}"
            yield f"{line}   {ratio:5.2f} times vireid's p50"


def clients(gallery: LanceGallery, people: Crowd) -> Iterator[str]:
    """Searches a second of 1, 4 and 16 clients at once, and how long each waits."""
    for count in CLIENTS:
        every = np.concatenate([people.queries] * count)
        with ThreadPoolExecutor(count) as pool:
            start = time.perf_counter()
            waits = list(pool.map(lambda query: timed(own_of(gallery, EVERYTHING), query), every))
            seconds = time.perf_counter() - start
        yield f"  {count:2} clients: {len(every) / seconds:7.1f} searches/s   {percentiles(waits)}"


def while_added(gallery: LanceGallery, people: Crowd) -> Iterator[str]:
    """Searches while another thread adds 2,000 rows, 100 at a time."""
    done, start_ns = threading.Event(), time.time_ns()  # a gallery that is kept has the rows of former runs

    def add() -> None:
        try:
            (batch,) = replace(people, vectors=people.vectors[:2000]).records(2000)
            for start in range(0, len(batch), 100):
                gallery.add([replace(record, id=f"{start_ns} {record.id}") for record in batch[start : start + 100]])
        finally:
            done.set()

    writer = threading.Thread(target=add)
    writer.start()
    waits: list[float] = []
    while not done.is_set():
        for query in people.queries[:10]:
            waits.append(timed(own_of(gallery, EVERYTHING), query))
    writer.join()
    yield f"  while 2,000 rows are added, 100 at a time: {len(waits)} searches   {percentiles(waits)}"


def timed(search: Callable[[np.ndarray], object], query: np.ndarray) -> float:
    start = time.perf_counter()
    search(query)
    return 1000 * (time.perf_counter() - start)


def percentiles(waits: list[float]) -> str:
    return f"p50 {np.median(waits):7.2f}   p99 {np.quantile(waits, 0.99):7.2f} ms"


def of_pictures(count: int) -> Iterator[str]:
    """Recall of the codes on vectors of `night`: the last picture of a person at a camera asks for the others."""
    cameras = CAMERAS["sysu"]
    people = max(1, count // (SHOTS * len(cameras)))
    taken = [(pid, camera, shot) for pid in range(1, people + 1) for camera in cameras for shot in range(SHOTS)]
    images = (picture(pid, camera, shot, SEED).image for pid, camera, shot in taken)
    kinds: list[ModalityOrAuto] = ["infrared" if camera.modality == INFRARED else "visible" for _, camera, _ in taken]
    vectors = Model.open("night").embed(images, modality=kinds)
    asks = np.array([shot == SHOTS - 1 for _, _, shot in taken])
    records = [
        Record(f"r{row:08}", vectors[row], str(camera.camid), float(row), int(camera.modality), "", track=f"{pid}")
        for row, (pid, camera, _) in enumerate(taken)
        if not asks[row]
    ]
    least, lance_sidecar.MIN_ROWS = lance_sidecar.MIN_ROWS, 1000
    try:
        with tempfile.TemporaryDirectory() as folder:
            gallery = LanceGallery(Path(folder), vectors.shape[1], None)
            gallery.add(records)
            gallery.optimize()
            yield f"{len(taken):,} synthetic pictures of {people} people, embedded by night: {gallery.info().index}"
            for name, where in {"no filter": EVERYTHING, "infrared": Filter(modality=INFRARED)}.items():
                passing = [record for record in records if where.empty or record.modality == INFRARED]
                yield f"  {name}: recall at {K} {recall(gallery, passing, vectors[asks], where):.4f}"
            gallery.close()
    finally:
        lance_sidecar.MIN_ROWS = least


def recall(gallery: LanceGallery, passing: list[Record], queries: np.ndarray, where: Filter) -> float:
    """Share of the K most similar of these records that a search finds."""
    similarity = queries @ np.stack([record.vector for record in passing]).T
    true = np.argpartition(-similarity, K, 1)[:, :K]
    shares = [
        len({passing[at].id for at in right} & set(own_of(gallery, where)(query))) / K
        for query, right in zip(queries, true, strict=True)
    ]
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--folder", type=Path, help="of the galleries and exact answers; kept, and taken again")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=6000, help="0 leaves them out")
    given = parser.parse_args()
    lines = [describe(), f"{given.queries} queries, the {K} most similar"]
    print(*lines, sep="\n", flush=True)
    parts = [one_size(rows, given.dim, given.queries, given.folder) for rows in given.rows]
    for part in [*parts, *([of_pictures(given.pictures)] if given.pictures else [])]:
        for line in part:
            print(line, flush=True)
            lines.append(line)
    target = given.folder / "growth.txt" if given.folder else RESULT
    target.write_text("\n".join([*lines, f"at the end: {describe()}", ""]))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
