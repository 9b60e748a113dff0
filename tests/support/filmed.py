"""Small videos of people who are colored rectangles and walk in straight lines; each frame shows its own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import ThreadType

WIDTH, HEIGHT = 176, 144
TICK = Fraction(1, 1000)
BITS, CELL = 10, 8  # the number, in black and white squares at the top
COLORS = ((210, 40, 40), (40, 60, 210), (230, 220, 60))
WIDE, HIGH = 24, 64


def place(person: int, time_s: float) -> tuple[float, float, float, float]:
    """left, top, right, bottom of a person; the second one walks to the left and the others to the right."""
    left = (10 + 18 * time_s) if person % 2 == 0 else (140 - 15 * time_s)
    top = 20.0 + 25 * person
    return left, top, left + WIDE, top + HIGH


def draw(number: int, time_s: float, people: int) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for person in range(people):
        left, top, right, bottom = (round(edge) for edge in place(person, time_s))
        picture[top:bottom, max(left, 0) : max(right, 0)] = COLORS[person]
    for bit in range(BITS):
        picture[:CELL, bit * CELL : (bit + 1) * CELL] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number that a frame shows."""
    middle = picture[CELL // 2, CELL // 2 : BITS * CELL : CELL].mean(-1)
    return int(sum(1 << bit for bit in range(BITS) if middle[bit] > 128))


def film(
    path: Path, times: Sequence[float], people: int = 2, codec: str = "libx264", rotation: int = 0, gop: int = 10,
    metadata: dict[str, str] | None = None, **options: str,
) -> Path:  # fmt: skip
    """Write frames of these times, in seconds; two threads would make another file on each machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tick = TICK if codec == "libx264" else Fraction(times[1] - times[0]).limit_denominator(1000)
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.time_base = gop, tick
        stream.codec_context.thread_type, stream.codec_context.thread_count = ThreadType.NONE, 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw(number, time_s, people), "rgb24")
            frame.pts, frame.time_base = round(time_s / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def steps(count: int, rate: float = 10) -> list[float]:
    return [number / rate for number in range(count)]


def boxes_csv(path: Path, times: Sequence[float], people: int = 2, video: str = "", tracks: bool = True) -> Path:
    """The boxes of everybody in these frames, as somebody's own detector would write them."""
    lines = [("video," if video else "") + "time,left,top,right,bottom" + (",track" if tracks else "")]
    for time_s in times:
        for person in range(people):
            cells = [*([video] if video else []), f"{time_s:.3f}", *(f"{edge:.1f}" for edge in place(person, time_s))]
            lines.append(",".join([*cells, *([f"p{person}"] if tracks else [])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Walkers:
    """A detector that finds what is colored; `seen` counts the frames that it was shown."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        self.seen += len(frames)
        found = []
        for frame in frames:
            boxes = []
            for color in COLORS:
                y, x = np.nonzero((np.abs(frame.astype(int) - color) < 40).all(-1))
                if len(y) > 200:
                    boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
            found.append((np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)))
        return found
