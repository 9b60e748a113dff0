"""Searcher: pictures of one person in, ranked records out, with a probability and the answer "nobody".

**Several pictures** of the person: `combine="mean"` searches with their average on the unit sphere, "best" with each
of them and takes a record by the picture that it is most like.

**Re-ranking** acts on a shortlist, the most similar of the plain search: k-reciprocal neighbors (evaluation/rerank.py),
CM-LSP-GE's local shortest path (evaluation/local_shortest_path.py), a trained refiner such as NFormer's
(gallery_refiner.py opens it for the vectors of a gallery), or any function of the same form. It decides the order
alone: similarity and probability stay those of the vectors.

**Relevance feedback.** Records marked right and wrong move the query q by Rocchio's rule (Rocchio, Relevance feedback
in information retrieval, in Salton (ed.): The SMART Retrieval System, 1971) with the weights of Manning, Raghavan and
Schuetze, Introduction to Information Retrieval, 2008, section 9.1.1, on unit vectors:

    q' = unit(q + 0.75 mean(right) - 0.15 mean(wrong))

A right mark from the other modality carries the query across. Wrong ones do not appear again.

**One hit per track.** `per_track=True` shows of the crops of one camera's track the most similar alone (tracks.py).
Re-ranking then acts on a shortlist of tracks, and a crop that was marked wrong takes its whole track away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from vireid.declaration import Count, NoSwitch, configured, settings
from vireid.errors import GalleryError, SearchError
from vireid.images import GrayRule
from vireid.search.drivers import checks, exact
from vireid.search.gallery import EVERYTHING, Filter, Gallery, Hit, Record
from vireid.search.tracks import MAX_ROWS, Track, nearest, nearest_tracks, track_of
from vireid.types import INFRARED, VISIBLE

RIGHT_WEIGHT, WRONG_WEIGHT = 0.75, 0.15  # beta and gamma of Manning et al., for alpha = 1
SHORTLIST = 100
EVEN = 0.5  # prior: the similarity alone has its say
Combine = Literal["mean", "best"]
Chance = Annotated[float, NoSwitch, Field(gt=0, lt=1)]  # a probability or a rate that is neither 0 nor 1


class Calibrated(Protocol):
    """What is used of vireid.deploy.calibration.Calibration."""

    def probability(self, similarity: np.ndarray, pair: tuple[int, int], prior: float = EVEN) -> np.ndarray: ...
    def threshold(self, false_match_rate: float, pair: tuple[int, int]) -> float: ...


class PictureEmbedder(Protocol):
    """What is used of vireid.deploy.model.Model and vireid.deploy.extractor.FeatureExtractor."""

    @property
    def gray(self) -> GrayRule:
        """How gray values of more than 8 bits are read."""
        ...

    def batches(self, pictures: Any, modality: Any) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Unit vectors (n, D) and the modality (n,) that each was embedded as, batch by batch."""
        ...


Rerank = Callable[..., Any]  # (query (Q, D), gallery (G, D)) -> similarity (Q, G), tensors; or a Refiner


@dataclass(frozen=True)
class Marks:
    """Ids of records that were judged: they show the person, or somebody else."""

    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("right", "wrong"):
            if isinstance(getattr(self, name), str):
                raise SearchError(f"{name} is a list of ids, got the text {getattr(self, name)[:40]!r}")
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        if both := set(self.right) & set(self.wrong):
            raise SearchError(f"{sorted(both)[0]!r} is marked right and wrong; take one of the marks back")


@settings
class SearchOptions:
    """How a list is made of the records that pass a filter."""

    combine: Combine = "mean"
    """Several pictures: search with their mean, or rank a record by the best of them."""
    rerank: Rerank | None = None
    """Re-ranking of a shortlist: a function of queries and gallery, or a Refiner."""
    shortlist: Count = SHORTLIST
    """At least this many records are re-ranked."""
    marks: Marks = Marks()
    """Records of an earlier answer that were judged."""
    per_track: bool = False
    """Take the most similar record of each track alone."""
    prior: Chance = EVEN
    """Probability that a record shows the person before it is compared, 1 / N where one in N does."""
    false_match_rate: Chance | None = None
    """Rate of one comparison, from which the threshold below which nobody is the person follows."""


@dataclass(frozen=True)
class Ranked:
    """A record of the answer. `similarity` is its cosine with the query, before marks move it.

    `probability` that it shows the person, by the calibration; None without one, or with none for this pair of
    modalities. `order` is what the list is sorted by: the similarity with the moved query, or the re-ranking's.
    """

    record: Record
    similarity: float
    probability: float | None
    order: float


@dataclass(frozen=True)
class Answer:
    """`nobody`: whether all similarities are below the threshold; None without a false-match rate.

    `stamp` says how the list came about; `uncalibrated` why probabilities are missing, empty if none is.
    """

    hits: list[Ranked]
    nobody: bool | None
    stamp: dict[str, str]
    uncalibrated: str = ""


