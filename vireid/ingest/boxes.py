"""Boxes of people in videos, from a file: those of your own detector, and those found here, in one form.

CSV (also with semicolons or tabs) with a header; lines that begin with # are left out:

    video    its path as below the indexed folder, or as in the list; may be left out where there is one video
    time     seconds since the first moment of the video, the nearest frame is taken; or `frame`, counted from 0
    left, top, right, bottom   in pixels of the upright frame
    track    any text, may be left out: the same passage of one person        score   0..1, may be left out
    pid      an identity that is known, may be left out

A .txt is of the MOT Challenge: frame (from 1), track, left, top, width, height, confidence (0: not to be counted), ...;
a first line may name these columns, and spaces may stand in place of commas.
A folder has one such file for each video: VIDEOS/gate/a.mp4 has its boxes in BOXES/gate/a.csv, .txt or a.mp4.csv.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from vireid.errors import BoxesError
from vireid.ingest.video import frame_times
from vireid.json_file import parsed
from vireid.system import replacing
from vireid.table_file import TextTable, headless, number, read_table

PLACES = ("left", "top", "right", "bottom")
COLUMNS = ("video", "time", "frame", *PLACES, "track", "score", "pid")
WRITTEN = ("time", *PLACES, "track", "score")
MOT = (  # what the columns are called in files with a header
    {"frame", "frameid", "framenumber", "frameno", "frameindex"},
    {"id", "track", "trackid", "objectid", "targetid", "identity"},
    {"left", "x", "xmin", "xtl", "tlx"},
    {"top", "y", "ymin", "ytl", "tly"},
    {"width", "w"},
    {"height", "h"},
)
LARGEST = 1 << 53  # to which a float holds every whole number
ABOUT = "# vireid boxes 1 "
NARROWEST = 0.2  # width of a box by its height; strips match pictures without a person (docs/serve/search.md)


class Box(NamedTuple):
    """One person in one frame; the places in pixels, `time_s` since the video's first moment."""

    time_s: float
    left: float
    top: float
    right: float
    bottom: float
    track: str = ""
    score: float = 1.0
    pid: str = ""

    def shows_somebody(self, min_height: float) -> bool:
        """Whether it is high enough and no strip, in which hardly anything is seen of somebody at the frame's side."""
        high = self.bottom - self.top
        return high >= min_height and self.right - self.left >= NARROWEST * high


class _Listed(NamedTuple):
    frame: int | None
    box: Box  # of time nan where it has a frame


def boxes_of(source: Path, video: Path, names: Sequence[str]) -> list[Box]:
    """The boxes of a video in order of time; `names` is what the column `video`, or the folder, may call it.

    Raises BoxesError, and VideoError where frames are counted and the video cannot be read.
    """
    file = source if not source.is_dir() else _file_for(source, names)
    about = file.stat()
    listed = _read(file, about.st_size, about.st_mtime_ns)
    unnamed = listed.get("", ())
    entries = [*unnamed, *(each for name in dict.fromkeys(names) for each in listed.get(name, ()))]
    if any(each.frame is not None for each in entries):
        times = frame_times(video)
        if (last := max(each.frame or 0 for each in entries)) >= len(times):
            first = "1" if file.suffix.lower() == ".txt" else "0"
            raise BoxesError(
                f"{file} has boxes in frame {last} (the first is 0) and {video} has {len(times)}; are they of this "
                f"video? In a {file.suffix} frames are counted from {first}"
            )
        entries = [each if each.frame is None else _Listed(None, each.box._replace(time_s=float(times[each.frame])))
                 for each in entries]  # fmt: skip
    return sorted(each.box for each in entries)


def check_source(source: Path) -> bool:
    """Whether a source of boxes is for one video alone (no column `video`); BoxesError where there is none."""
    if source.is_dir():
        return False
    if not source.is_file():
        raise BoxesError(f"there is no file or folder of boxes at {source}")
    about = source.stat()
    return "" in _read(source, about.st_size, about.st_mtime_ns)


def videos_in(file: Path) -> list[str]:
    """What the column `video` of a file calls its videos; nothing where it has no such column."""
    about = file.stat()
    return [name for name in _read(file, about.st_size, about.st_mtime_ns) if name]


