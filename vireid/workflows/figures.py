"""The figures that a run can serve, for `vireid figures` and the report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

from vireid.data import datasets
from vireid.deploy.bundle_config import CALIBRATION
from vireid.deploy.calibration import Calibration
from vireid.errors import ArgumentError, CalibrationError, RunError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate_queries
from vireid.evaluation.results import NAME, Results
from vireid.figures.camera_matrix import camera_heatmap
from vireid.figures.cmc import cmc
from vireid.figures.error_rates import error_rates
from vireid.figures.histograms import histograms
from vireid.figures.pair_attention import pair_attention
from vireid.figures.projection import projection
from vireid.figures.ranked import choose_queries
from vireid.figures.samples import sample_sheets
from vireid.figures.training_curves import training_curves
from vireid.layers.embedder import Embedder
from vireid.own_files import Code
from vireid.system import file_digest
from vireid.training.record import RunRecord
from vireid.training.run_folder import EMBEDDER, SAMPLES
from vireid.types import Language
from vireid.workflows.options import EmbedOptions, FigureName, FigureOptions, RunOptions
from vireid.workflows.run_outputs import RESULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FALSE_MATCH_RATE = 1e-3  # of the thresholds that are drawn
PAIRS = 4  # whose attention is drawn
log = logging.getLogger(__name__)


class Drawable(Protocol):
    """What is needed of a run (workflows/run.py)."""

    @property
    def path(self) -> Path: ...
    @property
    def record(self) -> RunRecord: ...
    @property
    def embedding_run(self) -> Drawable: ...
    def embed(self, options: EmbedOptions | None = None) -> dict[str, Embeddings]: ...
    def embedder(self, method: Code | None = None) -> Embedder: ...


def figures_of(run: Drawable, options: FigureOptions) -> Iterator[tuple[str, Figure]]:
    """Name and figure of all that the run can serve, in the order of a report."""
    drawn = _Drawn(run, options)
    for name in options.only or get_args(FigureName):
        if name == "samples" and not options.only and not (run.path / SAMPLES).is_dir():
            continue  # most methods make no pictures
        try:
            yield from drawn.by_name[name]()
        except (ArgumentError, RunError) as error:
            if name in options.only:
                raise
            log.info("%s: no figure `%s`: %s", run.path, name, error)


def cmc_figures(results: Results, options: FigureOptions) -> Iterator[tuple[str, Figure]]:
    """The CMC curves under each protocol, floors among them."""
    rows = results.rows + results.floors
    for protocol in dict.fromkeys(row.protocol for row in results.rows):
        figure = cmc(Results(rows), protocol, lang=options.lang)
        yield "cmc-" + protocol.replace("/", "-").replace(":", "-"), figure


class _Drawn:
    """The figures of one run; what several of them need is made once."""

    def __init__(self, run: Drawable, options: FigureOptions) -> None:
        self.run, self.options = run, options
        self.lang: Language = options.lang
        self._embeddings: Embeddings | None = None
        self.by_name: dict[str, Callable[[], Iterator[tuple[str, Figure]]]] = {
            "cmc": self.cmc,
            "histograms": lambda: self.one("histograms", histograms, self.embeddings, self.thresholds),
            "projection": lambda: self.one("projection", projection, self.embeddings, options.projection),
            "cameras": lambda: self.one("cameras", camera_heatmap, self.embeddings),
            "error-rates": lambda: self.one("error-rates", error_rates, self.embeddings, self.thresholds),
            "attention": self.attention,
            "training": lambda: self.one("training", training_curves, run.path),
            "samples": lambda: self.one("samples", sample_sheets, run.path),
        }

    def one(self, name: str, draw: Callable[..., Figure], *given: Any) -> Iterator[tuple[str, Figure]]:
        yield name, draw(*given, lang=self.lang)

    @property
    def embeddings(self) -> Embeddings:
        """Of the deployed layer, on the test images."""
        if self._embeddings is None:
            shared = {name: getattr(self.options, name) for name in (f.name for f in dataclasses.fields(RunOptions))}
            self._embeddings = next(iter(self.run.embed(EmbedOptions(**shared)).values()))
        return self._embeddings

    @property
    def thresholds(self) -> dict[str, float]:
        """The calibrated thresholds by pair of modalities; none where the run has none, or compares by distances."""
        source = self.run.embedding_run
        file = source.path / CALIBRATION
        if not file.is_file() or self.embeddings.similarity != "cosine":
            return {}
        try:
            calibration = Calibration.load(file, file_digest(source.path / EMBEDDER))
            return {name: calibration.threshold(FALSE_MATCH_RATE, name) for name in calibration.pairs}
        except CalibrationError as error:
            log.info("%s: no threshold is drawn: %s", self.run.path, error)
            return {}

    def cmc(self) -> Iterator[tuple[str, Figure]]:
        if not (self.run.path / RESULTS).is_file():
            raise RunError(f"it holds no {RESULTS}; evaluate it first: vireid evaluate {self.run.path}")
        results = Results.load(self.run.path / RESULTS)
        rows = tuple(replace(row, stamp={**row.stamp, NAME: self.run.record.method}) for row in results.rows)
        yield from cmc_figures(Results(rows, results.floors), self.options)

    def attention(self) -> Iterator[tuple[str, Figure]]:
        """Queries with a right and with a wrong first image, each with that image."""
        embeddings = self.embeddings
        table = embeddings.table
        dataset = datasets.find(table.dataset)
        name = dataset.selection_protocol or next(iter(datasets.protocols_for(table)))
        (figures, *_) = evaluate_queries(embeddings, datasets.protocol(name, table), nearest=1)[1]
        places = choose_queries(table, figures.queries, figures.nearest, PAIRS)
        pairs = [(int(figures.queries[place]), int(figures.nearest[place, 0])) for place in places]
        embedder = self.run.embedding_run.embedder(self.options.method)
        yield "attention", pair_attention(embedder, table, pairs, lang=self.lang)
