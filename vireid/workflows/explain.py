"""`vireid explain`: why two results differ, from what their runs stored, or a run's result from a figure in print."""

from __future__ import annotations

import glob
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from vireid.data import datasets
from vireid.data.dataset import closest
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.explanation import JOINT, REASONS, Explanation, Side, explain_sides
from vireid.evaluation.rerank import KReciprocal
from vireid.evaluation.rescore import CENTERED, CMC, Conditions, Stored, changed_rules, reranking
from vireid.evaluation.rescore_runs import StoredRuns
from vireid.evaluation.results import Results, Summary
from vireid.evaluation.rows import COLUMNS, NAME
from vireid.training.log_file import read_log
from vireid.training.run_folder import RECIPE, RunFolder
from vireid.workflows.run_outputs import RESULTS

Runs = str | Path | Sequence[str | Path]
STATED = ("similarity", "layer", "flip", "center", "rerank")  # conditions that a row in print may leave open
SHORT = {  # what a row in print may say in the place of the words of the stamp
    "rerank": {"k-reciprocal": KReciprocal().stamp},
    "center": {"mean": CENTERED},
    "cmc": {name.removeprefix("over "): name for name in CMC},
    "ignored": {"same-pid-and-camera": "same identity in the same camera"},
}


def explain(first: Runs, second: Runs | Mapping[str, str], first_line: int = 1, second_line: int = 1) -> Explanation:
    """Divide the difference between two results among what was different when they were measured.

    `first` is a run folder, or its results.json, or several (RegDB's splits, seeds), whose mean is taken; `second` the
    same, or a figure in print as words: R1 and mAP in percent, `protocol`, and the entries of the stamp that are
    known. The lines are those of the tables, from 1. Raises DataError, ArgumentError.
    """
    side = side_of(first, first_line)
    other = side_in_print(second, side) if isinstance(second, Mapping) else side_of(second, second_line)
    return explain_sides(side, other)


def side_of(runs: Runs, line: int) -> Side:
    """A line of the results of a run, or the mean of several runs under the conditions of that line of the first."""
    paths = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if len({path.resolve() for path in paths}) < max(1, len(paths)):
        raise ArgumentError(f"name at least one run, and each once; got {', '.join(map(str, paths)) or 'none'}")
    first = side_of_run(paths[0], line)
    sides = [first, *(side_of_run(path, like=first.conditions) for path in paths[1:])]
    return first if len(sides) == 1 else mean_of(sides)


def side_of_run(path: Path, line: int = 1, like: Conditions | None = None) -> Side:
    """A line of the results of a run, by its number or by its conditions, with the vectors that are stored of it."""
    file = path / RESULTS if path.is_dir() else path
    summaries, folder = Results.load(file).summaries, file.parent
    if like is not None:
        alike = [n for n, one in enumerate(summaries, 1) if Conditions.of(one.protocol, one.stamp) == like]
        if not alike:
            words = ", ".join(f"{name} {value}" for name, value in asdict(like).items() if value)
            raise DataError(
                f"{file} has no figure under {words}, which the first run of its side has; evaluate it in the same way"
            )
        line = alike[0]
    if not 1 <= line <= len(summaries):
        raise ArgumentError(f"{file} has lines 1 to {len(summaries)}, got {line}")
    chosen = summaries[line - 1]
    return Side(
        f"{folder.name}, line {line} of {len(summaries)} ({chosen.protocol})",
        chosen.mean,
        Conditions.of(chosen.protocol, chosen.stamp),
        chosen.stamp,
        stored_of(folder, chosen),
        notes=selection_notes(folder),
    )


def mean_of(sides: Sequence[Side]) -> Side:
    """Several runs under equal conditions as one side."""
    columns = {name: [side.figures[name] for side in sides] for name in sides[0].figures}
    names = list(dict.fromkeys(name for side in sides for name in side.stamp))
    stamp = {
        name: JOINT.join(dict.fromkeys(side.stamp[name] for side in sides if name in side.stamp)) for name in names
    }
    runs = [(side.stamp.get("images", ""), side.stored) for side in sides if isinstance(side.stored, Stored)]
    folders = [side.name.partition(",")[0] for side in sides]
    return Side(
        f"mean of {len(sides)} runs, {folders[0]} to {folders[-1]} ({sides[0].conditions.protocol})",
        {name: statistics.fmean(values) for name, values in columns.items()},
        sides[0].conditions,
        stamp,
        StoredRuns(tuple(runs)),
        spread={name: statistics.stdev(values) for name, values in columns.items()},
    )


