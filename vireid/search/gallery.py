"""Gallery: embeddings with camera, time and modality that can be searched, extended and deleted from.

This file holds the protocol and its plain types and imports numpy alone; each driver is a file of `galleries/`.
All drivers give one answer: cosine similarity of unit vectors, computed in float64 from what is stored and rounded to
float32, the most alike first, equals by id.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

import numpy as np

from vireid.errors import GalleryError

FORMAT = "vireid gallery 1"
VISIBLE, INFRARED = 0, 1  # those of vireid.method, which imports torch
LIMITS_BYTES = {"id": 512, "camera": 256, "path": 4096, "track": 256, "pid": 256, "tags": 256, "thumbnail": 4096}
MOST_TAGS = 64
UNIT_TOLERANCE = 1e-3  # of a vector's length; float16 embeddings stay within
TIED = 2e-6  # squared distances closer than this are not told apart by float32, so more rows are looked at
SLACK = 16  # rows beyond k that a driver takes before the exact order
MOST_TIED = 16_384  # rows looked at for the sake of ties; Milvus gives no more at a time


def check_text(name: str, value: object, limit: int | None = None) -> None:
    """GalleryError for a text that a driver could not keep as it is."""
    if not isinstance(value, str):
        raise GalleryError(f"{name} is a text, got {type(value).__name__}")
    limit = LIMITS_BYTES[name] if limit is None else limit
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise GalleryError(
            f"{name} {value[:40]!r} is no valid Unicode (a file name with broken bytes?); rename the file"
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

    `track` groups pictures of one passage, `pid` is an identity that a user gave. Texts are UTF-8 without NUL and no
    longer than LIMITS_BYTES. Records are equal if all but their vectors is. Raises GalleryError.
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

    def __post_init__(self) -> None:
        for name in ("id", "camera", "path", "track", "pid", "thumbnail"):
            check_text(name, getattr(self, name))
        if not self.id:
            raise GalleryError("a record needs an id, got an empty one; the path and the track make a good one")
        object.__setattr__(self, "tags", _texts("tags", self.tags))
        if len(self.tags) > MOST_TAGS or len(set(self.tags)) < len(self.tags):
            raise GalleryError(f"a record has up to {MOST_TAGS} different tags, got {len(self.tags)}")
        _check_modality(self.modality)
        if math.isinf(self.time_s):
            raise GalleryError(f"time_s is in Unix seconds or nan for unknown, got {self.time_s}")
        object.__setattr__(self, "time_s", math.nan if math.isnan(self.time_s) else float(self.time_s))  # nan is nan


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
    """A record that was found; its vector is empty unless asked for."""

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
    """What a page offers to choose from: rows by camera, modality and tag, and the time they span (nan if unknown)."""

    cameras: dict[str, int]
    modalities: dict[int, int]
    tags: dict[str, int]
    first_s: float
    last_s: float


class Gallery(Protocol):
    """What every driver does; all methods raise GalleryError. An object may be used by several threads."""

    dim: int

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

    def delete(self, ids: Sequence[str] = (), filter: Filter | None = None) -> int:
        """Delete by id or by a filter, not both, and return how many rows went; unknown ids are none.

        What was deleted is no longer found but stays on the disk until `purge`. An empty filter is refused.
        """
        ...

    def count(self, filter: Filter = EVERYTHING) -> int: ...

    def search(
        self, vectors: np.ndarray, k: int, filter: Filter = EVERYTHING, with_vectors: bool = False
    ) -> list[list[Hit]]:
        """The k most alike of each query (Q, D), fewer where fewer pass the filter."""
        ...

    def fetch(self, ids: Sequence[str], missing: str = "refuse") -> list[Record]:
        """Records with vectors in the order of the ids; unknown ids raise, or are left out with missing="skip"."""
        ...

    def rows(self, filter: Filter = EVERYTHING, limit: int | None = None, after_id: str = "") -> Iterator[Record]:
        """Records without vectors by id, those after `after_id`; rows that change meanwhile may be old or new."""
        ...

    def optimize(self) -> None:
        """Build or extend what makes search fast; worth it after large additions."""
        ...

    def purge(self) -> None:
        """Remove deleted and replaced records from the disk for good, with every old version."""
        ...

    def close(self) -> None: ...


def open_gallery(url: str | Path, dim: int | None = None, bundle_digest: str | None = None) -> Gallery:
    """Open `memory:`, `lance:PATH` (or a bare path) or `milvus:URI`; one that is not there is made if `dim` is given.

    A gallery keeps the digest of the bundle that it was made with; opening it with another raises GalleryError, and so
    does another dim. None looks at neither.
    """
    if dim is not None and not 1 <= dim <= 32_768:  # Milvus's bound
        raise GalleryError(f"dim is the length of a vector, 1 to 32768, got {dim}")
    driver, place = split_url(str(url))
    if driver == "memory":
        from vireid.search.drivers.memory import MemoryGallery

        return MemoryGallery(dim, bundle_digest or "")
    if driver == "milvus":
        from vireid.search.drivers.milvus import MilvusGallery

        return MilvusGallery(place, dim, bundle_digest)
    from vireid.search.drivers.lance import LanceGallery

    return LanceGallery(Path(place), dim, bundle_digest)


def check_vectors(vectors: np.ndarray, dim: int) -> np.ndarray:
    """(N, D) float32; GalleryError unless every row is finite, of this length and of norm 1."""
    found = np.asarray(vectors)
    if found.ndim != 2 or found.shape[1] != dim or found.dtype.kind != "f":
        raise GalleryError(
            f"this gallery takes vectors (N, {dim}) of floats, got {found.shape} of {found.dtype}; were they made with "
            "the bundle that the gallery was made with?"
        )
    found = np.ascontiguousarray(found, np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", found, found, dtype=np.float64))
    if not np.isfinite(norms).all():
        raise GalleryError(f"vector {int(np.flatnonzero(~np.isfinite(norms))[0])} holds NaN or infinite numbers")
    if (off := np.abs(norms - 1) > UNIT_TOLERANCE).any():
        row = int(np.flatnonzero(off)[0])
        raise GalleryError(
            f"vector {row} has length {norms[row]:.4g}, expected 1; FeatureExtractor returns unit vectors, those of "
            "`vireid embed` are divided by their length first"
        )
    return found


def check_batch(records: Iterable[Record], dim: int) -> tuple[list[Record], np.ndarray]:
    """The records and their vectors (N, D); GalleryError for a wrong vector or an id that comes twice."""
    found = list(records)
    seen: set[str] = set()
    for record in found:
        if record.id in seen:
            raise GalleryError(f"id {record.id!r} comes twice in one call; every record has an id of its own")
        seen.add(record.id)
    shapes = {np.shape(record.vector) for record in found}
    if wrong := shapes - {(dim,)}:
        raise GalleryError(f"this gallery takes vectors of {dim} numbers, got {', '.join(map(str, sorted(wrong)))}")
    return found, check_vectors(np.stack([r.vector for r in found]) if found else np.zeros((0, dim), np.float32), dim)


def check_k(k: int) -> None:
    if k < 1 or k != int(k):
        raise GalleryError(f"k is the number of hits, 1 or more, got {k}")


def check_delete(ids: Sequence[str], filter: Filter | None) -> None:
    """GalleryError unless rows to delete are named, by ids or by a filter that is not empty."""
    if isinstance(ids, str):
        raise GalleryError(f"ids is a list of ids, got the text {ids[:40]!r}")
    if bool(len(ids)) == (filter is not None):
        raise GalleryError("delete takes ids or a filter, and not both")
    if filter is not None and filter.empty:
        raise GalleryError("an empty filter would delete everything; name a condition, or remove the gallery itself")


def check_stored(url: str, dim: int | None, digest: str | None, stored_dim: int, stored_digest: str) -> None:
    """GalleryError if a gallery is not for vectors of this length or this bundle."""
    if digest is not None and digest != stored_digest:
        whose = f"bundle {stored_digest[:12]}..." if stored_digest else "an unknown bundle"
        raise GalleryError(
            f"{url} holds embeddings of {whose}, this is {digest[:12]}...: vectors of two networks are not comparable. "
            "Use that bundle, or index the pictures again into a new gallery"
        )
    if dim is not None and dim != stored_dim:
        raise GalleryError(f"{url} holds vectors of {stored_dim} numbers, not {dim}; use the bundle it was made with")


def already_there(ids: Sequence[str]) -> GalleryError:
    named = ", ".join(repr(each) for each in ids[:3]) + (", ..." if len(ids) > 3 else "")
    return GalleryError(f"{len(ids)} of these ids are in the gallery already: {named}; upsert replaces them")


def check_missing(ids: Sequence[str], there: Container[str], missing: str) -> None:
    """GalleryError for unknown ids unless they are to be skipped."""
    if isinstance(ids, str) or missing not in ("refuse", "skip"):
        raise GalleryError(f"fetch takes a list of ids and missing is refuse or skip, got {ids[:3]!r} and {missing!r}")
    unknown = [each for each in ids if each not in there] if missing == "refuse" else []
    if unknown:
        named = ", ".join(repr(each) for each in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise GalleryError(f"{len(unknown)} of these ids are not in the gallery (deleted?): {named}")


def facets_of(rows: Iterable[tuple[str, int, float, Sequence[str]]]) -> Facets:
    """Facets by looking at camera, modality, time_s and tags of one row after the other."""
    cameras: Counter[str] = Counter()
    modalities: Counter[int] = Counter()
    tags: Counter[str] = Counter()
    first = last = math.nan
    for camera, modality, time_s, of_row in rows:
        cameras[camera] += 1
        modalities[int(modality)] += 1
        tags.update(of_row)
        first, last = (time_s, time_s) if math.isnan(first) else (min(first, time_s), max(last, time_s))
    counts = [dict(sorted(counter.items())) for counter in (cameras, modalities, tags)]
    return Facets(*counts, first, last)  # type: ignore[arg-type]


def no_gallery(url: str) -> GalleryError:
    return GalleryError(f"there is no gallery at {url}; `vireid index` makes one, or open_gallery with dim=")


def in_order(
    query: np.ndarray, records: Sequence[Record], vectors: np.ndarray, k: int, with_vectors: bool
) -> list[Hit]:
    """The k best of these candidates (n, D), exactly: the answer that all drivers agree on."""
    similarity = similarities(query, vectors)
    places = sorted(range(len(records)), key=lambda at: (-similarity[at], records[at].id))[:k]
    return [
        Hit(with_vector(records[at], vectors[at] if with_vectors else None), float(similarity[at])) for at in places
    ]


def similarities(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Cosine similarity (n,) float32 of a unit vector (D,) to others (n, D), summed in float64."""
    return np.einsum("nd,d->n", vectors, query, dtype=np.float64).astype(np.float32)


