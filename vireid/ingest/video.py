"""Frames of a video file with their exact times, through PyAV (FFmpeg's decoders in a wheel).

A time is in seconds since the first moment of the video: (pts - start) * time_base, as the file has it and never a
frame's number / rate, so a camera that drops frames or changes its rate keeps its clock. A clock that goes back, where
recordings were joined, continues where it was; clock.py says how. A frame is upright, as the file says that the camera
was held. Damaged packets are skipped and reported at the end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vireid.errors import VideoError
from vireid.images import read
from vireid.ingest.clock import UNSURE, Clock, clock_of
from vireid.ingest.container import SUFFIXES, open_container, reason

__all__ = ["NAMED", "SUFFIXES", "Stills", "Video", "frame_times", "named_time", "pixels", "sample_frames"]

EARLIER_S = (0.0, 10.0, 60.0, math.inf)  # where to seek before a moment, until a frame from before it comes
CUT_S = 2.0  # a video that ends this much before it says so is cut off
APART_S = 0.25  # between a requested moment and the nearest frame
GAP_S = 20.0  # over which seeking costs less than decoding what lies between
BACK_S = 0.5  # by which a clock goes back where it began again
MAX_BEHIND = 20  # frames behind a later one, which a hole in the data may give
NAMED = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_T. ]{0,2}(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(?!\d)"
)


class Video:
    """One video file: `duration_s`, `created_s` (Unix seconds, or nan), `size` (height, width) as stored; its frames.

    Raises VideoError for a file that cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        import av
        import av.error

        self._av = av
        unsure = any(name in UNSURE for name in self._container.format.name.split(","))
        clock = clock_of(path, open_container) if unsure else None
        self._clock: Clock | None = None if clock is None or clock.plain else clock
        if self._clock is not None:
            self._declared = None  # what can be read is all there is
        self.duration_s = self._duration() if clock is None or not len(clock.times) else float(clock.times[-1])

    def frames(self, after_s: float = 0.0, before_s: float = math.inf) -> Iterator[tuple[float, Any]]:
        """Time and PyAV frame of all that lie in after_s <= time < before_s, in order; `pixels` makes an array of one.

        Raises VideoError, when everything readable has been given, for damage and for a video that is cut off.
        """
        damage: list[str] = []
        last = -math.inf
        for time_s, frame in self._from(after_s, damage):
            if time_s >= before_s:
                break
            last = time_s + float((frame.duration or 0) * self._base)
            if time_s >= after_s:
                yield time_s, frame
        else:
            if self._declared is not None and before_s > self._declared > last + CUT_S:
                damage.append(f"it ends at {max(last, 0):.1f} s and says that it lasts {self._declared:.1f} s")
        if damage:
            raise VideoError(
                f"{self.path} is damaged or cut off: {damage[0]}"
                + (f" ({len(damage)} places)" if len(damage) > 1 else "")
                + "; what can be read was read. Copy it again from the recorder if more is needed"
            )

    def around(self, time_s: float) -> Iterator[tuple[float, Any]]:
        """Time and frame from some moment at or before this one; damage is passed over in silence."""
        return self._from(time_s, [])

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        self._container = open_container(self.path)
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._base = self._stream.time_base or Fraction(1)
        self._start = self._stream.start_time or 0
        self._declared = None if self._stream.duration is None else float(self._stream.duration * self._base)
        if self._declared is None and len(self._container.streams) == 1 and self._container.duration is not None:
            self._declared = self._container.duration / 1e6  # Matroska tells the length of the whole alone
        self.size = (self._stream.height, self._stream.width)

    def _duration(self) -> float:
        """Seconds that the file says it lasts, or else up to its last packet."""
        if self._declared is not None:
            return self._declared
        if self._container.duration is not None:
            return self._container.duration / 1e6  # FFmpeg's AV_TIME_BASE
        times = frame_times(self.path)
        return float(times[-1]) if len(times) else 0.0

    @property
    def created_s(self) -> float:
        """When the file says that the recording began; nan where it does not."""
        text = self._container.metadata.get("creation_time", "")
        try:
            created = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            return math.nan
        return created if created > 0 else math.nan  # recorders without a clock begin at 1970 or 1904

    def _from(self, after_s: float, damage: list[str]) -> Iterator[tuple[float, Any]]:
        """Frames from a key frame at or before a moment; formats without an index may need to go back further."""
        if self._clock is not None:
            yield from self._by_clock(self._clock, after_s, damage)
            return
        for earlier in EARLIER_S if after_s > 0 else EARLIER_S[-1:]:
            self._container.close()
            self._open()
            if earlier != math.inf:
                try:
                    place = int(max(after_s - earlier, 0) / self._base) + self._start
                    self._container.seek(place, stream=self._stream, backward=True)
                except self._av.error.FFmpegError:
                    continue
            stream = self._decoded(damage)
            first = next(stream, None)
            if first is not None and (first[0] <= after_s or earlier == math.inf):
                yield first
                yield from stream
                return
            if earlier != math.inf:
                damage.clear()

    def _by_clock(self, clock: Clock, after_s: float, damage: list[str]) -> Iterator[tuple[float, Any]]:
        """Frames under a clock that was made, from a key frame before a moment; such a file is never sought in."""
        self._container.close()
        self._open()
        self._declared = None
        first = clock.before(after_s)
        part, before, last = clock.part_of(first), -math.inf, -math.inf
        for number, frame in enumerate(self._packets(damage, first), first):
            if clock.counted:
                time_s = float(clock.times[min(number, len(clock.times) - 1)])
            elif frame.pts is None:
                continue
            else:
                raw = float((frame.pts - self._start) * self._base)
                if raw < before - BACK_S and part + 1 < len(clock.parts):
                    part += 1
                before, time_s = raw, raw + clock.parts[part][1]
            if time_s > last:
                last = time_s
                yield time_s, frame

    def _decoded(self, damage: list[str]) -> Iterator[tuple[float, Any]]:
        """Time and frame of what follows; faults are noted."""
        last, behind = -math.inf, 0
        for frame in self._packets(damage):
            if frame.pts is None:
                raise VideoError(
                    f"{self.path} has no times; write it again with its frame rate: ffmpeg -r 25 -i {self.path} NEW.mp4"
                )
            time_s = float((frame.pts - self._start) * self._base)
            behind += time_s < last - BACK_S
            if time_s > last:  # one that is doubled is given once
                last = time_s
                yield time_s, frame
        if behind > MAX_BEHIND:
            damage.append(f"its clock goes back, and {behind} frames behind {last:.1f} s are left out")

    def _packets(self, damage: list[str], first: int = 0) -> Iterator[Any]:
        """The decoded frames from the packet of this number on; faults are noted."""
        packets = self._container.demux(self._stream)
        at, number = 0.0, -1
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                at = at if packet.pts is None else float((packet.pts - self._start) * self._base)
            except self._av.error.FFmpegError as error:
                damage.append(f"nothing can be read after {at:.1f} s ({reason(error)})")
                packet = None
            number += packet is not None and packet.size > 0 and not packet.is_discard
            if packet is not None and packet.size and number < first:
                continue
            try:
                yield from self._stream.codec_context.decode(packet)  # None: what the decoder still holds
            except self._av.error.FFmpegError as error:
                damage.append(f"near {at:.1f} s ({reason(error)})")
            if packet is None:
                return


