"""Gallery: embeddings with camera, time and modality that can be searched, extended and deleted from.

This file holds the protocol and its plain types and imports numpy alone; each driver is a file of `drivers/`.
All drivers give one answer: cosine similarity of unit vectors, computed in float64 from what is stored and rounded to
float32, the most similar first, equals by id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from vireid.errors import GalleryError
from vireid.images import GrayRule
from vireid.types import INFRARED, VISIBLE

FORMAT = "vireid gallery 1"
LIMITS_BYTES = {"id": 512, "camera": 256, "path": 4096, "track": 256, "pid": 256, "tags": 256, "thumbnail": 4096,
                "digest": 64}  # fmt: skip
MAX_TAGS = 64
NO_VECTOR = np.zeros(0, np.float32)
NO_VECTOR.flags.writeable = False


def check_text(name: str, value: object, limit: int | None = None) -> None:
    """GalleryError for a text that a driver could not keep as it is."""
    if not isinstance(value, str):
        raise GalleryError(f"{name} is a text, got {type(value).__name__}")
    limit = LIMITS_BYTES[name] if limit is None else limit
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise GalleryError(
            f"{name} {value[:40]!r} is not valid Unicode (a file name with broken bytes?); rename the file"
        ) from error
    if size > limit:
        raise GalleryError(f"{name} is at most {limit} bytes long, got {size}: {value[:40]!r}...")
    if "\0" in value:
        raise GalleryError(f"{name} {value[:40]!r} holds a NUL character; leave it out")


def _texts(name: str, values: object, one: str | None = None) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise GalleryError(f"{name} is a list of texts, got {str(values)[:40]!r}")
    for value in values:
        check_text(name, value, LIMITS_BYTES[one or name])
    return tuple(values)


def _check_modality(modality: object) -> None:
    if modality not in (VISIBLE, INFRARED):
        raise GalleryError(f"modality is {VISIBLE} (visible) or {INFRARED} (infrared), got {str(modality)[:40]!r}")


@dataclass(frozen=True)
class Record:
    """One picture of one person. `time_s` is Unix seconds UTC, nan where unknown; `vector` (D,) float32 of length 1.

    `track` groups pictures of one passage, `pid` is an identity that a user gave, `digest` the sha256 of the picture's
    file (of a video a part of it), empty where it is unknown. Texts are UTF-8 without NUL and no longer than
    LIMITS_BYTES. Records are equal if all but their vectors is. Raises GalleryError.
    """

    id: str
    vector: np.ndarray = field(compare=False, repr=False)
    camera: str
    time_s: float
    modality: int
    path: str
    track: str = ""
    pid: str = ""
    tags: tuple[str, ...] = ()
    thumbnail: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "camera", "path", "track", "pid", "thumbnail", "digest"):
            check_text(name, getattr(self, name))
        if not self.id:
            raise GalleryError("a record needs an id, got an empty one; the path and the track make a good one")
        object.__setattr__(self, "tags", _texts("tags", self.tags))
        if len(self.tags) > MAX_TAGS or len(set(self.tags)) < len(self.tags):
            raise GalleryError(f"a record has up to {MAX_TAGS} different tags, got {len(self.tags)}")
        _check_modality(self.modality)
        if math.isinf(self.time_s):
            raise GalleryError(f"time_s is in Unix seconds or nan for unknown, got {self.time_s}")
        object.__setattr__(self, "time_s", math.nan if math.isnan(self.time_s) else float(self.time_s))  # nan is nan

    @classmethod
    def stored(cls, **values: Any) -> Record:
        """A record of values that were checked when it was added; all of them are given."""
        record = object.__new__(cls)
        record.__dict__.update(values)
        return record

    def with_vector(self, vector: np.ndarray | None) -> Record:
        """The same record with a copy of this vector, or with none; its texts are not checked again."""
        record = object.__new__(Record)
        record.__dict__.update(self.__dict__, vector=NO_VECTOR if vector is None else np.array(vector, np.float32))
        return record


Moment = tuple[float, str]  # time_s, nan where it is unknown, and id of a record


def newest_first(moment: Moment) -> tuple[bool, float, str]:
    """The order of Gallery.newest, as a key.

    >>> sorted([(math.nan, "a"), (1.0, "c"), (2.0, "d"), (1.0, "b")], key=newest_first)
    [(2.0, 'd'), (1.0, 'b'), (1.0, 'c'), (nan, 'a')]
    """
    time_s, row_id = moment
    return (True, 0.0, row_id) if math.isnan(time_s) else (False, -time_s, row_id)


@dataclass(frozen=True)
class Filter:
    """Which records: all conditions together, an empty one is none.

    One of `cameras`, `pids`, `tracks`; `after_s` <= time_s < `before_s`, which a record of unknown time never passes;
    this `modality`; all of `tags`; none of `without_ids`. Raises GalleryError.
    """

    cameras: tuple[str, ...] = ()
    after_s: float | None = None
    before_s: float | None = None
    modality: int | None = None
    tags: tuple[str, ...] = ()
    pids: tuple[str, ...] = ()
    tracks: tuple[str, ...] = ()
    without_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        singular = {"cameras": "camera", "pids": "pid", "tracks": "track", "without_ids": "id", "tags": "tags"}
        for name, one in singular.items():
            object.__setattr__(self, name, _texts(name, getattr(self, name), one))
        for name in ("after_s", "before_s"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise GalleryError(f"{name} is in Unix seconds, got {value}; leave it out for no condition")
        if self.after_s is not None and self.before_s is not None and self.after_s >= self.before_s:
            raise GalleryError(f"after_s must come before before_s, got {self.after_s} and {self.before_s}")
        if self.modality is not None:
            _check_modality(self.modality)

    @property
    def empty(self) -> bool:
        """Whether every record passes."""
        return all(getattr(self, each.name) in ((), None) for each in fields(self))


EVERYTHING = Filter()


@dataclass(frozen=True)
class Hit:
    """A record of the result; its vector is empty unless requested."""

    record: Record
    similarity: float


@dataclass(frozen=True)
class GalleryInfo:
    """`index` says in words how rows are searched; `size_bytes` is what lies on this machine's disk, None: nothing."""

    url: str
    dim: int
    rows: int
    bundle_digest: str
    index: str
    size_bytes: int | None


