"""Searcher: pictures of one person in, ranked records out, with a probability and the answer "nobody".

**Both modalities.** Each is searched on its own and the hits are merged by what the calibration or a cohort of the
gallery says of a similarity of that pair (scores.py): 0.4 may be a match across modalities and none within one.

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

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from vireid.declaration import Count, NoSwitch, configured, settings
from vireid.errors import CalibrationError, GalleryError, SearchError
from vireid.images import GrayRule
from vireid.search.drivers import checks
from vireid.search.gallery import EVERYTHING, Filter, Gallery, Hit, Record
from vireid.search.overview import Overview
from vireid.search.reranking import Rerank, reranked_order
from vireid.search.scores import Calibrated, Scored, merged, scores_of, similarities_of
from vireid.search.tracks import MAX_ROWS, Finder, Matches, track_of
from vireid.types import INFRARED, VISIBLE

RIGHT_WEIGHT, WRONG_WEIGHT = 0.75, 0.15  # beta and gamma of Manning et al., for alpha = 1
SHORTLIST = 100
EVEN = 0.5  # prior: the similarity alone has its say
Combine = Literal["mean", "best"]
Chance = Annotated[float, Field(gt=0, lt=1), NoSwitch]  # a probability or a rate that is neither 0 nor 1


class PictureEmbedder(Protocol):
    """What is used of vireid.deploy.model.Model and vireid.deploy.extractor.FeatureExtractor."""

    @property
    def gray(self) -> GrayRule:
        """How gray values of more than 8 bits are read."""
        ...

    def with_gray(self, gray: GrayRule) -> PictureEmbedder:
        """The same with another rule for them."""
        ...

    def batches(self, pictures: Any, modality: Any) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Unit vectors (n, D) and the modality (n,) that each was embedded as, batch by batch."""
        ...


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
    """Re-ranking of a shortlist: a function of queries and gallery, a Refiner, or Centering(searcher.overview)."""
    shortlist: Count = SHORTLIST
    """At least this many records are re-ranked."""
    marks: Marks = Marks()
    """Records of an earlier answer that were judged."""
    per_track: bool = False
    """Take the most similar record of each track alone."""
    prior: Literal["searched"] | Chance = "searched"
    """Probability that a record shows the person before it is compared; searched: one of all tracks searched."""
    false_match_rate: Chance | None = None
    """Rate of one comparison, from which the threshold below which nobody is the person follows."""


@dataclass(frozen=True)
class Ranked:
    """A record of the answer. `similarity` is its cosine with the query, before marks move it.

    `probability` that it shows the person, by the calibration; None without one, or with none for this pair of
    modalities. `order` is what the list is sorted by: the score (scores.py) with the moved query, or the re-ranking's
    similarity. `match`: whether the similarity reaches the threshold of its pair; None without a false-match rate.
    """

    record: Record
    similarity: float
    probability: float | None
    order: float
    match: bool | None = None


@dataclass(frozen=True)
class Answer:
    """The hits, and what is known of all records that pass the filter.

    `matches` counts those that reach the threshold of their pair (tracks with `per_track`), whether they are among the
    hits or not; None without a false-match rate. `marked` says that a record was marked right. `stamp` says how the
    list came about; `uncalibrated` why probabilities are missing, empty if none is. `rows` were searched, of about
    `tracks` tracks, which are counted where the `prior` is one of them.
    """

    hits: list[Ranked]
    matches: Matches | None
    marked: bool
    stamp: dict[str, str]
    uncalibrated: str
    rows: int
    tracks: int | None
    prior: float

    @property
    def nobody(self) -> bool | None:
        """Whether nothing reaches the threshold and nothing is marked right; None without a false-match rate."""
        return None if self.matches is None else not self.matches.count and not self.marked


@dataclass(frozen=True)
class _Question:
    """A search: `queries` (P, D) of the pictures, and `moved` by marks where it is not `plain`; `stamp` is filled."""

    queries: np.ndarray
    moved: np.ndarray
    kinds: list[int]  # modality of each picture
    where: Filter
    finder: Finder
    plain: bool
    marked: bool  # a record was marked right
    stamp: dict[str, str]


