"""SearchService: what the server does with its archive: describe it, search it, add to it.

It knows nothing of HTTP: faults of a request are VireidErrors, and the routes decide who may call what.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vireid.data import datasets
from vireid.deploy.bundle import Bundle
from vireid.deploy.calibration import NEEDED, Calibration
from vireid.errors import ArgumentError, CalibrationError, SearchError, WeightsError
from vireid.evaluation.local_shortest_path import LocalShortestPath
from vireid.evaluation.rerank import KReciprocal
from vireid.images import GrayRule
from vireid.search.archive import Archive
from vireid.search.centering import Centering
from vireid.search.gallery import Facets, Record
from vireid.search.gallery_refiner import open_refiner
from vireid.search.reranking import Rerank
from vireid.search.searcher import Answer, Marks, PictureEmbedder, Ranked, Searcher, SearchOptions
from vireid.server.attention import Attention
from vireid.server.auth import Caller
from vireid.server.calibration_file import CalibrationFile
from vireid.server.responses import (
    AboutResponse,
    AddResponse,
    CalibrationResponse,
    CallerResponse,
    DetectResponse,
    ExampleResponse,
    Hit,
    LimitsResponse,
    NetworkResponse,
    PublicAbout,
    Row,
    SearchResponse,
)
from vireid.server.schemas import MAX_HITS, AddRequest, DetectRequest, SearchRequest
from vireid.server.settings import ServerSettings
from vireid.server.uploads import SentFile, Upload, decode
from vireid.types import MODALITIES, Modality
from vireid.version import __version__

MAX_FACETS_AGE_S = 3600.0  # counting by camera reads every row: on a new row count, or hourly
COUNTING_SHARE = 0.02  # of the time that it may take where rows come all the time
SHORTLIST = 200  # rows that are re-ranked; the list ends there, so that its pages agree


@dataclass
class SearchService:
    """An archive with all that it is searched with. `attention` None: no heat maps; `calibration` None: no matches."""

    bundle: Bundle
    searcher: Searcher
    archive: Archive
    calibration: Calibration | None = None
    attention: Attention | None = None
    rerankers: dict[str, Rerank] = field(default_factory=lambda: {"k-reciprocal": KReciprocal()})
    settings: ServerSettings = field(default_factory=ServerSettings)
    name: str = "gallery"
    calibration_file: CalibrationFile | None = None

    def __post_init__(self) -> None:
        self.rerankers = {**self.rerankers, "center": Centering(self.searcher.overview)}
        self._facets: tuple[float, float, int, Facets] | None = None  # when, in how many seconds, of how many rows
        self._facets_lock = threading.Lock()

    def log(self, caller: Caller, what: str, **details: Any) -> None:
        """Write an entry to the audit log. Call it before the result leaves: what cannot be logged is not done."""
        self.archive.audit.write(what, caller.name, caller.role, caller.address, **details)

    # --- about --------------------------------------------------------------------------------------------------------

    def clear_facets(self) -> None:
        """To be called after rows were added."""
        self._facets = None

    def forget_vectors(self) -> None:
        """To be called after rows were deleted: nothing that was made of them is kept."""
        self.clear_facets()
        self.searcher.overview.clear()

    def facets(self) -> Facets:
        """Counts of rows by camera, modality and tag; counted again when another process wrote or deleted rows."""
        with self._facets_lock:
            now = time.monotonic()
            if self._facets is not None:
                counted_at, took_s, rows, facets = self._facets
                age = now - counted_at
                if age < took_s / COUNTING_SHARE or (age < MAX_FACETS_AGE_S and rows == self.archive.gallery.count()):
                    return facets
            facets = self.archive.gallery.facets()
            self._facets = (now, time.monotonic() - now, sum(facets.modalities.values()), facets)
            return facets

    def refresh(self) -> None:
        """Take over a calibration that another process wrote; called before each request."""
        if self.calibration_file is not None:
            calibration = self.calibration_file.current()
            if calibration is not self.calibration:
                self.calibration = calibration
                self.searcher = self.searcher.with_calibration(calibration)

    @property
    def attention_reason(self) -> str:
        """Why there are no heat maps, "" where there are."""
        return "it is switched off" if self.attention is None else self.attention.reason

    def about(self, caller: Caller, galleries: Sequence[str] = ()) -> PublicAbout:
        """What the caller may do, and for those who may search also the archive, the network and the limits.

        `galleries` are the names of all that the caller may use.
        """
        settings = self.settings
        public = PublicAbout(
            version=__version__,
            caller=CallerResponse(name=caller.name, role=caller.role, tokens=settings.tokens is not None),
            purpose=settings.purpose_required,
        )
        if not caller.has_role("search"):
            return public
        config, limits, facets = self.bundle.config, settings.limits, self.facets()
        return AboutResponse(
            **dict(public),
            gallery=self.name,
            galleries=list(galleries or [self.name]),
            rows=sum(facets.modalities.values()),
            cameras=facets.cameras,
            modalities={MODALITIES[key]: rows for key, rows in facets.modalities.items()},
            tags=facets.tags,
            first_s=finite(facets.first_s),
            last_s=finite(facets.last_s),
            network=NetworkResponse(
                method=config.method, size=config.size, trained_on=str(config.trained_on), digest=config.digest[:12]
            ),
            calibration=None if self.calibration is None else described(self.calibration),
            attention=self.attention_reason,
            reranks=list(self.rerankers),
            gray=str(self.archive.gray),
            thermal_ranges=self.archive.gray.ranges,
            keep_days=settings.retention_days,
            limits=LimitsResponse(
                picture_bytes=limits.picture_bytes, picture_pixels=limits.picture_pixels, pictures=limits.pictures
            ),
            detection=settings.detection is not None,
            examples=[ExampleResponse(name=e.name, modality=e.modality, within=e.within) for e in settings.examples],
        )

    # --- searching ----------------------------------------------------------------------------------------------------

    def decode(self, pictures: Sequence[SentFile], request: SearchRequest) -> tuple[list[Image.Image], list[Upload]]:
        """The crops to embed, and the uploads that they were cut from."""
        boxes = request.boxes
        if boxes and len(boxes) != len(pictures):
            raise SearchError(f"expected as many boxes as pictures ({len(pictures)}) or none, got {len(boxes)}")
        limits, gray = self.settings.limits, self.searcher_of(request).gray
        uploads = [decode(sent.data, limits, gray, sent.name) for sent in pictures]
        crops = [upload.crop(box) for upload, box in zip(uploads, boxes or [None] * len(uploads), strict=True)]
        return crops, uploads

    def search(self, caller: Caller, request: SearchRequest, pictures: Sequence[SentFile]) -> SearchResponse:
        """Ranked hits, or that the person is not in the archive; written to the audit log before it is returned."""
        start_s = time.monotonic()
        self.check_request(request, pictures)
        crops, uploads = self.decode(pictures, request)
        digests = [upload.digest for upload in uploads]
        vectors, modalities = self.query_vectors(request, crops)
        answer, notes = self.rank(request, vectors, modalities, min(request.offset + request.limit + 1, MAX_HITS))
        hits = [hit_of(hit) for hit in answer.hits[request.offset : request.offset + request.limit]]
        names: list[Modality] = [MODALITIES[modality] for modality in modalities]
        self.log(
            caller, "search", pictures=digests, like=list(request.like), modality=names,
            filter=request.filter.conditions(), false_match_rate=request.false_match_rate, purpose=request.purpose,
            marks=len(request.right) + len(request.wrong), offset=request.offset, hits=len(hits), nobody=answer.nobody,
        )  # fmt: skip
        return SearchResponse(
            query=query_id(digests, request),
            modality=names,
            hits=hits,
            more=len(answer.hits) > request.offset + request.limit,
            nobody=answer.nobody,
            matches=None if answer.matches is None else answer.matches.count,
            all_counted=answer.matches is None or answer.matches.complete,
            stamp=answer.stamp,
            notes=notes,
            searched=answer.rows,
            tracks=answer.tracks,
            prior=answer.prior,
            took_s=round(time.monotonic() - start_s, 3),
        )

    def check_request(self, request: SearchRequest, pictures: Sequence[SentFile]) -> None:
        """SearchError for a request without a query, or without the purpose that this service requires."""
        if not pictures and not request.like:
            raise SearchError("send a picture, or name a row with `like`")
        if self.settings.purpose_required and not request.purpose.strip():
            raise SearchError("give the purpose of the search (`purpose`); it is kept in the audit log")

    def rank(
        self, request: SearchRequest, vectors: np.ndarray, modalities: Sequence[int], k: int
    ) -> tuple[Answer, list[str]]:
        """The Searcher's answer of up to `k` hits, and notes about it."""
        options = SearchOptions(
            combine=request.combine, marks=Marks(request.right, request.wrong), per_track=request.per_track,
            prior=request.prior, false_match_rate=request.false_match_rate,
        )  # fmt: skip
        if request.rerank is not None:
            if request.rerank not in self.rerankers:
                raise SearchError(f"this network can be re-ranked by {' or '.join(self.rerankers)} only")
            options = replace(options, rerank=self.rerankers[request.rerank], shortlist=SHORTLIST)
            k = min(k, SHORTLIST)
        query = (vectors, modalities, k, request.filter.to_filter(without_ids=request.like))
        search = self.searcher_of(request).search_vectors
        try:
            answer, notes = search(*query, options), []
        except CalibrationError as error:  # no table for a pair of modalities: the ranking is still an answer
            answer, notes = search(*query, replace(options, false_match_rate=None)), [str(error)]
        answer.stamp.update(self.archive.gray.stamp)
        if answer.uncalibrated and self.calibration is not None and answer.uncalibrated not in notes:
            notes.append(answer.uncalibrated)
        return answer, notes

    def detect(self, request: DetectRequest, picture: SentFile) -> DetectResponse:
        """The people in a picture; only of a service with a detector."""
        assert self.settings.detection is not None
        start_s = time.monotonic()
        image = decode(picture.data, self.settings.limits, self.searcher_of(request).gray, picture.name).image
        people = self.settings.detection.people(image)
        took_s = round(time.monotonic() - start_s, 3)
        return DetectResponse(size=(image.height, image.width), people=people, took_s=took_s)

    def searcher_of(self, request: SearchRequest | DetectRequest) -> Searcher:
        """The searcher with the rule for gray values that a request names, else with the gallery's."""
        ends = request.thermal_range
        return self.searcher if ends is None else self.searcher.with_gray(GrayRule(*ends))

    def query_vectors(self, request: SearchRequest, crops: Sequence[Image.Image]) -> tuple[np.ndarray, list[int]]:
        """Vectors (Q, D) and modalities (Q,) of the pictures and of the rows that are searched with."""
        vectors: list[np.ndarray] = []
        modalities: list[int] = []
        if crops:
            for batch, modality in self.extractor.batches(crops, request.modality):
                vectors += list(batch)
                modalities += modality.tolist()
        for record in self.archive.gallery.fetch(request.like):
            vectors.append(record.vector)
            modalities.append(record.modality)
        return np.stack(vectors), modalities

    @property
    def extractor(self) -> PictureEmbedder:
        """What embeds pictures; a service always has it."""
        assert self.searcher.extractor is not None
        return self.searcher.extractor

    # --- adding -------------------------------------------------------------------------------------------------------

    def add(self, caller: Caller, request: AddRequest, picture: SentFile) -> AddResponse:
        """Add one crop, or replace the one of its id."""
        upload = decode(picture.data, self.settings.limits, self.archive.gray.of(request.camera), picture.name)
        time_s = math.nan if request.time_s is None else request.time_s
        text = f"{upload.digest}/{request.camera}/{request.time_s}"
        row_id = request.id or hashlib.sha256(text.encode()).hexdigest()[:32]
        [(vectors, modalities)] = self.extractor.batches([upload.image], request.modality)
        record = Record(
            id=row_id, vector=vectors[0], camera=request.camera, time_s=time_s, modality=int(modalities[0]), path="",
            track=request.track, pid=request.pid, tags=request.tags, thumbnail=self.archive.thumbnails.name(row_id),
            digest=upload.digest,
        )  # fmt: skip
        self.log(caller, "add", id=row_id, camera=request.camera, picture=upload.digest)
        self.archive.thumbnails.write(row_id, upload.image)
        self.archive.gallery.upsert([record])
        self.clear_facets()
        return AddResponse(id=row_id, modality=MODALITIES[record.modality])


