"""Index: pictures and videos into an archive: vectors into the gallery, thumbnails beside it.

What is to be indexed comes in pieces, worked one after the other here and by many processes in ray.py.
Whatever is there already (identity.py) is left alone, so the same command resumes where it was stopped: a row's
thumbnail is written before the row, and a batch of rows is there as a whole or not at all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from vireid.deploy.extractor import FeatureExtractor
from vireid.errors import PictureError, SourceError
from vireid.images import SUFFIXES
from vireid.ingest import video
from vireid.ingest.boxes_check import check_boxes
from vireid.ingest.detect import located
from vireid.ingest.folder import LeftOut, list_folder
from vireid.ingest.identity import Place, named_apart, places
from vireid.ingest.segments import Segment, Source, segments_of
from vireid.ingest.sources import Crop, Pictures, Piece, crops_of
from vireid.ingest.video_settings import Rows, VideoSettings
from vireid.search.archive import THUMBNAIL_PX, Archive
from vireid.search.gallery import Record
from vireid.system import printable
from vireid.types import ModalityOrAuto
from vireid.wording import counted

log = logging.getLogger(__name__)
BATCH = 256  # crops that are opened and written together
STEP = 1000  # pictures from one line of progress to the next


@dataclass(frozen=True)
class Indexed:
    """Rows that were added and that were there already; pictures that could not be read and pieces that failed.

    `refused` and `failed` hold the reasons. One process raises where a piece fails; many finish the other pieces first.
    `beside` of the added rows have the name of another picture, `left_out` files of a folder are not pictures.
    """

    added: int
    present: int
    refused: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    beside: int = 0
    left_out: int = 0

    def __str__(self) -> str:
        """
        >>> print(Indexed(3, 1, refused=("a.jpg: broken",), beside=1))
        added 3 pictures; 1 was in the gallery; 1 could not be read
        1 has the name of another picture in the gallery; both are kept
        """
        parts = [f"added {counted(self.added, 'picture')}"]
        if self.present or not self.added:
            parts.append(f"{self.present:,} {'was' if self.present == 1 else 'were'} in the gallery")
        if self.refused:
            parts.append(f"{len(self.refused):,} could not be read")
        if self.left_out:
            parts.append(f"{counted(self.left_out, 'file')} left out")
        lines = ["; ".join(parts)]
        if self.beside:
            have = "has the name" if self.beside == 1 else "have the names"
            lines.append(f"{self.beside:,} {have} of another picture in the gallery; both are kept")
        return "\n".join(lines)

    def __add__(self, other: Indexed) -> Indexed:
        return Indexed(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def pieces_of(
    source: Path,
    *,
    file_time: bool = False,
    modality: ModalityOrAuto = "auto",
    videos: VideoSettings | None = None,
    start_s: float = math.nan,
    store: Path | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Piece]:
    """A folder, a CSV or a video in pieces: BATCH pictures, ten minutes of video.

    `file_time` takes the time of a file for that of its picture. `videos` says how people become crops in videos,
    `start_s` is the first moment of the only one, and boxes that are crops are kept in the folder `store`. Boxes from a
    file are checked against all videos before the first piece. `left_out` receives the files of a folder that are not
    taken. Raises SourceError, BoxesError and DetectorError.
    """
    if not math.isnan(start_s) and source.suffix.lower() not in video.SUFFIXES:
        raise SourceError(
            f"a start is for one video, got {source}; name the files by their time, or list them in a CSV"
        )
    videos = videos or VideoSettings()
    if videos.detector is not None:
        videos = replace(videos, detector=located(videos.detector))  # once, also for workers that start elsewhere

    suffixes = (*SUFFIXES, *video.SUFFIXES)
    listing = list_folder(source, suffixes) if source.is_dir() else None
    if listing is not None and left_out is not None:
        left_out.take_over(listing.left_out)

    def listed() -> Iterator[Crop]:
        return crops_of(source, file_time=file_time, modality=modality, suffixes=suffixes, listing=listing)

    def source_of(crop: Crop) -> Source:
        names = (crop.id.removeprefix(f"{source.resolve().name}/"), crop.id)
        return Source(crop.id, names, crop.path, crop.camera, crop.time_s, crop.modality, crop.pid, crop.tags)

    def of(crop: Crop) -> Iterator[Piece | Crop]:
        if crop.path.suffix.lower() not in video.SUFFIXES:
            yield crop
        else:
            yield from segments_of(source_of(crop), videos, store)

    crops = listed()
    if videos.boxes is not None:
        films = [crop for crop in listed() if crop.path.suffix.lower() in video.SUFFIXES]
        check_boxes(source, [source_of(crop) for crop in films], videos)
    if not math.isnan(start_s):
        crops = (replace(crop, time_s=start_s) for crop in crops)
    yield from _pieces(part for crop in crops for part in of(crop))


def index(
    archive: Archive,
    extractor: FeatureExtractor,
    pieces: Iterable[Piece | Crop],
    *,
    rows: Rows = "crops",
    overwrite: bool = False,
) -> Indexed:
    """Add pieces, or loose crops, to an archive; rows that exist are kept, or replaced with `overwrite`."""
    indexed = Indexed(0, 0)
    for piece in _pieces(pieces):
        if not isinstance(piece, Pictures):
            log.info("video segment %s", printable(piece.name))  # ten minutes of video may take as long
        new = index_piece(archive, extractor, piece, rows=rows, overwrite=overwrite)
        indexed += new
        if indexed.added // STEP > (indexed.added - new.added) // STEP:
            log.info("indexed %s", counted(indexed.added, "picture"))
    archive.gallery.optimize()
    return indexed


def index_piece(
    archive: Archive, extractor: FeatureExtractor, piece: Piece, *, rows: Rows = "crops", overwrite: bool = False
) -> Indexed:
    """Add one piece: up to BATCH rows at a time, each time all of them or none.

    With `rows="tracks"` the crops of a `Crop.row` become one row: its vector the L2-normalized mean of theirs, its
    thumbnail the best crop, its modality that of most of them, its time and the rest those of the first.
    """
    added, beside, there, refused = 0, 0, set[str](), list[str]()
    made: dict[str, _Row] = {}
    if isinstance(piece, Segment):
        piece = named_apart(archive.gallery, piece)
    for batch in _batches(piece, refused):
        named = [(crop, crop.row if rows == "tracks" and crop.row else crop.id) for crop in batch]
        begun = [Place(crop, name, crop.digest) for crop, name in named if name in made]
        unknown = [(crop, name) for crop, name in named if name not in made and name not in there]
        new, present = places(archive.gallery, unknown, overwrite, refused)
        there |= present
        beside += sum(place.beside for place in new)
        for place, picture, vector, kind in _embedded(archive, extractor, [*begun, *new], refused):
            row = made.setdefault(place.row_id, _Row(place.crop.record(place.row_id, place.digest)))
            row.take(picture, place.crop.quality, vector, kind)
        if rows == "crops":
            added += _write(archive, made)
            made = {}
    added += _write(archive, made)
    return Indexed(added, len(there), tuple(refused), beside=beside)


def _embedded(
    archive: Archive, extractor: FeatureExtractor, places: list[Place], refused: list[str]
) -> Iterator[tuple[Place, Image.Image, np.ndarray, int]]:
    """The crops that can be read, with their vectors and modality."""
    opened: list[tuple[Place, Image.Image]] = []
    given = {place.crop.camera: place.crop.thermal_range for place in places}
    archive.gray.add({name: ends for name, ends in given.items() if ends is not None}, archive.gallery)
    rules = {camera: archive.gray.of(camera) for camera in given}
    for place in places:
        try:
            opened.append((place, place.crop.open(rules[place.crop.camera])))
        except PictureError as error:
            refused.append(str(error))
    parts = extractor.batches([picture for _, picture in opened], [place.crop.modality for place, _ in opened])
    vectors = [(vector, int(kind)) for part in parts for vector, kind in zip(*part, strict=True)]
    for (place, picture), (vector, kind) in zip(opened, vectors, strict=True):
        yield place, picture, vector, kind


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
