"""Audit log: who searched and deleted what, a line of JSON each, appended and never changed.

    {"at": "2026-11-24T21:04:11.207Z", "who": "desk", "role": "search", "from": "10.0.0.7", "what": "search", ...,
     "previous": "<sha256 of the line before>"}

Each line holds the digest of the one before, so one that was changed or taken out of the middle is noticed (`verify`).
A user who may write the file can still cut its end or write a new one: send it to another machine where that matters.
Pictures are not in it, only their sha256. A search whose line cannot be written is not answered.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from vireid.errors import AuditError
from vireid.json_file import parsed
from vireid.system import locked

NAME = "audit.jsonl"
CONSOLE = "this machine's console"  # who, where a command and no request did it
START = "0" * 64
BEGIN = b'{"at": "'  # of every line, also of one that was cut off
TAIL = 1 << 20  # bytes; longer than any line


class Audit:
    """The log at `path`; several threads and processes may append."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, what: str, who: str, role: str, address: str = "", **more: Any) -> None:
        """Append a line and bring it to the disk."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"at": at, "who": who, "role": role, "from": address, "what": what, **more}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        lock = locked(self.path.with_name(f"{self.path.name}.lock"))
        with lock, os.fdopen(os.open(self.path, flags, 0o600), "r+b") as file:
            last = _last_line(file)
            # a line that a full disk or a pulled plug cut in the middle stays as it is, and the next begins below it
            cut = b"" if last is None or last.endswith(b"\n") else b"\n"
            entry["previous"] = START if last is None else _digest(last)
            file.seek(0, os.SEEK_END)
            file.write(cut + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self, last: int | None = None) -> list[dict[str, Any]]:
        """The entries, newest first, at most `last` of them; lines that are not JSON are left out."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            if last is not None:  # from the end, for the file only ever grows
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 4096 * last))
                if file.tell():
                    file.readline()
            lines = file.readlines()
        entries = []
        for line in reversed(lines):
            try:
                entry = parsed(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                entries.append(entry)
        return entries[:last]

    def verify(self) -> int:
        """The number of lines, each of which names the one before; AuditError with the first that does not.

        A line that a full disk or a pulled plug cut off names none. A log has a line from its beginning on, so an empty
        one was emptied.
        """
        previous, number = START, 0
        if not self.path.is_file():
            return 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    named = parsed(line)["previous"]
                except (ValueError, KeyError, TypeError):
                    named = None
                if named is not None and named != previous:
                    raise AuditError(f"{self.path}: line {number} does not follow the line before it: one was changed")
                if named is None and not _is_cut_off(line.rstrip(b"\n")):
                    raise AuditError(f"{self.path}: line {number} is not a line of this log; put back a good copy")
                previous = _digest(line)
        if not number:
            raise AuditError(
                f"{self.path} is empty, and a log begins with a line: it was emptied; put back a good copy"
            )
        return number


def _is_cut_off(line: bytes) -> bool:
    """Whether the beginning of an entry, and not the whole of one."""
    return line != b"" and not line.endswith(b"}") and (line.startswith(BEGIN) or BEGIN.startswith(line))


def _digest(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _last_line(file: IO[bytes]) -> bytes | None:
    size = file.seek(0, os.SEEK_END)
    if not size:
        return None
    file.seek(max(0, size - TAIL))
    return file.read().splitlines(keepends=True)[-1]
