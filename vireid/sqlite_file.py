"""Files of SQLite: what is raised for one that is damaged, foreign or does not fit on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vireid.errors import DiskFull, VireidError


@contextmanager
def errors_of(path: Path, error: type[VireidError], purpose: str, advice: str) -> Iterator[None]:
    """`error`, which names the file, its purpose and what to do, for what SQLite and a value of another kind raise."""
    try:
        yield
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as fault:  # ValueError: not UTF-8, or not JSON
        if isinstance(fault, VireidError):
            raise
        if getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise DiskFull(path) from fault
        reason = " ".join(str(fault).split())[:200]
        raise error(f"{path} cannot be used as {purpose} ({reason}); {advice}") from fault
