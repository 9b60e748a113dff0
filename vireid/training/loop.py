"""Train: the only loop. Stages in order, epochs, batches, one step of the method each; log, resume and save around it.

Without log and save it is
    for at.stage, recipe in enumerate(stages):
        optim, step = Optimizers(method.params(), recipe), getattr(method, recipe.step)
        for at.epoch in range(recipe.epochs):
            for batch in method.batches(data, recipe, at):
                optim.scale(recipe.schedule(at))
                losses = step(batch, optim, at)
                method.after_step(at)
                at.iteration += 1
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vireid import distributed
from vireid.declaration import configured, defaults
from vireid.errors import ArgumentError
from vireid.layers.embedder import Embedder
from vireid.layers.refiner import Refiner
from vireid.layers.saved import check_rebuilds
from vireid.method import Batch, Method, Progress, Recipe
from vireid.own_files import is_own
from vireid.system import keep_freed_memory
from vireid.training.failures import OutOfMemory, TrainingDiverged
from vireid.training.first_losses import FirstLosses
from vireid.training.frozen_backbone import check_frozen, hold, without_gradient
from vireid.training.logger import Bar, Logger, Report
from vireid.training.optim import LossNotFinite, Optimizers
from vireid.training.options import LoopOptions
from vireid.training.random_state import random_state, set_random_state
from vireid.training.record import FROM_SCRATCH, describe
from vireid.training.reported import ReportedWeights, Tensors, start_of
from vireid.training.run_folder import BEST, LAST, RunFolder
from vireid.training.selection import LAST_EPOCH, Selection
from vireid.training.trackers import trackers_of

if TYPE_CHECKING:
    from vireid.data.pipeline import TrainingData


def train(
    method: Method,
    data: TrainingData,
    run: str | Path,
    options: LoopOptions | None = None,
    *,
    recipes: Recipe | Sequence[Recipe] | None = None,
    select: Selection | None = None,
    on_epoch: Callable[[Method, Progress], None] | None = None,
    loggers: Sequence[Logger] = (),
    stamp: Mapping[str, Any] | None = None,
    **words: Any,
) -> Path:
    """Train `method` on `data` by its recipes and return the run folder; `method` then holds the reported weights.

    `words` are the fields of LoopOptions. `recipes` replaces the method's own. With `resume` a run that was stopped
    continues from its last epoch, and a finished one is left alone unless its last stage has more epochs now. `stamp`
    is recorded in recipe.json: `settings` (of the method), `init` (what the weights started from) and names of your
    own. `on_epoch`, `select` and the method's `samples` run on rank 0 and cannot change the course of training: random
    states are put back after them. Under torchrun every process calls train() with the same arguments.

    Raises TrainingDiverged, OutOfMemory, RunError (folder taken, or resumed with other settings), DiskFull,
    SettingsError, ArgumentError.
    """
    keep_freed_memory()
    options = configured(LoopOptions, options, words)
    stages = _stages(method, recipes, select)
    for recipe in stages:
        check_frozen(method, recipe)
    _check_data(method, data)
    _check_own_networks(method)
    main = distributed.is_main()
    how = {"seed": options.seed, "precision": options.precision, "compile": options.compile, **_selected_by(select)}
    folder = _begin(method, stages, data, Path(run), how, stamp or {}, options.resume)
    distributed.barrier()
    state = folder.checkpoint() if (folder.path / LAST).exists() else None
    if state is not None and state["finished"] and state["progress"]["epoch"] >= stages[-1].epochs:
        folder.load(method)
        return folder.path

    _seed(options.seed)
    _prepare(method, state, options.compile)
    past = _Past(**state["past"]) if state else _Past()
    report = Report(folder.path, Bar(options.progress and main), past.elapsed_s)
    try:
        if main:
            trackers = trackers_of(folder.path, options, folder.record.plain(), past.total)
            report.open(past.log_bytes, (*loggers, *trackers))
        _Loop(method, data, folder, stages, options, select, on_epoch, past, report).run(state)
    finally:
        report.close()
    if select is not None or stages[-1].ema or stages[-1].mix < 1:
        folder.load(method)
    return folder.path


@dataclass
class _Past:
    """What a checkpoint remembers beside method, optimizers and progress."""

    total: int = 0  # steps taken over all stages
    elapsed_s: float = 0.0
    log_bytes: int = 0
    best: float | None = None


@dataclass
class _Loop:
    method: Method
    data: TrainingData
    folder: RunFolder
    stages: tuple[Recipe, ...]
    options: LoopOptions
    select: Selection | None
    on_epoch: Callable[[Method, Progress], None] | None
    past: _Past
    report: Report
    at: Progress = field(default_factory=Progress)
    last: Batch | None = None  # of the epoch, for samples
    start: Tensors | None = None  # weights before the first step, where they are mixed in
    first: FirstLosses = field(init=False)
    reported: ReportedWeights = field(init=False)  # of the stage

    def __post_init__(self) -> None:
        record = self.folder.record
        pretrained = record.init != FROM_SCRATCH and record.base is None
        init = record.init if pretrained and distributed.is_main() else None
        self.first = FirstLosses(init, self.method.raw_distances)

    def run(self, state: Mapping[str, Any] | None) -> None:
        saved = None if state is None else state.get("reported")
        self.start = saved["start"] if saved else start_of(self.method, self.stages)
        if state is not None:
            self.at = Progress(**state["progress"])
        for stage in range(self.at.stage, len(self.stages)):
            with without_gradient(self.method, self.stages[stage]):
                self.train_stage(stage, state)
            state = None

    def train_stage(self, stage: int, state: Mapping[str, Any] | None) -> None:
        """Train one stage, from a checkpoint's state if it was begun."""
        at, recipe = self.at, self.stages[stage]
        optim = Optimizers(self.method.params(), recipe)
        saved = None if state is None else state.get("reported")
        self.reported = ReportedWeights(self.method, recipe, self.start, saved)
        if state is None:
            at.stage, at.epoch, at.iteration, at.epochs, at.iterations_per_epoch = stage, 0, 0, recipe.epochs, 1
        else:
            at.epochs = recipe.epochs  # a run that is continued may have more of them than before
            optim.load_state_dict(state["optimizers"])
            set_random_state(state["random"][distributed.rank()])
        for epoch in range(at.epoch, recipe.epochs):
            at.epoch = epoch
            self.end_epoch(recipe, optim, self.epoch(recipe, optim))
        if recipe.epochs == 0 and stage + 1 == len(self.stages):
            self.save(optim, random_state(), better=True, epochs=0)

    def epoch(self, recipe: Recipe, optim: Optimizers) -> dict[str, Any]:
        """Take the steps of one epoch and return its record."""
        at, method, step = self.at, self.method, getattr(self.method, recipe.step)
        self.report.bar.begin(at.stage, len(self.stages), at.epoch, recipe.epochs)
        seen: defaultdict[str, list[Tensor]] = defaultdict(list)
        images, speed, started = 0, 0.0, time.monotonic()
        # pictures drawn per row of a batch: views of one modality show the same pictures
        pictures = len({view.modality for view in recipe.views}) / len(recipe.views) if recipe.views else 1
        method.train()
        hold(method, recipe)
        first = at.iteration
        for batch in method.batches(self.data, recipe, at):
            optim.scale(recipe.schedule(at))
            losses = self.guarded(step, batch, optim, recipe)
            method.after_step(at)
            self.reported.follow()
            self.last = batch
            if at.stage == 0:
                self.first.see(losses, at.iteration)
            at.iteration += 1
            self.past.total += 1
            images += len(batch) * distributed.world()
            speed = images / max(time.monotonic() - started, 1e-9)
            for name, loss in losses.items():
                seen[name].append(loss.detach())
            if at.iteration % self.options.log_every == 0:
                self.report.log(self.record("step", losses, optim, speed))
            self.report.bar.advance(at.iteration, first + at.iterations_per_epoch * (recipe.epochs - at.epoch), speed)
        if not images:
            raise ArgumentError(
                f"epoch {at.epoch} of stage {at.stage} gave no batch: the sampler {recipe.sampler} needs more training "
                f"images than the {len(self.data.table)} of this table; lower its numbers"
            )
        if at.iteration - first != at.iterations_per_epoch:
            raise ArgumentError(
                f"epoch {at.epoch} of stage {at.stage} gave {at.iteration - first} batches after it had announced "
                f"{at.iterations_per_epoch}; batches() has to set at.iterations_per_epoch to the number it yields"
            )
        means = {name: torch.stack(values).float().mean() for name, values in seen.items()}
        return {**self.record("epoch", means, optim, speed), "pictures": round(images * pictures)}

    def guarded(
        self, step: Callable[..., dict[str, Tensor]], batch: Batch, optim: Optimizers, recipe: Recipe
    ) -> dict[str, Tensor]:
        """One step of the method, its two usual failures reported in full."""
        device = batch.images.device
        try:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.options.precision == "bfloat16"):
                return step(batch, optim, self.at)
        except LossNotFinite as error:
            values = ", ".join(f"{name}={value:g}" for name, value in error.losses.items())
            raise self.diverged(f"the objective is not finite ({values})", optim) from error
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(batch, recipe, self.folder.path / LAST) from error

    def end_epoch(self, recipe: Recipe, optim: Optimizers, record: dict[str, Any]) -> None:
        """Check, select, show, log and save."""
        method, at, main = self.method, self.at, distributed.is_main()
        broken = [name for name, p in method.named_parameters() if not bool(torch.isfinite(p).all())]
        if broken:  # checked before a good checkpoint is written over
            raise self.diverged(f"weights are not finite ({', '.join(broken[:5])})", optim)
        randoms, better = random_state(), False
        if main:
            with self.reported.applied():
                better = self.show(record)
        set_random_state(randoms)
        self.report.log(record)
        if main:
            self.report.bar.end(record)
        self.save(optim, randoms, better, at.epoch + 1)

    def save(self, optim: Optimizers, randoms: Any, better: bool, epochs: int) -> None:
        """Write the checkpoint after `epochs` of the stage, and what is used of the run if that is `better`."""
        at = self.at
        all_randoms = distributed.gather_objects(randoms)
        if distributed.is_main():
            if better:
                with self.reported.applied():
                    self.save_reported()
            self.past.elapsed_s, self.past.log_bytes = self.report.elapsed_s, self.report.log_bytes
            state = {"method": self.method.state_dict(), "optimizers": optim.state_dict(), "random": all_randoms}
            finished = epochs == at.epochs and at.stage + 1 == len(self.stages)
            progress = asdict(replace(at, epoch=epochs))
            state |= {"progress": progress, "past": asdict(self.past), "finished": finished}
            self.folder.save({**state, **self.reported.state_dict(self.start)})
        distributed.barrier()

    def show(self, record: dict[str, Any]) -> bool:
        """Select, call `on_epoch` and write samples; whether the epoch that ended is the one to report."""
        method, at, better = self.method, self.at, self.select is None
        if self.select and self.select.due(at, len(self.stages)):
            value = self.select.value(method, at)
            record["selected"] = {self.select.rule: value}
            better = self.past.best is None or value > self.past.best
            self.past.best = value if better else self.past.best
        if self.on_epoch:
            self.on_epoch(method, at)
        self.save_samples()
        return better

    def save_reported(self) -> None:
        """Write what is used of the run: best.pt where an epoch is selected, and the deployed networks."""
        if self.select:
            best = {"method": self.method.state_dict(), "epoch": self.at.epoch, "value": self.past.best}
            self.folder.save(best, BEST)
        for network in self.method.artifacts().values():
            self.folder.save_artifact(network)

    def save_samples(self) -> None:
        """Write what the method shows of the epoch's last batch, if it shows anything."""
        assert self.last is not None
        was_training = self.method.training
        self.method.eval()
        with torch.no_grad():
            rows = self.method.samples(self.last, self.at)
        self.method.train(was_training)
        if rows is not None:
            self.folder.save_samples(rows, self.at.stage, self.at.epoch)

    def record(self, event: str, losses: Mapping[str, Tensor], optim: Optimizers, speed: float) -> dict[str, Any]:
        device = next(iter(losses.values())).device if losses else "cpu"
        values = distributed.mean([loss.item() for loss in losses.values()], device)
        watch = {name: v.item() if isinstance(v, Tensor) else float(v) for name, v in self.method.watch.items()}
        numbers = {"losses": dict(zip(losses, values, strict=True)), "watch": watch, "lr": optim.lr}
        return self.report.record(event, self.at, self.past.total, speed, **numbers)

    def diverged(self, reason: str, optim: Optimizers) -> TrainingDiverged:
        return TrainingDiverged(self.at, reason, optim.lr, self.options.precision, self.folder.path / LAST)


