"""Embed, evaluate and calibrate with a model that has no run folder: one that comes with vireid, or a bundle.

What is written goes into a folder of its own, by default runs/DATASET/MODEL, and never into the model.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vireid.data import datasets
from vireid.data.table import Table
from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import FILES
from vireid.deploy.calibration import Calibration
from vireid.deploy.export import new_bundle
from vireid.deploy.model import RUN_BUNDLE, bundle_of
from vireid.errors import ArgumentError
from vireid.evaluation.centering import centered_embeddings
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.local_shortest_path import LocalShortestPath
from vireid.evaluation.queries import write_queries
from vireid.evaluation.rerank import KReciprocal
from vireid.evaluation.results import Results
from vireid.training.record import data_name
from vireid.workflows.calibrate import calibrate_run
from vireid.workflows.embed import embed_by
from vireid.workflows.measure import check_centering, choose_layers, choose_protocols, measure
from vireid.workflows.options import EmbedOptions, EvaluateOptions, RunOptions
from vireid.workflows.ranked_lists import draw_lists
from vireid.workflows.run_outputs import QUERIES, write_open_set, write_results
from vireid.workflows.run_rows import split_rows

log = logging.getLogger(__name__)


def embed_with(model: str, options: EmbedOptions, to: Path | None = None) -> dict[Path, Embeddings]:
    """Embeddings of a split of `options.data` by the file TO/embeddings/LAYER.npz that each layer is written to."""
    table, bundle = table_of(model, options), bundle_of(model)
    folder = place_of(model, table, to) / "embeddings"
    suffix = "".join(f"@{part}" for part in (options.split, *(["flip"] if options.flip else ())) if part != "test")
    rows = split_rows(table, options.split)
    made = embed_by(options.backend, bundle, bundle.network, bundle.config, rows, options, options.named_layer)
    layers = stamped(made, bundle, model, table)
    return {layer.save(folder / f"{name}{suffix}.npz"): layer for name, layer in layers.items()}


def evaluate_with(model: str, options: EvaluateOptions, to: Path | None = None) -> Results:
    """Evaluate a model on `options.data`; writes results.json, table.md, queries.csv and pictures of ranked lists.

    The stamp says what the model was trained on, which is other data. Raises ArgumentError for what needs a run.
    """
    if options.refine is not None or options.strict:
        raise ArgumentError("--refine and --strict need the run that a refiner was trained on; name the run")
    if options.open_set and options.rerank is not None:
        raise ArgumentError("open-set figures are of plain similarities; leave --rerank or --open-set out")
    check_centering(options)
    table, bundle = table_of(model, options), bundle_of(model)
    rerank = KReciprocal(options.k1, options.k2) if options.rerank else None
    if options.rerank == "local-shortest-path":
        rerank = LocalShortestPath.of(bundle.network())
    protocols = choose_protocols(table, options)
    made = embed_by("torch", bundle, bundle.network, bundle.config, split_rows(table), options)
    layers = choose_layers(stamped(made, bundle, model, table), options.layer)
    vectors = [centered_embeddings(layer) if options.center else layer for layer in layers.values()]
    measured = measure(vectors, protocols, None, rerank, options)
    folder = place_of(model, table, to)
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder, measured.results, refines=False)
    log.info("wrote %s", write_queries(folder / QUERIES, measured.queries))
    if options.open_set:
        write_open_set(folder, vectors[0], measured.protocols, options.similarity)
    if options.pictures:
        draw_lists(folder, Path(model).name, measured, "", options)
    return measured.results


def calibrate_with(
    model: str, options: RunOptions, to: Path | None = None, *, split: str | None = None, ignore: Sequence[str] = ()
) -> Calibration:
    """Calibrate a copy of a model on `options.data`: the folder `to`, by default runs/DATASET/MODEL/bundle."""
    table, bundle = table_of(model, options), bundle_of(model)
    folder = place_of(model, table, None) / RUN_BUNDLE if to is None else to
    with new_bundle(folder) as draft:
        for name in FILES:
            if (bundle.path / name).is_file():
                shutil.copyfile(bundle.path / name, draft / name)
    made = calibrate_run(folder, replace(options, data=table), split=split, ignore=ignore)
    log.info("take it with --model %s", folder)
    return made


def table_of(model: str, options: RunOptions) -> Table:
    """The table that the options name; ArgumentError where they name none."""
    if options.data is None:
        raise ArgumentError(f"the model {model} does not say where pictures lie; pass --data NAME=PATH, or name a run")
    if isinstance(options.data, Table):
        return options.data
    return datasets.load(options.data, **({} if options.trial is None else {"trial": options.trial}))


def place_of(model: str, table: Table, to: Path | None) -> Path:
    """Where results go: `to`, or runs/DATASET/MODEL."""
    return Path("runs") / table.dataset / Path(model).name if to is None else to


def stamped(layers: dict[str, Embeddings], bundle: Bundle, model: str, table: Table) -> dict[str, Embeddings]:
    """The layers of some rows of the table with the stamp of the model, which says what it was trained on."""
    config, rows = bundle.config, next(iter(layers.values())).table
    stamp = {key: value for key, value in config.stamp.items() if key not in ("dataset", "partition", "data", "run")}
    trained = data_name(config.trained_on.dataset, config.trained_on.partition)
    if not config.trained_on.same_data(table):
        stamp["trained on"] = f"{trained}, not on this data"
    stamp |= {"dataset": rows.dataset, "embedder": config.digest[:8], "images": rows.fingerprint}
    stamp |= {"partition": rows.partition} if rows.partition else {}
    stamp["model"] = Path(model).name
    return {name: replace(layer, stamp={**stamp, **layer.stamp}) for name, layer in layers.items()}
