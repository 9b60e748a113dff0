"""The calibration of a bundle as it is on the disk now: `vireid calibrate` may write it while the service runs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from vireid.deploy.bundle_config import CALIBRATION
from vireid.deploy.calibration import Calibration
from vireid.errors import CalibrationError

log = logging.getLogger(__name__)


class CalibrationFile:
    """The calibration in a bundle's folder; the constructor raises CalibrationError for a file that does not fit."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.path, self._digest, self._lock = folder / CALIBRATION, digest, threading.Lock()
        self._stamp = self._look()
        self._calibration = None if self._stamp is None else Calibration.load(self.path, digest)

    def current(self) -> Calibration | None:
        """The calibration, read again where the file changed; None without one.

        A file that does not fit is logged, and the one before stays in use.
        """
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._calibration = None if stamp is None else Calibration.load(self.path, self._digest)
                except CalibrationError as error:
                    log.error("%s; the one before stays in use", error)
                else:
                    log.info("%s was %s", self.path, "removed: no threshold" if stamp is None else "read again")
            return self._calibration

    def _look(self) -> tuple[int, int, int] | None:
        """What changes with the file; None where there is none."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
