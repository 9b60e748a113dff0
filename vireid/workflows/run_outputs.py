"""What an evaluation writes into the run's folder: results.json, table.md, open_set.json, pictures of ranked lists."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal
from typing import Protocol as Shape

import numpy as np

from vireid.data.protocol import Protocol
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import ranked_rows, refined
from vireid.evaluation.open_set import evaluate_open_set
from vireid.evaluation.refine import RefinedBy
from vireid.evaluation.results import Results
from vireid.figures.ranked import choose_queries, ranked_list
from vireid.system import replacing
from vireid.types import Similarity

RESULTS, TABLE, OPEN_SET = "results.json", "table.md", "open_set.json"
log = logging.getLogger(__name__)


class PictureOptions(Shape):
    """The part of EvaluateOptions that the picture of ranked lists needs."""

    @property
    def pictures(self) -> int: ...
    @property
    def lang(self) -> Literal["en", "zh"]: ...
    @property
    def similarity(self) -> Similarity | None: ...


def write_results(folder: Path, results: Results, refines: bool) -> None:
    """results.json and table.md: these figures, and earlier ones of the same networks and images under other stamps."""
    kept = Results(())
    if (folder / RESULTS).exists():
        stamp, groups = results.rows[0].stamp, {row.group for row in results.rows}
        fresh = [
            row
            for row in Results.load(folder / RESULTS).rows
            if row.stamp.get("embedder") == stamp["embedder"] and row.group not in groups
            and not (refines and row.stamp.get("refiner") != stamp["refiner"])
            and (row.stamp.get("dataset") != stamp["dataset"] or row.stamp.get("images") == stamp["images"])
        ]  # fmt: skip
        kept = Results(tuple(fresh))
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


def draw_ranked(
    folder: Path,
    model: str,
    embeddings: Embeddings,
    protocol: Protocol,
    refine: RefinedBy | None,
    suffix: str,
    options: PictureOptions,
) -> None:
    """Write the ranked lists of trial 0 as FOLDER/figures/ranked-PROTOCOL.png; `model` stands in the title."""
    similarity = options.similarity or embeddings.similarity
    embeddings = embeddings if refine is None else refined(embeddings, protocol, refine)
    queries = np.asarray(protocol.trials(embeddings.table)[0][0])
    ranked = ranked_rows(embeddings, protocol, similarity=similarity)
    places = choose_queries(embeddings.table, queries, ranked, options.pictures)
    queries, ranked = queries[places], ranked[places]
    values = similarities(embeddings.vectors, queries, ranked, similarity)
    stamp = {"protocol": protocol.name, "trial": "0", **embeddings.stamp, **protocol.stamp, "rerank": "none"}
    stamp["refine"] = "none" if refine is None else refine.stamp
    name = "ranked-" + protocol.name.replace("/", "-").replace(":", "-") + f"{suffix}.png"
    title = f"{model}  {protocol.name}"
    path = folder / "figures" / name
    drawn = ranked_list(embeddings.table, queries, ranked, values, path, title=title, stamp=stamp, lang=options.lang)
    log.info("wrote %s%s", drawn.path, f" ({drawn.note})" if drawn.note else "")


def similarities(vectors: np.ndarray, queries: np.ndarray, ranked: np.ndarray, similarity: Similarity) -> np.ndarray:
    """(Q, k) similarity of each query to the images of its list; 0 where the list holds none (-1)."""
    query, gallery = vectors[queries][:, None], vectors[np.maximum(ranked, 0)]  # (Q, 1, D), (Q, k, D)
    if similarity == "euclidean":
        values = -np.square(query - gallery).sum(2)
    else:
        norms = np.linalg.norm(query, axis=2) * np.linalg.norm(gallery, axis=2)
        values = (query * gallery).sum(2) / np.maximum(norms, np.finfo(np.float32).tiny)
    return np.where(ranked >= 0, values, 0.0)
