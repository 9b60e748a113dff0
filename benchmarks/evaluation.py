"""Evaluation beside per-query loops that compute the same, and its memory at a large gallery.

Two loops, both given the whole similarity matrix and both the author's own: `tight` takes the fewest numpy calls per
query; `listed` has the shape that published evaluators have (one argsort of the matrix, then per query a mask, first
places of identities, and precision as a Python list over the ranked list). All three do the camera rule, CMC over
identities, mAP and mINP. Sizes are those of SYSU-MM01, all search: 3,803 queries; 301 gallery images in ten trials
(single-shot) and 3,010 (multi-shot). With `vectors` the product with 2,048-d embeddings is inside both.

    python benchmarks/evaluation.py                          writes benchmarks/results/evaluation.txt
    python benchmarks/evaluation.py --large                  memory at 20,000 x 200,000 x 2,048 alone
    python benchmarks/evaluation.py --large --queries 2000   in a tenth of the time: the blocks are the same
    python benchmarks/evaluation.py --peers                  beside published packages (evaluation_peers.py)
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import evaluation_peers
import numpy as np
from machine import describe

from vireid.data.protocol import Protocol
from vireid.data.table import Table, table_from_columns
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.metrics import measure
from vireid.evaluation.rows import Metrics

QUERIES, POOL, PEOPLE, DIM = 3803, 6775, 96, 2048
RESULTS = Path(__file__).parent / "results" / "evaluation.txt"
Figures = tuple[np.ndarray, float, float]


def tight_loop(similarity: np.ndarray, query_pid: np.ndarray, gallery_pid: np.ndarray, ignored: np.ndarray) -> Figures:
    """CMC (20,), mAP, mINP with as few numpy calls per query as it takes."""
    found, precision, inverse = np.zeros(20), [], []
    for q, pid in enumerate(query_pid):
        keep = ~ignored[q]
        ranked = gallery_pid[keep][np.argsort(-similarity[q, keep])]
        ranks = np.flatnonzero(ranked == pid) + 1
        if len(ranks) == 0:
            continue
        _, first = np.unique(ranked, return_index=True)
        place = np.searchsorted(np.sort(first), ranks[0] - 1)
        found[place:] += 1
        precision.append((np.arange(1, len(ranks) + 1) / ranks).mean())
        inverse.append(len(ranks) / ranks[-1])
    return found / len(precision), float(np.mean(precision)), float(np.mean(inverse))


def listed_loop(similarity: np.ndarray, query_pid: np.ndarray, gallery_pid: np.ndarray, ignored: np.ndarray) -> Figures:
    """The same figures step by step along each ranked list."""
    order = np.argsort(-similarity, axis=1)
    curves, precision, inverse = [], [], []
    for q, pid in enumerate(query_pid):
        ranked = order[q][~ignored[q][order[q]]]
        pids = gallery_pid[ranked]
        hits = (pids == pid).astype(int)
        if not hits.any():
            continue
        first = sorted(np.unique(pids, return_index=True)[1])
        curve = (pids[first] == pid).cumsum()[:20]
        curves.append(np.pad(curve, (0, 20 - len(curve)), mode="edge"))
        seen = [count / rank for rank, count in enumerate(hits.cumsum(), 1)]
        precision.append((np.array(seen) * hits).sum() / hits.sum())
        inverse.append(hits.sum() / (np.flatnonzero(hits)[-1] + 1))
    return np.mean(curves, axis=0), float(np.mean(precision)), float(np.mean(inverse))


def table_of(queries: int, gallery: int, people: int) -> Table:
    """Infrared queries from cameras 3 and 6, then visible images from cameras 1, 2, 4 and 5."""
    random, rows = np.random.default_rng(0), queries + gallery
    columns = {
        "path": [f"{row}.jpg" for row in range(rows)],
        "pid": np.concatenate([random.integers(0, people, queries), np.arange(gallery) % people]),
        "camid": np.concatenate([random.choice([3, 6], queries), np.arange(gallery) // people % 4 * 13 // 10 + 1]),
        "modality": np.arange(rows) < queries,
        "split": np.full(rows, "test"),
    }
    return table_from_columns(Path("."), columns, "benchmark")


def rule(query: Table, gallery: Table) -> np.ndarray:
    return (query.camid == 3)[:, None] & (gallery.camid == 2)


def vectors_of(table: Table, dim: int) -> np.ndarray:
    """Vectors around a center per person, with a rank-1 rate about one half."""
    random = np.random.default_rng(1)
    vectors = random.standard_normal((len(table), dim), dtype=np.float32)
    vectors += 0.22 * random.standard_normal((int(table.pid.max()) + 1, dim), dtype=np.float32)[table.pid]
    return vectors


def fastest(act: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of so many calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def agreement(metrics: Metrics, figures: Figures) -> float:
    """Largest difference of any figure."""
    cmc, *means = figures
    return float(np.abs(np.array([*metrics.cmc, metrics.mAP, metrics.mINP]) - [*cmc, *means]).max())


def drawn(gallery: int, trials: int) -> tuple[Embeddings, list[tuple[np.ndarray, np.ndarray]]]:
    """Embeddings, and rows of queries and of `gallery` images from their pool for each trial."""
    table = table_of(QUERIES, POOL, PEOPLE)
    galleries = [QUERIES + np.random.default_rng(trial).permutation(POOL)[:gallery] for trial in range(trials)]
    return Embeddings(vectors_of(table, DIM), table), [(np.arange(QUERIES), rows) for rows in galleries]


def compare(gallery: int, trials: int) -> list[str]:
    """Lines about `trials` draws of `gallery` images."""
    embeddings, draws = drawn(gallery, trials)
    table = embeddings.table
    protocol = Protocol("benchmark", lambda _: draws, rule, cmc_over_pids=True)
    unit = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
    tasks = []
    for queries, rows in draws:
        similarity = unit[queries] @ unit[rows].T
        tasks.append((similarity, table.pid[queries], table.pid[rows], rule(table[queries], table[rows])))

    def counted() -> list[Metrics]:
        return [measure(*task, cmc_over_pids=True) for task in tasks]

    ours = fastest(counted, 5)
    tight, listed = (fastest(lambda f=f: [f(*task) for task in tasks], 2) for f in (tight_loop, listed_loop))
    pairs = list(zip(counted(), tasks, strict=True))
    apart = max(agreement(metrics, f(*task)) for metrics, task in pairs for f in (tight_loop, listed_loop))
    whole = fastest(lambda: evaluate(embeddings, protocol), 2)

    def products_and(loop: Callable[..., Figures]) -> None:
        for (queries, rows), task in zip(draws, tasks, strict=True):
            loop(np.stack([unit[rows] @ unit[query] for query in queries]), *task[1:])

    whole_listed = fastest(lambda: products_and(listed_loop), 1)
    return [
        f"{QUERIES} x {gallery}, {trials} trial(s), rank-1 {counted()[0].rank1:.3f}",
        f"  from the similarities   vireid {ours:.3f} s   tight loop {tight:.3f} s: x{tight / ours:.1f}   "
        f"listed loop {listed:.3f} s: x{listed / ours:.1f}",
        f"  from {DIM}-d vectors     vireid {whole:.3f} s   "
        f"listed loop, one product per query {whole_listed:.3f} s: x{whole_listed / whole:.1f}",
        f"  largest difference of a figure {apart:.1e}",
    ]


def compare_peers(gallery: int, trials: int) -> list[str]:
    """Lines about the published packages, which ignore by camera alone: queries of camera 3 become camera 2's."""
    embeddings, draws = drawn(gallery, trials)
    table = embeddings.table
    moved = replace(table, camid=np.where(table.camid == 3, 2, table.camid))
    return evaluation_peers.compare(replace(embeddings, table=moved), draws)


