"""Index: a folder or a list of one's own crops into an archive: vectors into the gallery, thumbnails beside it.

Folder: every .jpg, .jpeg, .png, .webp and .bmp below it. The first folder on the way to a picture is its camera:

    PICTURES/gate/2026-11-24/0001.jpg      camera "gate"; a picture that lies in PICTURES itself has camera "PICTURES"

List: a CSV with a header; `path` is needed, everything else may be left out:

    path       relative to the list, or absolute          camera     any text
    time       2026-11-24T21:04:11+01:00, or Unix seconds; without a zone it is this machine's
    modality   visible, infrared or auto                  track, pid any text
    tags       separated by |                             id         the path by default

What is to be indexed comes in pieces, worked one after the other here and by many processes in serve/scale.py.
Whatever is there already is left alone, so the same command goes on where it was stopped: a row's thumbnail is written
before the row, and a batch of rows is there as a whole or not at all.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from vireid.serve.archive import THUMBNAIL_PX, Archive
from vireid.serve.extractor import FeatureExtractor, Modality, PictureError, read_picture
from vireid.serve.gallery import NO_VECTOR, VISIBLE, GalleryError, Record

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
COLUMNS = ("path", "camera", "time", "modality", "track", "pid", "tags", "id")
BATCH = 256  # crops that are opened and written together
MODALITIES: tuple[Modality, ...] = ("visible", "infrared", "auto")

Rows = Literal["crops", "tracks"]


class NotIndexed(ValueError):
    """What was given to index is no folder or list of pictures; the message says what to do."""


@dataclass(frozen=True)
class Crop:
    """One picture to index.

    `picture` is given, or made when it is asked for, where the crop is no file. Crops of the same `row` become one row
    with `rows="tracks"`, of which the crop of the highest `quality` is shown.
    """

    id: str
    path: Path
    camera: str
    time_s: float = math.nan
    modality: Modality = "auto"
    track: str = ""
    pid: str = ""
    tags: tuple[str, ...] = ()
    picture: Image.Image | Callable[[], Image.Image] | None = None
    row: str = ""
    quality: float = 0.0

    def open(self) -> Image.Image:
        """The picture as RGB; raises PictureError."""
        if isinstance(self.picture, Image.Image):
            return self.picture.convert("RGB")
        found = read_picture(self.path, str(self.path)) if self.picture is None else self.picture()
        return found.convert("RGB")

    def record(self, id: str) -> Record:
        """Its row, with no vector yet; raises GalleryError for a text that no gallery keeps."""
        return Record(
            id=id, vector=NO_VECTOR, camera=self.camera, time_s=self.time_s, modality=VISIBLE, path=str(self.path),
            track=self.track, pid=self.pid, tags=self.tags,
        )  # fmt: skip


class Piece(Protocol):
    """A part of what is to be indexed, worked as a whole: small, holds no pictures, can be sent to another process."""

    @property
    def name(self) -> str:
        """Unique within the source, the same in every run."""
        ...

    def crops(self) -> Iterator[Crop]:
        """The same ids in the same order in every run; PictureError, at last, for what could not be read."""
        ...


@dataclass(frozen=True)
class Pictures:
    """A piece of picture files."""

    listed: tuple[Crop, ...]

    @property
    def name(self) -> str:
        digest = hashlib.sha256("\0".join(crop.id for crop in self.listed).encode(errors="surrogateescape"))
        return f"{self.listed[0].id} and {len(self.listed) - 1} more, {digest.hexdigest()[:12]}"

    def crops(self) -> Iterator[Crop]:
        yield from self.listed


@dataclass(frozen=True)
class Indexed:
    """Rows that were added and that were there already; pictures that could not be read and pieces that failed.

    Of both the reason is told. One process raises where a piece fails; many end the others first.
    """

    added: int
    present: int
    refused: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def __add__(self, other: Indexed) -> Indexed:
        counts = self.added + other.added, self.present + other.present
        return Indexed(*counts, self.refused + other.refused, self.failed + other.failed)


def pieces_of(source: Path, *, file_time: bool = False, modality: Modality = "auto") -> Iterator[Piece]:
    """A folder or a CSV in pieces of BATCH pictures; `file_time` takes the time of a file for that of its picture."""
    yield from _pieces(crops_of(source, file_time=file_time, modality=modality))


def crops_of(source: Path, *, file_time: bool = False, modality: Modality = "auto") -> Iterator[Crop]:
    """The crops of a folder or a CSV; `file_time` takes the time of a file for that of its picture."""
    if source.is_dir():
        found = _of_folder(source)
    elif source.suffix.lower() == ".csv" and source.is_file():
        found = _of_list(source)
    else:
        raise NotIndexed(f"{source} is no folder and no .csv; give the folder of your pictures, or a list of them")
    for crop in found:
        if math.isnan(crop.time_s) and file_time and crop.path.is_file():
            crop = replace(crop, time_s=crop.path.stat().st_mtime)
        yield replace(crop, modality=modality) if crop.modality == "auto" else crop


def index(
    archive: Archive,
    extractor: FeatureExtractor,
    pieces: Iterable[Piece | Crop],
    *,
    rows: Rows = "crops",
    again: bool = False,
    say: Callable[[str], None] = print,
) -> Indexed:
    """Add pieces, or loose crops, to an archive. `again` replaces rows that are there; else they stay as they are."""
    found = Indexed(0, 0)
    for piece in _pieces(pieces):
        new = index_piece(archive, extractor, piece, rows=rows, again=again)
        found += new
        if new.added:
            say(f"indexed {found.added} pictures" + (f", {found.present} were there" if found.present else ""))
    archive.gallery.optimize()
    return found


def index_piece(
    archive: Archive, extractor: FeatureExtractor, piece: Piece, *, rows: Rows = "crops", again: bool = False
) -> Indexed:
    """Add one piece: up to BATCH rows at a time, each time all of them or none.

    With `rows="tracks"` the crops of a `Crop.row` become one row: its vector the L2-normalized mean of theirs, its
    thumbnail the best crop, its modality that of most of them, its time and the rest those of the first.
    """
    added, there, refused = 0, set[str](), list[str]()
    made: dict[str, _Row] = {}
    for batch in _batches(piece, refused):
        row_of = {crop.id: crop.row if rows == "tracks" and crop.row else crop.id for crop in batch}
        if not again:
            asked = set(row_of.values()) - there - set(made)
            there |= {record.id for record in archive.gallery.fetch(sorted(asked), missing="skip")}
        opened: list[tuple[Crop, Record, Image.Image]] = []
        for crop in batch:
            if row_of[crop.id] not in there:
                try:
                    opened.append((crop, crop.record(row_of[crop.id]), crop.open()))
                except (PictureError, GalleryError) as error:
                    refused.append(str(error))
        parts = extractor.batches([picture for *_, picture in opened], [crop.modality for crop, *_ in opened])
        vectors = [(vector, int(kind)) for part in parts for vector, kind in zip(*part, strict=True)]
        for (crop, record, picture), (vector, kind) in zip(opened, vectors, strict=True):
            made.setdefault(record.id, _Row(record)).take(picture, crop.quality, vector, kind)
        if rows == "crops":
            added += _write(archive, made)
            made = {}
    added += _write(archive, made)
    return Indexed(added, len(there), tuple(refused))


@dataclass
class _Row:
    """A row while its crops come."""

    blank: Record
    vectors: list[np.ndarray] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    best: Image.Image | None = None
    quality: float = -math.inf

    def take(self, picture: Image.Image, quality: float, vector: np.ndarray, kind: int) -> None:
        self.vectors.append(vector)
        self.kinds.append(kind)
        if quality > self.quality:
            self.best, self.quality = picture, quality
            picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)  # it has been embedded

    def record(self, archive: Archive) -> Record:
        """The complete row, whose thumbnail has been written."""
        vector = self.vectors[0]
        if len(self.vectors) > 1:
            mean = np.mean(self.vectors, axis=0, dtype=np.float64)
            vector = (mean / np.linalg.norm(mean)).astype(np.float32)
        assert self.best is not None
        kind = int(2 * sum(self.kinds) > len(self.kinds))  # INFRARED is 1
        thumbnail = archive.thumbnails.write(self.blank.id, self.best)
        return replace(self.blank, vector=vector, modality=kind, thumbnail=thumbnail)


def _write(archive: Archive, made: dict[str, _Row]) -> int:
    """Write rows that are complete, thumbnails first, and return how many."""
    stream = iter(made.values())
    while batch := list(islice(stream, BATCH)):
        archive.gallery.upsert([row.record(archive) for row in batch])
    return len(made)


def _batches(piece: Piece, refused: list[str]) -> Iterator[list[Crop]]:
    """The crops of a piece, up to BATCH of different ids at a time, until it ends or cannot be read further."""
    batch: dict[str, Crop] = {}
    try:
        for crop in piece.crops():
            batch[crop.id] = crop
            if len(batch) == BATCH:
                yield list(batch.values())
                batch = {}
    except PictureError as error:
        refused.append(str(error))
    if batch:
        yield list(batch.values())


def _pieces(mixed: Iterable[Piece | Crop]) -> Iterator[Piece]:
    """Pieces as they are, and loose crops in pieces of BATCH."""
    loose: list[Crop] = []
    for each in mixed:
        if isinstance(each, Crop):
            loose.append(each)
        if loose and (len(loose) == BATCH or not isinstance(each, Crop)):
            yield Pictures(tuple(loose))
            loose = []
        if not isinstance(each, Crop):
            yield each
    if loose:
        yield Pictures(tuple(loose))


def _of_folder(root: Path) -> Iterator[Crop]:
    found = False
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        found = True
        inside = path.relative_to(root)
        camera = inside.parts[0] if len(inside.parts) > 1 else root.resolve().name
        yield Crop(f"{root.resolve().name}/{inside.as_posix()}", path.resolve(), camera)
    if not found:
        raise NotIndexed(f"{root} holds no picture ({', '.join(SUFFIXES)}); give the folder of your pictures")


def _of_list(path: Path) -> Iterator[Crop]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            if "path" not in header or (unknown := sorted(set(header) - set(COLUMNS))):
                told = f"unknown columns {', '.join(unknown)}" if "path" in header else "no column `path`"
                raise NotIndexed(f"{path} has {told}; a list has {', '.join(COLUMNS)}, of which only path is needed")
            reader.fieldnames = header
            for line in reader:
                yield _crop(path, reader.line_num, {key: (value or "").strip() for key, value in line.items() if key})
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotIndexed(f"{path} cannot be read: {error}; save it as CSV in UTF-8") from None


def _crop(list_path: Path, number: int, cells: dict[str, str]) -> Crop:
    modality = cells.get("modality", "").lower() or "auto"
    if modality not in MODALITIES:
        raise NotIndexed(f"{list_path}, line {number}: modality is {', '.join(MODALITIES)}, got {modality!r}")
    if not cells["path"]:
        raise NotIndexed(f"{list_path}, line {number}: there is no path")
    tags: Sequence[str] = [tag.strip() for tag in cells.get("tags", "").split("|") if tag.strip()]
    return Crop(
        id=cells.get("id") or Path(cells["path"]).as_posix(),
        path=list_path.parent / cells["path"],
        camera=cells.get("camera") or list_path.stem,
        time_s=_seconds(cells.get("time", ""), f"{list_path}, line {number}"),
        modality=modality,
        track=cells.get("track", ""),
        pid=cells.get("pid", ""),
        tags=tuple(dict.fromkeys(tags)),
    )


def _seconds(text: str, where: str) -> float:
    """Unix seconds of a date or a number; nan for nothing."""
    if not text:
        return math.nan
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise NotIndexed(f"{where}: time is like 2026-11-24T21:04:11+01:00 or Unix seconds, got {text!r}") from error
