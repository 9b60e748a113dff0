"""Readers: one thread for each camera, which is opened again whenever it is cut; frames wait in a bounded queue.

A stream cannot wait: when its queue is full the oldest frame is dropped and counted. A file can, and its reader does.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from vireid.errors import VireidError
from vireid.live.shots import Link, Shot

log = logging.getLogger(__name__)
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 60.0  # between two attempts to open a camera
STEADY_S = 30.0  # of frames, after which a cut is the first one again


class Arrivals:
    """Wakes the one who works the frames of all cameras."""

    def __init__(self) -> None:
        self.changed = threading.Condition()


class Queue:
    """The frames of one camera that wait to be worked, at most `size`."""

    def __init__(self, size: int, waits: bool, arrivals: Arrivals) -> None:
        self.size, self.waits, self.dropped = size, waits, 0
        self._shots: deque[Shot] = deque()
        self._changed = arrivals.changed

    def put(self, shot: Shot, stop: threading.Event) -> None:
        """Add a frame; full, the oldest one goes, or this waits."""
        with self._changed:
            while self.waits and len(self._shots) >= self.size and not stop.is_set():
                self._changed.wait(0.2)
            if len(self._shots) >= self.size:
                self._shots.popleft()
                self.dropped += 1
            self._shots.append(shot)
            self._changed.notify_all()

    def take(self, limit: int) -> list[Shot]:
        """The oldest frames, in order."""
        with self._changed:
            taken = [self._shots.popleft() for _ in range(min(limit, len(self._shots)))]
            self._changed.notify_all()
        return taken

    def __len__(self) -> int:
        return len(self._shots)


@dataclass
class Reader:
    """Reads one camera until `link.stop`; `state` is waiting, connecting or reading, `reason` why it was last cut."""

    link: Link
    arrivals: Arrivals
    state: str = "connecting"
    reason: str = ""
    reconnects: int = 0
    fault: BaseException | None = None  # of vireid itself
    queue: Queue = field(init=False)

    def __post_init__(self) -> None:
        self.queue = Queue(self.link.camera.max_queue, self.link.camera.waits, self.arrivals)
        self._thread = threading.Thread(target=self._run, name=f"camera {self.link.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        attempts = 0
        try:
            while not self.link.stop.is_set():
                self.state = "connecting"
                steady = self._read()
                if self.link.stop.is_set():
                    return
                attempts = 0 if steady else attempts
                self.state, wait_s = "waiting", back_off(attempts, FIRST_WAIT_S, MAX_WAIT_S)
                log.warning("%s: %s; trying again in %.1f s", self.link.name, self.reason, wait_s)
                self.link.stop.wait(wait_s)
                attempts += 1
                self.reconnects += 1
        except BaseException as error:  # shown by the thread that works the frames
            self.fault = error
        finally:
            self.state = "stopped"
            with self.arrivals.changed:
                self.arrivals.changed.notify_all()

    def _read(self) -> bool:
        """Read until the camera is cut; whether it had been steady."""
        first_s = None
        try:
            for shot in self.link.shots():
                if first_s is None:
                    first_s, self.state = time.monotonic(), "reading"
                self.queue.put(shot, self.link.stop)
            self.reason = f"{self.link.camera.shown} has ended"
        except VireidError as error:
            self.reason = str(error)
        return first_s is not None and time.monotonic() - first_s > STEADY_S


def back_off(attempts: int, first_s: float, longest_s: float) -> float:
    """Seconds until the next attempt: twice as long each time, drawn from the upper half of that.

    Devices that were cut at the same moment do not all come back at the same moment.
    """
    return min(longest_s, first_s * 2 ** min(attempts, 30)) * random.uniform(0.5, 1.0)
