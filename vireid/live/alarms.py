"""Alarms: each is kept on the disk and written to the audit log first, and then sent until it is acknowledged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from vireid.errors import DeliveryError, WatchError
from vireid.live.channels import Send
from vireid.live.reader import back_off
from vireid.live.store import WatchStore
from vireid.live.watchlist import WatchList
from vireid.search.audit import Audit
from vireid.search.gallery import Record

log = logging.getLogger(__name__)
WHO = "vireid watch"  # in the audit log
FIRST_RETRY_S, MAX_RETRY_S = 1.0, 900.0
LOOK_S = 1.0  # between two looks at what is due
END_S = 5.0  # for which `stop` waits for an answer


class Alarms:
    """Raises and sends alarms; `channels` by name."""

    def __init__(self, store: WatchStore, audit: Audit, channels: dict[str, Send]) -> None:
        self.store, self.audit, self.channels = store, audit, channels
        self.raised = 0
        self._stop, self._new = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._deliver, args=(name, send), name=f"alarms to {name}", daemon=True)
            for name, send in channels.items()
        ]

    def start(self) -> None:
        """Bring into the audit log what a killed process left, and begin to send."""
        self._write_audit()
        for thread in self._threads:
            thread.start()

    def check(self, watchlist: WatchList, rows: Sequence[Record]) -> int:
        """Raise the alarms of new rows, once each however often it is called; how many were new."""
        new = 0
        for event in watchlist.events(rows):
            if self.store.raise_alarm(event, self.channels, watchlist.listed.quiet_s, time.time()):
                new += 1
                log.warning("alarm: %s at camera %s, %s", event["person"], event["camera"], event["time"])
        if new:
            self._write_audit()
            self._new.set()
        self.raised += new
        return new

    def stop(self) -> None:
        """Stop sending; what is not acknowledged, or after the store was closed, is sent at the next start."""
        self._stop.set()
        self._new.set()
        for thread in self._threads:
            thread.join(END_S)

    def _write_audit(self) -> None:
        for event in self.store.alarms(unaudited=True):
            named = ("person", "purpose", "camera", "time", "row", "similarity", "threshold")
            self.audit.write("alarm", WHO, "admin", alarm=event["id"], **{name: event[name] for name in named})
            self.store.audited(event["id"])

    def _deliver(self, name: str, send: Send) -> None:
        try:
            self._send(name, send)
        except WatchError:  # after `stop` the store was closed before a channel answered
            if not self._stop.is_set():
                raise

    def _send(self, name: str, send: Send) -> None:
        while not self._stop.is_set():
            self._new.clear()
            for delivery in self.store.due(name, time.time()):
                if self._stop.is_set():
                    return
                try:
                    send(delivery.event)
                except DeliveryError as error:
                    wait_s = back_off(delivery.attempts, FIRST_RETRY_S, MAX_RETRY_S)
                    self.store.failed(delivery, time.time() + wait_s, str(error))
                    log.warning("%s: alarm %s: %s; trying again in %.0f s", name, delivery.alarm[:8], error, wait_s)
                else:
                    self.store.acknowledged(delivery)
            self._new.wait(LOOK_S)