def _begin(
    method: Method,
    stages: tuple[Recipe, ...],
    data: TrainingData,
    run: Path,
    how: Mapping[str, Any],
    stamp: Mapping[str, Any],
    resume: bool,
) -> RunFolder:
    """Make the run folder, or open the one that is resumed."""
    share = {"data_seed": getattr(data, "seed", how["seed"]), "world": distributed.world()}
    record = describe(method, stages, data.table, stamp, **how, **share)
    if distributed.is_main():
        return RunFolder.begin(run, record, resume, defaults(method.Settings), stages)
    return RunFolder(run, record)


def _selected_by(select: Selection | None) -> dict[str, str]:
    """What recipe.json says about the epoch that is reported."""
    return {"checkpoint": select.rule if select else LAST_EPOCH}


def _prepare(method: Method, state: Mapping[str, Any] | None, compile: bool) -> None:
    """The same weights in every process, those of the checkpoint if there is one, and the compiled network."""
    if distributed.world() > 1:
        distributed.copy_from_main(method)
        distributed.convert_batchnorm(method)
    if state is not None:
        method.load_state_dict(state["method"])
    if compile:
        _compile(method)


def _stages(method: Method, recipes: Recipe | Sequence[Recipe] | None, select: Selection | None) -> tuple[Recipe, ...]:
    chosen = method.recipe if recipes is None else recipes
    stages = (chosen,) if isinstance(chosen, Recipe) else tuple(chosen)
    if not stages:
        raise ArgumentError("a training needs at least one recipe, got none")
    if select is not None and not stages[-1].epochs:
        raise ArgumentError("a selected epoch is reported, and epochs=0 trains none; leave --select out")
    for stage, recipe in enumerate(stages):
        if not callable(getattr(method, recipe.step, None)):
            raise ArgumentError(
                f"the recipe of stage {stage} names step={recipe.step!r}; {type(method).__name__} has none"
            )
    return stages


