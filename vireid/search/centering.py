"""Centering: a re-ranking by vectors from which the mean of their modality in the gallery is taken.

The means are those of the gallery's own rows (evaluation/centering.py), of the cohorts that an Overview keeps: drawn
again when the gallery has grown by a tenth and after rows were deleted, never more than COHORT rows of a modality. With
few rows, or the rows of few tracks, a mean is that of single people: then the order stays, which the stamp says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vireid.evaluation.centering import centered, modality_means, too_few
from vireid.search.gallery import Filter
from vireid.search.overview import Overview
from vireid.search.scores import similarities_of
from vireid.types import INFRARED, MODALITIES, VISIBLE

MIN_TRACKS = 12  # of each modality, measured in docs/train/adapt.md


class Centering:
    """See this file's head; `overview` is that of the Searcher."""

    stamp = "center"

    def __init__(self, overview: Overview) -> None:
        self.overview = overview

    def __call__(
        self, query: np.ndarray, gallery: np.ndarray, kinds: Sequence[int], of_gallery: np.ndarray
    ) -> tuple[np.ndarray, str]:
        """Similarity (Q, n) of the centered queries (Q, D) and shortlist (n, D), and the stamp.

        `kinds` are the modalities of the pictures. A query that several pictures were combined to loses the mean of
        their means.
        """
        cohorts = [self.overview.cohort(kind) for kind in (VISIBLE, INFRARED)]
        if reason := self.left_out(cohorts):
            return similarities_of(query, gallery), f"none ({self.stamp}: {reason})"
        modality = np.repeat((VISIBLE, INFRARED), [len(cohort) for cohort in cohorts])
        means = modality_means(np.concatenate(cohorts), modality)
        of_query = means[list(kinds)] if len(kinds) == len(query) else means[list(kinds)].mean(0, keepdims=True)
        moved = centered(query, np.arange(len(query)), np.broadcast_to(of_query, query.shape))
        similarity = similarities_of(moved, centered(gallery, of_gallery, means))
        return similarity, f"{self.stamp} (mean of each modality of the gallery) of {len(gallery)}"

    def left_out(self, cohorts: Sequence[np.ndarray]) -> str:
        """Why the gallery gives no mean of each modality; empty where it does."""
        if reason := too_few([len(cohort) for cohort in cohorts]):
            return reason
        count = self.overview.gallery.count
        tracks = [self.overview.tracks(count(Filter(modality=kind))) for kind in (VISIBLE, INFRARED)]
        few = [f"{n} {name}" for n, name in zip(tracks, MODALITIES, strict=True) if n < MIN_TRACKS]
        return f"{' and '.join(few)} tracks, {MIN_TRACKS} of each modality needed" if few else ""
