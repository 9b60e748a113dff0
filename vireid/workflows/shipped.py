"""`vireid models make`: a model that comes with vireid, from its plan: render, train, calibrate, write the bundle.

The bundle of such a model holds weights in half precision, a default calibration, its plan and a NOTICE:

    embedder.safetensors   float16, loaded into a float32 network; config.json has the sha256 of this file
    calibration.json       thresholds and probabilities, measured with these weights on the selection people
    embedder.onnx          the same network for the faster runtimes, and parity.json, how far they are from torch
    plan.yaml              what `make_model` reads
    NOTICE                 whose work it builds on
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from vireid import methods, models
from vireid.data import datasets
from vireid.declaration import defaults
from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import CALIBRATION, CARD, NOTICE, PLAN, WEIGHTS
from vireid.deploy.calibration import Calibration
from vireid.deploy.calibration_fit import calibrate
from vireid.deploy.card import shipped_card
from vireid.deploy.export import config_of, new_bundle, write_config, write_parity
from vireid.deploy.parity import export_runtimes
from vireid.errors import BundleError
from vireid.evaluation.embed import Embeddings, embed
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.results import Results
from vireid.layers.embedder import load_embedder
from vireid.layers.saved import write_half
from vireid.own_files import qualified_name
from vireid.system import choose_device, file_digest, replacing
from vireid.training.record import RunRecord, to_jsonable
from vireid.training.run_folder import EMBEDDER, RunFolder
from vireid.training.settings import resolve
from vireid.workflows.calibrate import ignore_rule
from vireid.workflows.run_rows import split_rows
from vireid.workflows.shipped_plan import ModelPlan, plan_of
from vireid.workflows.train import train_with

MAX_BYTES = 8_000_000  # of all models together
log = logging.getLogger(__name__)


def make_model(
    name: str,
    root: str | Path,
    *,
    run: str | Path | None = None,
    to: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Bundle:
    """Make a model by its plan below the folder `root` and write its bundle into `to`, by default ROOT/NAME.

    A training that was stopped continues, pictures that are there are kept. With `run` that finished run is taken in
    place of a training; it must be one that the plan would give. Raises BundleError, SettingsError and what training
    raises.
    """
    root, plan = Path(root), plan_of(name)
    text = (models.FOLDER / name / PLAN).read_text(encoding="utf-8")
    if run is None:
        options = replace(plan.options, resume=True, device=device, progress=progress)
        run = train_with(
            plan.method, plan.render(root / "data"), root / "run", options, plan.words, as_recorded=False
        ).path
    folder = RunFolder.open(run)
    check_run(folder, plan)
    selection = datasets.load(f"{plan.selection.layout}={plan.selection.render(root / 'selection')}")
    target = root / name if to is None else Path(to)
    with new_bundle(target) as draft:
        write_half(folder.path / EMBEDDER, draft / WEIGHTS)
        digest = file_digest(draft / WEIGHTS)
        network = load_embedder(draft / WEIGHTS, choose_device(device))
        config = config_of(folder, network, digest)
        use = folder.deployment
        stamp = {"embedder": digest[:8], "model": name}
        embeddings = embed(network, selection, use.size, filter=use.filter, progress=progress)
        embeddings = replace(embeddings, stamp={**embeddings.stamp, **stamp}, similarity=use.similarity)
        calibrated(embeddings, digest).save(draft / CALIBRATION)
        write_parity(draft, export_runtimes(network, use.size, draft, onnx=True))
        figures = figures_of_selection(embeddings).markdown()
        card = shipped_card(name, config, plan.about.strip(), plan.limits.strip(), training_of(plan), figures)
        for file, content in ((CARD, card), (NOTICE, notice(name, plan)), (PLAN, text)):
            with replacing(draft / file) as partial:
                partial.write_text(content, encoding="utf-8")
        write_config(draft, config)
    bundle = Bundle.open(target)
    size = sum(path.stat().st_size for path in target.iterdir())
    log.info("%s: %.2f MB in %s", name, size / 1e6, target)
    if size > MAX_BYTES:
        log.warning("the models that come with vireid hold %.0f MB in all at most", MAX_BYTES / 1e6)
    return bundle


def check_run(run: RunFolder, plan: ModelPlan) -> None:
    """BundleError unless the run is finished and what the plan gives: method, settings, options, synthetic people."""
    if not run.finished:
        raise BundleError(f"{run.path} is not finished; continue it with `vireid train --resume --run {run.path}`")
    record, kind, options = run.record, methods.find(plan.method), plan.options
    recipes, settings = resolve(kind, record.dataset, plan.words)
    values = {"class": qualified_name(kind), "recipes": recipes, "settings": vars(settings)}
    expected = RunRecord.model_validate({**record.plain(), **to_jsonable(values)})
    faults = expected.differences(record.completed(defaults(kind.Settings), recipes))
    for option in ("seed", "select", "holdout"):
        wanted = getattr(options, option)
        if (was := record.options.get(option, wanted)) != wanted:
            faults.append(f"{option}: {wanted} -> {was}")
    if not record.init.startswith(options.weights or "from scratch"):
        faults.append(f"weights: {options.weights} -> {record.init}")
    if faults:
        raise BundleError(
            f"{run.path} is not what the plan gives (plan -> run):\n"
            + "\n".join(f"  - {fault}" for fault in faults)
            + "\nchange the plan, or train by it"
        )
    plan.check_drawn(record.source.data)


def calibrated(embeddings: Embeddings, digest: str) -> Calibration:
    """The calibration on all people of the selection set, none of whom was trained on."""
    rule, ignored = ignore_rule(embeddings.table, ())
    return calibrate(
        embeddings.vectors,
        embeddings.table,
        embedder=digest,
        split="all synthetic people of another seed",
        people="unseen",
        ignore=rule,
        ignored=ignored,
    )


def figures_of_selection(embeddings: Embeddings) -> Results:
    """Figures of the test people of the selection set by the protocols of its layout."""
    table = embeddings.table
    tested = embeddings[np.isin(table.path, split_rows(table).path)]
    results = Results(())
    for name in datasets.find(table.dataset).compared_protocols or datasets.protocols_for(table):
        results += evaluate(tested, datasets.protocol(name, table))
    return results


def training_of(plan: ModelPlan) -> str:
    """What it was trained on, as the card says it."""
    return "Trained on synthetic people alone, drawn by vireid:\n\n" + "\n".join(f"- {one}" for one in plan.data)


def notice(name: str, plan: ModelPlan) -> str:
    """The file NOTICE."""
    return f"{name}: a model that comes with vireid\nCopyright 2026 The vireid authors\n\n{plan.notice.strip()}\n"
