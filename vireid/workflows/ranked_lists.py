"""Pictures of ranked lists that an evaluation draws: which queries, before and after re-ranking, each under its name.

figures/ranked-PROTOCOL.png                 queries with a right and with a wrong first image
figures/ranked-PROTOCOL-worst.png           likewise -best, -random and -queries, where they are requested
figures/ranked-PROTOCOL@k-reciprocal.png    the same queries after re-ranking
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vireid.data.protocol import Protocol
from vireid.errors import ArgumentError
from vireid.evaluation.evaluate import evaluate_queries
from vireid.evaluation.queries import QueryFigures
from vireid.figures.ranked import choose_queries, ranked_list, spread
from vireid.workflows.measure import Measured
from vireid.workflows.options import EvaluateOptions

SEED = 0  # of the queries that are drawn at random
log = logging.getLogger(__name__)


def draw_lists(folder: Path, model: str, measured: Measured, suffix: str, options: EvaluateOptions) -> None:
    """Draw the lists of trial 0 of every protocol by the deployed layer; `model` stands in the titles.

    Raises ArgumentError for a requested query that no protocol has, PictureError.
    """
    unknown = set(options.queries)
    for protocol in measured.protocols:
        before, after = before_and_after(measured, protocol, options)
        unknown -= set(before.table.path[before.queries].tolist())
        for name, places in chosen(before, options).items():
            stem = "ranked-" + protocol.name.replace("/", "-").replace(":", "-") + name + suffix
            title = f"{model}  {protocol.name}"
            draw(folder / "figures" / f"{stem}.png", before, places, title, options)
            if after is not None:
                draw(folder / "figures" / f"{stem}@{options.rerank}.png", after, places, title, options)
    if unknown:
        raise ArgumentError(
            f"{', '.join(sorted(unknown))}: not a query of {', '.join(p.name for p in measured.protocols)}; name a "
            "path as it stands in the column `query` of queries.csv"
        )


def before_and_after(
    measured: Measured, protocol: Protocol, options: EvaluateOptions
) -> tuple[QueryFigures, QueryFigures | None]:
    """The lists of the deployed layer in trial 0 as they are, and re-ranked where the evaluation re-ranked."""
    layer = measured.vectors[0].stamp.get("layer")
    of_trial = next(
        one
        for one in measured.queries
        if (one.protocol, one.trial, one.stamp.get("layer")) == (protocol.name, 0, layer)
    )
    if options.rerank is None:
        return of_trial, None
    plain = evaluate_queries(measured.vectors[0], protocol, measured.refiner, similarity=options.similarity)[1]
    return plain[0], of_trial


def chosen(figures: QueryFigures, options: EvaluateOptions) -> dict[str, np.ndarray]:
    """Places in `figures.queries` by the ending of the picture's name."""
    table, queries, count = figures.table, figures.queries, options.pictures
    choices = {"": choose_queries(table, queries, figures.nearest, count)}
    valid = np.flatnonzero(figures.first_rank > 0)
    rising = valid[np.argsort(figures.AP[valid], kind="stable")]
    if options.worst:
        choices["-worst"] = spread(table, queries, rising, count)[:count]
    if options.best:
        choices["-best"] = spread(table, queries, rising[::-1], count)[:count]
    if options.random:
        drawn = np.random.default_rng(SEED).permutation(len(queries))
        choices["-random"] = np.sort(drawn[:count])
    if options.queries:
        choices["-queries"] = _named(figures, options.queries)
    return {name: places for name, places in choices.items() if len(places)}


def _named(figures: QueryFigures, paths: Sequence[str]) -> np.ndarray:
    """The places of these paths, in their order; those that this protocol has not are left out."""
    place = {path: number for number, path in enumerate(figures.table.path[figures.queries].tolist())}
    return np.array([place[path] for path in paths if path in place], dtype=np.int64)


def draw(path: Path, figures: QueryFigures, places: np.ndarray, title: str, options: EvaluateOptions) -> None:
    """Write the lists of these queries."""
    stamp = {"protocol": figures.protocol, "trial": str(figures.trial), **figures.stamp}
    drawn = ranked_list(
        figures.table, figures.queries[places], figures.nearest[places], figures.similarity[places], path,
        title=title, stamp=stamp, lang=options.lang,
    )  # fmt: skip
    log.info("wrote %s%s", drawn.path, f" ({drawn.note})" if drawn.note else "")
