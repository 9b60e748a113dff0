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

HANG_S = 300.0
KINDS = {"rtsp": Rtsp, "http": Mjpeg}


class Watching:
    """A reader of one camera, and all frames that it gave; nothing counts as cut that only came late."""

    def __init__(self, kind: str, **settings: Any) -> None:
        self.kind, self.scene, self.begun_s = kind, Scene(), time.time()
        self.server = Server(self.scene, KINDS[kind])
        given = {"fps": 20, "stall_s": HANG_S, "max_queue": 10_000} | settings
        self.link = Link("gate", Camera(address=f"{kind}://127.0.0.1:{self.server.port}/video", **given))
        self.reader, self.shots = Reader(self.link, Arrivals()), list[Shot]()

    def start(self, read_s: float = -np.inf) -> Watching:
        """Read frames that are newer than this."""
        self.link.begin_behind(read_s)
        self.reader.start()
        return self

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

    def again(self) -> None:
        """Wait until frames come over a new connection."""
        before = self.shots[-1].connection
        self.until(lambda: self.shots[-1].connection > before)

    def restart(self) -> None:
        self.server = Server(self.scene, KINDS[self.kind], self.server.port)

    def stop(self) -> None:
        self.link.stop.set()
        self.server.stop()
        self.reader.join(HANG_S)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watching]]:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(module, "MAX_WAIT_S", 0.5)
    opened = list[Watching]()

    def of(kind: str, **settings: Any) -> Watching:
        opened.append(Watching(kind, **settings))
        return opened[-1]

    yield of
    for each in opened:
        each.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_cut_frozen_resized_and_restarted(kind: str, watch: Callable[..., Watching]) -> None:
    watching = watch(kind, stall_s=1).start()
    reader, scene = watching.reader, watching.scene
    watching.more()
    assert watching.shots[-1].pixels().shape == (HEIGHT, WIDTH, 3) and reader.state == "reading"

    watching.server.cut()
    watching.again()
    assert reader.reconnects > 0

    reader.reason = ""
    scene.frozen.set()
    watching.until(lambda: "sent no frame for 1 s" in reader.reason)
    scene.frozen.clear()
    watching.again()

    scene.size = (2 * WIDTH, 2 * HEIGHT)
    watching.until(lambda: watching.shots[-1].pixels().shape == (2 * HEIGHT, 2 * WIDTH, 3))

    watching.server.stop()
    watching.until(lambda: "cannot be opened" in reader.reason)
    watching.restart()
    watching.again()

    times, connections = ([getattr(shot, name) for shot in watching.shots] for name in ("time_s", "connection"))
    assert times == sorted(times) and len({shot.name for shot in watching.shots}) == len(times)
    assert connections == sorted(connections) and connections[0] >= 1 and connections[-1] <= watching.link.connections
    assert number_of(watching.shots[0].pixels()) < 1024 and reader.queue.dropped == 0


@pytest.mark.parametrize(("kind", "clock"), [("rtsp", "stream"), ("http", "machine")])
def test_time_is_that_of_the_stream_where_it_has_one(kind: str, clock: str, watch: Callable[..., Watching]) -> None:
    watching = watch(kind).start()
    watching.more()
    assert watching.link.clock == clock
    assert watching.begun_s - 0.001 <= watching.shots[0].time_s < watching.shots[-1].time_s <= time.time()
    assert watching.shots[-1].name.startswith("gate/20") and str(watching.shots[-1].path) == watching.shots[-1].name
    if kind == "rtsp":  # by the times at which frames were made, not those at which they came
        apart = np.diff([shot.time_s for shot in watching.shots])
        np.testing.assert_allclose(apart, np.round(apart / 0.1) * 0.1, atol=0.002)


def test_a_clock_that_is_far_off_is_not_believed(
    watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shots, "MAX_SKEW_S", -1.0)
    watching = watch("rtsp").start()
    watching.more(2)
    assert watching.link.clock.startswith("machine (the camera's clock is ")


def test_a_restart_reads_no_frame_of_before_again(watch: Callable[..., Watching]) -> None:
    watching = watch("rtsp").start(read_s=time.time() + 3600)
    watching.until(lambda: watching.link.repeated > 2)
    assert not watching.shots and not len(watching.reader.queue)


def test_frames_that_a_server_sends_again_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock is told by another report each time, and differs by parts of a millisecond."""
    link = Link("gate", Camera(address="rtsp://camera/video"))
    came = list[float]()
    for media, offset_s in (((0.0, 0.2, 0.4), 1.8e9), ((0.0, 0.2, 0.4, 0.6), 1.8e9 + 0.2003)):
        decoded = [shots._Decoded(media_s, media_s + offset_s, offset_s, None) for media_s in media]
        monkeypatch.setattr(shots, "_decoded", lambda link, decoded=decoded: iter(decoded))
        came += [shot.time_s - 1.8e9 for shot in link.shots()]
    np.testing.assert_allclose(came, [0, 0.2, 0.4, 0.6003, 0.8003], atol=1e-6)
    assert link.repeated == 2 and link.clock == "stream"


@pytest.mark.parametrize("address", ["rtsp://camera/video", "http://camera/video"])
def test_frames_that_arrive_together_have_names_of_their_own(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = [100.0, 100.25, 100.2502, 100.2504, 100.2504, 100.5, 90.0, 90.0001, 90.3]  # the clock is set back to 90
    burst = [shots._Decoded(0.2 * n, 1.8e9 + arrival, float("nan"), None) for n, arrival in enumerate(arrivals)]
    monkeypatch.setattr(shots, "_decoded", lambda link: iter(burst))
    link = Link("gate", Camera(address=address, fps=5, clock="machine"))
    came = list(link.shots())
    assert len({shot.name for shot in came}) == len(burst)
    np.testing.assert_allclose(
        [shot.time_s - 1.8e9 for shot in came],
        [100, 100.25, 100.252, 100.254, 100.256, 100.5, 90, 90.002, 90.3], atol=1e-6,
    )  # fmt: skip


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
