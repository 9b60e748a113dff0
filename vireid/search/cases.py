"""Cases: searches that a user keeps, with their pictures, marks and a note, in a file of SQLite."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vireid.errors import CasesError
from vireid.json_file import parsed
from vireid.sqlite_file import errors_of

NAME = "cases.sqlite"
COLUMNS = ("id", "name", "note", "who", "at", "request")
TABLES = """
create table if not exists cases (id text primary key, name text, note text, who text, at real, request text);
create table if not exists pictures (case_id text, number integer, data blob, primary key (case_id, number));
"""


@dataclass(frozen=True)
class Case:
    """A search that is kept: `request` is its JSON, `at` the Unix second of that, `pictures` how many it has."""

    id: str
    name: str
    note: str
    who: str
    at: float
    request: str
    pictures: int = 0


CASE = TypeAdapter(Case)


@dataclass(frozen=True)
class CasesWithout:
    """What became of cases when rows were deleted: how many lost rows or pictures, how many had nothing left.

    `left` names those whose author searched with one of the rows or marked it right, and that still hold pictures:
    these show the same person.
    """

    changed: int = 0
    deleted: int = 0
    left: tuple[str, ...] = ()


class CaseStore:
    """Cases in a file of SQLite, which is made with the first case. Every method raises CasesError and DiskFull."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._base: sqlite3.Connection | None = None

    def add(self, name: str, note: str, who: str, at: float, request: str, pictures: Sequence[bytes]) -> Case:
        """Keep a search; `pictures` are the bytes that it was made with."""
        case = Case(uuid.uuid4().hex, name, note, who, at, request, len(pictures))
        with self._transaction() as base:
            base.execute("insert into cases values (?, ?, ?, ?, ?, ?)", [getattr(case, column) for column in COLUMNS])
            base.executemany(
                "insert into pictures values (?, ?, ?)", [(case.id, n, data) for n, data in enumerate(pictures)]
            )
        return case

    def all(self) -> list[Case]:
        """The newest first."""
        return self._read("", ()) if self.path.is_file() else []

    def get(self, case_id: str) -> Case | None:
        """A case by its id, None if there is none."""
        return next(iter(self._read("where id = ?", (case_id,))), None) if self.path.is_file() else None

    def picture(self, case_id: str, number: int) -> bytes | None:
        """The bytes of a picture of a case, counted from 0."""
        if not self.path.is_file():
            return None
        with self._transaction() as base:
            row = base.execute(
                "select data from pictures where case_id = ? and number = ?", (case_id, number)
            ).fetchone()
            return None if row is None else _picture(row[0])

    def change(self, case_id: str, name: str, note: str) -> bool:
        """Replace name and note; False where there is no such case."""
        with self._transaction() as base:
            return bool(
                base.execute("update cases set name = ?, note = ? where id = ?", (name, note, case_id)).rowcount
            )

    def delete(self, case_id: str) -> bool:
        """Delete a case with its pictures for good; False where there is none."""
        with self._transaction() as base:
            base.execute("delete from pictures where case_id = ?", (case_id,))
            return bool(base.execute("delete from cases where id = ?", (case_id,)).rowcount)

    def digests(self) -> set[str]:
        """The sha256 of each picture of all cases."""
        if not self.path.is_file():
            return set()
        with self._transaction() as base:
            return {_sha256(_picture(data)) for (data,) in base.execute("select data from pictures")}

    def forget(self, ids: Collection[str], digests: Collection[str]) -> CasesWithout:
        """Take rows out of the queries and marks of all cases, and pictures by the sha256 of their bytes.

        A case that has neither a picture nor a row to search with any more is deleted.
        """
        changed = deleted = 0
        left = list[str]()
        for case in self.all():
            request = json.loads(case.request)
            gone = {number for number, data in self._pictures(case.id) if _sha256(data) in digests}
            same_person = any(row in ids for name in ("like", "right") for row in request.get(name, ()))
            kept = without(request, ids, gone)
            if kept == request and not gone:
                continue
            if len(gone) == case.pictures and not kept.get("like"):
                deleted += self.delete(case.id)
                continue
            changed += 1
            self._replace(case.id, json.dumps(kept), gone)
            if same_person and len(gone) < case.pictures:
                left.append(f"{case.name or 'without a name'} ({case.id})")
        return CasesWithout(changed, deleted, tuple(left))

    def forget_before(self, at: float) -> int:
        """Delete the cases that were kept before a moment."""
        if not self.path.is_file():
            return 0
        with self._transaction() as base:
            base.execute("delete from pictures where case_id in (select id from cases where at < ?)", (at,))
            return base.execute("delete from cases where at < ?", (at,)).rowcount

    def close(self) -> None:
        with self._lock:
            if self._base is not None:
                self._base.close()
                self._base = None

    def _read(self, where: str, values: tuple[str, ...]) -> list[Case]:
        counted = "(select count(*) from pictures where case_id = id)"
        with self._transaction() as base:
            rows = base.execute(
                f"select {', '.join(COLUMNS)}, {counted} from cases {where} order by at desc, id", values
            ).fetchall()
            return [_checked(Case(*row)) for row in rows]

    def _pictures(self, case_id: str) -> list[tuple[int, bytes]]:
        with self._transaction() as base:
            rows = base.execute("select number, data from pictures where case_id = ? order by number", (case_id,))
            return [(number, _picture(data)) for number, data in rows]

    def _replace(self, case_id: str, request: str, gone: Collection[int]) -> None:
        """Write a request again, delete pictures by number, and count those that stay from 0."""
        kept = [data for number, data in self._pictures(case_id) if number not in gone]
        with self._transaction() as base:
            base.execute("update cases set request = ? where id = ?", (request, case_id))
            if gone:
                base.execute("delete from pictures where case_id = ?", (case_id,))
                rows = [(case_id, number, data) for number, data in enumerate(kept)]
                base.executemany("insert into pictures values (?, ?, ?)", rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        advice = "put a good copy in its place, or move it away: then there are no cases"
        with errors_of(self.path, CasesError, "the file of cases", advice), self._lock:
            if self._base is None:
                self._base = self._opened()
            with self._base:
                yield self._base

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(self.path, check_same_thread=False)
        base.execute("pragma busy_timeout = 10000")
        base.execute("pragma secure_delete = on")  # what is deleted is overwritten
        base.executescript(TABLES)
        return base


def without(request: dict[str, Any], ids: Collection[str], gone: Collection[int]) -> dict[str, Any]:
    """A request without these rows, and without the boxes of these pictures.

    >>> without({"like": ["a", "b"], "right": ["a"], "boxes": [None, [0, 0, 1, 1]]}, {"a"}, {0})
    {'like': ['b'], 'boxes': [[0, 0, 1, 1]]}
    """
    rows = {name: [row for row in request.get(name, ()) if row not in ids] for name in ("like", "right", "wrong")}
    boxes = [box for number, box in enumerate(request.get("boxes", ())) if number not in gone]
    kept = {**request, **rows, "boxes": boxes}
    return {name: value for name, value in kept.items() if name not in (*rows, "boxes") or value}


def _checked(case: Case) -> Case:
    """A case as it was read; ValueError where its file holds values of other kinds."""
    case = CASE.validate_python(vars(case))
    if not isinstance(parsed(case.request), dict):
        raise ValueError(f"the request of the case {case.id} is not an object of JSON")
    return case


def _picture(data: object) -> bytes:
    if not isinstance(data, bytes):
        raise ValueError("a picture is not stored as bytes")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
