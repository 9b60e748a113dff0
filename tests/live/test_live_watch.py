"""`vireid watch`: from frames to rows; files that grow, folders, restarts after a kill, alarms, the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")
pytest.importorskip("trackers", reason="needs the extra `video`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("lancedb", reason="needs the extra `search`")
from filmed import Walkers, boxes_csv, draw, film, steps
from PIL import Image
from served import calibration, make_bundle
from streaming import Rtsp, Scene, Server

from vireid.deploy.bundle import Bundle
from vireid.errors import WatchError
from vireid.live.store import NAME, WatchStore
from vireid.search.audit import Audit
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Record
from vireid.workflows.watch import watch_cameras

START = "2026-11-24T21:04:11+01:00"
HANG_S = 300.0
Status = dict[str, Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = make_bundle(tmp_path_factory.mktemp("watched"))
    calibration(made).save(made.path / "calibration.json")
    return made


def watched(
    folder: Path, bundle: Bundle, until: Callable[[Status], object], detector: Any = None, **options: Any
) -> Status:
    """Watch folder/cameras.yaml into folder/g until a status is reached; the last status."""
    stop, statuses = threading.Event(), list[Status]()

    def show(status: Status) -> None:
        statuses.append(status)
        if until(status):
            stop.set()

    last = watch_cameras(
        folder / "cameras.yaml", str(folder / "g"), bundle.path, show=show, stop=stop, detector=detector,
        **{"seconds": HANG_S, "status_s": 0.05, "device": "cpu"} | options,
    )  # fmt: skip
    assert stop.is_set(), statuses[-1]
    return last


def worked(name: str, last_frame: str) -> Callable[[Status], object]:
    """Whether a camera was worked up to this frame."""
    return lambda status: (status["cameras"][name]["last_frame"] or "").endswith(last_frame)


def rows(folder: Path) -> list[Record]:
    return list(open_gallery(folder / "g").rows())


def dock(folder: Path, **more: str) -> None:
    """A camera whose file is folder/dock.ts, with known boxes of two people."""
    boxes_csv(folder / "boxes.csv", steps(40))
    lines = [f"{name}: {value}" for name, value in {"stall_s": "1", **more}.items()]
    (folder / "cameras.yaml").write_text(
        f"cameras: {{dock: {{address: dock.ts, boxes: boxes.csv, start: '{START}', {', '.join(lines)}}}}}"
    )


def test_a_file_that_grows_is_read_to_its_end_and_no_frame_twice(tmp_path: Path, bundle: Bundle) -> None:
    dock(tmp_path)
    data = film(tmp_path / "whole.ts", steps(40)).read_bytes()
    (tmp_path / "dock.ts").write_bytes(data[: len(data) // 3])

    def grow() -> None:
        for begin in range(len(data) // 3, len(data), len(data) // 3):
            time.sleep(0.5)
            with (tmp_path / "dock.ts").open("ab") as file:
                file.write(data[begin : begin + len(data) // 3])

    threading.Thread(target=grow, daemon=True).start()
    status = watched(tmp_path, bundle, worked("dock", "20:04:14.800Z"))["cameras"]["dock"]
    ids = [row.id for row in rows(tmp_path)]
    assert ids == [f"dock/2026-11-24T20:04:{11 + second}.000Z/{place}" for second in range(4) for place in (0, 1)]
    assert {row.track for row in rows(tmp_path)} == {"p0", "p1"} and rows(tmp_path)[0].time_s == 1795550651.0
    assert (status["rows"], status["dropped"], status["reconnects"], status["address"]) == (
        8, 0, 0, str(tmp_path / "dock.ts"),
    )  # fmt: skip
    assert json.loads((tmp_path / "g.files/watch.json").read_text())["cameras"]["dock"]["rows"] == 8
    again = watched(tmp_path, bundle, lambda status: status["cameras"]["dock"]["frames"] == 10)  # from a key frame on
    assert again["cameras"]["dock"]["rows"] == 0 and len(rows(tmp_path)) == 8


# Watches FOLDER/cameras.yaml into FOLDER/g, and waits to be killed at the nth call of METHOD of vireid.live.MODULE.
WORKER = """
import importlib, sys
from pathlib import Path
folder, bundle, module, kind, method, nth = *map(Path, sys.argv[1:3]), *sys.argv[3:6], int(sys.argv[6])
from filmed import Walkers
from vireid.workflows.watch import watch_cameras
kept = getattr(owner := getattr(importlib.import_module(module), kind), method)
calls = []

