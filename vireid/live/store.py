"""What `vireid watch` has to know after a restart, in a file of SQLite: up to where cameras were worked, and alarms."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid.errors import AlarmsError, DiskFull
from vireid.json_file import parsed
from vireid.live.shots import Progress
from vireid.search.alarm_rows import NAME as NAME
from vireid.search.alarm_rows import using

TABLES = """
create table if not exists progress (camera text, address text, done real, start real, primary key (camera, address));
create table if not exists pictures (camera text, name text, primary key (camera, name)) without rowid;
create table if not exists alarms (
    id text primary key, person text, camera text, time real, event text, audited integer default 0);
create index if not exists by_person on alarms (person, camera, time);
create table if not exists deliveries (
    alarm text, channel text, attempts integer default 0, due real, fault text default '',
    primary key (alarm, channel));
"""


@dataclass(frozen=True)
class Delivery:
    """An event that is still to be acknowledged by a channel."""

    alarm: str
    channel: str
    attempts: int
    event: dict[str, Any]


class WatchStore:
    """The store at `path`; each method is one transaction, on the disk when it returns. All raise AlarmsError."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.path = path
        self._base = sqlite3.connect(path, check_same_thread=False)
        try:
            with self._using():
                self._base.execute("pragma busy_timeout = 10000")
                self._base.execute("pragma secure_delete = on")  # what is deleted is overwritten
                self._base.executescript(TABLES)
        except (AlarmsError, DiskFull):
            self._base.close()
            raise

    def progress(self, camera: str, address: str) -> Progress:
        """Up to where a camera was worked at this address."""
        with self._using():
            row = self._base.execute(
                "select done, start from progress where camera = ? and address = ?", (camera, address)
            ).fetchone()
            names = self._base.execute("select name from pictures where camera = ?", (camera,)).fetchall()
            done, start = (None, None) if row is None else row
            return Progress(
                -math.inf if done is None else float(done), math.nan if start is None else float(start),
                {name for (name,) in names},
            )  # fmt: skip

    def worked(self, camera: str, address: str, progress: Progress, names: Iterable[str] = ()) -> None:
        """Everything up to here is in the gallery, and its alarms are raised."""
        values = (
            camera, address, _finite(progress.done_s), _finite(progress.start_s),
        )  # fmt: skip
        with self._using(), self._base:
            self._base.execute("insert or replace into progress values (?, ?, ?, ?)", values)
            self._base.executemany("insert or ignore into pictures values (?, ?)", [(camera, name) for name in names])

    def raise_alarm(self, event: dict[str, Any], channels: Iterable[str], quiet_s: float, now: float) -> bool:
        """Keep an alarm with a delivery for each channel; False where it is known, or another came just before."""
        values = (event["person"], event["camera"], event["time_s"] - quiet_s, event["time_s"] + quiet_s)
        with self._using(), self._base:
            near = "select 1 from alarms where person = ? and camera = ? and time > ? and time < ?"
            known = self._base.execute("select 1 from alarms where id = ?", (event["id"],)).fetchone()
            if known or self._base.execute(near, values).fetchone():
                return False
            self._base.execute(
                "insert into alarms (id, person, camera, time, event) values (?, ?, ?, ?, ?)",
                (event["id"], event["person"], event["camera"], event["time_s"], json.dumps(event, ensure_ascii=False)),
            )
            self._base.executemany(
                "insert into deliveries (alarm, channel, due) values (?, ?, ?)",
                [(event["id"], channel, now) for channel in channels],
            )
        return True

    def alarms(self, unaudited: bool = False) -> list[dict[str, Any]]:
        """Events of alarms, the oldest first."""
        where = " where audited = 0" if unaudited else ""
        with self._using():
            rows = self._base.execute(f"select event from alarms{where} order by time, id").fetchall()
            return [_event(event) for (event,) in rows]

    def audited(self, alarm: str) -> None:
        """The audit log holds this alarm."""
        with self._using(), self._base:
            self._base.execute("update alarms set audited = 1 where id = ?", (alarm,))

    def due(self, channel: str, now: float) -> list[Delivery]:
        """What is to be sent to a channel by now, the oldest first."""
        with self._using():
            rows = self._base.execute(
                "select alarm, attempts, event from deliveries join alarms on alarms.id = alarm "
                "where channel = ? and due <= ? order by time, alarm",
                (channel, now),
            ).fetchall()
            return [Delivery(alarm, channel, int(attempts), _event(event)) for alarm, attempts, event in rows]

    def acknowledged(self, delivery: Delivery) -> None:
        """The channel has it."""
        with self._using(), self._base:
            self._base.execute(
                "delete from deliveries where alarm = ? and channel = ?", (delivery.alarm, delivery.channel)
            )

    def failed(self, delivery: Delivery, due: float, fault: str) -> None:
        """The channel does not have it; it is tried again at a later time."""
        with self._using(), self._base:
            self._base.execute(
                "update deliveries set attempts = attempts + 1, due = ?, fault = ? where alarm = ? and channel = ?",
                (due, fault, delivery.alarm, delivery.channel),
            )

    def waiting(self) -> int:
        """How many deliveries are not acknowledged."""
        with self._using():
            return self._base.execute("select count(*) from deliveries").fetchone()[0]

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Alone among the threads; AlarmsError, which names the file, for what SQLite raises."""
        with using(self.path), self._lock:
            yield

    def close(self) -> None:
        with self._using():
            self._base.close()


def last_alarms(path: Path, count: int) -> list[tuple[dict[str, Any], list[str]]]:
    """The last alarms of a store, the newest first, each with the channels that did not acknowledge it; reads alone.

    AlarmsError for a file that is not a store.
    """
    with using(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10.0)) as base:
        rows = base.execute("select id, event from alarms order by time desc, id limit ?", (count,)).fetchall()
        waiting = base.execute("select alarm, channel from deliveries order by channel").fetchall()
        return [(_event(event), [channel for alarm, channel in waiting if alarm == name]) for name, event in rows]


def _event(text: str) -> dict[str, Any]:
    """An event from its JSON; ValueError for another value."""
    event = parsed(text)
    if not isinstance(event, dict):
        raise ValueError("an event is not an object of JSON")
    return event


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
