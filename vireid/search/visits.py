"""Visits: when a person passed which camera: the matching tracks of an answer as passages, grouped into visits.

    track      rows of one camera under one name; in videos it ends with its segment of ten minutes
    passage    tracks of one camera that follow each other within `join_s`: a person in view at the border of two
               segments, or lost by the tracker for a moment, is one passage
    visit      passages of all cameras that follow each other within `gap_s`

A passage lasts from the first to the last row of its tracks. Of two tracks that one camera sees at the same time one at
most is the person: the more similar one is taken, the other is reported as `simultaneous`. A row of unknown time is
reported as `undated`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from vireid.declaration import NonNegative, Positive, settings
from vireid.search.gallery import EVERYTHING, Filter, Gallery, Record
from vireid.search.searcher import Answer, Ranked
from vireid.search.tracks import ROUND, Track, track_of

GAP_S = 1800.0
JOIN_S = 10.0
FIRST_TRACKS, MAX_TRACKS = 64, 2000  # that are requested at first, and at most
NAMES = 500  # tracks in one filter


@settings
class VisitOptions:
    """How tracks become passages and visits."""

    gap_s: Positive = GAP_S
    """Seconds without a passage after which another visit begins."""
    join_s: NonNegative = JOIN_S
    """Seconds between two tracks of one camera that still are one passage."""


@dataclass(frozen=True)
class Span:
    """First and last Unix second of the rows of a track, nan where no time is known; `rows` counts all."""

    first_s: float
    last_s: float
    rows: int

    def overlaps(self, other: Span) -> bool:
        """Whether both have a moment in common; False where a time is unknown."""
        return self.first_s <= other.last_s and other.first_s <= self.last_s

    def with_row(self, record: Record) -> Span:
        """This span with one more row."""
        known = not math.isnan(record.time_s)
        first, last = (record.time_s, record.time_s) if known else (self.first_s, self.last_s)
        if known and not math.isnan(self.first_s):
            first, last = min(first, self.first_s), max(last, self.last_s)
        return Span(first, last, self.rows + 1)


NO_ROWS = Span(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Passage:
    """The person at one camera, from `first_s` until `last_s`; `best` is the most similar row of its tracks."""

    camera: str
    first_s: float
    last_s: float
    tracks: tuple[Track, ...]
    rows: int
    best: Ranked


@dataclass(frozen=True)
class Visit:
    """Passages in order of their beginning."""

    passages: tuple[Passage, ...]

    @property
    def first_s(self) -> float:
        return self.passages[0].first_s

    @property
    def last_s(self) -> float:
        return max(passage.last_s for passage in self.passages)

    @property
    def cameras(self) -> tuple[str, ...]:
        """In the order in which the person was first seen there."""
        return tuple(dict.fromkeys(passage.camera for passage in self.passages))


@dataclass(frozen=True)
class Visits:
    """Visits in order of time, made of the matching tracks of `answer`, or of all its hits where it has no threshold.

    `complete` is False where more tracks match than MAX_TRACKS.
    """

    visits: tuple[Visit, ...]
    undated: tuple[Ranked, ...]
    simultaneous: tuple[Ranked, ...]
    answer: Answer
    complete: bool

    @property
    def passages(self) -> tuple[Passage, ...]:
        """Of all visits."""
        return tuple(passage for visit in self.visits for passage in visit.passages)


def find_visits(
    search: Callable[[int], Answer],
    gallery: Gallery,
    where: Filter = EVERYTHING,
    options: VisitOptions | None = None,
    right: Iterable[str] = (),
    k: int = FIRST_TRACKS,
) -> Visits:
    """The visits of the person that `search` looks for: it gets a number of hits and returns one hit per track.

    With a threshold more hits are requested until all matches are there, or MAX_TRACKS; without one the `k` most
    similar tracks are taken. `right` are ids that were marked right, which count as matches. A passage lasts as long as
    its tracks; those of their rows that do not pass `where` are left out. Raises what `search` does, and GalleryError.
    """
    options, marked = options or VisitOptions(), set(right)
    answer = search(k)
    while len(answer.hits) == k < MAX_TRACKS and answer.hits[-1].match:
        k = min(ROUND * k, MAX_TRACKS)
        answer = search(k)
    hits = [hit for hit in answer.hits if hit.match is not False or hit.record.id in marked]
    spans = spans_of(gallery, [hit.record for hit in hits], where)
    undated = [hit for hit in hits if math.isnan(spans[track_of(hit.record)].first_s)]
    dated = [hit for hit in hits if not math.isnan(spans[track_of(hit.record)].first_s)]
    kept, simultaneous = without_simultaneous(dated, spans)
    passages = passages_of(kept, spans, options.join_s)
    complete = answer.matches is None or (answer.matches.complete and answer.matches.count <= MAX_TRACKS)
    return Visits(visits_of(passages, options.gap_s), tuple(undated), tuple(simultaneous), answer, complete)


def spans_of(gallery: Gallery, records: Sequence[Record], where: Filter = EVERYTHING) -> dict[Track, Span]:
    """From when until when the rows of each record's track are; a record without a track stands for itself."""
    spans = {track_of(record): NO_ROWS if record.track else NO_ROWS.with_row(record) for record in records}
    for track, row in rows_of_tracks(gallery, records, where):
        spans[track] = spans[track].with_row(row)
    for record in records:  # whose rows were deleted meanwhile
        if not spans[track_of(record)].rows:
            spans[track_of(record)] = NO_ROWS.with_row(record)
    return spans


