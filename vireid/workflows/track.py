"""The figures of an evaluation in the trackers that the training had: numbers, CMC curves, ranked lists."""

from __future__ import annotations

import logging
from pathlib import Path

from vireid.errors import MissingPackage
from vireid.evaluation.results import Results
from vireid.figures.style import save
from vireid.training.log_file import read_log
from vireid.training.trackers import trackers_again
from vireid.workflows.figures import cmc_figures
from vireid.workflows.options import FigureOptions

log = logging.getLogger(__name__)


def track_evaluation(folder: Path, results: Results) -> None:
    """Log fractions as `evaluate/PROTOCOL LAYER/R1`, and pictures of RUN/figures, at the last step of the training."""
    trackers = list(trackers_again(folder))
    if not trackers:
        return
    values: dict[str, float] = {}
    pictures: dict[str, Path] = {}
    for summary in results.summaries:
        stamp = summary.stamp
        words = [summary.protocol, stamp.get("layer", ""), *(stamp.get(key, "none") for key in ("flip", "rerank"))]
        name = " ".join(word for word in words if word != "none")
        values |= {f"evaluate/{name}/{column}": value for column, value in summary.mean.items()}
        stem = summary.protocol.replace("/", "-").replace(":", "-")
        pictures |= {f"evaluate/{path.stem}": path for path in (folder / "figures").glob(f"ranked-{stem}*.png")}
    try:
        for name, figure in cmc_figures(results, FigureOptions()):
            pictures[f"evaluate/{name}"] = save(figure, folder / "figures" / name)[0]
    except MissingPackage as error:
        log.info("no CMC curves in the log: %s", error)
    for tracker in trackers:
        tracker.results(values, pictures, last_step(folder))
        tracker.close()


def last_step(folder: Path) -> int:
    """The last step that the log of a training holds; 0 where there is none."""
    records = read_log(folder)
    return int(records[-1].get("total", 0)) if records else 0
