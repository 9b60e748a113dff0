"""Archive: a gallery and what belongs to its pictures: thumbnails, marks and the audit log; and how rows are deleted.

    GALLERY.files/            beside a gallery in a folder, or what --files names
        thumbnails/ab/ab...   one JPEG for each row, named by the sha256 of its id
        cases.sqlite          searches that were kept, with their pictures and notes (cases.py)
        marks.sqlite          which hits were marked right or wrong, by whom (marks.py)
        watch.sqlite          alarms and progress of `vireid watch` (live/store.py; alarm_rows.py deletes from it)
        audit.jsonl           who searched and deleted what (audit.py)
        thermal_ranges.json   cameras whose gray values of more than 8 bits have a range of their own (camera_gray.py)

Nothing that a user sends becomes part of a path: a thumbnail's name is a digest.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image

from vireid.errors import GalleryError
from vireid.images import read
from vireid.search.alarm_rows import NAME as ALARMS
from vireid.search.alarm_rows import AlarmRows
from vireid.search.audit import NAME as AUDIT
from vireid.search.audit import Audit
from vireid.search.camera_gray import CameraGray
from vireid.search.cases import NAME as CASES
from vireid.search.cases import CaseStore
from vireid.search.gallery import Filter, Gallery
from vireid.search.marks import NAME as MARKS
from vireid.search.marks import MarkStore
from vireid.wording import counted

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
    """What a deletion removed; `cases_left` names the cases that still hold pictures of the person."""

    rows: int
    thumbnails: int
    marks: int
    alarms: int = 0
    cases_changed: int = 0
    cases_deleted: int = 0
    cases_left: tuple[str, ...] = ()

    def __str__(self) -> str:
        """
        >>> print(Forgotten(8, 8, 1))
        8 rows, 8 thumbnails, 1 mark, 0 alarms and 0 cases
        """
        numbers = {"row": self.rows, "thumbnail": self.thumbnails, "mark": self.marks, "alarm": self.alarms}
        listed = ", ".join(counted(number, noun) for noun, number in numbers.items())
        return f"{listed} and {counted(self.cases_deleted, 'case')}"

    @property
    def any(self) -> bool:
        """Whether there was anything to delete."""
        return self != Forgotten(0, 0, 0)


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
        self.cases = CaseStore(self.folder / CASES)
        self.audit = Audit(self.folder / AUDIT)
        self.alarms = AlarmRows(self.folder / ALARMS)
        self.gray = CameraGray(self.folder, self.gallery.gray)
        self._deleting = threading.Lock()

    def forget(self, ids: Sequence[str] = (), where: Filter | None = None) -> Forgotten:
        """Delete rows by ids or by a filter for good, with vectors, thumbnails, marks, alarms and what cases hold.

        Rows go last: where this is stopped half-way, they are still there, and the same call finishes it.
        """
        if where is not None and where.empty:
            raise GalleryError("an empty filter would delete everything; name a camera, an identity, a track or a time")
        rows = thumbnails = marks = alarms = 0
        with self._deleting:
            named, digests = self._named(ids, where)  # all first: rows must not change under the one who lists them
            cases = self.cases.forget(set(named), digests)
            for piece in _pieces(iter(named), CHUNK):
                thumbnails += self.thumbnails.remove(piece)
                marks += self.marks.forget(piece)
                alarms += self.alarms.forget(piece)
                rows += self.gallery.delete(ids=piece)
            if where is not None:
                rows += self.gallery.delete(where=where)  # rows that came meanwhile
            self.gallery.purge()
        return Forgotten(rows, thumbnails, marks, alarms, cases.changed, cases.deleted, cases.left)

    def _named(self, ids: Sequence[str], where: Filter | None) -> tuple[list[str], set[str]]:
        """The ids of the rows to delete, and the digests of their pictures that cases hold too."""
        in_cases = self.cases.digests()
        if where is None:
            pieces = _pieces(iter(ids), CHUNK) if in_cases else ()
            records = (record for piece in pieces for record in self.gallery.fetch(piece, missing="skip"))
            return list(ids), {record.digest for record in records} & in_cases
        named, digests = list[str](), set[str]()
        for record in self.gallery.rows(where):
            named.append(record.id)
            if record.digest in in_cases:
                digests.add(record.digest)
        return named, digests

    def forget_older(self, days: float, now: float | None = None) -> tuple[Forgotten, int]:
        """Retention: forget rows whose time is more than `days` ago, and marks and cases made before.

        The second value counts the rows of unknown time, which no rule about age can reach.
        """
        if not 0 < days < math.inf:
            raise GalleryError(f"retention is a number of days above 0, got {days}")
        end = (time.time() if now is None else now) - days * DAY_S
        old = Filter(before_s=end)
        deleted = self.cases.forget_before(end)
        gone = self.forget(where=old) if self.gallery.count(old) else Forgotten(0, 0, 0)
        marks, alarms = self.marks.forget_before(end), self.alarms.forget_before(end)
        gone = replace(
            gone,
            marks=gone.marks + marks,
            alarms=gone.alarms + alarms,
            cases_deleted=gone.cases_deleted + deleted,
        )
        return gone, self.gallery.count() - self.gallery.count(Filter(after_s=end))

    def close(self) -> None:
        self.cases.close()
        self.marks.close()
        self.gallery.close()


def jpeg_of(picture: Image.Image) -> bytes:
    """A small JPEG of a picture, as thumbnails are."""
    small, file = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    small.save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()


def files_of(url: str, files: Path | None) -> Path:
    """Where an archive's files lie: beside a gallery that is a folder, else where the user says."""
    if files is not None:
        return files
    head, colon, rest = url.partition(":")
    if head in ("memory", "milvus") and colon:
        raise GalleryError(f"{url} is not a folder; say with --files where to keep thumbnails, marks and the audit log")
    place = Path(rest if head == "lance" and colon else url)
    place = place if place.name else place.resolve()  # of `.`
    if not url or not place.name:
        raise GalleryError(f"expected the path of a gallery, got {url!r}")
    return place.with_name(place.name + FILES)


def _pieces(items: Iterator[ItemT], size: int) -> Iterator[list[ItemT]]:
    while piece := list(islice(items, size)):
        yield piece
