"""Scores: what hits of both modalities are ordered by, since their similarities cannot be compared.

Two pictures of one modality are more alike than two of different modalities, the same person or not. So each modality
is searched on its own, and the hits are merged by a score that falls with the similarity within a modality:

    log-odds    of the calibration for the pair of modalities of query and hit: a + b * similarity
    centered    without one: the similarity less the mean of its pair in the gallery (evaluation/score_norm.py)
    similarity  where all hits are of one modality, or the gallery has too few rows of one for a cohort
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vireid.errors import CalibrationError
from vireid.evaluation.score_norm import MIN_COHORT, STAMP, mean_of_others
from vireid.search.drivers import exact
from vireid.search.gallery import Hit
from vireid.search.overview import Overview
from vireid.search.tracks import Track, track_of
from vireid.types import MODALITIES

Scored = tuple[Hit, float]  # with what it is ordered by


class Calibrated(Protocol):
    """What is used of vireid.deploy.calibration.Calibration."""

    def log_odds(self, similarity: np.ndarray, pair: tuple[int, int], prior: float = ...) -> np.ndarray: ...
    def probability(self, similarity: np.ndarray, pair: tuple[int, int], prior: float = ...) -> np.ndarray: ...
    def threshold(self, false_match_rate: float, pair: tuple[int, int]) -> float: ...


def scores_of(
    nearest: dict[int, list[Hit]],
    kinds: Sequence[int],
    calibration: Calibrated | None,
    overview: Overview,
    moved: np.ndarray | None = None,
) -> tuple[dict[int, np.ndarray], str]:
    """Scores (n,) float64 of the hits of each modality, and what they are, for the stamp.

    `kinds` are the modalities of the pictures. With pictures of both modalities the log-odds are those of the pair that
    says less. Queries (P, D) that marks have `moved` stand between the modalities: their own mean is subtracted.
    """
    similarity = {
        modality: np.array([hit.similarity for hit in hits], np.float64) for modality, hits in nearest.items() if hits
    }
    if calibration is not None:
        try:
            return {
                modality: np.min([calibration.log_odds(values, (kind, modality)) for kind in set(kinds)], axis=0)
                for modality, values in similarity.items()
            }, "log-odds"
        except CalibrationError:  # no table for a pair
            pass
    if len(similarity) < 2:
        return similarity, "similarity"
    cohorts = {modality: overview.cohort(modality) for modality in similarity}
    for modality, cohort in cohorts.items():
        if len(cohort) < MIN_COHORT:
            return similarity, f"similarity (fewer than {MIN_COHORT} {MODALITIES[modality]} rows)"
    for modality, cohort in cohorts.items():
        if moved is not None:
            similarity[modality] -= similarities_of(moved, cohort).max(0).mean()
        else:
            pairs = [(cohorts[kind], kind == modality) for kind in set(kinds)]
            similarity[modality] -= np.mean([mean_of_others(one @ cohort.T, same) for one, same in pairs])
    return similarity, STAMP


def merged(
    nearest: dict[int, list[Hit]], scores: dict[int, np.ndarray], bars: dict[int, float], per_track: bool
) -> list[Scored]:
    """The hits of both modalities, best first: those that reach the bar of their modality, then by score, then by id.

    With `per_track` a track that a camera filmed in both modalities keeps its best hit.
    """
    hits = [
        pair for modality, values in scores.items() for pair in zip(nearest[modality], values.tolist(), strict=True)
    ]

    def place(pair: Scored) -> tuple[bool, float, str]:
        hit, score = pair
        bar = bars.get(hit.record.modality)
        return bar is not None and hit.similarity < bar, -score, hit.record.id

    hits.sort(key=place)
    if not per_track:
        return hits
    best: dict[Track, Scored] = {}
    for pair in hits:
        best.setdefault(track_of(pair[0].record), pair)
    return list(best.values())


def similarities_of(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(P, n) cosine similarity of unit vectors."""
    return np.stack([exact.similarities(query, vectors) for query in queries])