def rows_of_tracks(
    gallery: Gallery, records: Iterable[Record], where: Filter = EVERYTHING
) -> Iterator[tuple[Track, Record]]:
    """All rows of the named tracks of these records, each with its track."""
    named = sorted({(record.camera, record.track) for record in records if record.track})
    for start in range(0, len(named), NAMES):
        piece = named[start : start + NAMES]
        cameras, tracks = (tuple(dict.fromkeys(part)) for part in zip(*piece, strict=True))
        wanted = set(piece)
        for row in gallery.rows(replace(where, cameras=cameras, tracks=tracks, without_ids=())):
            if (track := track_of(row)) in wanted:
                yield track, row


def without_simultaneous(hits: Sequence[Ranked], spans: dict[Track, Span]) -> tuple[list[Ranked], list[Ranked]]:
    """Hits in order of their rank, and those whose camera saw a hit of better rank at the same time."""
    kept: list[Ranked] = []
    left: list[Ranked] = []
    taken: dict[str, list[Span]] = {}
    for hit in hits:
        span, before = spans[track_of(hit.record)], taken.setdefault(hit.record.camera, [])
        if any(span.overlaps(other) for other in before):
            left.append(hit)
        else:
            before.append(span)
            kept.append(hit)
    return kept, left


def passages_of(hits: Sequence[Ranked], spans: dict[Track, Span], join_s: float) -> list[Passage]:
    """Passages by camera and time, of hits in order of their rank whose tracks do not overlap."""
    order = {id(hit): rank for rank, hit in enumerate(hits)}
    runs: list[list[Ranked]] = []
    for hit in sorted(hits, key=lambda hit: (hit.record.camera, spans[track_of(hit.record)].first_s)):
        span, last = spans[track_of(hit.record)], runs[-1][-1] if runs else None
        if (
            last is not None
            and last.record.camera == hit.record.camera
            and span.first_s - spans[track_of(last.record)].last_s <= join_s
        ):
            runs[-1].append(hit)
        else:
            runs.append([hit])
    passages = []
    for run in runs:
        tracks = tuple(track_of(hit.record) for hit in run)
        best = min(run, key=lambda hit: order[id(hit)])
        rows = sum(spans[track].rows for track in tracks)
        camera, first_s, last_s = best.record.camera, spans[tracks[0]].first_s, spans[tracks[-1]].last_s
        passages.append(Passage(camera, first_s, last_s, tracks, rows, best))
    return passages


def visits_of(passages: Iterable[Passage], gap_s: float) -> tuple[Visit, ...]:
    """Passages grouped into visits: a gap of more than `gap_s` seconds without a passage begins another one."""
    groups: list[list[Passage]] = []
    until = -math.inf
    for passage in sorted(passages, key=lambda passage: (passage.first_s, passage.camera)):
        if passage.first_s - until > gap_s:
            groups.append([])
        groups[-1].append(passage)
        until = max(until, passage.last_s)
    return tuple(Visit(tuple(group)) for group in groups)
