"""`vireid compare`: train methods from several seeds on several data sets, evaluate all, rank them in one table."""

from __future__ import annotations

import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vireid import methods
from vireid.data import datasets
from vireid.data.mixed_gallery import expanded
from vireid.data.table import Table
from vireid.declaration import configured
from vireid.errors import ArgumentError, RunsFailed, SettingsError
from vireid.evaluation.comparison import Comparison, Trained
from vireid.evaluation.floors import CHANCE, chance
from vireid.evaluation.results import NAME, Results
from vireid.own_files import digest_of as code_digest
from vireid.own_files import file_of, is_own, qualified_name
from vireid.system import available_cores, replacing
from vireid.training.log_file import read_log
from vireid.training.settings import resolve
from vireid.workflows.compare_plan import OF_RUN, Entry, Plan
from vireid.workflows.compare_rows import digest_of, read_row, write_row
from vireid.workflows.cost import parameters_of
from vireid.workflows.options import CompareOptions, TrainOptions
from vireid.workflows.run import Run
from vireid.workflows.run_outputs import RESULTS
from vireid.workflows.run_rows import split_rows
from vireid.workflows.train import train_with

FILES = {"compare.md": "markdown", "compare.csv": "csv", "compare.json": "json", "compare.tex": "latex"}


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One training with its evaluation; everything a process of its own needs."""

    line: str
    label: str  # of the data
    data: str
    seed: int
    entry: Entry
    words: tuple[str, ...]
    protocols: tuple[str, ...]
    folder: Path
    options: CompareOptions
    digest: str  # of all that its figures follow from

    def __str__(self) -> str:
        return f"{self.label}/{self.line}/{self.seed}"

    def row(self, rows: Path) -> Path:
        """Where the row of this run lies below a folder of rows."""
        return rows.joinpath(*self.folder.parts[-3:]).with_suffix(".json")


def compare_runs(
    plan: Plan,
    data: Sequence[str],
    folder: Path,
    settings: Sequence[str] = (),
    options: CompareOptions | None = None,
    **words: Any,
) -> Comparison:
    """Train and evaluate every line of `plan` on every data set and write FOLDER/compare.md, .csv, .json and .tex.

    `settings` are key=value words over those of the plan, for every line. Runs lie in FOLDER/DATA/LINE/SEED; those that
    are finished are kept, so a comparison that was stopped resumes. `words` are the fields of CompareOptions: in the
    folder `rows` each finished run leaves a row that stands for it, here or on another machine (compare_rows.py). The
    table has a line for chance. Raises SettingsError before anything is trained, and RunsFailed at the end, after the
    table of all others is written, where a run failed.
    """
    options = configured(CompareOptions, options, words)
    rows, jobs = options.rows, options.jobs
    specs = labels(data)
    tables = {label: datasets.load(spec, **_trial(options.trial)) for label, spec in specs.items()}
    chosen = {label: protocols(table, plan.protocols) for label, table in tables.items()}
    todo = _checked(list(_jobs(plan, specs, tables, chosen, folder, settings, options)), tables, settings)
    trained = {} if rows is None else {str(job): row for job in todo if (row := read_row(job.row(rows), job.digest))}
    counts = (len(todo), len(plan.methods), len(tables), plan.seeds, len(trained), jobs)
    log.info("%d runs: %d methods, %d data sets, %d seeds; %d have a row, %d at a time", *counts)
    wanted = _with_bases([job for job in todo if str(job) not in trained], todo)

    def ended(job: Job) -> None:
        trained[str(job)] = _trained(job)
        if rows is not None:
            write_row(job.row(rows), job.digest, trained[str(job)])

    failures: dict[str, str] = {}
    for wave in (False, True):  # runs that need another run come after all others
        failures |= _run_all([job for job in wanted if bool(job.entry.bases) is wave], jobs, failures, ended)
    comparison = Comparison(
        tuple([*_chances(tables, chosen), *(trained[str(job)] for job in todo if str(job) in trained)])
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, form in FILES.items():
        with replacing(folder / name) as partial:
            partial.write_text(getattr(comparison, form)(), encoding="utf-8")
    log.info("wrote %s, .csv, .json and .tex", folder / "compare.md")
    if failures:
        listed = "\n".join(f"  - {job}: {message}" for job, message in failures.items())
        raise RunsFailed(f"{len(failures)} of {len(todo)} runs failed and are not in the table:\n{listed}")
    return comparison


def labels(data: Sequence[str]) -> dict[str, str]:
    """NAME=PATH of each data set by what the table calls it: the name of its folder."""
    by_label: dict[str, str] = {}
    for spec in data:
        path = datasets.split_spec(spec)[1].resolve()
        label = path.parent.name if path.suffix else path.name
        if label in by_label:
            raise ArgumentError(f"two data sets are called {label!r} ({by_label[label]} and {spec}); rename a folder")
        by_label[label] = spec
    return by_label


def protocols(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """The named protocols that belong to this data set, or its usual ones; ValueError if there is none."""
    if not names:
        return datasets.find(table.dataset).compared_protocols or tuple(datasets.protocols_for(table))
    chosen = tuple(expanded(name for name in names if name.partition("/")[0] == table.dataset))
    for name in chosen:
        datasets.protocol(name, table)  # raises for a name that is unknown
    if not chosen:
        raise ArgumentError(f"none of the given protocols belongs to {table.dataset}: {', '.join(names)}; add one")
    return chosen


# --- the runs ---------------------------------------------------------------------------------------------------------


def _jobs(
    plan: Plan,
    specs: Mapping[str, str],
    tables: Mapping[str, Table],
    chosen: Mapping[str, tuple[str, ...]],
    folder: Path,
    settings: Sequence[str],
    options: CompareOptions,
) -> Iterator[Job]:
    for seed in range(plan.seeds):  # seed by seed, so that a comparison that is stopped has whole seeds
        for label, spec in specs.items():
            runs = {line: folder / label / name / str(seed) for line, name in _file_names(plan.methods).items()}
            for line, entry in plan.methods.items():
                if entry.seeds is not None and seed >= entry.seeds:
                    continue
                words = tuple(entry.words(tables[label].dataset, settings, runs))
                given = entry.model_copy(update={"method": entry.method or line})
                yield Job(line, label, spec, seed, given, words, chosen[label], runs[line], options, "")


def _checked(todo: Sequence[Job], tables: Mapping[str, Table], extra: Sequence[str]) -> list[Job]:
    """The jobs with their digests; SettingsError of every wrong setting of every line, before the first training."""
    faults: list[str] = []
    digests: dict[str, str] = {}  # by job
    for job in sorted(todo, key=lambda job: len(job.entry.bases)):
        table, kind = tables[job.label], methods.find(job.entry.method)
        try:
            resolve(kind, table.dataset, job.words)
        except SettingsError as error:
            faults += [f"{job.line} on {job.label}: {fault}" for fault in error.faults]
            continue
        # Paths of other runs differ from machine to machine; what those runs are does not.
        words = job.entry.words(table.dataset, extra, {base: Path(OF_RUN + base) for base in job.entry.bases})
        recipes, settings = resolve(kind, table.dataset, words)
        digests[str(job)] = digest_of(
            method=qualified_name(kind),
            code=code_digest(file) if is_own(kind) and (file := file_of(kind)) else None,
            recipes=recipes,
            settings=vars(settings),
            bases=[digests[f"{job.label}/{base}/{job.seed}"] for base in sorted(job.entry.bases)],
            weights=job.entry.weights,
            seed=job.seed,
            dataset=table.dataset,
            rows=table.fingerprint,
            protocols=job.protocols,
        )
    if faults:
        raise SettingsError(list(dict.fromkeys(faults)))
    return [replace(job, digest=digests[str(job)]) for job in todo]


def _with_bases(wanted: Sequence[Job], todo: Sequence[Job]) -> list[Job]:
    """These jobs and those whose runs they need, in the order of `todo`."""
    needed = {f"{job.label}/{base}/{job.seed}" for job in wanted for base in job.entry.bases}
    return [job for job in todo if job in wanted or str(job) in needed]


def _run_all(
    todo: Sequence[Job], jobs: int, failed: Mapping[str, str], finished: Callable[[Job], None]
) -> dict[str, str]:
    """Run all, `jobs` at a time, and return what went wrong by job."""
    failures: dict[str, str] = {}
    ready = []
    for job in todo:
        lost = [base for base in job.entry.bases if f"{job.label}/{base}/{job.seed}" in failed]
        if lost:
            failures[str(job)] = f"the run of {', '.join(lost)} that it needs failed"
        else:
            ready.append(job)

    def ended(job: Job, message: str | None) -> None:
        log.info("%s: %s", job, message or "done")
        if message:
            failures[str(job)] = message
        else:
            finished(job)

    if jobs == 1:
        for job in ready:
            ended(job, _run(job, None))
        return failures
    threads = max(1, available_cores() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(_run, job, threads): job for job in ready}
        for future in as_completed(waiting):
            ended(waiting[future], future.result())
    return failures


def _run(job: Job, threads: int | None) -> str | None:
    """Train and evaluate; the message of an error, so that one run's failure does not end the others."""
    if threads is not None:
        torch.set_num_threads(threads)

    try:
        options = TrainOptions(
            seed=job.seed,
            device=job.options.device,
            trial=job.options.trial,
            weights=job.entry.weights,
            resume=True,
            progress=False,
        )
        run = train_with(job.entry.method, job.data, job.folder, options, job.words, as_recorded=False)
        run.evaluate(protocols=job.protocols, device=job.options.device, pictures=0, progress=False)
    except Exception as error:  # reported by the caller with all others
        log.exception("%s failed", job)
        return f"{type(error).__name__}: {error}"
    return None


