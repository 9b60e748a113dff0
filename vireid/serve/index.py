"""Index: a folder or a list of one's own crops into an archive: vectors into the gallery, thumbnails beside it.

Folder: every .jpg, .jpeg, .png, .webp and .bmp below it. The first folder on the way to a picture is its camera:

    PICTURES/gate/2026-11-24/0001.jpg      camera "gate"; a picture that lies in PICTURES itself has camera "PICTURES"

List: a CSV with a header; `path` is needed, everything else may be left out:

    path       relative to the list, or absolute          camera     any text
    time       2026-11-24T21:04:11+01:00, or Unix seconds; without a zone it is this machine's
    modality   visible, infrared or auto                  track, pid any text
    tags       separated by |                             id         the path by default

Whatever is there already is left alone, so the same command goes on where it was stopped: a row's thumbnail is written
before the row, and a batch of rows is there as a whole or not at all.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from PIL import Image

from vireid.serve.archive import Archive
from vireid.serve.extractor import FeatureExtractor, Modality, PictureError, read_picture
from vireid.serve.gallery import Record

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
COLUMNS = ("path", "camera", "time", "modality", "track", "pid", "tags", "id")
BATCH = 256
MODALITIES: tuple[Modality, ...] = ("visible", "infrared", "auto")


class NotIndexed(ValueError):
    """What was given to index is no folder or list of pictures; the message says what to do."""


@dataclass(frozen=True)
class Crop:
    """One picture to index."""

    id: str
    path: Path
    camera: str
    time_s: float = math.nan
    modality: Modality = "auto"
    track: str = ""
    pid: str = ""
    tags: tuple[str, ...] = ()
    picture: Image.Image | None = None  # where there is no file


@dataclass(frozen=True)
class Indexed:
    """Rows that were added, that were there already, and pictures that could not be read, with the reason."""

    added: int
    present: int
    refused: tuple[str, ...] = ()


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
    crops: Iterable[Crop],
    *,
    again: bool = False,
    say: Callable[[str], None] = print,
) -> Indexed:
    """Add crops to an archive. `again` replaces rows that are there; otherwise they are left as they are."""
    added, present, refused = 0, 0, []
    stream = iter(crops)
    while batch := list({crop.id: crop for crop in islice(stream, BATCH)}.values()):
        if not again:
            there = {record.id for record in archive.gallery.fetch([crop.id for crop in batch], missing="skip")}
            present += len(there)
            batch = [crop for crop in batch if crop.id not in there]
        opened: list[tuple[Crop, Image.Image]] = []
        for crop in batch:
            try:
                picture = crop.picture or read_picture(crop.path, str(crop.path))
                opened.append((crop, picture.convert("RGB")))
            except PictureError as error:
                refused.append(str(error))
        if not opened:
            continue
        parts = extractor.batches([picture for _, picture in opened], [crop.modality for crop, _ in opened])
        rows = [(vector, int(kind)) for vectors, kinds in parts for vector, kind in zip(vectors, kinds, strict=True)]
        records = [
            Record(
                id=crop.id, vector=vector, camera=crop.camera, time_s=crop.time_s, modality=kind, path=str(crop.path),
                track=crop.track, pid=crop.pid, tags=crop.tags, thumbnail=archive.thumbnails.write(crop.id, picture),
            )
            for (crop, picture), (vector, kind) in zip(opened, rows, strict=True)
        ]  # fmt: skip
        archive.gallery.upsert(records)
        added += len(records)
        say(f"indexed {added} pictures" + (f", {present} were there" if present else ""))
    archive.gallery.optimize()
    return Indexed(added, present, tuple(refused))


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