def _check_data(method: Method, data: TrainingData) -> None:
    """The data have to come to this process and this device (some need not say so), and to be what the method takes."""
    here, share = (distributed.rank(), distributed.world()), (getattr(data, "rank", None), getattr(data, "world", None))
    if None not in share and share != here:
        raise ArgumentError(
            f"the data are those of rank {share[0]} of {share[1]}, this process is rank {here[0]} of {here[1]}; "
            "make them with TrainingData(..., rank=distributed.rank(), world=distributed.world())"
        )
    device, there = next(method.parameters()).device, getattr(data, "device", None)
    if there is not None and torch.device(there).type != device.type:
        raise ArgumentError(f"the method is on {device}, the data come to {there}; put both on one device")
    method.check(data.table)


def _check_own_networks(method: Method) -> None:
    """Networks of the user's own class, or of vireid's in a method of the user, have to load from their files."""
    for network in method.artifacts().values():
        if isinstance(network, Embedder | Refiner) and (is_own(type(network)) or is_own(type(method))):
            check_rebuilds(network, network.settings)


def _seed(seed: int) -> None:
    """Every generator; another stream per rank, because rows differ between ranks and so should their dropout."""
    own = (seed + 1_000_003 * distributed.rank()) % 2**32
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


def _compile(method: Method) -> None:
    """torch.compile in place, so that state-dict keys stay; the trunk alone where there is one."""
    for network in method.artifacts().values() or (method,):
        getattr(network, "trunk", network).compile()
