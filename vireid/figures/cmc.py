"""CMC curves: the rank-k rate of several runs over k, with the deviation over trials or seeds as a band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vireid.evaluation.lines import average, lines_of
from vireid.evaluation.results import Results
from vireid.figures.stamp_words import said_in
from vireid.figures.style import COLORS, COLUMN, DASHES, sheet
from vireid.types import Language

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKS = (1, 5, 10, 15, 20)  # that the axis names
WORDS = {
    "en": {
        "title": "CMC, {protocol}",
        "rank": "rank k",
        "rate": "queries with a true match among the first k (%)",
        "trials": "bands: ± standard\ndeviation over\nthe trials",
        "seeds": "bands: ± standard\ndeviation over\nthe seeds",
    },
    "zh": {
        "title": "CMC 曲线，{protocol}",
        "rank": "排名 k",
        "rate": "前 k 个结果中有正确匹配的查询比例（%）",
        "trials": "色带：各次试验的\n± 标准差",
        "seeds": "色带：各随机种子的\n± 标准差",
    },
}


def cmc(results: Results, protocol: str | None = None, *, lang: Language = "en") -> Figure:
    """CMC curves of all rows under a protocol (by default the first one's), a line for each run; seeds are averaged.

    Raises ArgumentError for a protocol without rows, MissingPackage.
    """
    if protocol is None:
        protocol = results.rows[0].protocol if results.rows else ""
    rows = lines_of(results.rows, protocol)
    averages = {name: average(own, lambda metrics: metrics.cmc) for name, own in rows.items()}
    curves = dict(sorted(averages.items(), key=lambda item: -item[1].mean[0]))
    with sheet(lang) as page:
        words, translated, grid = page.words(WORDS), said_in(page.lang), page.axes(COLUMN, 3.4)
        axes = grid.axes[0]
        for number, (name, curve) in enumerate(curves.items()):
            ranks, color = np.arange(1, len(curve.mean) + 1), COLORS[number % len(COLORS)]
            label = f"{translated(name)}  {100 * curve.mean[0]:.1f}"
            axes.plot(ranks, 100 * curve.mean, color=color, ls=DASHES[number % len(DASHES)], label=label, zorder=3)
            if curve.std is not None:
                low, high = 100 * (curve.mean - curve.std), 100 * (curve.mean + curve.std)
                axes.fill_between(ranks, low, np.minimum(high, 100), color=color, alpha=0.18, lw=0, zorder=2)
        length = max(len(curve.mean) for curve in curves.values())
        axes.set(xlabel=words["rank"], ylabel=words["rate"], title=words["title"].format(protocol=protocol))
        axes.set(xlim=(1, length), ylim=(None, 101), xticks=[rank for rank in RANKS if rank <= length])
        axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))
        banded = next((curve.over for curve in curves.values() if curve.std is not None), None)
        title = words[banded] if banded else None
        grid.figure.legend(loc="outside right upper", title=title, title_fontsize=7, alignment="left")
        return grid.figure
