"""Which boxes of live frames become rows, and when tracks begin from the start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trackers", reason="needs the extra `video`")
from filmed import HEIGHT, WIDTH, Walkers, boxes_csv, draw, place

from vireid.ingest.sources import Crop
from vireid.live.people import People
from vireid.live.settings import Camera
from vireid.live.shots import Shot


def seen(times: Sequence[float], people: int = 1, size: int = 1, connection: int = 1) -> list[Shot]:
    """Frames of the walkers at these times, `size` times as large."""
    pictures = [np.kron(draw(0, time_s % 6, people), np.ones((size, size, 1), np.uint8)) for time_s in times]
    return [
        Shot(1000 + time_s, time_s, f"gate/{time_s:.1f}", Path("gate"), picture, connection)
        for time_s, picture in zip(times, pictures, strict=True)
    ]


def before(camera: Camera, detector: Walkers | None = None) -> People:
    return People("gate", camera, detector)


def times_of(crops: Sequence[Crop]) -> list[float]:
    return [round(crop.time_s - 1000, 1) for crop in crops]


def test_a_track_gives_a_row_once_two_frames_confirm_it_then_one_at_each_interval_that_doubles() -> None:
    camera = Camera(address="rtsp://x", interval_s=0.2, double_after=2, fps=10)
    crops = before(camera, Walkers()).crops(seen([n / 10 for n in range(50)]))
    assert times_of(crops) == [0.1, 0.3, 0.5, 0.9, 1.3, 2.1, 2.9, 4.5]
    assert {crop.track for crop in crops} == {"0.0-0"} and crops[1].id == "gate/0.3/0"


def test_crops_show_the_person_with_a_margin() -> None:
    [crop] = before(Camera(address="rtsp://x", margin=0.25), Walkers()).crops(seen([0.9, 1.0]))
    left, top, right, bottom = place(0, 1.0)
    assert crop.open().size == (right + 6 - (left - 6), bottom + 16 - (top - 16))


@pytest.mark.parametrize("change", ["connection", "size", "gap"])
def test_tracks_begin_from_the_start_after_a_cut_a_gap_and_a_change_of_size(change: str) -> None:
    people = before(Camera(address="rtsp://x", interval_s=10), Walkers())
    first = people.crops(seen([0.0, 0.2, 0.4]))
    later = {
        "connection": seen([0.6, 0.8], connection=2), "size": seen([0.6, 0.8], size=2), "gap": seen([3.6, 3.8]),
    }[change]  # fmt: skip
    second = people.crops(later)
    assert (len(first), len(second)) == (1, 1) and {first[0].track, second[0].track} == {
        "0.0-0",
        f"{later[0].media_s}-0",
    }
    assert people.detections == 5


def test_without_a_tracker_all_boxes_of_a_frame_are_rows() -> None:
    camera = Camera(address="rtsp://x", tracker="none", interval_s=1)
    crops = before(camera, Walkers()).crops(seen([0.0, 0.5, 1.0], people=2))
    assert times_of(crops) == [0.0, 0.0, 1.0, 1.0] and len({crop.id for crop in crops}) == 4


def test_boxes_that_are_low_or_narrow_or_outside_of_the_frame_are_left_out(tmp_path: Path) -> None:
    assert not before(Camera(address="rtsp://x", min_height=200), Walkers()).crops(seen([0.0]))
    boxes = tmp_path / "b.csv"
    for left, count in ((WIDTH + 5, 0), (WIDTH - 0.19 * HEIGHT, 0), (WIDTH - 0.21 * HEIGHT, 1)):  # cut by the frame
        boxes.write_text(f"time,left,top,right,bottom\n0,{left},0,{left + HEIGHT / 2},{HEIGHT}\n")
        assert len(before(Camera(address="a.ts", boxes=boxes)).crops(seen([0.0]))) == count


def test_boxes_of_a_file_are_those_of_the_nearest_moment(tmp_path: Path) -> None:
    boxes = boxes_csv(tmp_path / "b.csv", [0.0, 0.21, 1.0, 1.2], people=2)
    camera = Camera(address="a.ts", boxes=boxes, interval_s=0)
    crops = before(camera).crops(seen([0.0, 0.2, 0.6, 1.2]))
    assert times_of(crops) == [0.0, 0.0, 0.2, 0.2, 1.2, 1.2] and {crop.track for crop in crops} == {"p0", "p1"}


def test_whole_pictures_are_rows_as_they_are() -> None:
    people = before(Camera(address="in", whole=True))
    crops = people.crops(seen([0.0, 0.2]))
    assert [crop.open().size for crop in crops] == [(WIDTH, HEIGHT)] * 2 and people.detections == 2