def with_vector(record: Record, vector: np.ndarray | None) -> Record:
    """The same record with this vector (a copy), or with none; its texts are not checked again."""
    found = object.__new__(Record)
    found.__dict__.update(record.__dict__, vector=NO_VECTOR if vector is None else np.array(vector, np.float32))
    return found


NO_VECTOR = np.zeros(0, np.float32)
NO_VECTOR.flags.writeable = False


def split_url(url: str) -> tuple[str, str]:
    """Driver and place of a gallery's url; a bare path is Lance's.

    >>> split_url("milvus:http://host:19530"), split_url("lance:a/b"), split_url("gallery"), split_url("memory:")
    (('milvus', 'http://host:19530'), ('lance', 'a/b'), ('lance', 'gallery'), ('memory', ''))
    """
    head, colon, rest = url.partition(":")
    if not colon or (len(head) == 1 and head.isalpha()):  # C:\gallery
        head, rest = "lance", url
    if head not in ("memory", "lance", "milvus"):
        raise GalleryError(
            f"a gallery is memory:, lance:PATH or milvus:URI, got {url!r}; write ./NAME for such a folder"
        )
    if (head == "memory") == bool(rest):
        raise GalleryError(f"memory: takes no path, lance: and milvus: need one; got {url!r}")
    if head == "lance" and "://" in rest:
        raise GalleryError(f"lance: takes a folder of this machine, got {rest!r}; object stores are not supported")
    return head, rest
