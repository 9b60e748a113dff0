"""Alarms about rows, which `vireid watch` keeps beside a gallery (live/store.py): they go when their rows go."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

from vireid.errors import AlarmsError
from vireid.sqlite_file import errors_of

NAME = "watch.sqlite"


def using(path: Path) -> AbstractContextManager[None]:
    """AlarmsError, which names the store at `path`, for one that is damaged; DiskFull."""
    advice = "put a good copy in its place, or move it away: then alarms begin with none, and cameras begin again"
    return errors_of(path, AlarmsError, "the file of alarms", advice)


class AlarmRows:
    """The alarms in the store at `path`, which need not be there. Every method raises AlarmsError.

    What is deleted is overwritten. An alarm that was not delivered yet is not sent any more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def forget(self, ids: Sequence[str]) -> int:
        """Delete the alarms that these rows raised, and return how many."""
        return self._delete("json_extract(event, '$.row') = ?", [(row_id,) for row_id in ids])

    def forget_before(self, time_s: float) -> int:
        """Delete the alarms of passages before a moment."""
        return self._delete("time < ?", [(time_s,)])

    def _delete(self, condition: str, values: Sequence[tuple[object, ...]]) -> int:
        if not self.path.is_file():
            return 0
        with using(self.path), closing(sqlite3.connect(self.path, timeout=10.0)) as base, base:
            base.execute("pragma secure_delete = on")
            before = base.total_changes
            base.executemany(f"delete from alarms where {condition}", values)
            deleted = base.total_changes - before
            base.execute("delete from deliveries where alarm not in (select id from alarms)")
        return deleted
