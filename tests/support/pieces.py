"""Pieces for the tests of many workers, and the program that indexes them: Ray does not run in the tests' process."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from vireid.ingest.index import BATCH
from vireid.ingest.ray import Job, _session, index_with_ray
from vireid.ingest.sources import Crop, Pictures, Piece

SHORT, LONG = 64, BATCH + 24  # crops
PATIENCE_S = 900.0  # of what waits for a condition that never comes


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
        yield from self.listed[:BATCH]
        (self.folder / f"half done {os.getpid()}").touch()
        wait_for((self.folder / "go").exists, "go")
        yield from self.listed[BATCH:]


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


def half_done_by(folder: Path) -> set[int]:
    """The processes that have written the first half of the piece that waits."""
    return {int(path.name.split()[-1]) for path in folder.glob("half done *")}


def crops(data: Path) -> list[Crop]:
    """SHORT + LONG crops; those of the long piece show the same pictures again and again."""
    paths = sorted(path for path in data.iterdir() if path.suffix in (".jpg", ".png"))[:SHORT]
    given = [Crop(path.name, path, camera=f"cam{n % 4}", time_s=1000.0 + n) for n, path in enumerate(paths)]
    return given + [Crop(f"long/{n:03}", paths[n % SHORT], "long", track=f"t{n // 8}") for n in range(LONG)]


def pieces(data: Path, folder: Path) -> list[Piece]:
    given = crops(data)
    short = [Pictures(tuple(given[at : at + 16])) for at in range(0, SHORT, 16)]
    return [Waiting("long", tuple(given[SHORT:]), folder), *short]


def faulty(folder: Path) -> list[Piece]:
    (folder / "broken.jpg").write_bytes(b"no picture")
    return [Failing("burning"), Pictures((Crop("broken", folder / "broken.jpg", "gate"),)), Deadly("deadly")]


def main(bundle: str, place: str, more: str, *workers: str) -> None:
    """Index the pieces, and the faulty ones if `more` says so, once for each number of workers, in one session."""
    folder, opened = Path(place), Path(bundle)
    given = [*(faulty(folder) if more == "faulty" else ()), *pieces(opened.parent / "data", folder)]
    job = Job(opened, str(folder / "g"), folder / "g.files", device="cpu")
    with _session(None, 2):
        for count in map(int, workers):
            found = index_with_ray(job, given, workers=count)
            print(json.dumps(asdict(found)), flush=True)
