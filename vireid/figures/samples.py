"""Sample sheets: the pictures that a generative method made while it learned, epoch under epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vireid.errors import RunError
from vireid.figures.style import COLUMN, sheet
from vireid.images import read
from vireid.training.run_folder import SAMPLES
from vireid.types import Language

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SHEETS = 4
WORDS = {"en": {"epoch": "stage {stage}, epoch {epoch}"}, "zh": {"epoch": "阶段 {stage}，第 {epoch} 轮"}}


def sample_sheets(folder: Path, *, lang: Language = "en") -> Figure:
    """Up to MAX_SHEETS sheets of a run folder at even steps, the last one always, each named by stage and epoch.

    Raises RunError for a run whose method makes no pictures, MissingPackage.
    """
    files = sorted((folder / SAMPLES).glob("*-*.png"), key=lambda path: tuple(map(int, path.stem.split("-"))))
    if not files:
        raise RunError(
            f"{folder} holds no sample sheets: its method makes no pictures, or its first epoch has not ended"
        )
    places = np.unique(np.linspace(0, len(files) - 1, min(MAX_SHEETS, len(files))).round().astype(int))
    chosen = [files[place] for place in places]
    pictures = [np.asarray(read(path)) for path in chosen]
    heights = [COLUMN * picture.shape[0] / picture.shape[1] for picture in pictures]
    with sheet(lang) as page:
        words = page.words(WORDS)
        ratios = {"gridspec_kw": {"height_ratios": heights}}
        grid = page.axes(COLUMN, sum(heights) + 0.3 * len(heights), len(heights), 1, **ratios)
        for axes, path, picture in zip(grid.axes, chosen, pictures, strict=True):
            stage, epoch = map(int, path.stem.split("-"))
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(words["epoch"].format(stage=stage, epoch=epoch), fontsize=9)
            axes.set_axis_off()
        return grid.figure
