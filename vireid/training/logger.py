"""Loggers: where a training's records go. JSON lines always, trackers (trackers.py) and others by the same two verbs.

A record is a dict of plain values: `event` ("step" or "epoch"), `total` (steps so far over all stages), `stage`,
`epoch`, `iteration`, `losses`, `watch`, `lr` (dicts of numbers), `images_per_s`, `elapsed_s`; the losses of an epoch
are its means, and `selected` holds the value of a selection rule where it was measured.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vireid.errors import DiskFull
from vireid.method import Progress as At
from vireid.system import no_space
from vireid.training.log_file import NAME


class Logger(Protocol):
    """Takes records during a training; wrap your own tracker in these two verbs and pass it as train(loggers=...)."""

    def log(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object per line, written through at once; of an older file the first `keep_bytes` stay."""

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        self.path = path
        path.touch()
        if path.stat().st_size > keep_bytes:  # lines after the checkpoint: those steps are taken again
            os.truncate(path, keep_bytes)
        self.file = path.open("ab", buffering=0)

    def log(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(_without_nan(record), ensure_ascii=False) + "\n").encode()
        try:
            while line:  # an unbuffered file may take less than it was given
                line = line[self.file.write(line) :]
        except OSError as error:
            raise DiskFull(self.path) if no_space(error) else error from error

    @property
    def bytes(self) -> int:
        """Length of the file, what was kept included."""
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


class Bar:
    """Progress for people: a bar with images per second and time left on a terminal, else one plain line per epoch."""

    def __init__(self, shown: bool = True) -> None:
        console = Console(stderr=True)
        self.shown = shown
        self.bar: Progress | None = None
        if shown and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            speed, left = TextColumn("{task.fields[speed]:.0f} images/s"), TimeRemainingColumn()
            self.bar = Progress(*columns, speed, TimeElapsedColumn(), TextColumn("left"), left, console=console)
            self.task = self.bar.add_task("", total=None, speed=0.0)
            self.bar.start()

    def begin(self, stage: int, stages: int, epoch: int, epochs: int) -> None:
        """An epoch begins."""
        self.where = f"epoch {epoch + 1}/{epochs}"
        if stages > 1:
            self.where = f"stage {stage + 1}/{stages} {self.where}"
        if self.bar:
            self.bar.update(self.task, description=self.where)

    def advance(self, iteration: int, iterations: int, speed: float) -> None:
        """`iteration` of the stage's `iterations` are done at `speed` images per second."""
        if self.bar:
            self.bar.update(self.task, completed=iteration, total=iterations, speed=speed)

    def end(self, record: Mapping[str, Any]) -> None:
        """An epoch ended; `record` is its log record."""
        numbers = {**record["losses"], **record.get("selected", {})}
        words = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        line = f"{self.where}  {words}  {record['images_per_s']:.0f} images/s"
        if self.bar:
            self.bar.console.print(line, highlight=False)
        elif self.shown:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()


class Report:
    """All that a training tells: makes the records, hands them to the logs, keeps the bar."""

    def __init__(self, folder: Path, bar: Bar, elapsed_s: float = 0.0) -> None:
        self.folder, self.bar = folder, bar
        self.lines: JsonLines | None = None
        self.logs: list[Logger] = []
        self.began = time.monotonic() - elapsed_s

    def open(self, log_bytes: int, loggers: Sequence[Logger]) -> None:
        """Open the logs; `log_bytes` of log.jsonl are kept."""
        self.lines = JsonLines(self.folder / NAME, log_bytes)
        self.logs = [self.lines, *loggers]

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, those before a resume included."""
        return time.monotonic() - self.began

    @property
    def log_bytes(self) -> int:
        return self.lines.bytes if self.lines else 0

    def record(self, event: str, at: At, total: int, images_per_s: float, **numbers: Any) -> dict[str, Any]:
        """A record without its place in the logs; `numbers` are losses, watch and lr."""
        where = {"event": event, "total": total, "stage": at.stage, "epoch": at.epoch, "iteration": at.iteration}
        return {**where, **numbers, "images_per_s": round(images_per_s, 2), "elapsed_s": round(self.elapsed_s, 3)}

    def log(self, record: Mapping[str, Any]) -> None:
        for log in self.logs:
            log.log(record)

    def close(self) -> None:
        self.bar.close()
        for log in self.logs:
            log.close()


def _without_nan(value: Any) -> Any:
    """NaN and infinity as words, because JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