def load_rerankers(bundle: Bundle, refine: Path | None = None) -> dict[str, Rerank]:
    """The re-rankings by name that suit a bundle's network, and that of the run `refine`, trained on its embeddings."""
    rerankers: dict[str, Rerank] = {"k-reciprocal": KReciprocal()}
    # a network without stripes has no path to compare them by, and one of your own may be served without its code
    with contextlib.suppress(ArgumentError, WeightsError):
        rerankers["shortest-path"] = LocalShortestPath.of(bundle.network())
    if refine is not None:
        refiner = open_refiner(refine, bundle)
        rerankers[refiner.name] = refiner
    return rerankers


def query_id(digests: Sequence[str], request: SearchRequest) -> str:
    """The id that marks are kept by: the same pictures, boxes and rows are the same query."""
    parts = [sorted(digests), request.boxes, sorted(request.like)]
    parts += [] if request.thermal_range is None else [request.thermal_range]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def described(calibration: Calibration) -> CalibrationResponse:
    """What a calibration was made on and supports."""
    return CalibrationResponse(
        dataset=calibration.dataset,
        split=calibration.split,
        own_data=calibration.dataset not in set(datasets.names()) - {"manifest"},
        people=calibration.people,
        num_people=max(pair.people for pair in calibration.pairs.values()),
        least_rate={name: NEEDED / pair.other_pairs for name, pair in calibration.pairs.items()},
        missing=calibration.missing,
    )


def row_of(record: Record) -> Row:
    """A row without its path, which no client needs to know."""
    return Row(
        id=record.id, camera=record.camera, time_s=finite(record.time_s), modality=MODALITIES[record.modality],
        track=record.track, pid=record.pid, tags=list(record.tags),
    )  # fmt: skip


def hit_of(hit: Ranked) -> Hit:
    """A hit; `match` is None where there is no threshold."""
    return Hit(**dict(row_of(hit.record)), similarity=hit.similarity, probability=hit.probability, match=hit.match)


def finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)