def waiting(*given, **more):
    calls.append(1)
    if len(calls) == nth:
        print("here", flush=True)
        sys.stdin.read()
    return kept(*given, **more)

setattr(owner, method, waiting)
watch_cameras(folder / "cameras.yaml", str(folder / "g"), bundle, detector=Walkers(), device="cpu",
              watchlist=folder / "list.yaml" if (folder / "list.yaml").exists() else None)
"""
MOMENTS = {
    "before alarms are raised": ("vireid.live.alarms", "Alarms", "check", 1),
    "before it is noted": ("vireid.live.store", "WatchStore", "worked", 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_killed_and_run_again_nothing_is_doubled_and_no_alarm_is_lost(
    tmp_path: Path, bundle: Bundle, moment: tuple[str, str, str, int], start_python: Any
) -> None:
    dock(tmp_path, interval_s="0", max_queue="5")
    film(tmp_path / "dock.ts", steps(40))
    wanted(tmp_path, bundle)
    process = start_python("-c", WORKER, tmp_path, bundle.path, *moment, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "here\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = rows(tmp_path)
    watched(tmp_path, bundle, worked("dock", "20:04:14.800Z"), watchlist=tmp_path / "list.yaml")
    whole = rows(tmp_path)
    assert [row for row in whole if row.id in {each.id for each in kept}] == kept
    frames = [f"dock/2026-11-24T20:04:{11 + n / 5:06.3f}Z/{place}" for n in range(20) for place in (0, 1)]
    assert [row.id for row in whole] == frames  # each box of each frame once
    [alarm] = WatchStore(tmp_path / "g.files" / NAME).alarms()
    entries = Audit(tmp_path / "g.files/audit.jsonl").entries()
    assert [entry["alarm"] for entry in entries if entry["what"] == "alarm"] == [alarm["id"]]


def wanted(folder: Path, bundle: Bundle) -> None:
    """A watch-list with the first walker, of whom one false alarm a day is allowed."""
    crop = draw(0, 0.0, 1)[17:87, 8:36]
    Image.fromarray(crop).save(folder / "walker.png")
    (folder / "list.yaml").write_text(
        "rows_per_day: 100\nquiet_s: 3600\npersons: {walker: {purpose: a test, until: 2099-01-01, "
        "false_alarms_per_day: 1, pictures: [walker.png]}}"
    )


def test_two_cameras_with_a_watchlist(tmp_path: Path, bundle: Bundle) -> None:
    wanted(tmp_path, bundle)
    server = Server(Scene(people=1, walk=False), Rtsp)
    (tmp_path / "in").mkdir()
    Image.fromarray(draw(0, 0.0, 1)).save(tmp_path / "in/ramp_20261124_210411.png")
    (tmp_path / "in/broken.png").write_bytes(b"no picture")
    for name in ("in/ramp_20261124_210411.png", "in/broken.png"):
        os.utime(tmp_path / name, (1.7e9, 1.7e9))
    (tmp_path / "cameras.yaml").write_text(
        f"cameras:\n  gate: {{address: 'rtsp://127.0.0.1:{server.port}/1', interval_s: 0.2}}\n  ramp: {{address: in}}"
    )

    def until(status: Status) -> bool:
        cameras = status["cameras"]
        return cameras["gate"]["rows"] > 2 and cameras["ramp"]["rows"] == 1 and cameras["ramp"]["refused"] == 1

    status = watched(tmp_path, bundle, until, Walkers(), watchlist=tmp_path / "list.yaml")
    server.stop()
    assert status["cameras"]["gate"]["clock"] == "stream" and status["cameras"]["gate"]["lag_s"] < 30
    assert status["persons"] == ["walker"] and status["alarms"]["raised"] == 2 and not status["over_budget"]
    by_camera = {name: [row for row in rows(tmp_path) if row.camera == name] for name in ("gate", "ramp")}
    assert [row.id for row in by_camera["ramp"]] == ["ramp/ramp_20261124_210411.png/0"]
    assert {row.track[-2:] for row in by_camera["gate"]} == {"-0"} and len(by_camera["gate"]) > 2
    thumbnails = tmp_path / "g.files/thumbnails"
    assert all((thumbnails / row.thumbnail).is_file() for row in rows(tmp_path))
    alarms = WatchStore(tmp_path / "g.files" / NAME).alarms()
    assert {alarm["camera"] for alarm in alarms} == {"gate", "ramp"} and all(a["similarity"] >= 0.9 for a in alarms)
    entries = Audit(tmp_path / "g.files/audit.jsonl").entries()
    assert {entry["what"] for entry in entries} == {"watch", "watch-list", "alarm"}


def test_a_folder_is_found_again_from_another_place_and_reads_before_a_picture_comes(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "cameras.yaml").write_text("cameras: {ramp: {address: in, whole: true}}")
    monkeypatch.chdir(tmp_path)
    watched(Path(), bundle, lambda status: status["cameras"]["ramp"]["state"] == "reading")
    Image.fromarray(np.full((64, 32, 3), 90, np.uint8)).save("in/a.png")
    watched(Path(), bundle, lambda status: status["cameras"]["ramp"]["rows"] == 1)
    assert [row.path for row in rows(tmp_path)] == [str(tmp_path / "in/a.png")]


def test_a_person_whose_date_has_passed_is_reported(
    tmp_path: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    wanted(tmp_path, bundle)
    (tmp_path / "list.yaml").write_text((tmp_path / "list.yaml").read_text().replace("2099", "2020"))
    (tmp_path / "in").mkdir()
    (tmp_path / "cameras.yaml").write_text("cameras: {ramp: {address: in, whole: true}}")
    status = watched(tmp_path, bundle, lambda status: True, watchlist=tmp_path / "list.yaml")
    assert status["persons"] == [] and "walker is no longer looked for: `until` was 2020-01-01" in caplog.text


def test_a_second_watch_of_the_same_archive_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    dock(tmp_path)
    film(tmp_path / "dock.ts", steps(10))
    refused = list[str]()

    def another(status: Status) -> bool:
        with pytest.raises(WatchError, match="another `vireid watch` writes into this archive"):
            watch_cameras(tmp_path / "cameras.yaml", str(tmp_path / "g"), bundle.path, seconds=1, device="cpu")
        refused.append("once")
        return True

    watched(tmp_path, bundle, another)
    assert refused


def test_the_command_shows_its_status(tmp_path: Path, bundle: Bundle, start_python: Any) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((64, 32, 3), 90, np.uint8)).save(tmp_path / "in/a.png")
    (tmp_path / "cameras.yaml").write_text("cameras: {ramp: {address: in, whole: true}}")
    given = ("watch", tmp_path / "cameras.yaml", "--gallery", tmp_path / "g", "--model", bundle.path)
    process = start_python("-m", "vireid", *given, "--status", "0.1", "--seconds", HANG_S)
    assert any(line == "ramp: reading, 1 frame, 0 dropped, 1 row\n" for line in process.stdout)
    process.terminate()
    out, _ = process.communicate()
    assert process.returncode == 0 and out.endswith("ramp: stopped, 1 frame, 0 dropped, 1 row\n")