class Searcher:
    """Searches a gallery with pictures; GalleryError if it was made by another bundle than the extractor's.

    `extractor` is a Model, a FeatureExtractor, or None where only vectors and records are searched with; `calibration`
    a Calibration of the same bundle, by default that of the Model.
    """

    def __init__(
        self, extractor: PictureEmbedder | None, gallery: Gallery, calibration: Calibrated | None = None
    ) -> None:
        if calibration is None:  # a FeatureExtractor has none
            calibration = getattr(extractor, "calibration", None)
        self.extractor, self.gallery, self.calibration = extractor, gallery, calibration
        digest = gallery.info().bundle_digest
        config = getattr(getattr(extractor, "bundle", None), "config", None)
        if config is not None and digest and config.digest != digest:
            raise GalleryError(
                f"the gallery holds embeddings of {checks.named(digest)}, the extractor is "
                f"{checks.named(config.digest)}: vectors of two networks are not comparable; open "
                "the model that the gallery was made with"
            )
        made_for = getattr(calibration, "embedder", digest)
        if digest and made_for != digest:
            raise SearchError(
                f"the calibration belongs to embedder {str(made_for)[:12]}..., the gallery to {digest[:12]}...; "
                "run `vireid calibrate` with the bundle that the gallery was made with"
            )

    def search(
        self,
        pictures: Any,
        modality: Any = "auto",
        k: int = 10,
        where: Filter = EVERYTHING,
        options: SearchOptions | None = None,
        **words: Any,
    ) -> Answer:
        """Search with one or more pictures of one person, as FeatureExtractor takes them; see search_vectors."""
        if self.extractor is None:
            raise SearchError("this Searcher has no extractor and so takes no pictures; pass search_vectors vectors")
        batches = list(self.extractor.batches(pictures, modality))
        if not batches:
            raise SearchError("there is no picture to search with; pass one or more of the same person")
        vectors, kinds = (np.concatenate(part) for part in zip(*batches, strict=True))
        return self.search_vectors(vectors, kinds, k, where, options, **words)

    def search_records(
        self,
        ids: Sequence[str],
        k: int = 10,
        where: Filter = EVERYTHING,
        options: SearchOptions | None = None,
        **words: Any,
    ) -> Answer:
        """Search with records of the gallery as the pictures; they are not in the answer."""
        records = self.gallery.fetch(ids)
        if not records:
            raise SearchError("there is no record to search with; pass the ids of one or more")
        hidden = replace(where, without_ids=tuple(dict.fromkeys((*where.without_ids, *ids))))
        vectors = np.stack([record.vector for record in records])
        return self.search_vectors(vectors, [record.modality for record in records], k, hidden, options, **words)

    def search_vectors(
        self,
        vectors: np.ndarray,
        modality: Iterable[int],
        k: int = 10,
        where: Filter = EVERYTHING,
        options: SearchOptions | None = None,
        **words: Any,
    ) -> Answer:
        """Search with unit vectors (P, D) of one person and their modality (P,); `words` are fields of SearchOptions.

        The prior moves the probabilities and neither the order nor who matches. Below the similarity that
        `false_match_rate` stands for the answer is that nobody in the gallery is the person; it needs a calibration,
        which is of single pictures: the average of several is more like the right and the wrong ones than each of them.
        That rate is for one comparison: among N people who are not the one, up to N times as many searches find
        somebody. Raises GalleryError, SearchError, SettingsError and the calibration's errors.
        """
        options = configured(SearchOptions, options, words)
        rerank, marks, false_match_rate = options.rerank, options.marks, options.false_match_rate
        if false_match_rate is not None and self.calibration is None:
            raise SearchError("a false-match rate needs a calibration; make it with `vireid calibrate`")
        checks.hit_count(k)
        queries = checks.unit_vectors(vectors, self.gallery.dim)
        kinds = np.asarray(list(modality), np.int64)
        if not len(queries) or kinds.shape != (len(queries),):
            raise SearchError(f"expected vectors (P, D) and modality (P,), got {queries.shape} and {kinds.shape}")
        queries = mean_vector(queries) if options.combine == "mean" else queries
        right, wrong = (self.gallery.fetch(ids) for ids in (marks.right, marks.wrong))
        moved = rocchio(queries, [r.vector for r in right], [r.vector for r in wrong])
        where = replace(where, without_ids=tuple(dict.fromkeys((*where.without_ids, *marks.wrong))))
        wanted = k if rerank is None else max(k, options.shortlist)
        hidden = frozenset(track_of(record) for record in wrong) if options.per_track else frozenset()
        stamp = (
            {"rerank": "none"} if len(queries) == 1 == len(kinds) else {"combine": options.combine, "rerank": "none"}
        )
        if options.per_track:
            nearest_hits, cut = nearest_tracks(self.gallery, moved, wanted, where, hidden)
            stamp["hits"] = f"one per track{f' of the {MAX_ROWS} most similar crops' if cut else ''}"
        else:
            nearest_hits = nearest(self.gallery, moved, wanted, where)
        order = [hit.similarity for hit in nearest_hits]
        if rerank is not None and nearest_hits:
            order, stamp["rerank"] = reranked_order(rerank, moved, kinds[: len(moved)], nearest_hits)
        if marks != Marks():
            stamp["feedback"] = f"rocchio right={len(right)} wrong={len(wrong)}"
        places = sorted(range(len(nearest_hits)), key=lambda at: -order[at])[:k]  # equals stay in the search's order
        chosen = [nearest_hits[at] for at in places]
        hits, uncalibrated = self._judged(queries, kinds, chosen, [order[at] for at in places], options.prior)
        if self.calibration is not None:
            stamp["prior"] = f"{options.prior:g}"
        nobody = None
        if false_match_rate is not None:
            stamp["false_match_rate"] = f"{false_match_rate:g}"
            nobody = not right and not self._anybody(queries, kinds, where, hidden, false_match_rate)
        return Answer(hits, nobody, stamp, uncalibrated)

    def _judged(
        self, queries: np.ndarray, kinds: np.ndarray, chosen: list[Hit], order: list[float], prior: float
    ) -> tuple[list[Ranked], str]:
        """Similarity with what was queries and the probability, of the pair of modalities that says less."""
        hits, reasons = [], {} if self.calibration else {"there is no calibration": None}
        for hit, value in zip(chosen, order, strict=True):
            similarity = float(similarities_of(queries, hit.record.vector[None]).max())
            probability = None
            if self.calibration is not None:
                try:
                    pairs = [(int(kind), hit.record.modality) for kind in set(kinds.tolist())]
                    alike = np.array(similarity)
                    probability = min(float(self.calibration.probability(alike, pair, prior)) for pair in pairs)
                except ValueError as error:  # no table for this pair: said, and the list is still an answer
                    reasons[str(error)] = None
            hits.append(Ranked(hit.record.with_vector(None), similarity, probability, float(value)))
        return hits, "; ".join(reasons)

    def _anybody(
        self, queries: np.ndarray, kinds: np.ndarray, where: Filter, hidden: frozenset[Track], false_match_rate: float
    ) -> bool:
        """Whether a record that passes reaches its threshold, which each modality of the gallery has its own of."""
        assert self.calibration is not None
        for modality in (VISIBLE, INFRARED) if where.modality is None else (where.modality,):
            of_modality = replace(where, modality=modality)
            best = (
                nearest_tracks(self.gallery, queries, 1, of_modality, hidden)[0]
                if hidden
                else nearest(self.gallery, queries, 1, of_modality)
            )
            if not best:
                continue
            bars = [self.calibration.threshold(false_match_rate, (int(kind), modality)) for kind in set(kinds.tolist())]
            if best[0].similarity >= max(bars):
                return True
        return False