def stored_of(folder: Path, summary: Summary) -> Stored:
    """The vectors of the network and the pictures that these figures are of."""
    own = ("embedder", "images")
    files: dict[tuple[str, str], Path] = {}
    for path in sorted((folder / "embeddings").glob("*.npz")):
        stamp = Embeddings.stamp_of(path)
        if all(stamp.get(name) == summary.stamp.get(name) for name in own):
            files[stamp.get("layer", ""), stamp.get("flip", "none")] = path
    if (folder / RECIPE).is_file():
        source = RunFolder.open(folder).record.source.data
        if source is not None and ".py=" in source:
            datasets.find(source.partition("=")[0])  # a data set of the user's file is known by its name from now on
    return Stored(tuple(files), lru_cache(2)(lambda key: Embeddings.load(files[key])), str(folder))


def selection_notes(folder: Path) -> dict[str, str]:
    """What the log says of the choice of the epoch: its value at the best and at the last epoch that it measured."""
    measured: list[tuple[float, int, str]] = []
    for record in read_log(folder):
        measured += [(float(v), int(record["epoch"]), rule) for rule, v in record.get("selected", {}).items()]
    if not measured:
        return {}
    best, last = max(measured, key=lambda one: one[0]), measured[-1]
    gain = f"{100 * (best[0] - last[0]):.2f} points of mAP above epoch {last[1] + 1}, the last one"
    return {"checkpoint": f"on the rows it was chosen by ({best[2]}), epoch {best[1] + 1} of {folder.name} lies {gain}"}


# --- figures in print -------------------------------------------------------------------------------------------------


def side_in_print(words: Mapping[str, str], first: Side) -> Side:
    """A figure in print from its words; what they do not say is taken from the first side and listed.

    Raises ArgumentError for an unknown word, a value of another kind and a figure that is not in percent.
    """
    known = [NAME, "protocol", *COLUMNS, *STATED, "ignored", "cmc", *REASONS, *first.stamp]
    for word in words:
        if word not in known:
            raise ArgumentError(f"a figure in print has no {word!r}{closest(word, known)}; it has {', '.join(known)}")
    said = {key: SHORT.get(key, {}).get(value, value) for key, value in words.items()}
    protocol = said.get("protocol", first.conditions.protocol)
    stated = {name: said[name] for name in (*STATED, "ignored", "cmc") if name in said}
    conditions = replace(first.conditions, protocol=protocol, **stated)
    assert first.stored is not None
    changed_rules(datasets.protocol(protocol, first.stored.table), conditions)
    reranking(conditions.rerank)
    for name, values in (("similarity", ("cosine", "euclidean")), ("flip", ("none", "averaged"))):
        if getattr(conditions, name) not in values:
            raise ArgumentError(f"{name} is {' or '.join(values)}, got {getattr(conditions, name)!r}")
    stamp = {key: value for key, value in said.items() if key not in (NAME, "protocol", *COLUMNS)}
    open_ones = [name for name in ("protocol", *STATED, "checkpoint", "size") if name not in said]
    figures = {name: fraction(name, said[name]) for name in COLUMNS if name in said}
    return Side(said.get(NAME, "the figure in print"), figures, conditions, stamp, unstated=tuple(open_ones))


def fraction(name: str, text: str) -> float:
    """A figure in percent as a fraction; ArgumentError for what is none."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise ArgumentError(f"{name} is a number in percent from 0 to 100, got {text!r}")
    return value / 100


def words_in_print(words: list[str]) -> dict[str, str]:
    """KEY=VALUE words by key; ArgumentError for another form and a key that is given twice."""
    pairs = [word.partition("=") for word in words]
    if bad := [word for word, (key, equals, _) in zip(words, pairs, strict=True) if not (key and equals)]:
        raise ArgumentError(f"{bad[0]!r}: after RUN comes one other run, or the figure in print as R1=69.88 mAP=66.89")
    keys = [key for key, _, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ArgumentError(f"{twice[0]} is given twice; give it once")
    return {key: value for key, _, value in pairs}


def explained(words: list[str], first_line: int = 1, second_line: int = 1) -> Explanation:
    """As `explain`, from the operands of the command line: runs or patterns of runs, then KEY=VALUE words."""
    count = 1 + len(list(takewhile(lambda word: Path(word).exists() or "=" not in word, words[1:])))
    runs, others = words[:count], words[count:]
    if others:
        return explain([path for word in runs for path in matching(word)], words_in_print(others), first_line)
    if len(runs) == 1:
        raise ArgumentError(
            "explain compares two results: name another run, or a figure in print as R1=69.88 mAP=66.89"
        )
    if len(runs) > 2:
        raise ArgumentError(
            f"explain compares two results, got {len(runs)} runs; several runs of one side are a pattern in quotes, "
            "such as 'runs/agw-*'"
        )
    return explain(matching(runs[0]), matching(runs[1]), first_line, second_line)


def matching(word: str) -> list[str]:
    """The run that a word names, or the runs that a pattern matches; DataError where it matches none."""
    if Path(word).exists() or not glob.has_magic(word):
        return [word]
    if not (paths := sorted(glob.glob(word))):
        raise DataError(f"no run matches {word!r}")
    return paths
