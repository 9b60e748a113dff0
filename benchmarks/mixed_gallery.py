"""Galleries of both modalities: hits ordered by similarity, by centered similarity and by calibrated log-odds.

Every picture of 100 synthetic people searches all cameras of both modalities but its own (protocols
sysu/mixed-gallery/..., docs/concepts/protocols.md). Rank 1 and mAP are over all right pictures, and over those of the
other modality alone.

    python benchmarks/mixed_gallery.py --seeds 48 49 50      writes benchmarks/results/mixed_gallery.txt
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import describe

from vireid.data import datasets
from vireid.data.datasets.sysu import load
from vireid.data.table import Table
from vireid.deploy.calibration import Calibration
from vireid.deploy.model import Model
from vireid.evaluation.metrics import LENGTH, Tally
from vireid.evaluation.score_norm import COHORT, mean_of_others, spread
from vireid.synthetic.make import make
from vireid.types import MODALITIES

RESULT = Path(__file__).parent / "results" / "mixed_gallery.txt"
ORDERS = ("similarity", "centered", "log-odds")
COUNTED = ("all", "cross-modal")
KINDS = ((0, 0), (0, 1), (1, 0), (1, 1))


def pictures(root: Path, seed: int, people: int) -> Table:
    """All pictures of a synthetic set, none of which the model was trained on, as those of one test."""
    if not root.exists():
        make(root, "sysu", people=people, images_per_camera=2, seed=seed, size=(128, 64))
    table = load(root)
    return replace(table, split=np.full(len(table), "test"))


def scores(vectors: np.ndarray, table: Table, order: str, calibration: Calibration) -> np.ndarray:
    """(R, R) what the pictures of each query are ordered by."""
    similarity = vectors @ vectors.T
    ordered = similarity.astype(np.float64)
    for query, other in KINDS:
        block = np.ix_(table.modality == query, table.modality == other)
        if order == "log-odds":
            ordered[block] = calibration.log_odds(similarity[block], (query, other))
        elif order == "centered":
            pair = similarity[np.ix_(cohort(table, query), cohort(table, other))]
            ordered[block] -= mean_of_others(pair, query == other)
    return ordered


def cohort(table: Table, modality: int) -> np.ndarray:
    rows = np.flatnonzero(table.modality == modality)
    return rows[spread(len(rows), COHORT)]


def measured(vectors: np.ndarray, table: Table, calibration: Calibration) -> dict[str, list[float]]:
    """Rank 1 and mAP over all, then across modalities, in percent, by order."""
    found: dict[str, list[float]] = {order: [] for order in ORDERS}
    for counted in COUNTED:
        protocol = datasets.protocol(f"sysu/mixed-gallery/{counted}/raw", table)
        [(queries, gallery)] = protocol.trials(table)
        for order in ORDERS:
            tally = Tally(table.pid[gallery], protocol.cmc_over_pids, LENGTH, 0)
            rows = gallery[tally.order]
            block = torch.from_numpy(scores(vectors, table, order, calibration)[np.ix_(queries, rows)])
            tally.add(block, table.pid[queries], protocol.ignore(table[queries], table[rows]))
            metrics = tally.metrics()
            found[order] += [100 * float(metrics.cmc[0]), 100 * float(metrics.mAP)]
    return found


def table_of(found: Sequence[dict[str, list[float]]]) -> list[str]:
    lines = ["| order | rank 1 | mAP | cross-modal rank 1 | cross-modal mAP |", "|---|---|---|---|---|"]
    for order in ORDERS:
        figures = " | ".join(f"{value:.2f}" for value in np.mean([one[order] for one in found], 0))
        lines.append(f"| {order} | {figures} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="night")
    parser.add_argument("--seeds", type=int, nargs="+", default=(48, 49, 50))
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--root", type=Path, help="where the pictures are kept; by default a temporary folder")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    model = Model.open(options.model)
    calibration = model.calibration
    assert isinstance(calibration, Calibration)
    lines = [f"# {describe()}", f"# python {' '.join(sys.argv)}"]
    every = []
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary)
        for seed in options.seeds:
            table = pictures(root / f"s{seed}", seed, options.people)
            paths = [table.full_path(row) for row in range(len(table))]
            vectors = model.embed(paths, [MODALITIES[kind] for kind in table.modality])
            every.append(measured(vectors, table, calibration))
            lines += [f"seed {seed}: {len(table)} pictures", *table_of(every[-1:])]
            print("\n".join(lines[-6:]), flush=True)
    lines += ["mean of the seeds", *table_of(every)]
    print("\n".join(lines[-6:]))
    options.result.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
