"""Sources: what lies in a folder, a CSV or a single file, as crops to index; no picture is decoded here.

Folder: every picture and video below it (what is taken and what is left out: folder.py). The first folder on the way is
the camera:

    PICTURES/gate/2026-11-24/0001.jpg      camera "gate"; a picture that lies in PICTURES itself has camera "PICTURES"

List: a CSV (also with semicolons or tabs) with a header; `path` is needed, everything else may be left out:

    path       relative to the list, or absolute          camera     any text
    time       2026-11-24T21:04:11+01:00, or Unix seconds; without a zone it is this machine's
    modality   auto, or visible or infrared in the words of a manifest (rgb, ir, thermal, ...)
    tags       separated by |                             track, pid any text
    id         the path by default, different in every line
    thermal_low, thermal_high     for gray of more than 8 bits: the values that become black and white. One range for a
               camera; empty cells take that of its other lines, and without any the gallery's rule holds

The path may be that of a video, and time its first moment; how people are found in it stands in segments.py.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from vireid.errors import PictureError, SourceError
from vireid.images import STRETCH, SUFFIXES, GrayRule, check_file, is_picture, read
from vireid.ingest import video
from vireid.ingest.folder import Listing, list_folder
from vireid.ingest.times import seconds
from vireid.search.gallery import NO_VECTOR, Record
from vireid.system import file_digest
from vireid.table_file import SUFFIXES as LIST_SUFFIXES
from vireid.table_file import ListedFiles, TextTable, camera_ranges, file_path, nearest, read_table
from vireid.types import MODALITIES, MODALITY_WORDS, VISIBLE, ModalityOrAuto

ENDS = ("thermal_low", "thermal_high")
COLUMNS = ("path", "camera", "time", "modality", "track", "pid", "tags", "id", *ENDS)
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")  # a path has lost one of two slashes


@dataclass(frozen=True)
class Crop:
    """One picture to index.

    `picture` is given, or made when it is read, where the crop is not a file; `digest` is then that of its video, if
    any. Crops of the same `row` become one row with `rows="tracks"`, of which the crop of the highest `quality` is
    shown. `has_own_id`: the user chose the id, so it is not changed. `thermal_range` is the camera's, where its list
    gives one.
    """

    id: str
    path: Path
    camera: str
    time_s: float = math.nan
    modality: ModalityOrAuto = "auto"
    track: str = ""
    pid: str = ""
    tags: tuple[str, ...] = ()
    picture: Image.Image | Callable[[], Image.Image] | None = None
    row: str = ""
    quality: float = 0.0
    digest: str = ""
    has_own_id: bool = False
    thermal_range: tuple[float, float] | None = None

    @property
    def is_file(self) -> bool:
        return self.picture is None

    def content(self) -> str:
        """sha256 of the file, or `digest` where the crop is not a file; raises PictureError."""
        if not self.is_file:
            return self.digest
        try:
            check_file(self.path, str(self.path))
            return file_digest(self.path)
        except OSError as error:
            raise PictureError(f"{self.path} cannot be read: {error.strerror}; copy it again or leave it out") from None

    def open(self, gray: GrayRule = STRETCH) -> Image.Image:
        """The picture as RGB, a new image, by the rule `gray` where its list gives no range; raises PictureError."""
        picture = self.picture() if callable(self.picture) else self.picture
        gray = gray if self.thermal_range is None else GrayRule(*self.thermal_range)
        return read(self.path if picture is None else picture, str(self.path), gray=gray)

    def record(self, row_id: str, digest: str) -> Record:
        """Its row, with no vector yet; raises GalleryError for a text that no gallery keeps."""
        return Record(
            id=row_id, vector=NO_VECTOR, camera=self.camera, time_s=self.time_s, modality=VISIBLE, path=str(self.path),
            track=self.track, pid=self.pid, tags=self.tags, digest=digest,
        )  # fmt: skip


class Piece(Protocol):
    """A unit of work of an index run: small, holds no pictures, can be sent to another process."""

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
        words = [word for crop in self.listed for word in (crop.id, str(crop.path))]
        digest = hashlib.sha256("\0".join(words).encode(errors="surrogateescape"))
        return f"{self.listed[0].id} and {len(self.listed) - 1} more, {digest.hexdigest()[:12]}"

    def crops(self) -> Iterator[Crop]:
        yield from self.listed


def crops_of(
    source: Path,
    *,
    file_time: bool = False,
    modality: ModalityOrAuto = "auto",
    suffixes: tuple[str, ...] = SUFFIXES,
    listing: Listing | None = None,
) -> Iterator[Crop]:
    """The files of a folder, a CSV or a single file; `file_time` takes the time of a file for that of its picture.

    `listing` is that of the folder where it was made before. Raises SourceError.
    """
    if source.is_dir():
        crops = _of_folder(listing or list_folder(source, suffixes))
    elif source.suffix.lower() in LIST_SUFFIXES and source.is_file():
        crops = _of_list(source)
    elif source.is_file() and (source.suffix.lower() in suffixes or is_picture(source)):
        file = source.resolve()
        is_video = source.suffix.lower() in video.SUFFIXES
        crops = iter([
            Crop(file.name, file, _camera_of(source)) if is_video
            else Crop(f"{file.parent.name}/{file.name}", file, file.parent.name or "camera")
        ])  # fmt: skip
    else:
        raise SourceError(_no_source(source))
    for crop in crops:
        is_video = crop.path.suffix.lower() in video.SUFFIXES
        if math.isnan(crop.time_s) and file_time and not is_video and crop.path.is_file():
            crop = replace(crop, time_s=crop.path.stat().st_mtime)
        yield replace(crop, modality=modality) if crop.modality == "auto" else crop


def thermal_ranges(source: Path) -> dict[str, tuple[float, float]]:
    """The range of gray values of each camera for which a list gives one; raises SourceError."""
    is_list = source.suffix.lower() in LIST_SUFFIXES and source.is_file()
    return _ranges_of(source) if is_list else {}


def _no_source(source: Path) -> str:
    """Why something cannot be indexed, and what to give."""
    give = "give the folder of your pictures, a list of them (.csv), or a video"
    if match := ADDRESS.match(source.as_posix()):
        address = f"{match[1]}://{match[2]}"
        return (
            f"{address} is an address and not a file; record the stream to a file and index that, for example "
            f"ffmpeg -i {address} -c copy -t 600 gate.mkv"
        )
    if source.is_symlink() and not source.exists():
        return f"{source} is a link that leads nowhere; {give}"
    if not source.exists():
        return f"there is no file or folder {source}; {give}"
    return f"{source} is neither a folder, a .csv, a picture nor a video; {give}"


def _camera_of(file: Path) -> str:
    """The camera of a single file: its name without a date and time, or else its folder.

    >>> _camera_of(Path("gate_20261124_210411.mp4")), _camera_of(Path("/hall/2026-11-24T21-04-11.mp4"))
    ('gate', 'hall')
    """
    return video.NAMED.sub("", file.stem).strip("-_. ") or file.resolve().parent.name or "camera"


def _of_folder(listing: Listing) -> Iterator[Crop]:
    root = listing.root.resolve()
    if not listing.files:
        left_out = "; ".join(listing.left_out.lines())
        holds = f"holds no picture and no video, but {left_out}" if left_out else "is empty"
        raise SourceError(f"{listing.root} {holds}; give the folder of your pictures ({', '.join(SUFFIXES)})")
    for parts in listing.files:
        camera = parts[0] if len(parts) > 1 else root.name or "camera"
        yield Crop("/".join((root.name, *parts)), root.joinpath(*parts).resolve(), camera)


def _of_list(path: Path) -> Iterator[Crop]:
    """The lines of a list, which is checked to its end first: nothing is indexed of one with a fault."""
    for _ in _lines_of(path):
        pass
    yield from _lines_of(path)


def _lines_of(path: Path) -> Iterator[Crop]:
    table, listed = read_table(path, SourceError), ListedFiles(path.parent)
    ids: dict[str, int] = {}
    _check_columns(table)
    ranges = _ranges_of(path)
    for line, cells in table.rows():
        crop = _crop(path, line, cells)
        crop = replace(crop, thermal_range=ranges.get(crop.camera)) if ranges else crop
        if (first := listed.first_line(str(crop.path), line)) != line:
            raise SourceError(f"{path}, line {line}: {crop.path} is listed twice, first in line {first}; remove one")
        if (first := ids.setdefault(crop.id, line)) != line:
            raise SourceError(
                f"{path}, lines {first} and {line}: the id {crop.id!r} is there twice; give every picture its own id"
            )
        yield crop


def _ranges_of(path: Path) -> dict[str, tuple[float, float]]:
    """The range of each camera for which a list gives one; SourceError for a bad one, and for two of one camera."""
    table = read_table(path, SourceError)
    if {*ENDS}.isdisjoint(table.header):
        return {}
    low, high = ENDS
    rows = ((_camera(path, cells), cells.get(low, ""), cells.get(high, ""), line) for line, cells in table.rows())
    return camera_ranges(rows, ENDS, path, SourceError)


def _camera(path: Path, cells: dict[str, str]) -> str:
    return cells.get("camera") or path.stem


def _check_columns(table: TextTable) -> None:
    unknown = [name for name in table.header if name not in COLUMNS]
    if "path" in table.header and not unknown:
        return
    if "path" not in table.header:
        near = nearest("path", unknown)
        fault = "no column `path`" + (f" (is it `{near}`? rename it)" if near else "")
    else:
        fault = f"unknown columns {', '.join(f'`{name[:40]}`' for name in unknown[:12])}"
    raise SourceError(
        f"{table.path}, line {table.first} has {fault}; a list has {', '.join(COLUMNS)}, of which only path is needed"
    )


def _crop(list_path: Path, number: int, cells: dict[str, str]) -> Crop:
    where, word = f"{list_path}, line {number}", cells.get("modality", "").lower() or "auto"
    if word != "auto" and word not in MODALITY_WORDS:
        raise SourceError(f"{where}: modality is visible, infrared or auto, got {word!r}")
    try:
        place = file_path(cells["path"])
    except ValueError as error:
        raise SourceError(f"{where}: {error}") from None
    tags: Sequence[str] = [tag.strip() for tag in cells.get("tags", "").split("|") if tag.strip()]
    return Crop(
        id=cells.get("id") or Path(place).as_posix(),
        path=(list_path.parent / place).resolve(),
        camera=_camera(list_path, cells),
        time_s=seconds(cells.get("time", ""), where),
        modality="auto" if word == "auto" else MODALITIES[MODALITY_WORDS[word]],  # pyright: ignore[reportArgumentType]
        track=cells.get("track", ""),
        pid=cells.get("pid", ""),
        tags=tuple(dict.fromkeys(tags)),
        has_own_id=bool(cells.get("id")),
    )
