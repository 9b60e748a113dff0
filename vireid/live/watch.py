"""Watch: all cameras, from their frames to rows of the gallery and alarms, until it is stopped.

    a thread for each camera   reads frames into a queue                                      reader.py
    this thread                takes what waits, detects, tracks, chooses, embeds             people.py
                               writes rows                                                    ingest/index.py
                               raises alarms                                                  alarms.py
                               and then notes up to where each camera was worked              store.py

Each step can be repeated: rows have the ids of their frames and are written once, an alarm has the id of its row. So a
process that is killed between two of them repeats the later ones at the next start, and nothing is doubled or lost
that had been written. Frames of a stream that nobody read are gone; those of files and folders are read at the restart.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vireid.deploy.extractor import FeatureExtractor
from vireid.ingest.index import index_piece
from vireid.ingest.sources import Pictures
from vireid.live.alarms import Alarms
from vireid.live.people import People
from vireid.live.reader import Arrivals, Reader
from vireid.live.shots import MAX_SKEW_S, Shot
from vireid.live.store import WatchStore
from vireid.live.watchlist import WatchList
from vireid.search.archive import Archive
from vireid.search.gallery import Filter, Record
from vireid.system import replacing
from vireid.wording import counted

log = logging.getLogger(__name__)
STATUS = "watch.json"
FRAMES = 32  # of a camera that are worked at a time; at 256 rows a write is split
IDLE_S = 0.2
OPTIMIZE_S = 3600.0
RECOUNT_S = 600.0  # between two looks at how many rows came in a day
DAY_S = 86400.0


@dataclass
class Watched:
    """A camera with the people in its view."""

    reader: Reader
    people: People
    rows: int = 0  # that were written
    last_s: float = math.nan  # time of the last frame that was worked
    lag_s: float = math.nan  # from then until its rows were in the gallery


@dataclass
class Watch:
    """Cameras, the archive that their people go into, and a watch-list if there is one."""

    archive: Archive
    extractor: FeatureExtractor
    store: WatchStore
    arrivals: Arrivals
    cameras: dict[str, Watched]
    watchlist: WatchList | None = None
    alarms: Alarms | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def run(
        self, for_s: float = math.inf, status_s: float = 10.0, show: Callable[[dict[str, Any]], None] = print
    ) -> None:
        """Watch until `stop` is set or `for_s` seconds are over; `show` gets the status every `status_s` seconds.

        Raises what went wrong here or in a reader, when everything that was taken is written.
        """
        self._recover()
        if self.alarms is not None:
            self.alarms.start()
        for watched in self.cameras.values():
            watched.reader.start()
        end = time.monotonic() + for_s
        due = dict.fromkeys(("status", "optimize", "count"), time.monotonic())
        due["optimize"] += OPTIMIZE_S
        try:
            while not self.stop.is_set() and time.monotonic() < end:
                worked = self.work()
                now = time.monotonic()
                if now >= due["count"]:
                    self._count_rows()
                    due["count"] = now + RECOUNT_S
                if now >= due["status"]:
                    self._show(show)
                    due["status"] = now + status_s
                if now >= due["optimize"]:
                    self.archive.gallery.optimize()
                    due["optimize"] = now + OPTIMIZE_S
                if not worked:
                    with self.arrivals.changed:
                        self.arrivals.changed.wait(IDLE_S)
        finally:
            self._close(show)

    def work(self) -> int:
        """Work the frames that wait, once; how many there were."""
        taken: dict[str, list[Shot]] = {}
        for name, watched in self.cameras.items():
            if watched.reader.fault is not None:
                raise watched.reader.fault
            if shots := watched.reader.queue.take(FRAMES):
                taken[name] = shots
        crops = [crop for name, shots in taken.items() for crop in self.cameras[name].people.crops(shots)]
        if crops:
            indexed = index_piece(self.archive, self.extractor, Pictures(tuple(crops)))
            for reason in indexed.refused:
                log.warning("left out: %s", reason)
            rows = self.archive.gallery.fetch([crop.id for crop in crops], missing="skip")
            for row in rows:
                self.cameras[row.camera].rows += 1
            self._check(rows)
        for name, shots in taken.items():
            self._worked(name, shots)
        return sum(map(len, taken.values()))

    def status(self) -> dict[str, Any]:
        """What is counted, as plain values."""
        status: dict[str, Any] = {
            "at": _iso(time.time()),
            "cameras": {name: _status_of(watched) for name, watched in self.cameras.items()},
        }
        if self.watchlist is not None and self.alarms is not None:
            status["alarms"] = {"raised": self.alarms.raised, "not_acknowledged": self.store.waiting()}
            status["persons"] = [one.name for one in self.watchlist.active(time.time())]
            status["over_budget"] = self.watchlist.over_budget()
            status["threshold_from"] = {
                one.name: "recordings" if one.name in self.watchlist.recorded else "calibration"
                for one in self.watchlist.wanted
            }
        return status

    def _check(self, rows: Sequence[Record]) -> None:
        if self.watchlist is not None and self.alarms is not None:
            self.alarms.check(self.watchlist, rows)

    def _worked(self, name: str, shots: Sequence[Shot]) -> None:
        watched = self.cameras[name]
        link = watched.reader.link
        link.progress.done_s = max(link.progress.done_s, shots[-1].time_s)
        names = [shot.name.partition("/")[2] for shot in shots] if link.camera.kind == "folder" else []
        self.store.worked(name, link.camera.shown, link.progress, names)
        watched.last_s = shots[-1].time_s
        watched.lag_s = time.time() - watched.last_s

    def _recover(self) -> None:
        """Raise the alarms of rows that a killed process wrote and did not note, and note them."""
        for name, watched in self.cameras.items():
            link = watched.reader.link
            progress, folder = link.progress, link.camera.kind == "folder"
            if not link.camera.waits and math.isinf(progress.done_s):
                progress.done_s = time.time() - 2 * MAX_SKEW_S  # rows from before were not made by this command
            after_s = progress.done_s if math.isfinite(progress.done_s) and not folder else None
            where = Filter(cameras=(name,), after_s=after_s)
            begin = f"{name}/"
            left = [row for row in self.archive.gallery.rows(where) if row.id.startswith(begin)]
            if link.camera.waits:
                left = [row for row in left if Path(row.path).is_relative_to(link.camera.address)]
            names = {row.id.removeprefix(begin).rpartition("/")[0] for row in left} if folder else set()
            left = [
                row for row in left if not folder or row.id.removeprefix(begin).rpartition("/")[0] not in progress.names
            ]
            if left:
                self._check(self.archive.gallery.fetch([row.id for row in left], missing="skip"))
                progress.done_s = max(progress.done_s, *(row.time_s for row in left))
                progress.names |= names
            link.begin_behind(progress.done_s)
            self.store.worked(name, link.camera.shown, progress, names)

    def _count_rows(self) -> None:
        """Let the thresholds follow the number of rows that came in the last day, and who passed."""
        if self.watchlist is not None:
            last_day = Filter(cameras=tuple(self.cameras), after_s=time.time() - DAY_S)
            counted = self.archive.gallery.count(last_day)
            self.watchlist.rows_per_day = max(self.watchlist.listed.rows_per_day, counted)
            self.watchlist.follow(self.archive.gallery, tuple(self.cameras))
            for name in self.watchlist.over_budget():
                log.warning("%s: the budget of false alarms cannot be kept at %d rows a day", name, counted)

    def _show(self, show: Callable[[dict[str, Any]], None]) -> None:
        status = self.status()
        with replacing(self.archive.folder / STATUS) as partial:
            partial.write_text(json.dumps(status, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        show(status)

    def _close(self, show: Callable[[dict[str, Any]], None]) -> None:
        for watched in self.cameras.values():
            watched.reader.link.stop.set()
        with self.arrivals.changed:
            self.arrivals.changed.notify_all()
        for watched in self.cameras.values():
            watched.reader.join(1.0)
        if self.alarms is not None:
            self.alarms.stop()
        self._show(show)


def line(status: dict[str, Any]) -> str:
    """A status as one line for a person to read."""
    parts = []
    for name, one in status["cameras"].items():
        frames, rows = counted(one["frames"], "frame"), counted(one["rows"], "row")
        text = f"{name}: {one['state']}, {frames}, {one['dropped']} dropped, {rows}"
        parts.append(text + (f", {one['reconnects']} reconnects" if one["reconnects"] else ""))
    if "alarms" in status:
        raised = counted(status["alarms"]["raised"], "alarm")
        parts.append(f"{raised}, {status['alarms']['not_acknowledged']} not acknowledged")
    return "; ".join(parts)


def _status_of(watched: Watched) -> dict[str, Any]:
    reader, link = watched.reader, watched.reader.link
    quiet = reader.state == "connecting" and link.present  # a folder that no new picture has come into
    return {
        "address": link.camera.shown,
        "state": "reading" if quiet else reader.state,
        "reason": reader.reason,
        "clock": link.clock,
        "frames": link.frames,
        "queued": len(reader.queue),
        "dropped": reader.queue.dropped,
        "repeated": link.repeated,
        "refused": link.refused,
        "detections": watched.people.detections,
        "rows": watched.rows,
        "reconnects": reader.reconnects,
        "last_frame": None if math.isnan(watched.last_s) else _iso(watched.last_s),
        "lag_s": None if math.isnan(watched.lag_s) else round(watched.lag_s, 2),
    }


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
