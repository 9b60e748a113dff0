"""Training curves: losses, watched values and learning rates over the epochs, from a run's log."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.errors import RunError
from vireid.figures.style import COLUMN, DASHES, FAINT, sheet
from vireid.training.log_file import NAME as LOG
from vireid.training.log_file import read_log
from vireid.types import Language

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = {
    "en": {
        "losses": "Losses, means of an epoch",
        "watch": "Watched values",
        "lr": "Learning rates",
        "selected": "Selection",
        "epoch": "epoch",
        "stage": "stage {number}",
    },
    "zh": {
        "losses": "各轮平均损失",
        "watch": "监测值",
        "lr": "学习率",
        "selected": "模型选择指标",
        "epoch": "训练轮次",
        "stage": "阶段 {number}",
    },
}


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The epochs in the log of a run folder, in order; RunError where it has none."""
    epochs = [record for record in read_log(folder) if record["event"] == "epoch"]
    if not epochs:
        raise RunError(f"{folder} has no training curves: {LOG} holds no finished epoch; train for one epoch or more")
    return epochs


def training_curves(folder: Path, *, lang: Language = "en") -> Figure:
    """A panel each for losses, watched values, the selection and learning rates, as far as the run's log has them.

    Raises RunError for a folder without finished epochs, MissingPackage.
    """
    epochs = epochs_of(folder)
    kinds = [kind for kind in ("losses", "watch", "selected", "lr") if any(_values(e, kind) for e in epochs)]
    with sheet(lang) as page:
        from matplotlib.ticker import MaxNLocator

        words = page.words(WORDS)
        columns = min(2, len(kinds))
        rows = -(-len(kinds) // columns)
        grid = page.axes(COLUMN if columns == 2 else COLUMN * 0.6, 2.5 * rows, rows, columns)
        for axes, kind in zip(grid.axes, kinds, strict=False):
            _draw(axes, epochs, kind)
            axes.set(title=words[kind], xlabel=words["epoch"], xlim=(0.5, len(epochs) + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if kind == "lr":
                axes.set_yscale("log")
            axes.legend(loc="best", fontsize=7)
        for axes in grid.axes[len(kinds) :]:
            axes.remove()
        return grid.figure


def _values(epoch: dict[str, Any], kind: str) -> dict[str, float]:
    """The numbers of one kind in an epoch's record by name."""
    value = epoch.get(kind)
    if isinstance(value, dict):
        return {name: number for name, number in value.items() if isinstance(number, int | float)}
    return {} if value is None else {kind: float(value)}


def _draw(axes: Axes, epochs: Sequence[dict[str, Any]], kind: str) -> None:
    """A line for each name, and an upright one where a stage ends."""
    names = dict.fromkeys(name for epoch in epochs for name in _values(epoch, kind))
    few = len(epochs) <= 30
    for number, name in enumerate(names):
        points = [(i, _values(e, kind)[name]) for i, e in enumerate(epochs, 1) if name in _values(e, kind)]
        axes.plot(*zip(*points, strict=True), label=name, ls=DASHES[number % len(DASHES)], marker="." if few else "")
    for place, (before, after) in enumerate(itertools.pairwise(epochs), 1):
        if before["stage"] != after["stage"]:
            axes.axvline(place + 0.5, color=FAINT, lw=0.8, ls=":")
