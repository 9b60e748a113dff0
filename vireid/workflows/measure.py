"""Measure: embeddings and options in, the figures of every layer and protocol out; for runs and models alike."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from vireid.data import datasets
from vireid.data.mixed_gallery import expanded
from vireid.data.protocol import Protocol
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import Rerank, evaluate, evaluate_queries
from vireid.evaluation.floors import chance, hog
from vireid.evaluation.queries import QueryFigures
from vireid.evaluation.refine import RefinedBy
from vireid.evaluation.results import Results
from vireid.workflows.options import EvaluateOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """Figures with what they were measured on: the protocols that the data could serve, and vectors by layer.

    The first of `vectors` is the deployed layer; `queries` are the figures of every query of each layer and trial.
    """

    results: Results
    protocols: list[Protocol]
    vectors: list[Embeddings]
    queries: list[QueryFigures]
    refiner: RefinedBy | None = None


def choose_protocols(table: Table, options: EvaluateOptions) -> list[Protocol]:
    """The protocols by name, or all; with SYSU-MM01's gallery draw where one is given."""
    wanted = list(options.protocols) or list(datasets.protocols_for(table))
    if options.draw is not None:
        wanted = datasets.find(table.dataset).drawn(options.protocols, options.draw)
    wanted = expanded(dict.fromkeys(wanted))
    return [datasets.protocol(name, table, list(options.ignore) or None) for name in wanted]


def choose_layers(layers: dict[str, Embeddings], layer: str | None) -> dict[str, Embeddings]:
    """All layers, the named one, or the deployed one; ArgumentError for an unknown name."""
    if layer == "all":
        return layers
    name = next(iter(layers)) if layer is None else layer
    if name not in layers:
        raise ArgumentError(f"the embedder has no layer {layer!r}; it has {', '.join(layers)} (or all)")
    return {name: layers[name]}


def check_centering(options: EvaluateOptions, refined: bool = False) -> None:
    """ArgumentError where vectors cannot be centered: a refiner knows them as they are, and centered means cosine."""
    if options.center and refined:
        raise ArgumentError("a refiner was trained on vectors as they are; leave --center out, or do not refine")
    if options.center and options.similarity == "euclidean":
        raise ArgumentError("centered vectors are compared by cosine; leave --similarity or --center out")


def measure(
    vectors: Sequence[Embeddings],
    protocols: Sequence[Protocol],
    refiner: RefinedBy | None,
    rerank: Rerank | None,
    options: EvaluateOptions,
) -> Measured:
    """Figures of every layer and protocol.

    A protocol that the data cannot serve is left out with a note where it was not given by name. Chance, and HOG where
    the options request it, are the floors of the results.
    """
    described = hog(vectors[0].table, progress=options.progress) if options.hog else None
    results, measured, queries, reasons = Results(()), [], [], []
    for protocol in protocols:
        try:
            rows = [evaluate_queries(v, protocol, refiner, rerank, options.similarity) for v in vectors]
        except DataError as error:
            if options.protocols:
                raise
            reasons.append(f"left out {protocol.name}: {error}")
            continue
        for row, figures in rows:
            results += row
            queries += figures
        measured.append(protocol)
        results += floors(vectors[0].table, protocol, described)
    if not measured:
        raise DataError("no protocol fits this data:\n" + "\n".join(reasons))
    for reason in reasons:
        log.warning("%s", reason)
    return Measured(results, measured, list(vectors), queries, refiner)


def floors(table: Table, protocol: Protocol, described: Embeddings | None) -> Results:
    """Chance, and HOG where its vectors are given, on these rows as floors."""
    rows = chance(table, protocol).rows
    if described is not None:
        rows += evaluate(described, protocol).rows
    return Results((), rows)
