"""Explanation: the difference between two figures, divided into the points that each difference of protocol is worth.

Beginning with the first figure, the stored vectors of the first network are measured under the conditions of the second
one, changed one after the other:

    points in turn   by how much the figure changes when this condition is changed after those above it
    alone            by how much it changes when this condition alone is changed in the first figure
    the rest         what is left between the first network under all conditions of the second figure, and that figure

Points in turn and the rest add up to the whole difference. Where the two columns of a condition differ, what it is
worth depends on the others.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from vireid.errors import ArgumentError, DataError, VireidError
from vireid.evaluation.publication import word
from vireid.evaluation.rescore import Conditions, changes
from vireid.evaluation.rescore_runs import Kept, StoredRuns, in_common
from vireid.evaluation.results import TerminalTable, latex_table, markdown_table, percent

PRINTED = ("R1", "mAP")
JOINT = ", "  # between the values of several runs in a stamp
TOLERANCE = 5e-4  # between a stored figure and the one computed again: rounding on another device
RESCORED = {"similarity", "layer", "flip", "center", "rerank", "scores"}
OF_PROTOCOL = {"draw", "shots", "queries", "gallery", "ignored", "cmc"}
OF_FILES = {"run", "embedder", "data", "images", "model", "refiner"}
REASONS = {
    "checkpoint": "vectors of the reported epoch alone are stored",
    "partition": "another split is another training",
    "refine": "a refinement needs its network: vireid evaluate --refine",
    "size": "the pictures have to be embedded again",
    "trained on": "another training",
}

Figures = dict[str, float]  # fractions by column


@dataclass(frozen=True)
class Side:
    """One of two figures that are compared; `unstated` are conditions that its source does not say."""

    name: str
    figures: Figures
    conditions: Conditions
    stamp: Mapping[str, str] = field(default_factory=dict)
    stored: Kept | None = None  # None: a figure in print
    unstated: tuple[str, ...] = ()
    spread: Figures = field(default_factory=dict)  # standard deviation over the runs, where there are several
    notes: Mapping[str, str] = field(default_factory=dict)  # by entry of the stamp, what else is known of it


@dataclass(frozen=True)
class Cause:
    """One difference; `points` and `alone` are fractions by column, None where they could not be measured.

    `reason` says why the vectors of the first side could not tell them; `points` are then those of the second, if any.
    """

    name: str
    first: str
    second: str
    points: Figures | None = None
    alone: Figures | None = None
    reason: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why the second figure differs from the first; it prints as results do."""

    first: Side
    second: Side
    causes: tuple[Cause, ...]
    rest: Figures
    notes_below: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in points, what else differs below it."""
        return markdown_table(self.header, self.cells(), self.notes())

    def latex(self) -> str:
        """The table as LaTeX, what else differs as comments."""
        return latex_table([word(name) for name in self.header], self.cells(), self.notes())

    def csv(self) -> str:
        """One line per cause, fractions."""
        columns = list(self.rest)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["cause", "first", "second", *columns, *(f"{c} alone" for c in columns), "reason"])
        for cause in (*self.causes, Cause("rest", "", "", self.rest)):
            values = [repr(part[c]) if part else "" for part in (cause.points, cause.alone) for c in columns]
            writer.writerow([cause.name, cause.first, cause.second, *values, cause.reason])
        return text.getvalue()

    def json(self) -> str:
        """All of it, fractions."""
        sides = {
            name: {"name": side.name, "figures": side.figures, "conditions": asdict(side.conditions)}
            for name, side in (("first", self.first), ("second", self.second))
        }
        causes = [asdict(cause) for cause in self.causes]
        content = {**sides, "causes": causes, "rest": self.rest, "notes": self.notes()}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def __rich__(self) -> TerminalTable:
        return TerminalTable(self.header, self.cells(), self.notes())

    @property
    def columns(self) -> list[str]:
        """The columns that are printed: those that both figures have."""
        return [column for column in PRINTED if column in self.rest]

    @property
    def header(self) -> list[str]:
        return ["cause", "first", "second", *self.columns, *(f"{column} alone" for column in self.columns)]

    def cells(self) -> list[list[str]]:
        """The lines of the table as texts."""
        blank = [""] * len(self.columns)
        lines = [[f"first: {self.first.name}", "", "", *(percent(self.first.figures[c]) for c in self.columns), *blank]]
        for cause in self.causes:
            parts = [[points(part[c]) for c in self.columns] for part in (cause.points, cause.alone) if part]
            unknown = ["not measured", *blank[1:]] if cause.points is None else blank
            figures = [*(parts[0] if cause.points else unknown), *(parts[1] if len(parts) > 1 else blank)]
            lines.append([cause.name, cause.first, cause.second, *figures])
        lines.append(["the rest", "", "", *(points(self.rest[c]) for c in self.columns), *blank])
        return [
            *lines,
            [f"second: {self.second.name}", "", "", *(percent(self.second.figures[c]) for c in self.columns), *blank],
        ]

    def notes(self) -> list[str]:
        """What stands below the table."""
        where = {True: "not measured", False: "measured on the vectors of the second, not of the first"}
        unknown = [f"{where[c.points is None]}, {c.name}: {c.reason}" for c in self.causes if c.reason]
        return [
            "percent and points, means over the trials; each condition is changed after those above it",
            *unknown,
            *self.notes_below,
        ]


def points(value: float) -> str:
    """A difference of fractions in points, signed."""
    return f"{100 * value:+.2f}"


def explain_sides(first: Side, second: Side) -> Explanation:
    """Measure each difference of protocol on the stored vectors of the first side.

    Raises DataError where nothing is stored of the first side, or where its vectors do not give its figures;
    ArgumentError where it was refined, or where the two figures have no column in common.
    """
    if first.stamp.get("refine", "none") != "none":
        raise ArgumentError(f"{first.name} was measured with a refinement, which is not re-scored; name it second")
    if first.stored is None:
        raise ArgumentError(f"{first.name} is a figure in print, of which nothing is stored; name it second")
    shared = [column for column in first.figures if column in second.figures]
    if not any(column in shared for column in PRINTED):
        raise ArgumentError(f"the two figures need {' or '.join(PRINTED)} in common; give both")
    own = first.stored.score(first.conditions)
    _check(first, own)
    begin, pair, end = _pictures(first, second)
    base = pair.first.score(first.conditions)
    here, there, now, measured = first.conditions, second.conditions, base, []
    for change in changes(here, there, pair.first.table):
        shown = change.cause, change.before, change.after
        undone = {name: getattr(here, name) for name in change.to}
        try:
            after = pair.first.score(replace(here, **change.to))
        except VireidError as error:
            worth = _of_second(pair.second, there, undone)
            measured.append(Cause(*shown, worth, reason=str(error)))
            there = there if worth is None else replace(there, **undone)
            continue
        measured.append(Cause(*shown, _minus(after, now), _alone(pair.first, first.conditions, change.to, base)))
        here, now = replace(here, **change.to), after
    by_split = isinstance(pair.first, StoredRuns) and any(cause.points for cause in (*begin, *end))
    causes = (*begin, *measured, *_not_rescored(first, second, ("partition",) if by_split else ()), *end)
    whole = _minus(second.figures, {column: own[column] for column in shared})
    known = [cause.points for cause in causes if cause.points]
    rest = {column: whole[column] - sum(part[column] for part in known) for column in shared}
    return Explanation(replace(first, figures=own), second, causes, rest, tuple(_notes(first, second)))


@dataclass(frozen=True)
class Pair:
    """The vectors of both sides of the same pictures; None where those of the second are not stored."""

    first: Kept
    second: Kept | None


def _check(side: Side, own: Figures) -> None:
    wrong = [c for c in PRINTED if c in side.figures and abs(own[c] - side.figures[c]) > TOLERANCE]
    if wrong:
        raise DataError(
            f"the vectors stored of {side.name} give {wrong[0]} {percent(own[wrong[0]])}, its figure is "
            f"{percent(side.figures[wrong[0]])}: one of them was replaced. Evaluate it again"
        )


def _alone(stored: Kept, start: Conditions, to: Mapping[str, str], base: Figures) -> Figures | None:
    try:
        return _minus(stored.score(replace(start, **to)), base)
    except VireidError:  # it goes with another change alone
        return None


def _minus(after: Figures, before: Figures) -> Figures:
    return {column: after[column] - before[column] for column in before if column in after}


def _of_second(stored: Kept | None, conditions: Conditions, undone: Mapping[str, str]) -> Figures | None:
    """What a condition is worth on the vectors of the second side; None where they cannot say it either."""
    if stored is None:
        return None
    try:
        return _minus(stored.score(conditions), stored.score(replace(conditions, **undone)))
    except VireidError:
        return None


def _pictures(first: Side, second: Side) -> tuple[list[Cause], Pair, list[Cause]]:
    """What the pictures (or splits) that one side alone tests are worth, before and after all changes; and the rest."""
    assert first.stored is not None
    stored = second.stored if second.stored is not None and second.stored.keys else None
    if second.stored is None or _images(first) == _images(second):
        return [], Pair(first.stored, stored), []
    alone, name = Pair(first.stored, None), "{noun}s that the {side} does not test"
    if stored is None:
        reason = f"no vectors of {second.name} are stored"
        return [Cause(name.format(noun="picture", side="second"), "", "", reason=reason)], alone, []
    common = in_common(first.stored, stored, (first.stamp.get("images", ""), second.stamp.get("images", "")))
    counts, shared = [f"{count:,} {common.noun}s" for count in common.counts], f"{common.shared:,} in common"
    begin, end = (name.format(noun=common.noun, side=side) for side in ("second", "first"))
    if not common.shared:
        return [Cause(begin, counts[0], counts[1], reason=f"they have no {common.noun} in common")], alone, []
    try:
        before = _minus(common.first.score(first.conditions), first.stored.score(first.conditions))
        after = _minus(stored.score(second.conditions), common.second.score(second.conditions))
    except VireidError as error:
        return [Cause(begin, counts[0], counts[1], reason=str(error))], alone, []
    return (
        [Cause(begin, counts[0], shared, before)] if common.shared < common.counts[0] else [],
        Pair(common.first, common.second),
        [Cause(end, shared, counts[1], after)] if common.shared < common.counts[1] else [],
    )


def _images(side: Side) -> set[str]:
    """The digests of what a side tests, one for each split."""
    return set(side.stamp.get("images", "").split(JOINT))


def _not_rescored(first: Side, second: Side, measured: Sequence[str] = ()) -> list[Cause]:
    """Differences of the stamps that matter to everybody and that stored vectors cannot tell, but for `measured`."""
    causes = []
    for name, reason in REASONS.items():
        before, after = first.stamp.get(name, "none"), second.stamp.get(name, "none")
        if before != after and name in second.stamp and name not in measured:
            known = [side.notes[name] for side in (first, second) if name in side.notes]
            causes.append(Cause(name, before, after, reason="; ".join([reason, *known])))
    return causes


def _notes(first: Side, second: Side) -> list[str]:
    """Other differences of the stamps, which belong to the networks, and what the second side leaves open."""
    named = RESCORED | OF_PROTOCOL | OF_FILES | set(REASONS)
    names = [name for name in {**first.stamp, **second.stamp} if name not in named and name in second.stamp]
    other = [(name, first.stamp.get(name, "none"), second.stamp[name]) for name in names]
    listed = [f"{name}: {before} and {after}" for name, before, after in other if before != after]
    notes = [f"the rest holds: {'; '.join(listed)}"] if listed else []
    for which, side in (("first", first), ("second", second)):
        values = ", ".join(f"{column} {100 * side.spread[column]:.2f}" for column in PRINTED if column in side.spread)
        notes += [f"standard deviation over the runs of the {which}, in points: {values}"] if values else []
    if second.unstated:
        notes.append(f"{second.name} does not say, so taken as in the first: {', '.join(second.unstated)}")
    return notes
