"""The trial of live cameras as a new user would make it: two RTSP cameras, a watch-list, a webhook, a search service.

A film of people who walk past a visible and an infrared camera (live_scene.py) is sent by GStreamer's RTSP server
(live_cameras.py) and watched by `vireid watch` into a gallery, which `vireid serve` searches meanwhile. A person is on
the watch-list with three pictures of other, visible cameras. Meanwhile each part is killed by SIGKILL and started
again: the watch (between passages, and while she is in the picture), the RTSP server, the receiver of alarms, the
service. Then everything is compared with what is known of the film.

    python benchmarks/live_trial.py --minutes 10            writes benchmarks/results/live_trial.txt

The RTSP server needs Debian packages: see live_cameras.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from live_report import judged
from live_scene import film, pictures_of, plan
from machine import describe

from vireid.search.drivers.open import open_gallery
from vireid.server.client import Client

HERE = Path(__file__).parent
RESULT = HERE / "results" / "live_trial.txt"
SECRET = "a secret of the trial"
PASSES = (0.08, 0.24, 0.36, 0.5, 0.66, 0.8, 0.92)  # of the wanted person before the infrared camera, parts of the film
RTSP_PORT, HOOK_PORT, SERVE_PORT = 8554, 8770, 8771
STARTED_S = 60.0  # in which all parts have to run
CAMERAS = """\
detector: {detector}
defaults: {{fps: 5}}
cameras:
  gate: {{address: "rtsp://127.0.0.1:{port}/gate", modality: visible}}
  hall: {{address: "rtsp://127.0.0.1:{port}/hall", modality: infrared}}
"""
WATCHLIST = """\
rows_per_day: {rows_per_day}
persons:
  anna:
    purpose: trial of live cameras
    until: {until}
    false_alarms_per_day: {budget:g}
    pictures: [{pictures}]