class Searcher:
    """Searches a gallery with pictures; GalleryError if it was made by another bundle than the extractor's.

    Pictures of more than 8 bits become 8 by the gallery's rule, so that a picture is found with itself.

    `extractor` is a Model, a FeatureExtractor, or None where only vectors and records are searched with; `calibration`
    a Calibration of the same bundle, by default that of the Model.
    """

    def __init__(
        self, extractor: PictureEmbedder | None, gallery: Gallery, calibration: Calibrated | None = None
    ) -> None:
        if calibration is None:  # a FeatureExtractor has none
            calibration = getattr(extractor, "calibration", None)
        self.gallery, self.calibration = gallery, calibration
        self.overview = Overview(gallery)
        digest = gallery.info().bundle_digest
        config = getattr(getattr(extractor, "bundle", None), "config", None)
        if config is not None and digest and config.digest != digest:
            raise GalleryError(
                f"the gallery holds embeddings of {checks.named(digest)}, the extractor is "
                f"{checks.named(config.digest)}: vectors of two networks are not comparable; open "
                "the model that the gallery was made with"
            )
        self.extractor, self.gray = extractor, gallery.gray
        if extractor is not None and extractor.gray != gallery.gray:
            self.extractor = extractor.with_gray(gallery.gray)
        made_for = getattr(calibration, "embedder", digest)
        if digest and made_for != digest:
            raise SearchError(
                f"the calibration belongs to embedder {str(made_for)[:12]}..., the gallery to {digest[:12]}...; "
                "run `vireid calibrate` with the bundle that the gallery was made with"
            )

    def with_calibration(self, calibration: Calibrated | None) -> Searcher:
        """The same with another calibration of the same bundle, or with none."""
        other = copy.copy(self)
        other.calibration = calibration
        return other

    def with_gray(self, gray: GrayRule) -> Searcher:
        """The same with another rule for gray values of more than 8 bits of the pictures that are searched with."""
        other = copy.copy(self)
        other.gray = gray
        other.extractor = None if self.extractor is None else self.extractor.with_gray(gray)
        return other

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
        vectors, kinds = self.embedded(pictures, modality)
        return self.search_vectors(vectors, kinds, k, where, options, **words)

    def embedded(self, pictures: Any, modality: Any = "auto") -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (P, D) of one or more pictures, and the modality (P,) that each was embedded as; SearchError."""
        if self.extractor is None:
            raise SearchError("this Searcher has no extractor and so takes no pictures; pass search_vectors vectors")
        batches = list(self.extractor.batches(pictures, modality))
        if not batches:
            raise SearchError("there is no picture to search with; pass one or more of the same person")
        vectors, kinds = (np.concatenate(part) for part in zip(*batches, strict=True))
        return vectors, kinds

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

        Each modality is searched on its own and the hits are merged by their scores (scores.py). With a false-match
        rate matches come first, unless marks or a re-ranking decide the order.
        The prior moves the probabilities and neither the order nor who matches. Below the similarity that
        `false_match_rate` stands for the answer is that nobody in the gallery is the person; it needs a calibration,
        which is of single pictures: the average of several is more like the right and the wrong ones than each of them.
        That rate is for one comparison: among N people who are not the one, up to N times as many searches find
        somebody. Raises GalleryError, SearchError, SettingsError and the calibration's errors.
        """
        options = configured(SearchOptions, options, words)
        if options.false_match_rate is not None and self.calibration is None:
            raise SearchError("a false-match rate needs a calibration; make it with `vireid calibrate`")
        checks.hit_count(k)
        query = self._question(vectors, [int(kind) for kind in modality], where, options)
        stamp = query.stamp
        nearest = self._nearest(query, k if options.rerank is None else max(k, options.shortlist))
        scores, stamp["scores"] = scores_of(
            nearest, query.kinds, self.calibration, self.overview, None if query.plain else query.moved
        )
        bars = self._bars(nearest, query.kinds, options.false_match_rate)
        ordered = merged(nearest, scores, bars if query.plain and options.rerank is None else {}, options.per_track)
        if options.rerank is not None and ordered:
            ordered, stamp["rerank"] = reranked_order(
                options.rerank, query.moved, query.kinds, ordered[: max(k, options.shortlist)]
            )
        rows = self.gallery.count(query.where)
        tracks = self.overview.tracks(rows) if options.prior == "searched" and self.calibration else None
        prior = 1 / max(2, tracks or 0) if isinstance(options.prior, str) else options.prior
        if self.calibration is not None:
            stamp["prior"] = f"{prior:.4g}"
        hits, uncalibrated = self._judged(query, ordered[:k], bars, prior)
        counts = None
        if options.false_match_rate is not None:
            stamp["false_match_rate"] = f"{options.false_match_rate:g}"
            counts = self._counted(query, nearest if query.plain else {}, bars)
        return Answer(hits, counts, query.marked, stamp, uncalibrated, rows, tracks, prior)

    def _question(self, vectors: np.ndarray, kinds: list[int], where: Filter, options: SearchOptions) -> _Question:
        """What is searched for, from the vectors (P, D) of the pictures, their modality and the marks."""
        queries = checks.unit_vectors(vectors, self.gallery.dim)
        if not len(queries) or len(kinds) != len(queries):
            raise SearchError(f"expected vectors (P, D) and modality (P,), got {queries.shape} and ({len(kinds)},)")
        queries = mean_vector(queries) if options.combine == "mean" else queries
        marks = options.marks
        right, wrong = (self.gallery.fetch(ids) for ids in (marks.right, marks.wrong))
        moved = rocchio(queries, [r.vector for r in right], [r.vector for r in wrong])
        where = replace(where, without_ids=tuple(dict.fromkeys((*where.without_ids, *marks.wrong))))
        hidden = frozenset(track_of(record) for record in wrong) if options.per_track else frozenset()
        stamp = ({} if len(kinds) == 1 else {"combine": options.combine}) | {"rerank": "none"}
        stamp |= {"gray": str(self.gray)} if self.gray.ends else {}
        if marks != Marks():
            stamp["feedback"] = f"rocchio right={len(right)} wrong={len(wrong)}"
        finder = Finder(self.gallery, options.per_track, hidden)
        return _Question(queries, moved, kinds, where, finder, marks == Marks(), bool(right), stamp)

    def _nearest(self, query: _Question, k: int) -> dict[int, list[Hit]]:
        """The k most similar of each modality that passes the filter."""
        nearest, whole = {}, True
        for modality in (VISIBLE, INFRARED) if query.where.modality is None else (query.where.modality,):
            nearest[modality], cut = query.finder.find(query.moved, k, replace(query.where, modality=modality))
            whole = whole and not cut
        if query.finder.per_track:
            query.stamp["hits"] = f"one per track{'' if whole else f' of the {MAX_ROWS} most similar crops'}"
        return nearest

    def _counted(self, query: _Question, nearest: dict[int, list[Hit]], bars: dict[int, float]) -> Matches:
        """How many rows of each modality reach their bar; `nearest` are the most similar ones, where they are known."""
        counts = [
            query.finder.count(query.queries, bar, replace(query.where, modality=modality), nearest.get(modality))
            for modality, bar in bars.items()
        ]
        return Matches(sum(each.count for each in counts), all(each.complete for each in counts))

    def _bars(
        self, nearest: dict[int, list[Hit]], kinds: list[int], false_match_rate: float | None
    ) -> dict[int, float]:
        """The similarity from which a row of each modality matches: the strictest of the query's pictures."""
        if false_match_rate is None or self.calibration is None:
            return {}
        threshold = self.calibration.threshold
        return {
            modality: max(threshold(false_match_rate, (kind, modality)) for kind in set(kinds))
            for modality, hits in nearest.items()
            if hits
        }

    def _judged(
        self, query: _Question, chosen: list[Scored], bars: dict[int, float], prior: float
    ) -> tuple[list[Ranked], str]:
        """Similarity with what was queried, whether it matches, and the probability of the pair that says less."""
        hits, reasons = [], {} if self.calibration else {"there is no calibration": None}
        for hit, value in chosen:
            modality, probability = hit.record.modality, None
            similarity = float(similarities_of(query.queries, hit.record.vector[None]).max())
            if self.calibration is not None:
                try:
                    alike = np.array(similarity)
                    pairs = [(kind, modality) for kind in set(query.kinds)]
                    probability = min(float(self.calibration.probability(alike, pair, prior)) for pair in pairs)
                except CalibrationError as error:  # no table for this pair: said, and the list is still an answer
                    reasons[str(error)] = None
            match = similarity >= bars[modality] if modality in bars else None
            hits.append(Ranked(hit.record.with_vector(None), similarity, probability, float(value), match))
        return hits, "; ".join(reasons)


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


def _unit(vectors: np.ndarray, what: str) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms < 1e-6).any():
        raise SearchError(f"{what} and leave no query; search with one of them alone")
    return (vectors / norms).astype(np.float32)
