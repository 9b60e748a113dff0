"""Evaluation beside published packages, where they are installed: torchreid and pytorch-metric-learning.

Each is compared under a definition that it shares with vireid: mAP and rank 1 over pictures, torchreid without pictures
of the query's person by the query's camera, the AccuracyCalculator of pytorch-metric-learning with all pictures.
Figures must agree before anything is timed. CPU seconds of all threads, in turns, median of three rounds.

    pip install --no-deps torchreid pytorch-metric-learning
    python benchmarks/evaluation.py --peers    writes benchmarks/results/evaluation_peers.txt

Of torchreid the file metrics/rank.py alone is loaded, since the package imports torchvision. The package on PyPI lacks
its Cython file; where `rank_cy` was built from the repository into metrics/rank_cylib, it is measured too.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vireid.data.protocol import Protocol
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.metrics import measure

ROUNDS, MAX_DIFFERENCE = 3, 1e-4  # of mAP and rank 1; sums of float32 are taken in another order
INCLUDED = ("precision_at_1", "mean_average_precision")
Figures = tuple[float, float]  # mAP and rank 1


@dataclass(frozen=True)
class Draw:
    """One gallery: unit vectors, pids and cameras of queries and gallery."""

    query: np.ndarray
    gallery: np.ndarray
    query_pid: np.ndarray
    gallery_pid: np.ndarray
    query_camid: np.ndarray
    gallery_camid: np.ndarray

    @property
    def labels(self) -> tuple[np.ndarray, ...]:
        return self.query_pid, self.gallery_pid, self.query_camid, self.gallery_camid


def compare(embeddings: Embeddings, draws: list[tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """Lines about the galleries that the draws (query rows, gallery rows) take from the embeddings."""
    unit, table = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True), embeddings.table
    made = [Draw(unit[q], unit[g], table.pid[q], table.pid[g], table.camid[q], table.camid[g]) for q, g in draws]
    similarities = [draw.query @ draw.gallery.T for draw in made]
    distances = [1 - similarity for similarity in similarities]
    lines = [f"{len(draws[0][0])} x {len(draws[0][1])}, {len(draws)} trial(s)"]

    def ours_of_ranks() -> Figures:
        return mean_of([of_similarity(similarity, draw) for similarity, draw in zip(similarities, made, strict=True)])

    def of_ranks(rank: Callable[..., Any]) -> Figures:
        found = [rank(distance, *draw.labels, 50, False) for distance, draw in zip(distances, made, strict=True)]
        return mean_of([(float(mean), float(cmc[0])) for cmc, mean in found])

    for name, rank in torchreid_ranks(lines):
        lines.append(beside(f"{name}, from the similarities", ours_of_ranks, lambda rank=rank: of_ranks(rank)))

    protocol = Protocol("all pictures", lambda _: draws)

    def ours_of_vectors() -> Figures:
        mean = evaluate(embeddings, protocol).mean
        return mean["mAP"], mean["R1"]

    if (calculate := accuracy_calculator(lines)) is not None:
        name = f"pytorch-metric-learning, from {unit.shape[1]}-d vectors"
        lines.append(beside(name, ours_of_vectors, lambda: mean_of([calculate(draw) for draw in made])))
    return lines


def of_similarity(similarity: np.ndarray, draw: Draw) -> Figures:
    """vireid's figures without pictures of the same person by the same camera."""
    query_pid, gallery_pid, query_camid, gallery_camid = draw.labels
    same = (query_pid[:, None] == gallery_pid) & (query_camid[:, None] == gallery_camid)
    found = measure(similarity, query_pid, gallery_pid, same)
    return found.mAP, found.rank1


def mean_of(figures: list[Figures]) -> Figures:
    return float(np.mean([mean for mean, _ in figures])), float(np.mean([first for _, first in figures]))


def beside(name: str, ours: Callable[[], Figures], theirs: Callable[[], Figures]) -> str:
    """A line with the CPU seconds of both in turns; AssertionError where their figures differ."""
    apart = float(np.abs(np.subtract(ours(), theirs())).max())
    assert apart <= MAX_DIFFERENCE, f"{name}: {theirs()}, vireid {ours()}"
    spent: dict[Callable[[], Figures], list[float]] = {ours: [], theirs: []}
    for _ in range(ROUNDS):
        for act, seconds in spent.items():
            start = time.process_time()
            act()
            seconds.append(time.process_time() - start)
    own, other = (statistics.median(seconds) for seconds in spent.values())
    return f"  {name}: {other:.2f} CPU s   vireid {own:.2f} CPU s: x{other / own:.1f}   largest difference {apart:.0e}"


# --- the packages, where they are installed ---------------------------------------------------------------------------


def torchreid_ranks(lines: list[str]) -> list[tuple[str, Callable[..., Any]]]:
    """torchreid's functions by name; what is missing is said in a line."""
    found = importlib.util.find_spec("torchreid")
    if found is None or not found.submodule_search_locations:
        lines.append("  torchreid: skipped, not installed")
        return []
    folder = next(Path(found.submodule_search_locations[0]).rglob("metrics/rank.py")).parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that its Cython file is missing
        ranks = [("torchreid, Python", loaded("rank", folder / "rank.py").evaluate_py)]
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    built = [path for path in folder.glob("rank_cylib/rank_cy*") if path.name.endswith(suffixes)]
    if built:
        ranks.append(("torchreid, Cython", loaded("rank_cy", built[0]).evaluate_cy))
    else:
        lines.append("  torchreid, Cython: skipped, rank_cy is not built")
    return ranks


def loaded(name: str, path: Path) -> Any:
    """A module from its file, without the package around it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracy_calculator(lines: list[str]) -> Callable[[Draw], Figures] | None:
    """mAP and rank 1 over the whole gallery by pytorch-metric-learning; None, and a line, where it is missing."""
    try:
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
        from pytorch_metric_learning.utils.inference import FaissKNN
    except ImportError as error:
        lines.append(f"  pytorch-metric-learning: skipped, {error}")
        return None
    if importlib.util.find_spec("faiss") is None:
        lines.append("  pytorch-metric-learning: skipped, faiss is not installed")
        return None

    def calculate(draw: Draw) -> Figures:
        calculator = AccuracyCalculator(include=INCLUDED, k=len(draw.gallery), knn_func=FaissKNN())
        found = calculator.get_accuracy(draw.query, draw.query_pid, draw.gallery, draw.gallery_pid)
        return float(found["mean_average_precision"]), float(found["precision_at_1"])

    return calculate
