"""Clock: the times of a video's frames, from its packets and without decoding.

Most containers have a presentation time for each packet, on a clock that only goes forward. Two kinds need more:

**A clock that goes back.** In MPEG-TS, MPEG-PS and FLV recordings can be joined end to end, and a recorder may start
its clock again. Each further part continues where the one before it ended.

**No presentation times.** AVI has an order of decoding alone: with B-frames the n-th frame that is shown has the n-th
of these times. MPEG-PS has a time now and then, and after a seek those between are guessed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

UNSURE = ("mpegts", "mpeg", "flv", "avi", "asf", "dhav")  # containers in which either is met
BACK_S = 0.5  # by which a packet's time goes back where a clock began again; less is the order of B-frames
KEYS_BEFORE = (
    2  # key frames from which reading begins before a moment: of B-frames some are shown before their key frame
)


@dataclass(frozen=True)
class Clock:
    """`times` (F,) float64 seconds of the frames in the order shown, from the first moment of the video.

    `keys` (K,) are the key frames among the packets. `parts` has, for each clock, the number of its first packet and
    what is added to its times. `counted`: times are given by counting, for packets do not say them. `sought`: the
    container has the same times after a seek.
    """

    times: np.ndarray
    keys: np.ndarray
    parts: tuple[tuple[int, float], ...]
    counted: bool
    sought: bool = True

    @property
    def plain(self) -> bool:
        """Whether the container's own times are right as they are."""
        return len(self.parts) == 1 and not self.counted and self.sought

    def before(self, time_s: float) -> int:
        """The number of the packet, a key frame, from which to decode for a moment."""
        place = int(np.searchsorted(self.times, time_s, side="right"))
        earlier = self.keys[self.keys <= max(place - 1, 0)]
        return int(earlier[-min(KEYS_BEFORE, len(earlier))]) if len(earlier) else 0

    def part_of(self, packet: int) -> int:
        """The number of the clock that a packet is of."""
        return int(np.searchsorted([first for first, _ in self.parts], packet, side="right")) - 1


def clock_of(path: Path, open_container: Any) -> Clock:
    """The clock of a file, read once; `open_container(path)` gives PyAV's container."""
    about = path.stat()
    return _clock_of(path, open_container, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=32)
def _clock_of(path: Path, open_container: Any, size: int, mtime_ns: int) -> Clock:
    from av.error import FFmpegError

    with open_container(path) as container:
        stream = container.streams.video[0]
        base, start = float(stream.time_base or 1), stream.start_time or 0
        guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
        sought = container.format.name != "mpeg"
        shown, decoded, keys = [], [], []
        with suppress(FFmpegError):  # of a damaged file the clock ends there; reading it says so
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.is_keyframe:
                    keys.append(len(shown))
                shown.append(None if guessed else packet.pts)
                decoded.append(packet.dts if packet.dts is not None else packet.pts)
    return replace(made_clock(shown, decoded, keys, base, start), sought=sought)


def made_clock(shown: list[int | None], decoded: list[int | None], keys: list[int], base: float, start: int) -> Clock:
    """The clock of packets with these times of presentation and decoding, in units of `base` seconds."""
    counted = 2 * sum(time is None for time in shown) > len(shown)
    given = decoded if counted else [b if a is None else a for a, b in zip(shown, decoded, strict=True)]
    raw = np.array([np.nan if time is None else (time - start) * base for time in given], np.float64)
    order = np.array([np.nan if time is None else (time - start) * base for time in decoded], np.float64)
    back = np.flatnonzero(np.diff(order) < -BACK_S) + 1
    firsts, parts, times, end = [0, *back.tolist()], [], [], 0.0
    for number, (first, last) in enumerate(zip(firsts, [*firsts[1:], len(raw)], strict=True)):
        part = np.sort(raw[first:last][~np.isnan(raw[first:last])])
        if not len(part):
            continue
        step = float(np.median(np.diff(part))) if len(part) > 1 else 0.0
        offset = 0.0 if number == 0 else end - float(part[0])
        parts.append((first, offset))
        times.append(part + offset)
        end = float(part[-1]) + offset + step
    joined = np.concatenate(times) if times else np.zeros(0)
    return Clock(joined, np.array(keys, np.int64), tuple(parts) or ((0, 0.0),), counted)
