"""The tracks of one person, from rows of theirs: what an administrator chooses from before deleting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vireid.search.gallery import Record
from vireid.search.searcher import Ranked
from vireid.search.tracks import Track, track_of
from vireid.search.visits import rows_of_tracks
from vireid.server.auth import Caller
from vireid.server.responses import PersonResponse, PersonTrack
from vireid.server.schemas import MAX_HITS, PersonRequest, SearchRequest
from vireid.server.search_service import SearchService, finite, row_of


def tracks_of_person(service: SearchService, caller: Caller, request: PersonRequest) -> PersonResponse:
    """The tracks of the named rows and those that match them; written to the audit log before they are returned."""
    query = SearchRequest(
        like=request.ids, combine="best", per_track=True, false_match_rate=request.false_match_rate,
        purpose=request.purpose,
    )  # fmt: skip
    service.check_request(query, ())
    own: dict[Track, Record] = {}
    for record in service.archive.gallery.fetch(request.ids):
        own.setdefault(track_of(record), record)
    vectors, modalities = service.query_vectors(query, ())
    k = MAX_HITS if request.false_match_rate is not None else request.limit + len(own)
    answer, notes = service.rank(query, vectors, modalities, k)
    others = [hit for hit in answer.hits if hit.match is not False and track_of(hit.record) not in own]
    if request.false_match_rate is None:
        others = others[: request.limit]
    rows = _rows(service, [*own.values(), *(hit.record for hit in others)])
    tracks = [_track(record, rows[track], None) for track, record in own.items()]
    tracks += [_track(hit.record, rows[track_of(hit.record)], hit) for hit in others]
    service.log(
        caller, "find person", ids=list(request.ids), false_match_rate=request.false_match_rate,
        purpose=request.purpose, tracks=len(tracks),
    )  # fmt: skip
    complete = answer.matches is None or (answer.matches.complete and answer.matches.count < MAX_HITS)
    return PersonResponse(tracks=tracks, complete=complete, notes=notes)


def _rows(service: SearchService, records: Sequence[Record]) -> dict[Track, list[Record]]:
    """All rows of each record's track; a record without a track stands for itself."""
    rows: dict[Track, list[Record]] = {track_of(record): [] if record.track else [record] for record in records}
    for track, row in rows_of_tracks(service.archive.gallery, records):
        rows[track].append(row)
    return rows


def _track(record: Record, rows: Sequence[Record], hit: Ranked | None) -> PersonTrack:
    times = [row.time_s for row in rows if not math.isnan(row.time_s)]
    return PersonTrack(
        row=row_of(record),
        first_s=finite(min(times, default=math.nan)),
        last_s=finite(max(times, default=math.nan)),
        ids=[row.id for row in rows],
        named=hit is None,
        similarity=None if hit is None else hit.similarity,
        match=None if hit is None else hit.match,
    )
