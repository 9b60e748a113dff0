"""Reindex: the rows of an archive again with another network, into a new archive; the old one stays as it is.

A row is embedded from its picture where that file still lies at its path with the same content. Else, and for rows of
videos, from its thumbnail (256 pixels; of `rows="tracks"` the best crop alone). A row that has neither is left out.
Which row was made from what stands in `reindex.csv` of the new folder of files. Run again, it resumes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vireid import images
from vireid.deploy.extractor import FeatureExtractor
from vireid.ingest import video
from vireid.ingest.index import index
from vireid.ingest.sources import Crop
from vireid.search.archive import THUMBNAILS, Archive
from vireid.search.backup import kept_files, snapshot
from vireid.search.gallery import Gallery, Record
from vireid.system import file_digest, replacing
from vireid.types import MODALITIES

LIST = "reindex.csv"


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
    is_picture = row.path and path.suffix.lower() not in video.SUFFIXES and path.is_file()
    if is_picture and (not row.digest or file_digest(path) == row.digest):
        return "picture"
    return "missing" if old.thumbnails.read(row.id) is None else "thumbnail"


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
