"""Stats: what an archive holds and how much of the disk it takes; reads, and changes nothing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from vireid.search.alarm_rows import NAME as ALARMS
from vireid.search.archive import THUMBNAILS
from vireid.search.audit import NAME as AUDIT
from vireid.search.audit import Audit
from vireid.search.gallery import Gallery
from vireid.search.marks import NAME as MARKS
from vireid.types import MODALITIES


@dataclass(frozen=True)
class Stats:
    """Figures of one archive; sizes in bytes, times in UTC, None where there is nothing of the kind."""

    gallery: str
    model: str
    dim: int
    gray: str
    index: str
    rows: int
    tracks: int
    modalities: dict[str, int]
    cameras: dict[str, int]
    tags: dict[str, int]
    first: str | None
    last: str | None
    gallery_bytes: int | None
    thumbnails: int
    thumbnail_bytes: int
    other_bytes: int
    marks: int
    alarms: int
    audit_entries: int
    last_audit: str | None

    def json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def lines(self) -> list[str]:
        """Name and value of each figure."""
        return [f"{name:<16}  {_text(name, value)}" for name, value in asdict(self).items() if value not in (None, {})]


def stats_of(gallery: Gallery, folder: Path) -> Stats:
    """The figures of a gallery and its folder of files, which need not be there; looks at every row and file."""
    info, facets = gallery.info(), gallery.facets()
    thumbnails, others = [0, 0], 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file():
            size = path.stat().st_size
            if path.is_relative_to(folder / THUMBNAILS):
                thumbnails = [thumbnails[0] + 1, thumbnails[1] + size]
            else:
                others += size
    audit = Audit(folder / AUDIT)
    latest = audit.entries(1)
    return Stats(
        gallery=info.url, model=info.bundle_digest[:12] or "unknown", dim=info.dim, gray=str(gallery.gray),
        index=info.index, rows=info.rows, tracks=facets.tracks,
        modalities={MODALITIES[kind]: rows for kind, rows in facets.modalities.items()},
        cameras=facets.cameras, tags=facets.tags, first=_time(facets.first_s), last=_time(facets.last_s),
        gallery_bytes=info.size_bytes, thumbnails=thumbnails[0], thumbnail_bytes=thumbnails[1], other_bytes=others,
        marks=_count(folder / MARKS, "marks"), alarms=_count(folder / ALARMS, "alarms"),
        audit_entries=audit.verify(), last_audit=latest[0].get("at") if latest else None,
    )  # fmt: skip


def _count(path: Path, table: str) -> int:
    if not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10.0)) as base:
            return base.execute(f"select count(*) from {table}").fetchone()[0]
    except sqlite3.Error:
        return 0


def _time(time_s: float) -> str | None:
    return None if time_s != time_s else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def _text(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key or '-'} {rows:,}" for key, rows in value.items())
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,}" if isinstance(value, int) else str(value)
