"""Pieces for the tests of many workers: one that waits in the middle, one that fails, one that ends its process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vireid.serve.index import BATCH, Crop

PATIENCE_S = 300.0  # of what waits for a condition that never comes


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Waiting:
    """Gives BATCH crops, which are written, and the others once the file `go` is in its folder."""

    name: str
    listed: tuple[Crop, ...]
    folder: Path

    def crops(self) -> Iterator[Crop]:
        (self.folder / f"begun {self.name} {os.getpid()}").touch()
        yield from self.listed[:BATCH]
        (self.folder / f"half {self.name} {os.getpid()}").touch()
        wait_for((self.folder / "go").exists, "go")
        yield from self.listed[BATCH:]

    @property
    def half_done_by(self) -> list[int]:
        """The processes that have written the first half."""
        return [int(path.name.split()[-1]) for path in self.folder.glob(f"half {self.name} *")]


@dataclass(frozen=True)
class Failing:
    name: str

    def crops(self) -> Iterator[Crop]:
        raise RuntimeError("the disk is on fire")
        yield


@dataclass(frozen=True)
class Deadly:
    name: str

    def crops(self) -> Iterator[Crop]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield from ()
