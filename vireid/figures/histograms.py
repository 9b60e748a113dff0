"""Similarity histograms: one person against different people, of one modality and across the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vireid.evaluation.embed import Embeddings
from vireid.evaluation.pairs import Pairs, pairs
from vireid.figures.style import COLORS, COLUMN, DASHES, INK, sheet
from vireid.types import Language

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60
SAME, OTHER = COLORS[0], COLORS[1]
WORDS = {
    "en": {
        "within": "Same modality",
        "across": "Visible and infrared",
        "same": "one person ({count:,} pairs)",
        "other": "different people ({count:,} pairs)",
        "title": "{pairs}: overlap {share:.0%}",
        "threshold": "threshold {kind} {value:.3f}",
        "visible/visible": "visible / visible",
        "visible/infrared": "visible / infrared",
        "infrared/infrared": "infrared / infrared",
        "similarity": "similarity",
        "density": "density",
    },
    "zh": {
        "within": "同一模态",
        "across": "可见光与红外",
        "same": "同一人（{count:,} 对）",
        "other": "不同的人（{count:,} 对）",
        "title": "{pairs}：重叠 {share:.0%}",
        "threshold": "{kind} 阈值 {value:.3f}",
        "visible/visible": "可见光 / 可见光",
        "visible/infrared": "可见光 / 红外",
        "infrared/infrared": "红外 / 红外",
        "similarity": "相似度",
        "density": "概率密度",
    },
}


def histograms(
    embeddings: Embeddings, thresholds: Mapping[str, float] | None = None, *, lang: Language = "en"
) -> Figure:
    """The four histograms: one person or different people, of one modality or across the two.

    `thresholds` are similarities by pair of modalities ("visible/infrared"), from a calibration; they are drawn as
    lines. Pairs of one person by one camera are left out. Raises ArgumentError where no pairs can be made,
    MissingPackage.
    """
    kinds, thresholds = pairs(embeddings), thresholds or {}
    within = [kinds[name] for name in ("visible/visible", "infrared/infrared") if name in kinds]
    panels = {"within": _joined(within), "across": kinds.get("visible/infrared")}
    shown = {name: values for name, values in panels.items() if values is not None}
    with sheet(lang) as page:
        words, grid = page.words(WORDS), page.axes(COLUMN * 0.8, 1.9 * len(shown) + 0.4, len(shown), sharex=True)
        low = min(float(min(v.same.min(), v.other.min())) for v in shown.values())
        high = max(float(max(v.same.max(), v.other.max())) for v in shown.values())
        edges = np.linspace(low, high, BINS + 1).tolist()
        for axes, (name, values) in zip(grid.axes, shown.items(), strict=True):
            for kind, sample, color in (("other", values.other, OTHER), ("same", values.same, SAME)):
                label = words[kind].format(count=len(sample))
                axes.hist(sample, edges, density=True, color=color, alpha=0.35, histtype="stepfilled")
                axes.hist(sample, edges, density=True, color=color, histtype="step", lw=1.4, label=label)
            own = [kind for kind in thresholds if (kind == "visible/infrared") == (name == "across")]
            for kind, dashes in zip(own, (DASHES[1], DASHES[2]), strict=False):
                label = words["threshold"].format(kind=words[kind], value=thresholds[kind])
                axes.axvline(thresholds[kind], color=INK, lw=1.2, ls=dashes, label=label)
            axes.set_title(words["title"].format(pairs=words[name], share=values.overlap))
            axes.set(ylabel=words["density"], xlim=(low, high))
            axes.grid(visible=False, axis="x")
            axes.legend(loc="upper left")
            axes.set_ylim(top=axes.get_ylim()[1] * (1.05 + 0.12 * (2 + len(own))))  # room for the legend
        grid.axes[-1].set_xlabel(words["similarity"])
        return grid.figure


def _joined(kinds: list[Pairs]) -> Pairs | None:
    if not kinds:
        return None
    return Pairs(np.concatenate([k.same for k in kinds]), np.concatenate([k.other for k in kinds]))
