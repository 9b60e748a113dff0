"""Error rates of a threshold: ROC and DET curves for each pair of modalities.

    ROC   true-match rate over false-match rate, whose axis is logarithmic
    DET   false-non-match rate over false-match rate, both on the axis of a normal deviate (Martin et al., "The DET
          curve in assessment of detection task performance", Eurospeech 1997), where normal distributions are lines

A curve ends where fewer than 30 false matches stand behind it: the rule of 30 (Doddington et al., Speech Communication
2000).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from vireid.evaluation.embed import Embeddings
from vireid.evaluation.pairs import Pairs, pairs
from vireid.figures.style import COLORS, COLUMN, DASHES, INK, sheet
from vireid.types import Language

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = 30  # false matches behind a rate
POINTS = 250  # of a curve: more are not seen
TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
WORDS = {
    "en": {
        "roc": "ROC",
        "det": "DET",
        "false match": "false-match rate",
        "true match": "true-match rate",
        "false non-match": "false-non-match rate",
        "visible/visible": "visible / visible",
        "visible/infrared": "visible / infrared",
        "infrared/infrared": "infrared / infrared",
        "threshold": "calibrated threshold",
    },
    "zh": {
        "roc": "ROC 曲线",
        "det": "DET 曲线",
        "false match": "误匹配率",
        "true match": "正确匹配率",
        "false non-match": "漏匹配率",
        "visible/visible": "可见光 / 可见光",
        "visible/infrared": "可见光 / 红外",
        "infrared/infrared": "红外 / 红外",
        "threshold": "标定阈值",
    },
}


def rates(values: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """False-match and false-non-match rates (n,) of falling thresholds, where 30 or more false matches are counted."""
    other, same = np.sort(values.other)[::-1], np.sort(values.same)
    first = min(NEEDED, len(other)) - 1
    places = np.unique(np.geomspace(first + 1, len(other), POINTS).astype(int)) - 1
    thresholds = other[places]
    false_match = (len(other) - np.searchsorted(other[::-1], thresholds, "left")) / len(other)
    return false_match, np.searchsorted(same, thresholds, "left") / len(same)


def rates_at(values: Pairs, threshold: float) -> tuple[float, float]:
    """False-match and false-non-match rate of one threshold: a pair at or above it is a match."""
    return float(np.mean(values.other >= threshold)), float(np.mean(values.same < threshold))


def error_rates(
    embeddings: Embeddings, thresholds: Mapping[str, float] | None = None, *, lang: Language = "en"
) -> Figure:
    """ROC and DET curves of every pair of modalities.

    `thresholds` are similarities by pair of modalities ("visible/infrared"), from a calibration: where they lie on the
    curves of these pictures is marked. Raises ArgumentError where no pairs can be made, MissingPackage.
    """
    kinds = pairs(embeddings)
    with sheet(lang) as page:
        words, grid = page.words(WORDS), page.axes(COLUMN, 3.3, 1, 2)
        roc, det = grid.axes
        for number, (name, values) in enumerate(kinds.items()):
            color, dashes = COLORS[number], DASHES[number]
            false_match, missed = rates(values)
            roc.plot(false_match, 1 - missed, color=color, ls=dashes, label=words[name])
            inside = (missed > 0) & (missed < 1) & (false_match < 1)
            det.plot(ndtri(false_match[inside]), ndtri(missed[inside]), color=color, ls=dashes)
            if name in (thresholds or {}):
                at, lost = rates_at(values, thresholds[name])  # pyright: ignore[reportOptionalSubscript]
                mark = {"marker": "D", "ms": 6, "mfc": color, "mec": INK, "ls": "none", "zorder": 4, "clip_on": False}
                if at > 0:
                    roc.plot([at], [1 - lost], **mark)
                    if 0 < lost < 1:
                        det.plot([ndtri(at)], [ndtri(lost)], **mark)
        if thresholds:
            roc.plot([], [], marker="D", ls="none", mfc="none", mec=INK, label=words["threshold"])
        roc.set(xscale="log", ylim=(0, 1.01), title=words["roc"])
        roc.set(xlabel=words["false match"], ylabel=words["true match"])
        roc.set_xlim(right=1)
        det.set(title=words["det"], xlabel=words["false match"] + " (%)", ylabel=words["false non-match"] + " (%)")
        _normal_deviates(det)
        roc.legend(loc="best")
        return grid.figure


def _normal_deviates(axes: Axes) -> None:
    """Ticks of both axes at round rates within what is drawn, in percent."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = [tick for tick in TICKS if low <= ndtri(tick) <= high]
        axis.set_ticks([float(ndtri(tick)) for tick in ticks], [f"{100 * tick:g}" for tick in ticks])
