"""`vireid calibrate`: from pictures of people that were not trained on to thresholds and probabilities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vireid.data import datasets
from vireid.data.datasets.ignore import IgnoreRule, any_of, same_pid_and_camera
from vireid.data.protocol import ignore_nothing
from vireid.data.table import Table
from vireid.declaration import configured
from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import CALIBRATION, CONFIG, TrainedOn
from vireid.deploy.calibration import Calibration
from vireid.deploy.calibration_fit import calibrate
from vireid.deploy.model import RUN_BUNDLE
from vireid.errors import ArgumentError, CalibrationError
from vireid.evaluation.embed import embed
from vireid.system import choose_device, file_digest
from vireid.training.run_folder import EMBEDDER, RECIPE
from vireid.workflows.options import RunOptions
from vireid.workflows.run import Run
from vireid.workflows.run_rows import split_rows

TEST_PEOPLE = (
    "these are the test people. Figures that are measured on them with these thresholds are flattered, and "
    "the thresholds fit them better than other people; use them for a first look. Better: train with --select heldout "
    "(--holdout N), whose held-out people are then calibrated on, or give --data with pictures of your own cameras"
)
UNKNOWN_PEOPLE = (
    "this is other data of the same data set than the run was trained on, so some of these people may have "
    "been trained on; the thresholds would then be too low to trust"
)
log = logging.getLogger(__name__)
People = Literal["unseen", "test", "unknown"]


def calibrate_run(
    target: Path | str,
    options: RunOptions | None = None,
    *,
    split: str | None = None,
    ignore: Sequence[str] = (),
    **words: Any,
) -> Calibration:
    """Calibrate a run or a bundle and write calibration.json into it (for a run also into its RUN/bundle).

    `words` are the fields of RunOptions; `data` is by default what the run was trained on, a bundle needs it. `split`
    is by default the people that the run held out, else val where it was not trained on, else test with a warning.
    `ignore` names rules of a manifest (`frame` leaves out pictures of one moment). Raises CalibrationError, RunError,
    BundleError, DataError.
    """
    options = configured(RunOptions, options, words)
    shared = {"batch_size": options.batch_size, "progress": options.progress}
    device, data = options.device, options.data
    if (Path(target) / RECIPE).is_file() or not Path(target).is_dir():
        run = Run.open(target)
        table = run.table(options)
        trained = TrainedOn.of(run.record)
        chosen = choose_people(table, trained, split)
        warn(chosen.people)
        if chosen.part:
            network, use = run.embedder(options.method).to(choose_device(device)), run.folder.deployment
            embeddings = embed(network, chosen.rows, use.size, filter=use.filter, **shared)
        else:  # kept in RUN/embeddings for the next time
            layers = run.embed_rows(run.rows(options, chosen.split), options)
            embeddings = replace(next(iter(layers.values())), table=chosen.rows)
        folders, digest = [run.path], file_digest(run.path / EMBEDDER)
        inner = run.path / RUN_BUNDLE
        if (inner / CONFIG).is_file() and Bundle.open(inner).config.digest == digest:
            folders.append(inner)
    else:
        bundle = Bundle.open(target, options.method)
        if data is None:
            raise ArgumentError(f"{target} is a bundle, which does not say where pictures lie; pass --data NAME=PATH")
        trial = {} if options.trial is None else {"trial": options.trial}
        table = data if isinstance(data, Table) else datasets.load(data, **trial)
        chosen = choose_people(table, bundle.config.trained_on, split)
        warn(chosen.people)
        network = bundle.network(choose_device(device))
        embeddings = embed(network, chosen.rows, bundle.config.size, filter=bundle.config.filter, **shared)
        folders, digest = [bundle.path], bundle.config.digest
    rule, ignored = ignore_rule(table, ignore)
    made = calibrate(
        embeddings.vectors,
        embeddings.table,
        embedder=digest,
        split=chosen.split + (" (held out)" if chosen.part else ""),
        people=chosen.people,
        ignore=rule,
        ignored=ignored,
    )
    for folder in folders:
        log.info("wrote %s", made.save(folder / CALIBRATION))
    return made


@dataclass(frozen=True)
class Chosen:
    """The rows to calibrate on; `part` where they are the held-out people of a split and not all of it."""

    split: str
    rows: Table
    people: People
    part: bool = False


def choose_people(table: Table, trained: TrainedOn, split: str | None) -> Chosen:
    """The rows of a split whose people were not trained on; CalibrationError where there are none.

    By default the split that holds the held-out people, else val, else test.
    """
    own = trained.same_data(table)
    held_out = set(trained.held_out_pids) if own else set()
    seen = set(table.where(trained.splits).pid.tolist()) - held_out if own else set()
    if split is None:
        with_held_out = table[np.isin(table.pid, sorted(held_out))].split.tolist()
        val = [] if own and "val" in trained.splits else [name for name in ("val",) if name in table.split]
        split = str([*with_held_out, *val, "test"][0])
    rows = split_rows(table, split)
    unseen = ~np.isin(rows.pid, sorted(seen))
    if not unseen.all() and not set(rows.pid[unseen].tolist()) & held_out:
        raise CalibrationError(
            f"people of split {split} were trained on: similarities of people that a network knows say nothing about "
            "others. Take another --split, or train with --select heldout (--holdout N), which keeps people apart"
        )
    people: People = "test" if set(rows.split.tolist()) & {"test", "query", "gallery"} else "unseen"
    if not own and trained.dataset == table.dataset:
        people = "unknown"
    return Chosen(split, rows[unseen], people, not unseen.all())


def warn(people: People) -> None:
    """Say what is wrong with calibrating on these people, before minutes are spent on it."""
    if people != "unseen":
        log.warning("%s", TEST_PEOPLE if people == "test" else UNKNOWN_PEOPLE)


def ignore_rule(table: Table, names: Sequence[str]) -> tuple[IgnoreRule | None, str]:
    """What the data set's protocols ignore, as one rule, and all that is left out in words."""
    known = [datasets.protocol(name, table, list(names) or None) for name in datasets.protocols_for(table)]
    rules = {p.stamp["ignored"]: p.ignore for p in known if p.name.partition("/ignore-")[0] != "manifest/mixed"}
    rules = {word: rule for word, rule in rules.items() if rule not in (ignore_nothing, same_pid_and_camera)}
    return (any_of(tuple(rules.values())) if rules else None), "; ".join(["same person in the same camera", *rules])