def reranked_order(rerank: Rerank, queries: np.ndarray, kinds: np.ndarray, hits: list[Hit]) -> tuple[list[float], str]:
    """The similarity of each hit after re-ranking, and the name of the re-ranking for the stamp."""
    gallery = np.stack([hit.record.vector for hit in hits])
    modality = np.array([hit.record.modality for hit in hits])
    similarity, name = reranked(rerank, queries, gallery, kinds, modality)
    return similarity.max(0).tolist(), name


def mean_vector(vectors: np.ndarray) -> np.ndarray:
    """The direction (1, D) of the mean of unit vectors (P, D); SearchError where they cancel out.

    >>> mean_vector(np.array([[1.0, 0.0], [0.0, 1.0]])).round(4)
    array([[0.7071, 0.7071]], dtype=float32)
    """
    return _unit(vectors.mean(0, dtype=np.float64, keepdims=True), "these pictures point in opposite directions")


def rocchio(query: np.ndarray, right: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> np.ndarray:
    """Queries (P, D) moved towards the mean of the right vectors and away from that of the wrong ones; see the head.

    >>> rocchio(np.array([[1.0, 0.0]]), right=[np.array([0.0, 1.0])], wrong=[]).round(4)
    array([[0.8, 0.6]], dtype=float32)
    """
    if not len(right) and not len(wrong):
        return np.asarray(query, np.float32)
    moved = np.asarray(query, np.float64).copy()
    if len(right):
        moved += RIGHT_WEIGHT * np.mean(right, 0, dtype=np.float64)
    if len(wrong):
        moved -= WRONG_WEIGHT * np.mean(wrong, 0, dtype=np.float64)
    return _unit(moved, "these marks cancel the query out")


def similarities_of(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(P, n) cosine similarity of unit vectors."""
    return np.stack([exact.similarities(query, vectors) for query in queries])


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


def _unit(vectors: np.ndarray, what: str) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms < 1e-6).any():
        raise SearchError(f"{what} and leave no query; search with one of them alone")
    return (vectors / norms).astype(np.float32)
