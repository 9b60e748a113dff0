"""Camera matrix as a figure: rank 1 and mAP for each camera of the query and each camera of the gallery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vireid.evaluation.camera_matrix import camera_matrix
from vireid.evaluation.embed import Embeddings
from vireid.figures.style import COLUMN, MAP, sheet
from vireid.types import Language

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_WRITTEN = 16  # cameras, beyond which the numbers would not fit into their cells
WORDS = {
    "en": {
        "rank1": "Rank 1 (%)",
        "mAP": "mAP (%)",
        "query": "camera of the query",
        "gallery": "camera of the gallery",
        "visible": "V",
        "infrared": "IR",
        "note": "V: visible, IR: infrared; all pictures of a camera, a picture does not search for itself",
    },
    "zh": {
        "rank1": "Rank-1（%）",
        "mAP": "mAP（%）",
        "query": "查询摄像头",
        "gallery": "图库摄像头",
        "visible": "可见光",
        "infrared": "红外",
        "note": "使用每个摄像头的全部图像；图像不检索其自身",
    },
}


def camera_heatmap(embeddings: Embeddings, *, lang: Language = "en") -> Figure:
    """Two matrices, rank 1 and mAP, visible cameras first; a cell without matches is empty.

    Raises ArgumentError where nothing has a match, MissingPackage.
    """
    measured = camera_matrix(embeddings)
    count = len(measured.cameras)
    side = min(COLUMN / 2, max(2.4, 0.42 * count + 0.9))
    with sheet(lang) as page:
        words, grid = page.words(WORDS), page.axes(2 * side, side + 0.7, 1, 2, sharey=True)
        names = [f"{words[m]} {c}" for c, m in zip(measured.cameras, measured.modalities, strict=True)]
        visible = sum(m == "visible" for m in measured.modalities)
        for axes, key in zip(grid.axes, ("rank1", "mAP"), strict=True):
            values = 100 * getattr(measured, key)
            edges = np.arange(count + 1) - 0.5
            axes.pcolormesh(edges, edges, np.ma.masked_invalid(values), cmap=MAP, vmin=0, vmax=100)
            axes.set(title=words[key], xlabel=words["gallery"], xticks=range(count), yticks=range(count))
            axes.set_xticklabels(names, rotation=45 if count > 2 else 0, ha="right" if count > 2 else "center")
            axes.set_yticklabels(names)
            axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
            axes.grid(visible=False)
            axes.tick_params(length=0, labelsize=7)
            axes.spines[:].set_visible(False)
            for line in (axes.axhline, axes.axvline) if 0 < visible < count else ():
                line(visible - 0.5, color="white", lw=2.5)
            for (i, j), value in np.ndenumerate(values) if count <= MAX_WRITTEN else ():
                if np.isfinite(value):
                    color = "white" if value < 55 else "black"
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
        grid.axes[0].set_ylabel(words["query"])
        grid.figure.supxlabel(words["note"], fontsize=7)
        return grid.figure
