"""Streams from real servers on loopback: cut, frozen, resized and restarted; their clock; frames that are dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")
from filmed import HEIGHT, WIDTH, number_of
from streaming import Mjpeg, Rtsp, Scene, Server

from vireid.live import reader as module
from vireid.live import shots
from vireid.live.reader import Arrivals, Queue, Reader
from vireid.live.settings import Camera
from vireid.live.shots import Link, Shot

HANG_S = 60.0
KINDS = {"rtsp": Rtsp, "http": Mjpeg}


class Watching:
    """A reader of one camera, and all frames that it gave."""

    def __init__(self, kind: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setattr(module, "FIRST_WAIT_S", 0.1)
        self.kind, self.scene = kind, Scene()
        self.server = Server(self.scene, KINDS[kind])
        camera = Camera(address=f"{kind}://127.0.0.1:{self.server.port}/video", **{"fps": 20, "stall_s": 1} | settings)
        self.link, self.shots = Link("gate", camera), list[Shot]()
        self.reader = Reader(self.link, Arrivals())
        self.reader.start()

    def until(self, reached: Callable[[], object]) -> None:
        end = time.monotonic() + HANG_S
        while not reached():
            self.shots += self.reader.queue.take(100)
            assert self.reader.fault is None and time.monotonic() < end, (self.reader.reason, len(self.shots))
            time.sleep(0.02)

    def more(self, count: int = 4) -> None:
        """Wait until some more frames have come."""
        before = len(self.shots)
        self.until(lambda: len(self.shots) >= before + count)

    def restart(self) -> None:
        self.server = Server(self.scene, KINDS[self.kind], self.server.port)


@pytest.fixture(params=list(KINDS))
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    opened = Watching(request.param, monkeypatch)
    yield opened
    opened.link.stop.set()
    opened.server.stop()
    opened.reader.join(HANG_S)


def test_cut_frozen_resized_and_restarted(watching: Watching) -> None:
    reader, scene = watching.reader, watching.scene
    watching.more()
    assert watching.shots[-1].pixels().shape == (HEIGHT, WIDTH, 3) and reader.state == "reading"

    watching.server.cut()
    watching.until(lambda: reader.reconnects == 1)
    watching.more()

    scene.frozen.set()
    watching.until(lambda: "sent no frame for 1 s" in reader.reason)
    scene.frozen.clear()
    watching.more()

    scene.size = (2 * WIDTH, 2 * HEIGHT)
    watching.until(lambda: watching.shots[-1].pixels().shape == (2 * HEIGHT, 2 * WIDTH, 3))

    watching.server.stop()
    watching.until(lambda: "cannot be opened" in reader.reason)
    watching.restart()
    watching.more()

    times = [shot.time_s for shot in watching.shots]
    assert times == sorted(times) and len({shot.name for shot in watching.shots}) == len(times)
    assert len({shot.connection for shot in watching.shots}) == watching.link.connections
    assert number_of(watching.shots[0].pixels()) < 1024 and reader.queue.dropped == 0


def test_time_is_that_of_the_stream_where_it_has_one(watching: Watching) -> None:
    watching.more()
    expected = {"rtsp": "stream", "http": "machine"}[watching.kind]
    assert watching.link.clock == expected and abs(watching.shots[-1].time_s - time.time()) < 2.0
    assert watching.shots[-1].name.startswith("gate/20") and str(watching.shots[-1].path) == watching.shots[-1].name
    if watching.kind == "rtsp":  # by the times at which frames were made, not those at which they came
        apart = np.diff([shot.time_s for shot in watching.shots])
        np.testing.assert_allclose(apart, np.round(apart / 0.1) * 0.1, atol=0.002)


def test_a_clock_that_is_far_off_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots, "MAX_SKEW_S", -1.0)
    watching = Watching("rtsp", monkeypatch)
    watching.more(2)
    watching.link.stop.set()
    watching.server.stop()
    assert watching.link.clock.startswith("machine (the camera's clock is ")


def test_frames_that_a_server_sends_again_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Watching("rtsp", monkeypatch)
    watching.link.read_s = time.time() + 1.5
    watching.more(2)
    watching.link.stop.set()
    watching.server.stop()
    assert watching.link.repeated > 2 and min(shot.time_s for shot in watching.shots) > watching.link.read_s - 5


@pytest.mark.parametrize("address", ["rtsp://camera/video", "http://camera/video"])
def test_frames_that_arrive_together_have_names_of_their_own(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = [100.0, 100.25, 100.2502, 100.2504, 100.2504, 100.5, 90.0]  # the clock is set back before the last one
    burst = [shots._Decoded(0.2 * n, 1.8e9 + arrival, float("nan"), None) for n, arrival in enumerate(arrivals)]
    monkeypatch.setattr(shots, "_decoded", lambda link: iter(burst))
    link = Link("gate", Camera(address=address, fps=5, clock="machine"))
    came = list(link.shots())
    assert len({shot.name for shot in came}) == len(burst)
    np.testing.assert_allclose(
        [shot.time_s - 1.8e9 for shot in came], [100, 100.25, 100.252, 100.254, 100.256, 100.5, 90], atol=1e-6
    )


def test_a_full_queue_drops_the_oldest_of_a_stream_and_lets_a_file_wait() -> None:
    many = [Shot(float(n), float(n), str(n), None, None) for n in range(5)]  # type: ignore[arg-type]
    stream = Queue(3, waits=False, arrivals=Arrivals())
    for shot in many:
        stream.put(shot, threading.Event())
    assert (stream.dropped, len(stream)) == (2, 3) and [shot.name for shot in stream.take(9)] == ["2", "3", "4"]

    file, stop = Queue(3, waits=True, arrivals=Arrivals()), threading.Event()
    writer = threading.Thread(target=lambda: [file.put(shot, stop) for shot in many])
    writer.start()
    taken = list[Shot]()
    while len(taken) < 5:
        taken += file.take(1)
    writer.join(HANG_S)
    assert file.dropped == 0 and taken == many


def test_time_between_attempts_doubles_up_to_a_limit_and_is_never_the_same() -> None:
    for attempts, longest in ((0, 0.5), (3, 4.0), (50, 60.0)):
        waits = [module.back_off(attempts, 0.5, 60.0) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_a_device_that_is_not_there_and_an_address_without_pictures() -> None:
    for address in ("/dev/video99", "rtsp://127.0.0.1:1/x", "http://127.0.0.1:1/x"):
        with pytest.raises(shots.VideoError, match="cannot be opened"):
            next(Link("gate", Camera(address=address)).shots())
