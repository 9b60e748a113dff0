"""Run: a training as an object: its record, embeddings, figures, exported bundle and report.

run = vireid.train("cajl", table, "runs/cajl", epochs=60)      or vireid.Run.open("runs/cajl")
scores = run.evaluate()
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vireid.data.table import Table
from vireid.declaration import configured
from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.deploy.model import RUN_BUNDLE, exported_bundle
from vireid.errors import ArgumentError, RunError
from vireid.evaluation.centering import centered_embeddings
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import Rerank
from vireid.evaluation.frozen import MADE_FROM, fingerprint
from vireid.evaluation.local_shortest_path import LocalShortestPath
from vireid.evaluation.queries import write_queries
from vireid.evaluation.refine import RefinedBy
from vireid.evaluation.rerank import KReciprocal
from vireid.evaluation.results import Results
from vireid.layers.embedder import Embedder
from vireid.own_files import Code
from vireid.system import choose_device, file_digest
from vireid.training.record import RunRecord, data_name
from vireid.training.run_folder import REFINER, RunFolder
from vireid.types import Backend, Language
from vireid.workflows.embed import embed_by
from vireid.workflows.measure import Measured, check_centering, choose_layers, choose_protocols, measure
from vireid.workflows.options import EmbedOptions, EvaluateOptions, RunOptions
from vireid.workflows.ranked_lists import draw_lists
from vireid.workflows.report import write_report
from vireid.workflows.run_outputs import QUERIES, write_open_set, write_results
from vireid.workflows.run_rows import RunRows, checked_table
from vireid.workflows.track import track_evaluation

log = logging.getLogger(__name__)


class Run:
    """A training in a folder; `record` says what it was.

    A network of your own is rebuilt by the file of the method that was trained, as recorded, or by `method`: a file, or
    a class.
    """

    def __init__(self, folder: RunFolder, method: Code | None = None) -> None:
        self.folder, self.method = folder, method

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run at `path`; RunError where it is not a run folder."""
        return cls(RunFolder.open(path))

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def record(self) -> RunRecord:
        return self.folder.record

    # --- what the run is made of --------------------------------------------------------------------------------------

    @property
    def embedding_run(self) -> Run:
        """The run whose embedder embeds: this one, or the base of one that refines; RunError where that changed."""
        return self._embedding_run

    @cached_property
    def _embedding_run(self) -> Run:
        base = self.record.base
        if base is None:
            return self
        hint = f"To refine another run: vireid evaluate RUN --refine {self.path}"
        if base.file is not None:
            raise RunError(
                f"{self.path} was trained on a file of embeddings ({base.path}), which embeds no picture. {hint}"
            )
        if not Path(base.path).is_dir():
            raise RunError(f"{self.path} refines the run {base.path}, which is not there any more. {hint}")
        run = Run.open(base.path)
        if run.folder.embedder_digest != base.embedder:
            raise RunError(
                f"{self.path} was trained on the embeddings of {base.path} when its embedder was {base.embedder}; "
                f"it is {run.folder.embedder_digest} now: train again. {hint}"
            )
        return run

    def embedder(self, method: Code | None = None) -> Embedder:
        """The network that embeds; `method` is the file of one of your own, which is executed."""
        return self.folder.embedder(method=method or self.method)

    def table(self, options: RunOptions) -> Table:
        """The whole table that the options name; RunError for data that are not the run's own without `cross`."""
        return checked_table(self.folder, options.data, options.trial, options.cross)[0]

    def rows(self, options: RunOptions, split: str = "test") -> RunRows:
        """The rows of a split that the options name; RunError for data that are not the run's own without `cross`."""
        return RunRows.of(self.folder, options.data, options.trial, options.cross, split)

    # --- embedding ----------------------------------------------------------------------------------------------------

    def embed(self, options: EmbedOptions | None = None, **words: Any) -> dict[str, Embeddings]:
        """Embeddings of the images of a split by layer, the deployed one first, kept as RUN/embeddings/LAYER.npz.

        `words` are the fields of EmbedOptions. Files of all layers that are up to date (same embedder, pictures and
        options) are read and not made again. Raises RunError, DataError, ArgumentError, SettingsError.
        """
        files = self.embed_files(configured(EmbedOptions, options, words))
        return {embeddings.stamp["layer"]: embeddings for embeddings in files.values()}

    def embed_files(self, options: EmbedOptions) -> dict[Path, Embeddings]:
        """As `embed`, by the file that a layer is kept in."""
        run = self.embedding_run
        if run is not self:
            log.info("%s refines the embeddings of %s", self.path, run.path)
        rows = run.rows(options, options.split)
        folder, suffix = run.path / "embeddings", rows.suffix(options.flip)
        made = run.embed_rows(rows, options, options.named_layer, options.backend)
        return {folder / f"{name}{suffix}.npz": layer for name, layer in made.items()}

    def embed_rows(
        self, rows: RunRows, options: RunOptions, layer: str | None = "all", backend: Backend = "torch"
    ) -> dict[str, Embeddings]:
        """As `embed`, for rows that were loaded before; one layer alone is written and not taken for up to date."""
        stamp = rows.stamp(self.folder, self.folder.embedder_digest)
        made_from = fingerprint(self.folder, rows.rows, options.flip)
        folder, suffix = self.path / "embeddings", rows.suffix(options.flip)
        if backend in ("auto", "torch") and (kept := up_to_date(folder, suffix, made_from)):
            log.info("embeddings of %d images are up to date: %s", len(rows.rows), folder)
            return {name: replace(made, table=rows.rows) for name, made in choose_layers(kept, layer).items()}
        network, use = partial(self.embedder, options.method), self.folder.deployment
        bundle = None if backend == "torch" else exported_bundle(self.folder, options.method or self.method)
        layers = embed_by(backend, bundle, network, use, rows.rows, options, layer)
        if layer == "all":
            stamp[MADE_FROM] = f"{made_from} {' '.join(layers)}"
        for name, embeddings in layers.items():
            layers[name] = replace(embeddings, stamp={**stamp, **embeddings.stamp})
            path = layers[name].save(folder / f"{name}{suffix}.npz")
            log.info("wrote %s (%d x %d)", path, len(rows.rows), embeddings.vectors.shape[1])
        return layers

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self, options: EvaluateOptions | None = None, **words: Any) -> Results:
        """Evaluate and write RUN/results.json, table.md, queries.csv and figures/ranked-PROTOCOL.png.

        `words` are the fields of EvaluateOptions. results.json keeps earlier figures of the same embedder and images.
        A run that refines by itself is measured on the embeddings of its base. Raises RunError, DataError,
        ArgumentError, SettingsError.
        """
        options = configured(EvaluateOptions, options, words)
        measured, rows = self.measured(options)
        write_results(self.path, measured.results, refines=self.record.base is not None)
        if options.open_set:
            write_open_set(self.path, measured.vectors[0], measured.protocols, options.similarity)
        log.info("wrote %s", write_queries(self.path / QUERIES, measured.queries))
        if options.pictures:
            suffix = rows.suffix() + ("" if options.refine is None else "@refined")
            draw_lists(self.path, self.record.method, measured, suffix, options)
        track_evaluation(self.path, measured.results)
        return measured.results

    def measured(self, options: EvaluateOptions) -> tuple[Measured, RunRows]:
        """The figures of `evaluate` and the rows that they are of; nothing but the embeddings is written."""
        refiner = self.refinement(options)
        rerank = self.reranking(options)
        check_centering(options, refined=refiner is not None)
        if options.open_set and (rerank is not None or refiner is not None):
            raise ArgumentError(
                "open-set figures are of plain similarities; leave --rerank, --refine or --open-set out"
            )
        run = self.embedding_run
        rows = run.rows(options)
        protocols = choose_protocols(rows.table, options)
        layers = choose_layers(run.embed_rows(rows, options), options.layer)
        vectors = [self.stamped(layer, rows, options.refine) for layer in layers.values()]
        vectors = [centered_embeddings(layer) for layer in vectors] if options.center else vectors
        return measure(vectors, protocols, refiner, rerank, options), rows

    def refinement(self, options: EvaluateOptions) -> RefinedBy | None:
        """What refines the embeddings: the run's own refiner, or that of `refine`; RunError where it is unfit."""
        own = self.record.base
        if own is not None and options.refine is not None:
            raise RunError(f"{self.path} refines by itself; to refine with another run evaluate {own.path}")
        by = self.folder if own is not None else None if options.refine is None else RunFolder.open(options.refine)
        if by is None:
            if options.strict:
                raise ArgumentError(
                    "--strict belongs to refinement: pass --refine RUN too, or evaluate a run that refines"
                )
            return None
        if options.layer is not None:
            raise ArgumentError(
                "what is refined is the deployed layer, which the refiner was trained on; leave --layer out"
            )
        refiner = by.refiner(choose_device(options.device), None if own is None else options.method or self.method)
        for name in ("dataset", "partition", "data"):
            mine, other = getattr(self.record, name), getattr(by.record, name)
            if mine != other and not options.cross:
                raise RunError(
                    f"{by.path} was trained on {name} {other!r}, {self.path} on {mine!r}: the people that one is "
                    "tested on may be those that the other was trained on. Refine with a run on the same training "
                    "rows, or pass --cross, which is stamped"
                )
        return RefinedBy(refiner, options.strict)

    def reranking(self, options: EvaluateOptions) -> Rerank | None:
        """The re-ranking by name; ArgumentError for the shortest path of a network without stripes.

        Without a name it is that of the method's settings, which ranks the whole gallery by the deployed layer.
        """
        if options.rerank == "local-shortest-path":
            return LocalShortestPath.of(self.embedding_run.embedder(options.method))
        if options.rerank:
            return KReciprocal(options.k1, options.k2)
        if self.record.by_shortest_path and options.layer is None and not options.open_set:
            return LocalShortestPath.of(self.embedding_run.embedder(options.method), shortlist=None)
        return None

    def stamped(self, embeddings: Embeddings, rows: RunRows, refine: str | Path | None) -> Embeddings:
        """The embeddings with the stamp of their figures: what refines them is named, internal entries are left out."""
        stamp = {key: value for key, value in embeddings.stamp.items() if key != MADE_FROM}
        if refine is not None or self.record.base is not None:
            by = self.folder if refine is None else RunFolder.open(refine)
            if refine is None:
                stamp |= rows.stamp(self.folder, self.embedding_run.folder.embedder_digest)
            elif by.base.embedder != self.folder.embedder_digest:
                stamp["refiner trained on"] = f"embeddings of {by.base.method} {by.base.embedder}"
            if refine is not None and by.record.data != self.record.data:
                stamp["refiner trained on people of"] = data_name(by.record.dataset, by.record.partition)
            stamp["refiner"] = file_digest(by.path / REFINER)[:8]
        return replace(embeddings, stamp=stamp)

    def report(self, lang: Language = "en") -> Path:
        """Write RUN/report.html (report.zh.html in Chinese), one page without outside files.

        It holds the results, figures, the hardest queries, ranked lists, cost and the training. Raises DataError where
        the run was not evaluated.
        """
        return write_report([self], lang=lang)

    # --- deployment ---------------------------------------------------------------------------------------------------

    def export(self, folder: str | Path | None = None, *, onnx: bool = True, method: Code | None = None) -> Bundle:
        """Write the bundle of the run into `folder`, by default RUN/bundle; RunError, BundleError.

        `method` is the file of a network of your own, where it is not the one that the run recorded.
        """
        to, code = folder or self.path / RUN_BUNDLE, method or self.method
        return export_bundle(self.folder, to, onnx=onnx, method=code)


def up_to_date(folder: Path, suffix: str, made_from: str) -> dict[str, Embeddings]:
    """The files of all layers, the deployed one first, if each was made from just this; nothing otherwise."""
    paths = {path.name.removesuffix(f"{suffix}.npz"): path for path in folder.glob(f"*{suffix}.npz")}
    notes = {name: Embeddings.stamp_of(path).get(MADE_FROM, "") for name, path in paths.items() if "@" not in name}
    for note in notes.values():
        digest, *layers = note.split() or [""]
        if digest == made_from and all(notes.get(layer) == note for layer in layers):
            return {layer: Embeddings.load(paths[layer]) for layer in layers}
    return {}
