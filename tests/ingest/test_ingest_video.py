"""Frames of videos: exact times after any seek, rotation, uneven rates, and what is damaged."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")
import av
from filmed import film, number_of, steps

from vireid.errors import PictureError, VideoError
from vireid.ingest.video import Stills, Video, frame_times, pixels, sample_frames

UNEVEN = [0.0, 0.1, 0.15, 1.5, 1.55, 4.0, 4.02, 4.1]


def read(path: Path, after_s: float = 0.0, before_s: float = math.inf) -> list[tuple[float, int]]:
    """Time and number of the frames."""
    with Video(path) as video:
        return [(round(time_s, 4), number_of(pixels(frame))) for time_s, frame in video.frames(after_s, before_s)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.avi", "b.avi", "a.webm", "a.wmv", "a.flv"])
def test_a_frame_has_its_time_wherever_reading_begins(tmp_path: Path, name: str) -> None:
    codec = {"a.avi": "mpeg4", "a.webm": "libvpx", "a.wmv": "wmv2"}.get(name, "libx264")  # b.avi has B-frames
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    path = film(tmp_path / name, steps(60), codec=codec)
    whole = read(path)
    assert whole == [(number / 10, number) for number in range(60)]
    for after_s, before_s in ((0, 1), (2.0, 2.5), (2.05, 2.5), (1.9, 4.0), (5.9, math.inf)):
        assert read(path, after_s, before_s) == [pair for pair in whole if after_s <= pair[0] < before_s]
    assert read(path, 6.5, 7) == []
    with Video(path) as video:
        assert video.duration_s == pytest.approx(6, abs=0.11)
    assert frame_times(path) == pytest.approx(steps(60))


def test_the_clock_of_joined_recordings_continues(tmp_path: Path) -> None:
    parts = [film(tmp_path / f"{number}.ts", steps(count)).read_bytes() for number, count in enumerate((20, 33, 15))]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    whole = read(path)
    assert whole == [(number / 10, shown) for number, shown in enumerate([*range(20), *range(33), *range(15)])]
    assert frame_times(path) == pytest.approx(steps(68))
    with Video(path) as video:
        assert video.duration_s == pytest.approx(6.7)
    for after_s, before_s in ((0.5, 1.0), (1.95, 2.3), (3.0, 3.1), (5.25, 9.0)):
        assert read(path, after_s, before_s) == [pair for pair in whole if after_s <= pair[0] < before_s]
    stills = Stills(path)
    assert [number_of(stills.at(time_s)) for time_s in (1.9, 2.0, 5.3, 0.3)] == [19, 0, 0, 3]


def test_program_streams_keep_their_times_after_a_seek(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mpg", steps(60, 25), codec="mpeg2video")
    whole = read(path)
    assert [number for _, number in whole] == list(range(60))
    assert read(path, 2.05, 2.2) == [pair for pair in whole if 2.05 <= pair[0] < 2.2] == [
        (2.08, 52), (2.12, 53), (2.16, 54),
    ]  # fmt: skip


def test_an_uneven_rate_keeps_its_clock(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", UNEVEN, gop=3)
    assert read(path) == [(time_s, number) for number, time_s in enumerate(UNEVEN)]
    assert frame_times(path) == pytest.approx(UNEVEN)
    with Video(path) as video:
        shown = [round(time_s, 3) for time_s, _ in sample_frames(10, 0, video.frames())]
        assert shown == [0.0, 0.1, 1.5, 4.0, 4.1]
        assert [round(time_s, 3) for time_s, _ in sample_frames(1, 1, video.frames(1))] == [1.5, 4.0]


@pytest.mark.parametrize("fps", [1, 3, 10])
def test_sampled_frames_are_those_of_a_decoder_without_threads(tmp_path: Path, fps: int) -> None:
    path = film(tmp_path / "a.mp4", steps(60))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    with Video(path) as video:
        taken = [(time_s, pixels(frame)) for time_s, frame in sample_frames(fps, 0.0, video.frames())]
    places = [math.ceil(number * 10 / fps) for number in range(6 * fps)]
    assert [round(time_s * 10) for time_s, _ in taken] == places
    for place, (_, picture) in zip(places, taken, strict=True):
        np.testing.assert_array_equal(picture, plain[place])
        assert not np.array_equal(picture, plain[place - 1])


def test_stills_are_the_nearest_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", UNEVEN, gop=3)
    stills = Stills(path)
    asked = {0.0: 0, 0.04: 0, 0.06: 1, 0.13: 2, 1.5: 3, 1.56: 4, 3.9: 5, 4.015: 6, 4.3: 7}
    assert {time_s: number_of(stills.at(time_s)) for time_s in asked} == asked
    assert {time_s: number_of(Stills(path).at(time_s)) for time_s in asked} == asked
    for time_s in (0.8, 9.0, 1000.0):
        with pytest.raises(VideoError, match="no frame near"):
            stills.at(time_s)
    assert number_of(stills.at(0.1)) == 1  # and back


def test_frames_are_upright(tmp_path: Path) -> None:
    lying = film(tmp_path / "lying.mp4", steps(2), people=1)
    with Video(lying) as video:
        expected = pixels(next(video.frames())[1])
    for degrees in (-90, 90, 180):
        path = film(tmp_path / f"{degrees}.mp4", steps(2), people=1, rotation=degrees)
        with Video(path) as video:
            shown = pixels(next(video.frames())[1])
        assert np.array_equal(shown, np.rot90(expected, degrees // 90))
    raw = (tmp_path / "-90.mp4").read_bytes()
    a, b, _, c, d = np.frombuffer(raw[raw.index(b"tkhd") + 44 :][:20], ">i4") / 2**16
    assert (a, b, c, d) == (0, 1, -1, 0)  # ISO 14496-12: x to the right becomes y down, a quarter turn clockwise


def test_when_a_recording_began(tmp_path: Path) -> None:
    with Video(film(tmp_path / "a.mp4", steps(2), metadata={"creation_time": "2026-11-24T20:04:11Z"})) as video:
        assert video.created_s == 1795550651.0
    for said in ("1904-01-01T00:00:00Z", "never"):
        with Video(film(tmp_path / "b.mkv", steps(2), metadata={"creation_time": said})) as video:
            assert math.isnan(video.created_s)


def test_damage_is_told_after_all_that_can_be_read(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", steps(100), movflags="faststart").read_bytes()

    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    seen: list[int] = []
    with Video(cut) as video, pytest.raises(VideoError, match=r"cut\.mp4 is damaged or cut off") as told:
        for _, frame in video.frames(0.5):
            seen.append(number_of(pixels(frame)))
    assert isinstance(told.value, PictureError) and 40 < len(seen) < 80 and seen == list(range(5, 5 + len(seen)))
    hurt = tmp_path / "hurt.mp4"
    middle = len(whole) // 2
    hurt.write_bytes(whole[:middle] + np.random.RandomState(0).bytes(900) + whole[middle + 900 :])
    seen = []
    with Video(hurt) as video, pytest.raises(VideoError, match=r"hurt\.mp4 is damaged"):
        for _, frame in video.frames():
            seen.append(number_of(pixels(frame)))
    assert seen[:30] == list(range(30)) and seen[-1] == 99  # it goes on behind the hole
    with Video(cut) as video, pytest.raises(VideoError, match=r"it ends at \d\.\d s and says that it lasts 10.0 s"):
        list(video.frames(9.0))


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"nothing" * 500)
    (tmp_path / "empty.mp4").write_bytes(b"")
    good = film(tmp_path / "good.mkv", steps(3))
    (tmp_path / "list.mkv").write_text(f"ffconcat version 1.0\nfile {good.name}\n")
    (tmp_path / "list.ts").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{good.name}\n#EXT-X-ENDLIST\n")
    for name in ("junk.mp4", "empty.mp4", "list.mkv", "list.ts"):
        with pytest.raises(VideoError, match=f"{name} cannot be read as a video"):
            Video(tmp_path / name)
    raw = tmp_path / "raw.mp4"
    with av.open(str(raw), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
    growing = tmp_path / "growing.mp4"
    whole = film(tmp_path / "whole.mp4", steps(9)).read_bytes()
    growing.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "headless.mp4").write_bytes(whole[:-900])
    for path, told in (
        (tmp_path / "empty.mp4", "the file is empty; is it still being written"),
        (raw, r"holds raw H\.264 without a container.*ffmpeg -framerate 25 -f h264 -i \S*raw\.mp4"),
        (tmp_path / "headless.mp4", "its index is missing"),
        (growing, "its index is missing: it is cut off, or still being written"),
        (tmp_path / "junk.mp4", r"The containers that are read are MP4.*ffmpeg -i \S*junk\.mp4"),
    ):
        with pytest.raises(VideoError, match=told):
            Video(path)
    with pytest.raises(VideoError, match="there is no such file"):
        Video(tmp_path / "absent.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="no pictures"):
        Video(tmp_path / "sound.mkv")