webhook: {{url: "http://127.0.0.1:{port}/alarms", secret: "{secret}"}}
"""


@dataclass
class Part:
    """A process of the trial, which is killed and started again."""

    name: str
    command: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.output().open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, cwd=HERE)

    def output(self) -> Path:
        return self.folder / f"{self.name}.log"

    def end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)


@dataclass
class Kill:
    """One death of a part in seconds of the film: when it came, when the part was started again, and when it worked."""

    part: str
    at_s: float
    rows: frozenset[str]  # ids of those that were there
    back_s: float = math.inf
    works_s: float = math.inf


@dataclass
class Trial:
    """The parts, and what was seen of them."""

    folder: Path
    parts: dict[str, Part]
    wanted: int
    budget: float
    rows_per_day: int
    start_s: float = 0.0
    seen: set[str] = field(default_factory=set)  # ids of rows that were in the gallery
    kills: list[Kill] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def now_s(self) -> float:
        return time.time() - self.start_s

    def look(self) -> None:
        """Note the rows that are there."""
        gallery = open_gallery(str(self.folder / "night"))
        self.seen |= {row.id for row in gallery.rows()}
        for kill in self.kills:
            if math.isinf(kill.works_s) and kill.back_s < self.now_s and self.works(kill):
                kill.works_s = self.now_s

    def works(self, kill: Kill) -> bool:
        """Whether a part that was started again does its work."""
        if kill.part == "service":
            return _answers(f"http://127.0.0.1:{SERVE_PORT}/readyz")
        if kill.part == "receiver":
            return _answers(f"http://127.0.0.1:{HOOK_PORT}/")
        at_s, reading = _status(self.folder / "night.files/watch.json")
        return reading and at_s - self.start_s > kill.back_s

    def kill(self, part: str, down_s: float) -> None:
        self.look()
        self.kills.append(Kill(part, self.now_s, frozenset(self.seen)))
        self.parts[part].end(signal.SIGKILL)
        time.sleep(down_s)
        self.parts[part].start()
        self.kills[-1].back_s = self.now_s

    def mark(self) -> None:
        """Search with her picture over HTTP, and mark the first hit; what was acknowledged is noted."""
        picture = sorted((self.folder / "pictures").glob("*.png"))[0]
        end = time.monotonic() + STARTED_S
        while not _answers(f"http://127.0.0.1:{SERVE_PORT}/readyz") and time.monotonic() < end:
            time.sleep(0.5)
        with Client(f"http://127.0.0.1:{SERVE_PORT}") as client:
            answer = client.search(picture)
            hit = answer.hits[0].id
            self.marks.append({"query": answer.query, "id": hit, "kept": client.mark(answer.query, {hit: True})})

    def run(self, minutes: float) -> None:
        """Kill one part after the other while the film runs, and look at the rows in between."""
        length_s = minutes * 60
        due = [
            (0.16 * length_s, self.mark),
            (0.18 * length_s, lambda: self.kill("watch", 3.0)),
            (0.30 * length_s, lambda: self.kill("cameras", 5.0)),
            (0.48 * length_s, lambda: self.kill("receiver", 0.04 * length_s)),
            (0.58 * length_s, lambda: self.kill("service", 1.0)),
            (0.64 * length_s, self.mark),
            (0.8 * length_s + 6.0, lambda: self.kill("watch", 1.0)),
        ]
        while self.now_s < length_s + 5.0:
            if due and self.now_s >= due[0][0]:
                due.pop(0)[1]()
            self.look()
            time.sleep(1.0)


def prepared(folder: Path, options: argparse.Namespace) -> dict[str, Part]:
    """Everything that a user writes, and the parts."""
    pictures = pictures_of(options.wanted, folder / "pictures", options.seed)
    place = Path(options.detector)
    detector = place.resolve() if place.exists() else options.detector  # else a name
    (folder / "cameras.yaml").write_text(CAMERAS.format(detector=detector, port=RTSP_PORT))
    (folder / "watchlist.yaml").write_text(
        WATCHLIST.format(
            rows_per_day=options.rows_per_day, budget=options.budget, port=HOOK_PORT, secret=SECRET,
            until=(datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds"),
            pictures=", ".join(str(path) for path in pictures),
        )
    )  # fmt: skip
    watch = [str(folder / "cameras.yaml"), "--gallery", str(folder / "night"), "--status", "2"]
    watch += ["--watchlist", str(folder / "watchlist.yaml")]
    vireid = [sys.executable, "-m", "vireid"]
    commands = {
        "watch": [*vireid, "watch", "--json", *watch],
        "receiver": [sys.executable, str(HERE / "live_receiver.py"), str(folder / "events.jsonl"),
                     "--port", str(HOOK_PORT), "--secret", SECRET],
        "service": [*vireid, "serve", "--gallery", str(folder / "night"), "--port", str(SERVE_PORT)],
    }  # fmt: skip
    return {name: Part(name, command, folder) for name, command in commands.items()}


def begin(trial: Trial) -> None:
    """Start all parts; the film begins when both cameras are read."""
    cameras = ["/usr/bin/python3", str(HERE / "live_cameras.py"), str(trial.folder / "film"), "--port", str(RTSP_PORT)]
    trial.start_s = time.time() + STARTED_S
    trial.parts["cameras"] = Part("cameras", [*cameras, "--start", str(trial.start_s)], trial.folder)
    for name in ("cameras", "receiver", "watch"):
        trial.parts[name].start()
    while not _status(trial.folder / "night.files/watch.json")[1]:
        if trial.parts["watch"].process.poll() is not None or trial.now_s > 0:  # type: ignore[union-attr]
            raise SystemExit(f"the watch does not run:\n{trial.parts['watch'].output().read_text()[-2000:]}")
        time.sleep(0.5)
    trial.parts["service"].start()
    time.sleep(max(0.0, -trial.now_s))


def _status(path: Path) -> tuple[float, bool]:
    """When the watch wrote its status, and whether it reads all cameras."""
    if not path.exists():
        return 0.0, False
    status = json.loads(path.read_text())
    at_s = datetime.fromisoformat(status["at"]).timestamp()
    return at_s, all(one["state"] == "reading" for one in status["cameras"].values())


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--detector", default="nanodet", help="as in cameras.yaml")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--wanted", type=int, default=1, help="number of the person on the watch-list")
    parser.add_argument("--seed", type=int, default=48)
    parser.add_argument("--budget", type=float, default=10.0, help="false alarms a day")
    parser.add_argument("--rows-per-day", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one. A film in it is used again")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "film/truth.json").exists():
            print("drawing the film", flush=True)
            passages = plan(options.minutes, options.people, options.wanted, list(PASSES), options.seed)
            film(folder / "film", passages, options.minutes, options.seed)
        trial = Trial(folder, prepared(folder, options), options.wanted, options.budget, options.rows_per_day)
        load = os.getloadavg()[0]
        try:
            begin(trial)
            trial.run(options.minutes)
        finally:
            for name in ("watch", "service", "receiver", "cameras"):
                if name in trial.parts:
                    trial.parts[name].end(signal.SIGTERM)
        lines, right = judged(trial)
    head = [f"# {describe()}; load at the beginning {load:.1f}", f"# python {' '.join(sys.argv)}"]
    options.result.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    print("\n".join([*head, *lines]))
    sys.exit(not right)


if __name__ == "__main__":
    main()
