"""Marks: which hits of a query were marked right or wrong, by whom and when, in a file of SQLite; and their export."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vireid.errors import DiskFull, MarksError
from vireid.search.gallery import Record
from vireid.sqlite_file import errors_of

NAME = "marks.sqlite"


@dataclass(frozen=True)
class Mark:
    """What a person said about one hit of one query (the sha256 of its pictures)."""

    query: str
    id: str
    right: bool
    who: str
    at: float  # Unix seconds
    similarity: float | None = None
    probability: float | None = None


MARK = TypeAdapter(Mark)
MARK_COLUMNS = ("query", "id", "right", "who", "at", "similarity", "probability")


class MarkStore:
    """Marks in a file of SQLite; the last word about a hit counts. Every method raises MarksError."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        with self._using():
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            with self._using():
                self._prepare()
        except (MarksError, DiskFull):
            self._base.close()
            raise

    def _prepare(self) -> None:
        self._base.execute("pragma secure_delete = on")  # what is deleted is overwritten
        self._base.execute("pragma busy_timeout = 10000")
        self._base.execute(
            "create table if not exists marks (query text, id text, right integer, who text, at real, similarity real, "
            "probability real, primary key (query, id))"
        )
        self._base.execute(f"select {', '.join(MARK_COLUMNS)} from marks limit 1")  # of vireid, and not cut off
        self._base.execute("create index if not exists by_id on marks (id)")

    def put(self, marks: Iterable[Mark]) -> None:
        rows = [tuple(getattr(mark, name) for name in MARK_COLUMNS) for mark in marks]
        with self._using():
            names, values = ", ".join(MARK_COLUMNS), ", ".join("?" for _ in MARK_COLUMNS)
            self._base.executemany(f"insert or replace into marks ({names}) values ({values})", rows)

    def take_back(self, query: str, ids: Sequence[str]) -> None:
        with self._using():
            self._base.executemany("delete from marks where query = ? and id = ?", [(query, id) for id in ids])

    def of(self, query: str | None = None) -> list[Mark]:
        """The marks of a query, or all, the oldest first."""
        where, values = ("", ()) if query is None else (" where query = ?", (query,))
        with self._using():
            names = ", ".join(MARK_COLUMNS)
            rows = self._base.execute(f"select {names} from marks{where} order by at, id", values).fetchall()
            return [MARK.validate_python(dict(zip(MARK_COLUMNS, row, strict=True))) for row in rows]

    def forget(self, ids: Iterable[str]) -> int:
        """Remove the marks of rows that are deleted."""
        with self._using():
            before = self._base.total_changes
            self._base.executemany("delete from marks where id = ?", [(id,) for id in ids])
            return self._base.total_changes - before

    def forget_before(self, at: float) -> int:
        """Remove marks that were made before a moment."""
        with self._using():
            return self._base.execute("delete from marks where at < ?", (at,)).rowcount

    def close(self) -> None:
        with self._using():
            self._base.close()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Alone among the threads; MarksError, which names the file, for what SQLite raises."""
        advice = "put a good copy in its place, or move it away: then marks begin with none"
        with errors_of(self.path, MarksError, "the file of marks", advice), self._lock:
            yield


def to_json(mark: Mark, record: Record | None) -> dict[str, Any]:
    """A mark with what is known of its row, as it is exported."""
    row: dict[str, Any] = {"query": mark.query, "id": mark.id, "right": mark.right}
    for name in ("camera", "time_s", "modality", "track", "pid"):
        row[name] = None if record is None else getattr(record, name)
    row["time_s"] = None if row["time_s"] is None or row["time_s"] != row["time_s"] else row["time_s"]
    return {**row, "similarity": mark.similarity, "probability": mark.probability, "who": mark.who, "at": mark.at}


def marks_json(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = MARK_COLUMNS) -> str:
    """Rows as CSV whose texts no spreadsheet takes for a formula; `columns` stand in the head where there is no row."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else list(columns))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _harmless(value) for key, value in row.items()})
    return out.getvalue()


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would run begins with an apostrophe."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
