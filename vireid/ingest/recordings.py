"""Recordings: the files that rows were made of, and which of them still hold the people after the rows are deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vireid.errors import BoxesError
from vireid.ingest.boxes import about_written
from vireid.ingest.segments import FOLDER
from vireid.search.archive import Archive
from vireid.search.gallery import Record

SEGMENT = re.compile(r"(?P<video>.+)#(?P<number>\d{4})-")  # of the id of a row of a track; see segments.py


def recordings_of(archive: Archive, rows: Iterable[Record]) -> list[str]:
    """The pictures, recordings and files of boxes on this machine from which these rows would come again."""
    paths, segments = set[str](), set[tuple[str, int]]()
    for row in rows:
        if row.path:
            paths.add(row.path)
        if match := SEGMENT.match(row.id):
            segments.add((match["video"], int(match["number"])))
    files = sorted(path for path in paths if Path(path).is_file())
    return [*files, *boxes_with(archive.folder / FOLDER, segments)]


def boxes_with(folder: Path, segments: set[tuple[str, int]]) -> list[str]:
    """The files of boxes that were detected in these segments (video, number)."""
    files = []
    for file in sorted(folder.glob("*.csv")) if segments else ():
        try:
            about = about_written(file)
        except BoxesError:
            continue
        if (about.get("video"), about.get("segment")) in segments:
            files.append(str(file))
    return files
