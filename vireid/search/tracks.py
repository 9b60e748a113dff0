"""Tracks: the most similar rows of a gallery for one or several vectors, and the best one of each track alone.

The crops of one passage at a camera are much alike: without more they fill a list with one person. A track is a
camera and the track's name in it, for every camera counts its own; a row without a track stands for itself.
A gallery knows nothing of this, so more rows are requested until there are enough tracks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vireid.search.gallery import Filter, Gallery, Hit, Record

ROUND = 4  # times as many rows are requested as tracks, and again in each further round
MAX_COUNTED = 2000  # matches; behind them an answer says that there are more
MAX_ROWS = 50_000  # that are looked through for tracks; the answer says where a list ends there

Track = tuple[str, str]  # camera and track, or "" and the id of a row without a track


def track_of(record: Record) -> Track:
    """What a record is one crop of.

    >>> rows = [Record(i, np.ones(1), "gate", 0.0, 0, "", track) for i, track in (("a", "7"), ("b", "7"), ("c", ""))]
    >>> [track_of(row) for row in rows]
    [('gate', '7'), ('gate', '7'), ('', 'c')]
    """
    return (record.camera, record.track) if record.track else ("", record.id)


def best_of(lists: list[list[Hit]]) -> list[Hit]:
    """One list by the best similarity of each record, equals by id, as long as the longest."""
    best: dict[str, Hit] = {}
    for hit in (hit for line in lists for hit in line):
        if hit.record.id not in best or hit.similarity > best[hit.record.id].similarity:
            best[hit.record.id] = hit
    longest = max(map(len, lists), default=0)
    return sorted(best.values(), key=lambda hit: (-hit.similarity, hit.record.id))[:longest]


def nearest(gallery: Gallery, queries: np.ndarray, k: int, where: Filter) -> list[Hit]:
    """The k rows most similar to any of the queries (Q, D), with their vectors."""
    return best_of(gallery.search(queries, k, where, with_vectors=True))


def nearest_tracks(
    gallery: Gallery, queries: np.ndarray, k: int, where: Filter, without: Collection[Track] = ()
) -> tuple[list[Hit], bool]:
    """The most similar row of each of the k most similar tracks, with its vector; none of the tracks `without`.

    The second value says whether MAX_ROWS were looked through and there may be more tracks behind them.
    """
    rows = ROUND * k
    while True:
        rows = min(rows, max(MAX_ROWS, k))
        hits_of_rows = best_of(gallery.search(queries, rows, where))
        best: dict[Track, Hit] = {}
        for hit in hits_of_rows:
            best.setdefault(track_of(hit.record), hit)
        hits = [hit for track, hit in best.items() if track not in without][:k]
        cut = len(hits) < k and len(hits_of_rows) == rows >= MAX_ROWS
        if len(hits) == k or len(hits_of_rows) < rows or cut:
            break
        rows *= ROUND
    vectors = {r.id: r.vector for r in gallery.fetch([hit.record.id for hit in hits], missing="skip")}
    kept = [hit for hit in hits if hit.record.id in vectors]  # one may have been deleted meanwhile
    return [Hit(hit.record.with_vector(vectors[hit.record.id]), hit.similarity) for hit in kept], cut


@dataclass(frozen=True)
class Matches:
    """How many reach a threshold, and whether these are all: beyond MAX_COUNTED nothing is counted."""

    count: int
    complete: bool


@dataclass(frozen=True)
class Finder:
    """Finds the most similar rows of a gallery, or of each track the most similar row; none of the tracks `hidden`."""

    gallery: Gallery
    per_track: bool
    hidden: frozenset[Track]

    def find(self, queries: np.ndarray, k: int, where: Filter) -> tuple[list[Hit], bool]:
        """The k most similar with their vectors, and whether MAX_ROWS were looked through; see nearest_tracks."""
        if self.per_track:
            return nearest_tracks(self.gallery, queries, k, where, self.hidden)
        return nearest(self.gallery, queries, k, where), False

    def count(self, queries: np.ndarray, bar: float, where: Filter, known: list[Hit] | None) -> Matches:
        """How many that pass the filter reach a similarity; `known` are the most similar ones, or None."""
        hits, k = known, len(known or ())
        while True:
            if hits is not None:
                matches = sum(hit.similarity >= bar for hit in hits)
                complete = matches < len(hits) or len(hits) < k
                if complete or k >= MAX_COUNTED:
                    return Matches(matches, complete)
            k = min(max(ROUND * k, 64), MAX_COUNTED)
            hits, _ = self.find(queries, k, where)
