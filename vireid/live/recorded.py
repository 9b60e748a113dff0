"""Limits of a watch-list from recordings: how similar to a person those were who passed in the last days.

The calibration's threshold counts every comparison with a row as one more chance of a false alarm. But the rows of a
passage are alike, so fewer alarms come than the budget allows, and more passages of the person are missed than need
be. Recorded passages say how many would have come: of M recorded rows, at R rows a day, the budget allows

    N = budget * M / R

alarms, and the limit is the score of the Nth passage in order of its most similar row. As for a rate of the
calibration, N has to be at least 30 (rule of 30). Scores are log-odds, in which pairs of modalities are comparable.
Passages of the person count as false ones, so the limit may be too high, and never too low.
"""

from __future__ import annotations

import math

import numpy as np

from vireid.deploy.calibration import NEEDED, Calibration
from vireid.search.gallery import Filter, Gallery, Hit
from vireid.types import MODALITIES

RECORDED_S = 30 * 86400.0  # how far back
MAX_ROWS = 5000  # most similar rows of each modality that are looked at


def recorded_limit(
    vectors: np.ndarray,
    modalities: np.ndarray,
    gallery: Gallery,
    where: Filter,
    calibration: Calibration,
    alarms_a_row: float,
) -> float | None:
    """The log-odds at which the rows of `where` would have raised `alarms_a_row` alarms for each of them.

    `vectors` (n, D) and `modalities` (n,) stand for a person's pictures. None where there are too few rows.
    """
    allowed = math.floor(alarms_a_row * gallery.count(where) * (1 + 1e-9))
    if allowed < NEEDED:
        return None
    passages: dict[tuple[str, str], float] = {}
    beyond = -math.inf  # what was not looked at is below
    for modality in range(len(MODALITIES)):
        one_kind = Filter(where.cameras, where.after_s, modality=modality, without_ids=where.without_ids)
        for kind, hits in zip(modalities.tolist(), gallery.search(vectors, MAX_ROWS, one_kind), strict=True):
            scores = calibration.log_odds(np.array([hit.similarity for hit in hits]), (int(kind), modality))
            if len(hits) == MAX_ROWS:
                beyond = max(beyond, float(scores.min()))
            for hit, score in zip(hits, scores.tolist(), strict=True):
                passage = _passage(hit)
                passages[passage] = max(score, passages.get(passage, -math.inf))
    if len(passages) < allowed:
        return None
    return max(sorted(passages.values(), reverse=True)[allowed - 1], beyond)


def _passage(hit: Hit) -> tuple[str, str]:
    return hit.record.camera, hit.record.track or f"row {hit.record.id}"
