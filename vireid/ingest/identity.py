"""Identity: which row of a gallery a picture or a video is: its name and its content, wherever its folder lies.

    name      the path below the indexed folder, with the folder's own name; in a list its `id`, or else its path
    content   sha256 of a picture's file; of a video that of a part (`video_digest`), so that one that grows is the same

The same name with the same content is the same row, so a folder may be moved, or named by another spelling. Another
picture of the same name (a second day's folder, a recorder that counts from 1 again, a file that was replaced) is kept
beside the first one: NAME/0001.jpg becomes NAME~DIGEST/0001.jpg. An `id` that a list chooses is not changed; such a
picture is refused. A row without a digest (of version 0.1) is compared by its path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vireid.errors import GalleryError, PictureError
from vireid.ingest.segments import Segment
from vireid.ingest.sources import Crop
from vireid.search.gallery import Gallery, Record

LETTERS = 12  # of a digest in a name
HEADER, PART = 64 << 10, 1 << 20  # bytes of a video that are passed over, and that are read


@dataclass(frozen=True)
class Place:
    """A crop that is not in the gallery yet, and the row that it becomes; `beside` another picture of its name."""

    crop: Crop
    row_id: str
    digest: str
    beside: bool = False


def other_name(name: str, digest: str) -> str:
    """The name of a second picture of the same name.

    >>> other_name("crops/gate/1.jpg", "9f86d081884c7d65"), other_name("1.jpg", "9f86d081884c7d65")
    ('crops~9f86d081884c/gate/1.jpg', '~9f86d081884c/1.jpg')
    """
    head, slash, rest = name.partition("/")
    return f"{head}~{digest[:LETTERS]}/{rest}" if slash else f"~{digest[:LETTERS]}/{name}"


def video_digest(path: Path) -> str:
    """sha256 of a megabyte behind the header of a video, which stays when the recording continues; "" if unreadable."""
    try:
        with path.open("rb") as file:
            file.seek(HEADER if path.stat().st_size >= HEADER + PART else 0)
            return hashlib.sha256(file.read(PART)).hexdigest()
    except OSError:  # reported when its frames are read
        return ""


def named_apart(gallery: Gallery, segment: Segment) -> Segment:
    """The segment, under another name where the gallery holds another video of its name."""
    source = segment.source
    digest = video_digest(source.path)
    other = other_name(source.id, digest)
    for name in (other, source.id):
        first = next(gallery.rows(limit=1, after_id=f"{name}#"), None)
        if first is not None and first.id.startswith(f"{name}#"):
            is_same = name == other or first.path == str(source.path) or first.digest == digest
            return replace(segment, source=replace(source, id=name if is_same else other, digest=digest))
    return replace(segment, source=replace(source, digest=digest))


def places(
    gallery: Gallery, crops: Iterable[tuple[Crop, str]], overwrite: bool, refused: list[str]
) -> tuple[list[Place], set[str]]:
    """Crops, each with the name of its row, that are to be added, and the rows that are there for the others.

    With `overwrite` the latter are to be added again. What cannot be read, or kept by a gallery, goes to `refused`.
    """
    named: list[tuple[Crop, str]] = []
    for crop, name in crops:
        try:
            crop.record(name, "")
        except GalleryError as error:
            refused.append(f"{crop.path}: {error}")
        else:
            named.append((crop, name))
    known = _known(gallery, (name for _, name in named))
    new: list[Place] = []
    present: set[str] = set()
    apart: list[Place] = []
    for crop, name in named:
        row = known.get(name)
        try:
            digest = crop.content()
        except PictureError as error:
            refused.append(str(error))
            continue
        if row is None or (_is_same(row, crop, digest) and overwrite):
            new.append(Place(crop, name, digest))
        elif _is_same(row, crop, digest):
            present.add(name)
        elif overwrite and (crop.has_own_id or _path_of(row) == str(crop.path)):
            new.append(Place(crop, name, digest))
        elif crop.has_own_id:
            refused.append(f"{crop.path}: its id {name!r} is that of another picture ({row.path}); give it its own id")
        else:
            apart.append(Place(crop, other_name(name, digest), digest, beside=True))
    known = _known(gallery, (place.row_id for place in apart))
    new += [place for place in apart if overwrite or place.row_id not in known]
    return new, present | (set() if overwrite else set(known))


def _known(gallery: Gallery, names: Iterable[str]) -> dict[str, Record]:
    wanted = sorted(set(names))
    return {row.id: row for row in gallery.fetch(wanted, missing="skip")} if wanted else {}


def _is_same(row: Record, crop: Crop, digest: str) -> bool:
    """Whether a row of the crop's name is of the crop; a crop without a file of its own has its name alone."""
    if not crop.is_file:
        return True
    return row.digest == digest if row.digest else _path_of(row) == str(crop.path)


def _path_of(row: Record) -> str:
    """The path of a row as sources write it today; version 0.1 did not resolve those of lists."""
    return os.path.realpath(row.path) if row.path else ""
