"""Shots: frames of a live camera with the times at which they were taken, from the moment it is opened until it is cut.

**Clock.** RTP carries the camera's own time: sender reports of RTCP pair it with the time stamps of the packets (RFC
3550, section 6.4), and FFmpeg hands it on with each packet. A report comes up to five seconds after the first frame,
which is held until then. Without one, and with `clock: machine`, a frame's time is that of its arrival. A clock that
is further off than MAX_SKEW_S is not believed.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vireid.errors import MissingPackage, PictureError, VideoError
from vireid.images import STRETCH, SUFFIXES, GrayRule, read
from vireid.ingest.container import FORMATS, reason
from vireid.ingest.segments import CLOSEST_S
from vireid.ingest.times import seconds
from vireid.ingest.video import Video, named_time, pixels
from vireid.live.settings import Camera, Kind

log = logging.getLogger(__name__)
OPEN_S = 15.0  # for which an address is tried
MAX_SKEW_S = 30.0  # between the clock of a stream and this machine's
REPORT_S = 6.0  # for which frames wait for the first report of the camera's clock; RFC 3550: 5 s between two
BURST_S = 1.0  # by which frames that came together can run ahead of the clock
JUMP_S = 5.0  # of a stream's own times, after which they mean something else
SETTLED_S = 1.0  # since a picture in a folder was changed last, until it is read
UNTIMED = ("mpjpeg", "mjpeg", "jpeg_pipe")  # formats without times, to which FFmpeg gives 25 frames a second
UNTIMED_FRAMES = 25  # without a time, after which a stream counts as one of these
GROWTH_S = 0.05  # between two attempts to read behind the end of a file
POLL_S = 0.5  # between two looks at a folder or a file
NETWORK = "rtsp,rtsps,rtp,udp,tcp,tls,http,https,crypto"
SOME: dict[str, str] = {"fflags": "discardcorrupt", "analyzeduration": "1000000"}
OPTIONS: dict[Kind, dict[str, str]] = {
    "rtsp": SOME | {"protocol_whitelist": NETWORK, "rtsp_transport": "tcp", "allowed_media_types": "video"},
    # no playlist, which would name other addresses
    "http": SOME | {"protocol_whitelist": NETWORK, "format_whitelist": f"mpjpeg,mjpeg,jpeg_pipe,{FORMATS}"},
    "device": SOME,
    "file": {"protocol_whitelist": "file", "format_whitelist": FORMATS},
}


class Shot(NamedTuple):
    """A frame: `time_s` Unix seconds, `media_s` seconds that grow while the stream runs, and what it is called."""

    time_s: float
    media_s: float
    name: str  # unique within the camera, the same whenever this frame is read
    path: Path
    frame: Any  # PyAV's, or uint8 (H, W, 3)
    connection: int = 0  # how often the camera was opened before

    def pixels(self) -> np.ndarray:
        """uint8 RGB (H, W, 3), upright."""
        return self.frame if isinstance(self.frame, np.ndarray) else pixels(self.frame)


@dataclass
class Progress:
    """Up to where a camera was worked: what a restart begins behind."""

    done_s: float = -math.inf
    start_s: float = math.nan  # of a file: its first moment
    names: set[str] = field(default_factory=set)  # of a folder: the pictures that are done


@dataclass
class Link:
    """One camera while it is read; the counts are those of the status."""

    name: str
    camera: Camera
    progress: Progress = field(default_factory=Progress)
    stop: threading.Event = field(default_factory=threading.Event)
    gray: GrayRule = STRETCH  # of a folder: how pictures of more than 8 bits are read
    frames: int = 0  # that were read
    repeated: int = 0  # that had been read before
    refused: int = 0  # pictures that cannot be read
    clock: str = ""
    present: bool = False  # of a file or folder: it is there
    connections: int = 0
    read_s: float = -math.inf  # newest time of a frame
    last_s: float = -math.inf  # time of the last frame: earlier where this machine's clock was set back

    def __post_init__(self) -> None:
        self.begin_behind(self.progress.done_s)

    def begin_behind(self, time_s: float) -> None:
        """Take it that frames up to here were read."""
        self.read_s = self.last_s = time_s

    def shot(self, time_s: float, media_s: float, frame: Any, path: Path | None = None, name: str = "") -> Shot:
        """A frame that was read; `name` is its time by default."""
        self.read_s, self.last_s = max(self.read_s, time_s), time_s
        name = f"{self.name}/{name or _written(time_s)}"
        return Shot(time_s, media_s, name, path or Path(name), frame, self.connections)

    def shots(self) -> Iterator[Shot]:
        """Frames, at most `fps` of a second, until the stream is cut, which raises VideoError, or ends."""
        if self.camera.kind == "folder":
            return _of_folder(self)
        return _of_file(self) if self.camera.kind == "file" else _of_stream(self)


# --- streams ----------------------------------------------------------------------------------------------------------


class _Decoded(NamedTuple):
    media_s: float
    arrival_s: float
    offset_s: float  # to be added to media_s for the camera's own time; nan while it is not known
    frame: Any


def _of_stream(link: Link) -> Iterator[Shot]:
    held: list[_Decoded] = []
    wanted, skew_s, known = link.camera.clock == "stream" and link.camera.kind == "rtsp", math.nan, False
    for one in _sampled(link, _decoded(link)):
        held.append(one)
        if wanted and not known:
            known = not math.isnan(one.offset_s)
            if not known and one.arrival_s - held[0].arrival_s < REPORT_S:
                continue
            skew_s = one.media_s + one.offset_s - one.arrival_s
            wanted = abs(skew_s) <= MAX_SKEW_S
        link.clock = _clock(link.camera, wanted, skew_s)
        for each in held:
            time_s = each.media_s + one.offset_s if wanted else _arrival(each.arrival_s, link.last_s)
            if wanted and time_s < link.read_s + CLOSEST_S:  # a server that sends its last seconds again
                link.repeated += 1
                continue
            yield link.shot(time_s, each.media_s, each.frame)
        held = []


def _arrival(time_s: float, before_s: float) -> float:
    """The time of a frame by its arrival: frames that come together after a stall lie CLOSEST_S apart."""
    return before_s + CLOSEST_S if before_s - BURST_S < time_s < before_s + CLOSEST_S else time_s


def _clock(camera: Camera, believed: bool, skew_s: float) -> str:
    """What the status says of the time."""
    if believed:
        return "stream"
    if camera.clock == "stream" and not math.isnan(skew_s):
        return f"machine (the camera's clock is {skew_s:+.0f} s off)"
    return "machine"


def _decoded(link: Link, growing: _Growing | None = None, after_s: float = -math.inf) -> Iterator[_Decoded]:
    """Every frame, of a file those after a moment; VideoError where it cannot be opened, stalls, or its times jump."""
    av, shown, stall_s = _library(), link.camera.shown, link.camera.stall_s
    try:
        container = av.open(
            growing or link.camera.address,
            format="v4l2" if link.camera.kind == "device" else None,
            options=OPTIONS[link.camera.kind],
            timeout=None if growing else (OPEN_S, stall_s),
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{shown} cannot be opened ({reason(error)})") from error
    with container:
        if not container.streams.video:
            raise VideoError(f"{shown} holds no pictures")
        stream = container.streams.video[0]
        link.connections += 1
        if growing:
            growing.waits = True
        times = _Times(link, container.format.name not in UNTIMED, stream)
        seen_s = time.monotonic()
        try:
            for packet in _from(container, stream, after_s):
                if link.stop.is_set() or (growing and packet.dts is None and not growing.ended):
                    return  # what the decoder holds at the end of a file that grows is not complete
                if packet.stream_index == stream.index:
                    times.report(packet)
                    for frame in packet.decode():
                        link.frames += 1
                        seen_s = time.monotonic()
                        if (one := times.of(frame)) is not None:
                            yield one
                if not growing and time.monotonic() - seen_s > stall_s:
                    raise VideoError(f"{shown} sent no frame for {stall_s:g} s")
        except (av.error.FFmpegError, OSError) as error:
            stalled = not growing and time.monotonic() - seen_s > 0.9 * stall_s
            fault = f"sent no frame for {stall_s:g} s" if stalled else f"was cut ({reason(error)})"
            raise VideoError(f"{shown} {fault}") from error


def _from(container: Any, stream: Any, after_s: float) -> Iterator[Any]:
    """Packets of all streams, so that sound does not hide that pictures are missing.

    With a moment the packets of pictures from the last key frame before it; a file that grows cannot be searched.
    """
    held: list[Any] = []
    for packet in container.demux():
        if after_s == -math.inf:
            yield packet
        elif packet.stream_index == stream.index:
            held = [] if packet.is_keyframe else held
            held.append(packet)
            if packet.pts is None or (packet.pts - (stream.start_time or 0)) * stream.time_base > after_s:
                yield from held
                after_s = -math.inf


@dataclass
class _Times:
    """The times of the frames of one connection."""

    link: Link
    timed: bool  # whether the stream says them
    stream: Any
    last_s: float = -math.inf
    offset_s: float = math.nan
    untimed: int = 0  # frames without a time

    def report(self, packet: Any) -> None:
        """Take the camera's clock from a packet, if it is there (FFmpeg's AVProducerReferenceTime)."""
        if packet.pts is not None and packet.has_sidedata("prft"):
            microseconds = struct.unpack_from("q", bytes(packet.get_sidedata("prft")))[0]
            self.offset_s = microseconds / 1e6 - self._media_s(packet.pts)

    def of(self, frame: Any) -> _Decoded | None:
        """A frame with its times; None for one that has none, or comes late. Raises VideoError for a jump."""
        if self.timed and frame.pts is None:  # FFmpeg gives the first frames of RTSP no time
            self.untimed += 1
            self.timed = self.untimed < UNTIMED_FRAMES or self.last_s > -math.inf
            return None
        media_s = self._media_s(frame.pts) if self.timed else time.monotonic()
        if abs(media_s - self.last_s) > JUMP_S + self.link.camera.stall_s and self.last_s > -math.inf:
            raise VideoError(f"the times of {self.link.camera.shown} jump from {self.last_s:.1f} to {media_s:.1f} s")
        if media_s <= self.last_s:
            return None
        self.last_s = media_s
        return _Decoded(media_s, time.time(), self.offset_s, frame)

    def _media_s(self, pts: int) -> float:
        return float((pts - (self.stream.start_time or 0)) * self.stream.time_base)


def _sampled(link: Link, frames: Iterator[_Decoded]) -> Iterator[_Decoded]:
    """The first frame in each 1 / fps seconds."""
    last = -1
    for one in frames:
        number = math.floor(one.media_s * link.camera.fps + 1e-6)
        if number > last:
            last = number
            yield one


# --- files and folders ------------------------------------------------------------------------------------------------


class _Growing:
    """A file for FFmpeg, whose end comes when it has not grown for `stall_s`, or at once while it does not wait."""

    def __init__(self, camera: Camera, stop: threading.Event, waits: bool) -> None:
        self.name, self.waits, self.ended = camera.address, waits, False
        self._stop, self._stall_s = stop, camera.stall_s
        self._file = Path(camera.address).open("rb")  # noqa: SIM115, closed by `close`
        self.seek, self.tell, self.close = self._file.seek, self._file.tell, self._file.close

    def read(self, size: int) -> bytes:
        end = time.monotonic() + self._stall_s
        while not (data := self._file.read(size)) and self.waits and not self.ended:
            self.ended = time.monotonic() > end  # FFmpeg reads again what has ended
            if self._stop.wait(GROWTH_S):
                break
        return data


def _of_file(link: Link) -> Iterator[Shot]:
    """Frames of a file that grows; it is opened again when it has grown since it was read to its end."""
    path, progress = Path(link.camera.address), link.progress
    read_to, waits = (-1, -1), False
    link.clock = "file"
    while not link.stop.is_set():
        state = _state(path)
        link.present = state is not None
        if state is None:
            raise VideoError(f"{path}: there is no such file yet")
        if state == read_to:
            link.stop.wait(POLL_S)
            continue
        if math.isnan(progress.start_s):
            progress.start_s = _first_moment(link.camera, path)
        after_s = link.read_s - progress.start_s + 1e-4  # -inf at first
        with closing(_Growing(link.camera, link.stop, waits)) as growing:
            try:
                for one in _sampled(link, _decoded(link, growing, after_s)):
                    if one.media_s > after_s:
                        yield link.shot(progress.start_s + one.media_s, one.media_s, one.frame, path)
            except VideoError as error:  # it begins to be written, or is damaged from here on
                log.info("%s: %s", link.name, error)
            if growing.ended or waits:
                read_to = state
            waits = not growing.ended  # its beginning alone is there: wait for more from the first byte on


def _of_folder(link: Link) -> Iterator[Shot]:
    """Pictures that come into a folder, in order of time; each is read once it has not changed for a while."""
    root, progress = Path(link.camera.address), link.progress
    while not link.stop.is_set():
        link.present = root.is_dir()
        if not link.present:
            raise VideoError(f"{root}: there is no such folder yet")
        came = []
        for path in root.rglob("*"):
            name = path.relative_to(root).as_posix()
            if path.suffix.lower() in SUFFIXES and name not in progress.names and (state := _state(path)):
                came.append((state[1] / 1e9, name, path))
        for changed_s, name, path in sorted(came):
            if time.time() - changed_s < SETTLED_S:
                continue
            progress.names.add(name)
            link.frames += 1
            named_s = named_time(path.name)
            time_s = changed_s if math.isnan(named_s) else named_s
            link.clock = "file"
            try:
                picture = np.asarray(read(path, gray=link.gray))
            except PictureError as error:
                link.refused += 1
                log.warning("%s: left out: %s", link.name, error)
                continue
            yield link.shot(time_s, time_s, picture, path, name)
        link.stop.wait(POLL_S)


def _first_moment(camera: Camera, path: Path) -> float:
    """Unix seconds of a file's beginning: as given, from its name, as it says, or by when it was changed last."""
    given = seconds(camera.start, "start")
    named = named_time(path.name) if math.isnan(given) else given
    if not math.isnan(named):
        return named
    with Video(path) as video:
        if not math.isnan(video.created_s):
            return video.created_s
        return path.stat().st_mtime - video.duration_s


def _state(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def _written(time_s: float) -> str:
    """A time in UTC, to the millisecond, as a part of a name.

    >>> _written(1795550651.2074)
    '2026-11-24T20:04:11.207Z'
    """
    from datetime import UTC, datetime

    return datetime.fromtimestamp(round(time_s, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _library() -> Any:
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingPackage("cameras need the package av: pip install 'vireid[video]'", name="av") from error
    return av
