"""Alarms about rows, which `vireid watch` keeps beside a gallery (live/store.py): they go when their rows go."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from vireid.errors import WatchError

NAME = "watch.sqlite"


class AlarmRows:
    """The alarms in the store at `path`, which need not be there. Every method raises WatchError.

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
        try:
            with closing(sqlite3.connect(self.path, timeout=10.0)) as base, base:
                base.execute("pragma secure_delete = on")
                before = base.total_changes
                base.executemany(f"delete from alarms where {condition}", values)
                deleted = base.total_changes - before
                base.execute("delete from deliveries where alarm not in (select id from alarms)")
            return deleted
        except sqlite3.Error as error:
            raise WatchError(f"{self.path} cannot be used as the store of alarms ({error})") from error
