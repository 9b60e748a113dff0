"""What an evaluation writes into the run's folder: results.json, table.md, open_set.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vireid.data.protocol import Protocol
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.open_set import evaluate_open_set
from vireid.evaluation.results import Results
from vireid.system import replacing
from vireid.types import Similarity

RESULTS, TABLE, QUERIES, OPEN_SET = "results.json", "table.md", "queries.csv", "open_set.json"
log = logging.getLogger(__name__)


def write_results(folder: Path, results: Results, refines: bool) -> None:
    """results.json and table.md: these figures, and earlier ones of the same networks and images under other stamps."""
    kept = Results(())
    if (folder / RESULTS).exists():
        former = Results.load(folder / RESULTS)
        stamp, groups = results.rows[0].stamp, {row.group for row in results.rows}
        fresh = [
            row
            for row in former.rows
            if row.stamp.get("embedder") == stamp["embedder"] and row.group not in groups
            and not (refines and row.stamp.get("refiner") != stamp["refiner"])
            and (row.stamp.get("dataset") != stamp["dataset"] or row.stamp.get("images") == stamp["images"])
        ]  # fmt: skip
        images = {row.stamp.get("images") for row in (*fresh, *results.rows)}
        kept = Results(tuple(fresh), tuple(row for row in former.floors if row.stamp.get("images") in images))
    everything = results + kept
    log.info("wrote %s", everything.save(folder / RESULTS))
    with replacing(folder / TABLE) as partial:
        partial.write_text(everything.markdown(), encoding="utf-8")
    log.info("wrote %s", folder / TABLE)


def write_open_set(
    folder: Path, embeddings: Embeddings, protocols: Sequence[Protocol], similarity: Similarity | None
) -> None:
    """open_set.json: rank 1 at fixed false-alarm rates for each trial of each protocol; the means are logged."""
    rows = []
    for protocol in protocols:
        try:
            trials = evaluate_open_set(embeddings, protocol, similarity)
        except ArgumentError as error:
            log.warning("no open-set figures for %s: %s", protocol.name, error)
            continue
        compared = similarity or embeddings.similarity
        rows.append({
            "protocol": protocol.name,
            "stamp": {**embeddings.stamp, **protocol.stamp, "similarity": compared},
            "trials": [asdict(trial) for trial in trials],
        })  # fmt: skip
        means = np.mean([trial.tpir for trial in trials], axis=0)
        rates = ", ".join(f"{m:.2%} at {r:g} false alarms" for m, r in zip(means, trials[0].rates, strict=True))
        log.info("%s, open set: rank 1 %s (%d searches)", protocol.name, rates, trials[0].num_present)
    with replacing(folder / OPEN_SET) as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    log.info("wrote %s", folder / OPEN_SET)