@dataclass(frozen=True)
class Facets:
    """What a page offers to choose from: rows by camera, modality and tag, and the time they span (nan if unknown).

    `tracks` counts the different tracks of all cameras; a row without a track counts as one.
    """

    cameras: dict[str, int]
    modalities: dict[int, int]
    tags: dict[str, int]
    first_s: float
    last_s: float
    tracks: int


class Gallery(Protocol):
    """What every driver does; all methods raise GalleryError. An object may be used by several threads.

    `gray` is how gray values of more than 8 bits become 8 in the pictures of its rows, and in every query.
    """

    dim: int
    gray: GrayRule

    def info(self) -> GalleryInfo: ...

    def facets(self) -> Facets:
        """Counts over all rows; looks at every row."""
        ...

    def add(self, records: Iterable[Record]) -> int:
        """Add records and return how many, durably; an id that is there already is refused and nothing is added."""
        ...

    def upsert(self, records: Iterable[Record]) -> int:
        """Add records, or replace those of the same id; returns how many were given."""
        ...

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> int:
        """Delete by id or by a filter, not both, and return how many rows went; unknown ids are none.

        What was deleted is no longer found but stays on the disk until `purge`. An empty filter is refused.
        """
        ...

    def count(self, where: Filter = EVERYTHING) -> int: ...

    def search(
        self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING, with_vectors: bool = False
    ) -> list[list[Hit]]:
        """The k most similar of each query (Q, D), fewer where fewer pass the filter.

        Similarities and vectors are those of the rows to 1e-6.
        """
        ...

    def fetch(self, ids: Sequence[str], missing: str = "refuse") -> list[Record]:
        """Records with vectors in the order of the ids; unknown ids raise, or are left out with missing="skip"."""
        ...

    def sample(self, count: int, where: Filter = EVERYTHING) -> list[Record]:
        """Up to `count` records with vectors, evenly spread over the ids; the same ones while no row changes."""
        ...

    def rows(self, where: Filter = EVERYTHING, limit: int | None = None, after_id: str = "") -> Iterator[Record]:
        """Records without vectors by id, those after `after_id`; rows that change meanwhile may be old or new."""
        ...

    def newest(self, where: Filter = EVERYTHING, limit: int = 100, after: Moment | None = None) -> list[Record]:
        """Records without vectors, the latest first, equals by id, those of unknown time last; those behind `after`.

        Looks at the time of every row that passes, and in Milvus reads it.
        """
        ...

    def optimize(self) -> None:
        """Build or extend what makes search fast; worth it after large additions."""
        ...

    def purge(self) -> None:
        """Remove deleted and replaced records from the disk for good, with every old version."""
        ...

    def close(self) -> None: ...
