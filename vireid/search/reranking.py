"""Re-ranking of a shortlist: a function of queries and gallery, a refiner that changes both, or centering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vireid.errors import SearchError
from vireid.search.centering import Centering
from vireid.search.scores import Scored, similarities_of

Rerank = Callable[..., Any]  # (query (Q, D), gallery (G, D)) -> similarity (Q, G), tensors; a Refiner; Centering


def reranked_order(
    rerank: Rerank, queries: np.ndarray, kinds: Sequence[int], hits: list[Scored]
) -> tuple[list[Scored], str]:
    """The hits in the order of a re-ranking with its similarities, and its name; equals stay in order."""
    gallery = np.stack([hit.record.vector for hit, _ in hits])
    modality = np.array([hit.record.modality for hit, _ in hits])
    if isinstance(rerank, Centering):
        similarity, name = rerank(queries, gallery, kinds, modality)
    else:
        similarity, name = reranked(rerank, queries, gallery, np.array(kinds[: len(queries)]), modality)
    order = similarity.max(0).tolist()
    places = sorted(range(len(hits)), key=lambda at: -order[at])
    return [(hits[at][0], order[at]) for at in places], name


def reranked(
    rerank: Rerank, query: np.ndarray, gallery: np.ndarray, of_query: np.ndarray, of_gallery: np.ndarray
) -> tuple[np.ndarray, str]:
    """Similarity (Q, n) by a re-ranking of a shortlist (n, D), and its stamp.

    KReciprocal takes fewer neighbors where the shortlist has too few, which the stamp says; LocalShortestPath compares
    the whole shortlist. A refiner changes queries and shortlist together and is then compared by cosine; where they are
    fewer than it needs, the plain similarities stay, which the stamp says.
    """
    import torch

    from vireid.evaluation.local_shortest_path import LocalShortestPath
    from vireid.evaluation.rerank import KReciprocal

    one, other = torch.from_numpy(query), torch.from_numpy(gallery)
    with torch.no_grad():
        if isinstance(rerank, torch.nn.Module):  # a Refiner
            if rerank.training:
                raise SearchError("this refiner is in training mode; call its eval(), or load it with load_refiner")
            name = getattr(rerank, "name", type(rerank).__name__)
            min_images = getattr(rerank, "min_images", 1)
            if len(one) + len(other) < min_images:
                few = f"{len(one) + len(other)} pictures, {name} needs {min_images}"
                return similarities_of(query, gallery), f"none ({few})"
            kinds = torch.from_numpy(np.concatenate([of_query, of_gallery]).astype(np.int64))
            refined = torch.nn.functional.normalize(rerank(torch.cat([one, other]), kinds), dim=1)
            similarity = refined[: len(one)] @ refined[len(one) :].T
            return similarity.numpy(), f"refiner {name} of {len(gallery)}"
        if isinstance(rerank, KReciprocal) and len(one) + len(other) <= rerank.k1:
            k1 = len(one) + len(other) - 1
            rerank = replace(rerank, k1=k1, k2=min(rerank.k2, k1 + 1))
        if isinstance(rerank, LocalShortestPath):
            rerank = replace(rerank, shortlist=None)
        similarity = np.asarray(rerank(one, other))
    if similarity.shape != (len(query), len(gallery)) or not np.isfinite(similarity).all():
        raise SearchError(
            f"a re-ranking returns finite similarities {(len(query), len(gallery))}, got {similarity.shape}"
        )
    return similarity, str(getattr(rerank, "stamp", type(rerank).__name__)) + f" of {len(gallery)}"
