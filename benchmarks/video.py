"""Frames a second of reading a video as indexing does, beside the decoder alone and beside ffmpeg's filter `fps`.

Films are ffmpeg's test picture, 20 seconds at 25 frames a second, H.264 with B-frames. Each way decodes every frame:
`decoder` is PyAV with threads and gives none as an array, `indexing` gives those that are sampled as RGB arrays (at 2
and at 25 a second), `ffmpeg` writes the same number of RGB frames to a null device in a process of its own. CPU seconds
of all threads and processes, in turns, median of three rounds; the frames of `indexing` are first compared with those
of a decoder without threads.

    python benchmarks/video.py    writes benchmarks/results/video.txt; needs the program ffmpeg
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from machine import describe

from vireid.ingest.video import Video, pixels, sample_frames

SIZES, RATE, SECONDS, ROUNDS = ((1280, 720), (1920, 1080)), 25, 20, 3
SAMPLED = (2, 25)  # frames a second
RESULTS = Path(__file__).parent / "results" / "video.txt"


def ffmpeg(*words: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)], check=True)


def write_film(path: Path, width: int, height: int) -> Path:
    source = f"testsrc2=size={width}x{height}:rate={RATE}"
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", 2, "-pix_fmt", "yuv420p")
    ffmpeg("-f", "lavfi", "-i", source, "-t", SECONDS, *encoder, path)
    return path


def decoded(path: Path) -> int:
    """How many frames the decoder gives."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        return sum(1 for _ in container.decode(stream))


def indexed(path: Path, fps: int) -> int:
    """How many frames indexing takes as arrays."""
    with Video(path) as video:
        return sum(len(pixels(frame)) > 0 for _, frame in sample_frames(fps, 0.0, video.frames()))


def filtered(path: Path, fps: int) -> int:
    ffmpeg("-i", path, "-vf", f"fps={fps}", "-pix_fmt", "rgb24", "-f", "rawvideo", os.devnull)
    return SECONDS * fps


def check(path: Path, fps: int) -> None:
    """The sampled frames are those of a decoder without threads that converts every frame."""
    step, number = RATE / fps, 0
    with av.open(str(path)) as container, Video(path) as video:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        sampled = sample_frames(fps, 0.0, video.frames())
        for place, frame in enumerate(container.decode(stream)):
            if place >= number * step:
                time_s, taken = next(sampled)
                assert abs(time_s - place / RATE) < 1e-3, (time_s, place)
                assert np.array_equal(pixels(taken), frame.to_ndarray(format="rgb24")), place
                number += 1
        assert number == SECONDS * fps and next(sampled, None) is None


def cpu_seconds(act: Callable[[], int], expected: int) -> float:
    before = os.times()
    assert act() == expected
    after = os.times()
    return sum(after[:4]) - sum(before[:4])  # user and system time, with that of processes that ended


def compare(path: Path, name: str) -> list[str]:
    frames = SECONDS * RATE
    acts: dict[str, tuple[Callable[[], int], int]] = {"decoder": (lambda: decoded(path), frames)}
    for fps in SAMPLED:
        check(path, fps)
        acts[f"indexing, {fps} a second"] = (lambda fps=fps: indexed(path, fps), SECONDS * fps)
        acts[f"ffmpeg, {fps} a second"] = (lambda fps=fps: filtered(path, fps), SECONDS * fps)
    spent: dict[str, list[float]] = {act: [] for act in acts}
    for _ in range(ROUNDS):
        for act, (call, expected) in acts.items():
            spent[act].append(cpu_seconds(call, expected))
    median = {act: statistics.median(seconds) for act, seconds in spent.items()}
    lines = [f"{name}, {frames} frames"]
    for act, seconds in median.items():
        line = f"  {act:22} {seconds:5.2f} CPU s, {frames / seconds:5.0f} decoded frames a CPU second"
        lines.append(f"{line}, {seconds / median['decoder']:.2f} times the decoder's time")
    return lines


def main() -> None:
    lines = [describe()]
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            lines += compare(write_film(Path(folder) / f"{height}.mp4", width, height), f"{width} x {height}")
    text = "\n".join([*lines, ""])
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