def pixels(frame: Any) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a frame, upright; gray of more than 8 bits is stretched (vireid.images.GrayRule)."""
    values = stored(frame)
    return values if values.ndim == 3 else np.asarray(read(values, "the frame"))


def stored(frame: Any) -> np.ndarray:
    """What a frame holds, upright: gray values (H, W) of more than 8 bits as they are, else uint8 RGB (H, W, 3)."""
    is_deep = frame.format.name.startswith("gray") and frame.format.components[0].bits > 8
    values = frame.to_ndarray() if is_deep else frame.to_ndarray(format="rgb24")
    return np.rot90(values, round(frame.rotation / 90))  # both counterclockwise


def sample_frames(fps: float, after_s: float, frames: Iterator[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """At most `fps` frames a second, from `after_s` on: the first one in each 1 / fps seconds of the video."""
    last = math.floor(after_s * fps + 1e-6) - 1
    for time_s, frame in frames:
        number = math.floor(time_s * fps + 1e-6)
        if number > last:
            last = number
            yield time_s, frame


class Stills:
    """Frames of one video at given times, which come in order. The file is opened at the first one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: Iterator[tuple[float, Any]] = iter(())
        self._before: tuple[float, Any] | None = None
        self._after: tuple[float, Any] | None = None
        self._shown: tuple[float, np.ndarray] | None = None

    def at(self, time_s: float) -> np.ndarray:
        """What the frame nearest to a time holds, as `stored` gives it; raises VideoError where there is none near."""
        near = [each[0] for each in (self._before, self._after) if each is not None]
        if not near or not min(near) <= time_s < max(near) + GAP_S:
            self._frames = Video(self.path).around(time_s)
            self._before = self._after = None
        while self._after is None or self._after[0] < time_s:
            self._before = self._after or self._before
            self._after = next(self._frames, None)
            if self._after is None:
                break
        nearest = min(
            (each for each in (self._before, self._after) if each is not None),
            key=lambda each: abs(each[0] - time_s),
            default=None,
        )
        if nearest is None or abs(nearest[0] - time_s) > APART_S:
            raise VideoError(
                f"{self.path} has no frame near {time_s:.3f} s; it is damaged there, or the boxes are of another video"
            )
        if self._shown is None or self._shown[0] != nearest[0]:
            self._shown = (nearest[0], stored(nearest[1]))
        return self._shown[1]


def frame_times(path: Path) -> np.ndarray:
    """Seconds of each frame (F,) float64 in the order shown, without decoding: place n is frame n."""
    return clock_of(path, open_container).times


def named_time(name: str) -> float:
    """Unix seconds of a date and time in a file's name, in this machine's zone; nan where there is none.

    >>> datetime.fromtimestamp(named_time("gate_20261124_210411.mp4")).isoformat()
    '2026-11-24T21:04:11'
    >>> named_time("gate.mp4"), named_time("20261324_210411.mp4")
    (nan, nan)
    """
    if match := NAMED.search(name):
        try:
            return datetime(*map(int, match.groups())).timestamp()  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            pass
    return math.nan