def write_boxes(path: Path, boxes: Iterable[Box], about: Mapping[str, Any]) -> None:
    """Write boxes of one video, whole or not at all, with `about` as JSON in the first line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(ABOUT + json.dumps(about, sort_keys=True) + "\n")
        writer = csv.writer(file)
        writer.writerow(WRITTEN)
        for box in boxes:
            places = [f"{place:.2f}" for place in box[1:5]]
            writer.writerow([f"{box.time_s:.6f}", *places, box.track, f"{box.score:.4f}"])


def read_written(path: Path) -> tuple[list[Box], dict[str, Any]]:
    """What `write_boxes` wrote."""
    written, about = about_written(path), path.stat()
    listed = _read(path, about.st_size, about.st_mtime_ns)
    return [each.box for each in listed.get("", ())], written


def about_written(path: Path) -> dict[str, Any]:
    """What `write_boxes` wrote about its boxes."""
    with path.open("rb") as file:
        first = file.readline()
    try:
        about = parsed(first.removeprefix(ABOUT.encode())) if first.startswith(ABOUT.encode()) else None
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise BoxesError(f"{path}, line 1 was not written by vireid, or is damaged; remove the file, it is made again")
    return about


def _file_for(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        for suffix in (".csv", ".tsv", ".txt"):
            for file in (folder / Path(name).with_suffix(suffix), folder / (name + suffix)):
                if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
                    return file
    raise BoxesError(f"{folder} holds no boxes for {names[0]}; expected {Path(names[0]).with_suffix('.csv')} there")


@lru_cache(maxsize=2)
def _read(path: Path, size: int, mtime_ns: int) -> dict[str, list[_Listed]]:
    """The boxes of a file by the video's name, "" where it has no such column."""
    boxes: dict[str, list[_Listed]] = {}
    if path.suffix.lower() == ".txt":
        for place, (line, cells) in enumerate(headless(path, BoxesError)):
            if place == 0 and is_mot_header(cells):
                continue
            if (one := _of_mot(cells, f"{path}, line {line}")) is not None:
                boxes.setdefault("", []).append(one)
        return boxes
    table = read_table(path, BoxesError, comments=True)
    _check_header(table)
    named = "video" in table.header
    if not named:
        boxes[""] = []
    for line, cells in table.rows():
        if named and not cells["video"]:
            raise BoxesError(f"{path}, line {line}: expected the name of a video in the column `video`, came nothing")
        name = Path(cells["video"].replace("\\", "/")).as_posix() if named else ""
        boxes.setdefault(name, []).append(_of_csv(cells, f"{path}, line {line}"))
    return boxes


def is_mot_header(cells: Sequence[str]) -> bool:
    """Whether a line names the columns of the MOT Challenge in their order, in any of their usual names.

    >>> is_mot_header(["frame", "id", "bb_left", "bb_top", "bb_width", "bb_height", "conf", "x", "y", "z"])
    True
    >>> is_mot_header(["frame", "id", "x1", "y1", "x2", "y2"]), is_mot_header(["frame", "id", "w", "h", "x", "y"])
    (False, False)
    """
    words = [re.sub(r"[^a-z]", "", re.sub(r"^(bb|bbox|box)(?=[ _])", "", cell.lower())) for cell in cells]
    return len(words) >= len(MOT) and all(word in known for word, known in zip(words, MOT, strict=False))


def _check_header(table: TextTable) -> None:
    header = table.header
    unknown = sorted(set(header) - set(COLUMNS))
    missing = [name for name in PLACES if name not in header]
    if unknown or missing or ("time" in header) == ("frame" in header):
        raise BoxesError(
            f"{table.path}, {table.words}: expected the columns {', '.join(PLACES)} and time or frame, and maybe "
            "video, track, score, pid"
        )


def _of_csv(cells: dict[str, str], where: str) -> _Listed:
    left, top, right, bottom = (_number(cells[name], name, where) for name in PLACES)
    if not (left < right and top < bottom):
        raise BoxesError(
            f"{where}: a box has left < right and top < bottom, got {left}, {top}, {right}, {bottom}; right and bottom "
            "are places and not width and height"
        )
    score = _number(cells["score"], "score", where) if cells.get("score") else 1.0
    if not 0 <= score <= 1:
        raise BoxesError(f"{where}: score is from 0 to 1, got {cells['score']}; divide percent by 100")
    box = Box(math.nan, left, top, right, bottom, cells.get("track", ""), score, cells.get("pid", ""))
    if "frame" in cells:
        frame = _whole(cells["frame"], "frame", where)
        if frame < 0:
            raise BoxesError(f"{where}: frame is a number from 0, got {cells['frame']!r}")
        return _Listed(frame, box)
    time_s = _number(cells["time"], "time", where)
    if time_s < 0:
        raise BoxesError(f"{where}: time is in seconds since the first moment of the video, got {time_s}")
    return _Listed(None, box._replace(time_s=time_s))


def _of_mot(cells: list[str], where: str) -> _Listed | None:
    if len(cells) < 6:
        raise BoxesError(
            f"{where}: expected frame, track, left, top, width, height, confidence with commas between them; "
            f"got {', '.join(cells)[:100]!r}"
        )
    frame, track = _whole(cells[0], "frame", where), _whole(cells[1], "track", where)
    left, top, width, height = (_number(cell, "a cell", where) for cell in cells[2:6])
    score = _number(cells[6], "confidence", where) if len(cells) > 6 else 1.0
    if score == 0:
        return None
    if frame < 1 or width <= 0 or height <= 0:
        raise BoxesError(f"{where}: frame is from 1, width and height above 0; got {cells[:6]}")
    name = "" if track < 0 else str(track)
    box = Box(math.nan, left, top, left + width, top + height, name, score if 0 < score <= 1 else 1.0)
    return _Listed(frame - 1, box)


def _whole(text: str, name: str, where: str) -> int:
    """A whole number, which some programs write as 1.0."""
    value = _number(text, name, where)
    if value != int(value) or abs(value) > LARGEST:
        raise BoxesError(f"{where}: {name} is a whole number up to 2^53, got {text[:40]!r}")
    return int(value)


def _number(text: str, name: str, where: str) -> float:
    try:
        return number(text)
    except ValueError:
        raise BoxesError(f"{where}: {name} is a number with a decimal point, got {text[:40]!r}") from None