def large(queries: int, gallery: int = 200_000) -> list[str]:
    """Lines about the peak memory above the embeddings."""
    table = table_of(queries, gallery, 10_000)
    vectors = np.empty((len(table), DIM), dtype=np.float32)
    random = np.random.default_rng(1)
    for start in range(0, len(table), 10_000):  # no more memory than the vectors themselves
        part = vectors[start : start + 10_000]
        random.standard_normal(out=part, dtype=np.float32)
    embeddings = Embeddings(vectors, table)
    draw = [(np.arange(queries), queries + np.arange(gallery))]
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    start = time.perf_counter()
    evaluate(embeddings, Protocol("large", lambda _: draw, rule, cmc_over_pids=True))
    seconds = time.perf_counter() - start
    above = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - before
    return [
        f"{queries} x {gallery} x {DIM}: {seconds:.0f} s, peak {above / 2**30:.2f} GiB above the embeddings' "
        f"{vectors.nbytes / 2**30:.2f} GiB (bound 4 GB)"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="only the memory at a gallery of 200,000")
    parser.add_argument("--peers", action="store_true", help="only beside the published packages that are installed")
    parser.add_argument("--queries", type=int, default=20_000, help="queries of --large")
    arguments = parser.parse_args()
    if arguments.large:
        lines = large(arguments.queries)
        target = RESULTS.with_name("evaluation_large.txt")
    elif arguments.peers:
        lines = [*compare_peers(301, 3), *compare_peers(3010, 1)]
        target = RESULTS.with_name("evaluation_peers.txt")
    else:
        lines, target = [*compare(301, 10), *compare(3010, 1)], RESULTS
    text = "\n".join([describe(), *lines, ""])
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
