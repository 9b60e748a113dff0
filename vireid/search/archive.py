"""Archive: a gallery and what belongs to its pictures: thumbnails, marks and the audit log; and how rows are deleted.

    GALLERY.files/            beside a gallery in a folder, or what --files names
        thumbnails/ab/ab...   one JPEG for each row, named by the sha256 of its id
        marks.sqlite          which hits were marked right or wrong, by whom (marks.py)
        audit.jsonl           who searched and deleted what (audit.py)

Nothing that a user sends becomes part of a path: a thumbnail's name is a digest.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image

from vireid.errors import GalleryError
from vireid.images import read
from vireid.search.audit import NAME as AUDIT
from vireid.search.audit import Audit
from vireid.search.gallery import Filter, Gallery
from vireid.search.marks import NAME as MARKS
from vireid.search.marks import MarkStore

log = logging.getLogger(__name__)
FILES, THUMBNAILS = ".files", "thumbnails"
THUMBNAIL_PX, THUMBNAIL_QUALITY = 256, 88  # of the longer side; 6 to 9 kB for a person
CHUNK = 1000  # ids at a time
DAY_S = 86400.0
ItemT = TypeVar("ItemT")


class Thumbnails:
    """Small pictures by the id of their row, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def name(self, row_id: str) -> str:
        """Where the thumbnail of an id lies, relative to the folder."""
        digest = hashlib.sha256(row_id.encode()).hexdigest()
        return f"{digest[:2]}/{digest}.jpg"

    def write(self, row_id: str, picture: Image.Image) -> str:
        """Scale a picture down, keep it and return its name."""
        name = self.name(row_id)
        small = read(picture)
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")  # no fsync: a thumbnail can be made again, and there are millions
        small.save(partial, "JPEG", quality=THUMBNAIL_QUALITY)
        try:
            partial.replace(path)
        except FileNotFoundError:  # another process, which works the same picture, was faster
            if not path.is_file():
                raise
        return name

    def read(self, row_id: str) -> bytes | None:
        """The JPEG of an id, None where there is none."""
        try:
            return (self.folder / self.name(row_id)).read_bytes()
        except (FileNotFoundError, UnicodeEncodeError):
            return None

    def remove(self, ids: Iterable[str]) -> int:
        gone = 0
        for row_id in ids:
            path = self.folder / self.name(row_id)
            path.with_suffix(".partial").unlink(missing_ok=True)  # of a process that was killed
            try:
                path.unlink()
                gone += 1
            except FileNotFoundError:
                continue
        return gone


@dataclass(frozen=True)
class Forgotten:
    """What a deletion removed."""

    rows: int
    thumbnails: int
    marks: int


@dataclass
class Archive:
    """A gallery with its folder of files."""

    gallery: Gallery
    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir() and (rows := self.gallery.count()):
            log.warning(
                "the gallery has %d rows and %s is not there: their thumbnails, marks and audit log are missing, and "
                "a new log begins; move that folder to the gallery, or say with --files where it lies",
                rows,
                self.folder,
            )
        self.thumbnails = Thumbnails(self.folder / THUMBNAILS)
        self.marks = MarkStore(self.folder / MARKS)
        self.audit = Audit(self.folder / AUDIT)
        self._deleting = threading.Lock()

    def forget(self, ids: Sequence[str] = (), where: Filter | None = None) -> Forgotten:
        """Delete rows by ids or by a filter, with their vectors, thumbnails and marks, for good: nothing can be undone.

        Thumbnails go first: where this is stopped half-way, the rows are still there, and the same call finishes it.
        """
        if where is not None and where.empty:
            raise GalleryError("an empty filter would delete everything; name a camera, an identity, a track or a time")
        rows = thumbnails = marks = 0
        with self._deleting:
            named = iter(ids) if where is None else (record.id for record in self.gallery.rows(where))
            pieces = list(_pieces(named, CHUNK))  # all names first: rows must not change under the one who lists them
            for piece in pieces:
                thumbnails += self.thumbnails.remove(piece)
                marks += self.marks.forget(piece)
                rows += self.gallery.delete(ids=piece)
            if where is not None:
                rows += self.gallery.delete(where=where)  # rows that came meanwhile
            self.gallery.purge()
        return Forgotten(rows, thumbnails, marks)

    def forget_older(self, days: float, now: float | None = None) -> tuple[Forgotten, int]:
        """Retention: forget rows whose time is more than `days` ago, and marks made before; and rows of unknown time.

        The second number counts the rows of unknown time, which no rule about age can reach.
        """
        if not 0 < days < math.inf:
            raise GalleryError(f"retention is a number of days above 0, got {days}")
        end = (time.time() if now is None else now) - days * DAY_S
        old = Filter(before_s=end)
        gone = self.forget(where=old) if self.gallery.count(old) else Forgotten(0, 0, 0)
        gone = Forgotten(gone.rows, gone.thumbnails, gone.marks + self.marks.forget_before(end))
        return gone, self.gallery.count() - self.gallery.count(Filter(after_s=end))

    def close(self) -> None:
        self.marks.close()
        self.gallery.close()


def files_of(url: str, files: Path | None) -> Path:
    """Where an archive's files lie: beside a gallery that is a folder, else where the user says."""
    if files is not None:
        return files
    head, colon, rest = url.partition(":")
    if head in ("memory", "milvus") and colon:
        raise GalleryError(f"{url} is not a folder; say with --files where to keep thumbnails, marks and the audit log")
    place = Path(rest if head == "lance" and colon else url)
    return place.with_name(place.name + FILES)


def _pieces(items: Iterator[ItemT], size: int) -> Iterator[list[ItemT]]:
    while piece := list(islice(items, size)):
        yield piece
