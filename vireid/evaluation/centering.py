"""Centering: what all pictures of a modality have in common is taken out of their vectors, without any label.

    v' = v - mean of the unit vectors of the modality of v, at this site

Vectors of one modality point to one side, and how far depends on the cameras. What is left when that side is taken out
says more about the person. The vectors are compared by cosine as before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vireid.types import INFRARED, MODALITIES, VISIBLE

if TYPE_CHECKING:  # a search needs no torch
    from vireid.evaluation.embed import Embeddings

TINY = 1e-12  # a length that is not divided by
MIN_ROWS = 50  # of each modality: with fewer the mean is that of single people, see docs/adapt.md


def modality_means(vectors: np.ndarray, modality: np.ndarray) -> np.ndarray:
    """Mean (2, D) float64 of the unit vectors (N, D) of each modality; 0 where there is none."""
    means = np.zeros((len(MODALITIES), vectors.shape[1]))
    for kind in (VISIBLE, INFRARED):
        if (modality == kind).any():
            means[kind] = vectors[modality == kind].mean(0, dtype=np.float64)
    return means


def centered(vectors: np.ndarray, modality: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Unit vectors (N, D) float32 of unit vectors from which the mean of their modality, means (2, D), is taken."""
    moved = vectors - means[modality]
    return (moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), TINY)).astype(np.float32)


def too_few(counts: np.ndarray | list[int]) -> str:
    """Why vectors are not centered with this many rows of each modality; empty where they are."""
    few = [f"{count} {name}" for count, name in zip(counts, MODALITIES, strict=True) if count < MIN_ROWS]
    return f"{' and '.join(few)} rows, {MIN_ROWS} of each modality needed" if few else ""


def centered_embeddings(embeddings: Embeddings) -> Embeddings:
    """The embeddings centered on themselves, compared by cosine; left as they are where there are too few, stamped."""
    modality = embeddings.table.modality
    if reason := too_few(np.bincount(modality, minlength=len(MODALITIES))):
        return replace(embeddings, stamp={**embeddings.stamp, "center": f"none ({reason})"})
    norms = np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
    unit = embeddings.vectors / np.maximum(norms, TINY)
    vectors = centered(unit, modality, modality_means(unit, modality))
    stamp = {**embeddings.stamp, "center": "mean of each modality of these images (transductive)"}
    return replace(embeddings, vectors=vectors, stamp=stamp, similarity="cosine")
