"""Reindex: the rows of an archive again with another network, into a new archive; the old one stays as it is.

A row is embedded from its picture where that file still lies at its path with the same content. Else, and for rows that
were cut out of videos and frames, from its thumbnail (256 pixels; of `rows="tracks"` the best crop alone). A row that
has neither is left out. A row without a digest (of 0.1, and of `vireid watch`) is compared with its picture by its
thumbnail, for the file may be the frame that it was cut out of.
Which row was made from what stands in `reindex.csv` of the new folder of files. Run again, it resumes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vireid import images
from vireid.deploy.extractor import FeatureExtractor
from vireid.errors import PictureError
from vireid.images import GrayRule
from vireid.ingest import video
from vireid.ingest.index import index
from vireid.ingest.sources import Crop
from vireid.search.archive import THUMBNAILS, Archive, jpeg_of
from vireid.search.backup import kept_files, snapshot
from vireid.search.gallery import Gallery, Record
from vireid.system import file_digest, replacing
from vireid.types import MODALITIES

LIST = "reindex.csv"
MAX_DIFFERENCE = 2.0  # on average, of 255 levels, between two thumbnails of one picture by two versions of Pillow


@dataclass
class Reindexed:
    """How many rows were made from their pictures and from thumbnails; `missing` and `refused` were left out."""

    pictures: int = 0
    thumbnails: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: tuple[str, ...] = ()
    added: int = 0


def reindex(old: Archive, gallery: Gallery, folder: Path, extractor: FeatureExtractor, who: str) -> Reindexed:
    """Embed all rows of `old` into a gallery that was made for the extractor; other files are copied into `folder`."""
    done = Reindexed()
    folder.mkdir(parents=True, exist_ok=True)
    _copy_files(old.folder, folder)
    new = Archive(gallery, folder)
    new.audit.write("reindex", who, "admin", rows_of=old.gallery.info().url)
    with replacing(new.folder / LIST) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "from", "path"])
        indexed = index(new, extractor, _crops(old, done, writer))
    for row_id in done.thumbnails:  # as they were: a JPEG that is written again loses a little each time
        if (jpeg := old.thumbnails.read(row_id)) is not None and new.thumbnails.read(row_id) is not None:
            (new.thumbnails.folder / new.thumbnails.name(row_id)).write_bytes(jpeg)
    new.close()
    done.added, done.refused = indexed.added, indexed.refused
    return done


def source_of(old: Archive, row: Record) -> str:
    """picture, thumbnail or missing: from what a row can be embedded."""
    path = Path(row.path)
    jpeg = old.thumbnails.read(row.id)
    if row.path and path.suffix.lower() not in video.SUFFIXES and path.is_file():
        if row.digest and file_digest(path) == row.digest:
            return "picture"
        if not row.digest and jpeg is not None and _is_of(path, jpeg, old.gray.of(row.camera)):
            return "picture"
    return "missing" if jpeg is None else "thumbnail"


def _is_of(path: Path, jpeg: bytes, gray: GrayRule) -> bool:
    """Whether a thumbnail shows the whole of a picture file."""
    try:
        shown = jpeg_of(images.read(path, gray=gray))
        made, kept = (np.asarray(images.read(each, "a thumbnail"), np.float32) for each in (shown, jpeg))
    except PictureError:
        return False
    return made.shape == kept.shape and float(np.abs(made - kept).mean()) < MAX_DIFFERENCE


def _crops(old: Archive, done: Reindexed, writer: Any) -> Iterator[Crop]:
    for row in old.gallery.rows():
        source = source_of(old, row)
        writer.writerow([row.id, source, row.path])
        if source == "missing":
            done.missing.append(row.id)
            continue
        if source == "picture":
            done.pictures += 1
        else:
            done.thumbnails.append(row.id)

        def shown(row_id: str = row.id) -> Image.Image:
            return images.read(old.thumbnails.read(row_id) or b"", f"the thumbnail of {row_id}")

        yield Crop(
            id=row.id, path=Path(row.path), camera=row.camera, time_s=row.time_s, modality=MODALITIES[row.modality],
            track=row.track, pid=row.pid, tags=row.tags, picture=None if source == "picture" else shown,
            digest=row.digest, has_own_id=True,
        )  # fmt: skip


def _copy_files(old: Path, new: Path) -> None:
    """All files but thumbnails, where the new folder does not have them: marks, audit log, boxes, progress of watch."""
    for name in kept_files(old):
        to = new / name
        if not name.startswith(f"{THUMBNAILS}/") and not to.is_file() and name != LIST:
            to.parent.mkdir(parents=True, exist_ok=True)
            with replacing(to) as partial:
                partial.write_bytes(snapshot(old / name))