def _trained(job: Job) -> Trained:
    """What the table says of a finished run."""
    run = Run.open(job.folder)
    rows = [row for row in Results.load(job.folder / RESULTS).rows if row.protocol in job.protocols]
    named = Results(tuple(replace(row, stamp={**row.stamp, NAME: job.line}) for row in rows))
    epochs = [record for record in read_log(job.folder) if record["event"] == "epoch"]
    return Trained(
        job.label,
        job.line,
        job.seed,
        named,
        pictures=sum(record["pictures"] for record in epochs),
        train_s=epochs[-1]["elapsed_s"] if epochs else 0.0,
        parameters=parameters_of(run),
        notes=(f"{job.line}: {job.entry.note}",) if job.entry.note else (),
    )


def _chances(tables: Mapping[str, Table], chosen: Mapping[str, tuple[str, ...]]) -> list[Trained]:
    return [Trained(label, CHANCE, None, reached(split_rows(tables[label]), names)) for label, names in chosen.items()]


def reached(rows: Table, names: Sequence[str]) -> Results:
    """What chance reaches on the rows that are tested, under each protocol."""
    results = Results(())
    for name in names:
        results += chance(rows, datasets.protocol(name, rows))
    return results


def _file_names(lines: Iterable[str]) -> dict[str, str]:
    """The folder of each line; where files of one name lie in several folders, that of the file is in the name."""
    plain = {line: _file_name(Path(line).stem) for line in lines}
    counts = Counter(plain.values())
    names = {
        line: name if counts[name] == 1 else f"{_file_name(Path(line).resolve().parent.name)}-{name}"
        for line, name in plain.items()
    }
    if len(set(names.values())) < len(names):
        raise ArgumentError(
            f"lines {', '.join(names)} would share a folder ({', '.join(names.values())}); give them names in a plan, "
            "each with `method: FILE`"
        )
    return names


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)


def _trial(trial: int | None) -> dict[str, int]:
    return {} if trial is None else {"trial": trial}
