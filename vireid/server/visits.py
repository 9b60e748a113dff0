"""Visits over HTTP: what makes a response of a request with a SearchService."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vireid.search.searcher import Answer
from vireid.search.visits import FIRST_TRACKS, Passage, Visit, VisitOptions, find_visits
from vireid.server.auth import Caller
from vireid.server.responses import PassageResponse, VisitResponse, VisitsResponse
from vireid.server.schemas import VisitsRequest
from vireid.server.search_service import SearchService, hit_of, query_id
from vireid.server.uploads import SentFile
from vireid.types import MODALITIES, Modality


def answer_visits(
    service: SearchService, caller: Caller, request: VisitsRequest, pictures: Sequence[SentFile]
) -> VisitsResponse:
    """The visits of the person of a query; written to the audit log before they are returned."""
    start_s = time.monotonic()
    service.check_request(request, pictures)
    crops, uploads = service.decode(pictures, request)
    digests = [upload.digest for upload in uploads]
    vectors, modalities = service.query_vectors(request, crops)
    request = request.model_copy(update={"per_track": True, "rerank": None})
    notes: list[str] = []

    def search(k: int) -> Answer:
        answer, notes[:] = service.rank(request, vectors, modalities, k)
        return answer

    k = request.limit if request.false_match_rate is None else FIRST_TRACKS
    options = VisitOptions(gap_s=request.gap_s, join_s=request.join_s)
    where = request.filter.to_filter(without_ids=request.like)
    visits = find_visits(search, service.archive.gallery, where, options, request.right, k)
    names: list[Modality] = [MODALITIES[modality] for modality in modalities]
    service.log(
        caller, "visits", pictures=digests, like=list(request.like), modality=names,
        filter=request.filter.conditions(), false_match_rate=request.false_match_rate, purpose=request.purpose,
        visits=len(visits.visits), passages=len(visits.passages),
    )  # fmt: skip
    return VisitsResponse(
        query=query_id(digests, request),
        modality=names,
        visits=[visit_of(visit) for visit in visits.visits],
        undated=[hit_of(hit) for hit in visits.undated],
        simultaneous=[hit_of(hit) for hit in visits.simultaneous],
        nobody=visits.answer.nobody,
        complete=visits.complete,
        searched=visits.answer.rows,
        tracks=visits.answer.tracks,
        stamp=visits.answer.stamp,
        notes=notes,
        took_s=round(time.monotonic() - start_s, 3),
    )


def visit_of(visit: Visit) -> VisitResponse:
    """A visit as it is sent."""
    passages = [passage_of(passage) for passage in visit.passages]
    return VisitResponse(first_s=visit.first_s, last_s=visit.last_s, cameras=list(visit.cameras), passages=passages)


def passage_of(passage: Passage) -> PassageResponse:
    """A passage as it is sent."""
    return PassageResponse(
        camera=passage.camera, first_s=passage.first_s, last_s=passage.last_s, tracks=len(passage.tracks),
        rows=passage.rows, best=hit_of(passage.best),
    )  # fmt: skip
