"""Identities: tracks of all cameras grouped by person, without a query.

Two tracks are as close as the mean log-odds of all pairs of their rows say (calibration.py; they are linear in the
similarity, so the dot product of the mean vectors is enough). Groups are merged by average linkage (UPGMA,
scipy.cluster.hierarchy) while the mean log-odds between them are above 0 for the prior.

Two tracks that one camera sees at the same time are two people. Their distance is so large that no group which holds
both can be below the limit: each such pair is a cannot-link constraint, which the linkage keeps exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vireid.declaration import settings
from vireid.errors import SearchError
from vireid.search.gallery import EVERYTHING, Filter, Gallery
from vireid.search.scores import Calibrated
from vireid.search.searcher import Chance
from vireid.search.tracks import Track, track_of
from vireid.search.visits import NO_ROWS, Span

MAX_TRACKS = 5000  # 100 MB of distances
CHUNK = 1000  # rows that are fetched at a time
PRIOR = 0.2  # measured: benchmarks/identities.py


@settings
class IdentityOptions:
    """How tracks are grouped by person."""

    prior: Chance = PRIOR
    """Probability that two tracks show one person before they are compared; lower gives more and smaller groups."""
    cannot_link: bool = True
    """Tracks that one camera sees at the same time are different people."""


@dataclass(frozen=True)
class Tracklet:
    """A track, or a row without one: `vector` (D,) is the mean of its unit vectors, `modality` that of most rows."""

    track: Track
    camera: str
    span: Span
    modality: int
    vector: np.ndarray
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """Tracks that are taken for one person, in order of time."""

    tracks: tuple[Tracklet, ...]

    @property
    def cameras(self) -> tuple[str, ...]:
        """In the order in which the person was first seen there."""
        return tuple(dict.fromkeys(one.camera for one in self.tracks))

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all rows."""
        return tuple(name for one in self.tracks for name in one.ids)


def identities_of(
    gallery: Gallery, calibration: Calibrated, where: Filter = EVERYTHING, options: IdentityOptions | None = None
) -> list[Identity]:
    """The rows that pass a filter grouped by person, the identity of most tracks first.

    SearchError for more than MAX_TRACKS tracks; raises GalleryError, and CalibrationError for a pair of modalities
    without a table.
    """
    options = options or IdentityOptions()
    tracks = tracklets(gallery, where)
    if len(tracks) < 2:
        return [Identity((one,)) for one in tracks]
    similarity = np.stack([one.vector for one in tracks]) @ np.stack([one.vector for one in tracks]).T
    kinds = np.array([one.modality for one in tracks])
    log_odds = np.empty_like(similarity)
    for first in set(kinds.tolist()):
        for second in set(kinds.tolist()):
            part = np.ix_(kinds == first, kinds == second)
            log_odds[part] = calibration.log_odds(similarity[part], (first, second), options.prior)
    apart = simultaneous(tracks) if options.cannot_link else np.zeros(similarity.shape, bool)
    groups: dict[int, list[Tracklet]] = {}
    for one, label in zip(tracks, grouped(log_odds, apart).tolist(), strict=True):
        groups.setdefault(label, []).append(one)
    identities = [Identity(tuple(sorted(group, key=_begins))) for group in groups.values()]
    return sorted(identities, key=lambda one: (-len(one.tracks), _begins(one.tracks[0])))


def grouped(log_odds: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """A label (T,) for each track by log-odds (T, T) that two are one person, and which are `apart` (T, T).

    >>> odds = np.array([[9.0, 4.0, -3.0], [4.0, 9.0, 1.0], [-3.0, 1.0, 9.0]])
    >>> grouped(odds, np.zeros((3, 3), bool)).tolist()
    [1, 1, 2]
    >>> first, second, third = grouped(odds, np.abs(np.subtract.outer(range(3), range(3))) == 1).tolist()
    >>> first != second and second != third
    True
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    limit = float(np.abs(log_odds).max()) + 1.0  # distances are not negative: those below it are of one person
    distance = limit - (log_odds + log_odds.T) / 2
    # the mean over two groups is above the limit as soon as one of their pairs is apart
    distance[apart] = 4 * limit * len(log_odds) ** 2
    np.fill_diagonal(distance, 0)
    return fcluster(linkage(squareform(distance, checks=False), "average"), limit, "distance")


def simultaneous(tracks: Sequence[Tracklet]) -> np.ndarray:
    """(T, T) bool: which tracks one camera sees at the same time; never those of unknown time."""
    first, last = (np.array([getattr(one.span, name) for one in tracks]) for name in ("first_s", "last_s"))
    numbers = {camera: number for number, camera in enumerate(dict.fromkeys(one.camera for one in tracks))}
    cameras = np.array([numbers[one.camera] for one in tracks])
    both = (first[:, None] <= last[None, :]) & (first[None, :] <= last[:, None])
    apart = both & (cameras[:, None] == cameras[None, :])
    np.fill_diagonal(apart, False)
    return apart


def tracklets(gallery: Gallery, where: Filter = EVERYTHING) -> list[Tracklet]:
    """The tracks of the rows that pass a filter, in order of their first id."""
    names: dict[Track, list[str]] = {}
    spans: dict[Track, Span] = {}
    cameras: dict[Track, str] = {}
    for row in gallery.rows(where):
        track = track_of(row)
        names.setdefault(track, []).append(row.id)
        spans[track] = spans.get(track, NO_ROWS).with_row(row)
        cameras[track] = row.camera
        if len(names) > MAX_TRACKS:
            raise SearchError(
                f"there are more than {MAX_TRACKS} tracks to group; choose some by camera (--camera) or time "
                "(--after, --before)"
            )
    sums: dict[Track, np.ndarray] = {}
    kinds: dict[Track, int] = dict.fromkeys(names, 0)
    ids = iter([name for members in names.values() for name in members])
    while piece := list(islice(ids, CHUNK)):
        for row in gallery.fetch(piece, missing="skip"):
            track = track_of(row)
            sums[track] = sums.get(track, 0) + row.vector.astype(np.float64)
            kinds[track] += 1 if row.modality else -1
    return [
        Tracklet(
            track, cameras[track], spans[track], int(kinds[track] > 0), sums[track] / len(names[track]), tuple(members)
        )
        for track, members in names.items()
        if track in sums  # the others were deleted meanwhile
    ]


def _begins(one: Tracklet) -> tuple[float, str, str]:
    """Order of time, unknown times last."""
    return (math.inf if math.isnan(one.span.first_s) else one.span.first_s, *one.track)
