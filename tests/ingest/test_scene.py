"""Scenes: the frame that a row was cut from with its box, the frames around it, sources that are gone or changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")
from filmed import boxes_csv, film, number_of, place, steps

from vireid.errors import SourceError, VideoError
from vireid.images import STRETCH
from vireid.ingest.boxes import Box, write_boxes
from vireid.ingest.identity import video_digest
from vireid.ingest.scene import COLOR, Scene, scene_of
from vireid.search.gallery import NO_VECTOR, Record
from vireid.system import file_digest


def row(name: str, path: Path, digest: str = "") -> Record:
    return Record(name, NO_VECTOR, "gate", 0.0, 0, str(path), "", "", (), "", digest)


def number(scene: Scene) -> int:
    return number_of(np.asarray(scene.picture))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return film(tmp_path / "gate.mp4", steps(40))


def test_the_frame_of_a_row_has_its_box_and_frames_around_it(video: Path, tmp_path: Path) -> None:
    boxes = [Box(number / 10, *place(person, number / 10), f"{person}") for number in range(40) for person in (0, 1)]
    write_boxes(tmp_path / "boxes/a.csv", boxes, {"video": "night/gate.mp4", "segment": 0, "damage": ""})
    write_boxes(tmp_path / "boxes/b.csv", boxes, {"video": "night/other.mp4", "segment": 0, "damage": ""})
    one = row("night/gate.mp4#0000-1/1.500", video, video_digest(video))
    scene = scene_of(one, tmp_path / "boxes", STRETCH)
    assert scene.video and scene.boxed and number(scene) == 15
    left, top, _, _ = map(round, place(1, 1.5))
    assert np.abs(np.asarray(scene.picture)[top + 20, left].astype(int) - COLOR).max() < 10
    for offset_s, expected in ((1.0, 25), (-1.0, 5), (-9.0, 0)):
        around = scene_of(one, tmp_path / "boxes", STRETCH, offset_s)
        assert number(around) == expected and not around.boxed
    with pytest.raises(VideoError):
        scene_of(one, tmp_path / "boxes", STRETCH, 30.0)
    whole = scene_of(row("night/gate.mp4#0000-1", video), tmp_path / "boxes", STRETCH)  # a row for each track
    assert whole.boxed and whole.video


def test_without_kept_boxes_there_is_the_frame_alone(video: Path, tmp_path: Path) -> None:
    boxes_csv(tmp_path / "boxes.csv", steps(40))
    for name in ("gate.mp4#0000-p1/2.000", "gate.mp4#2.000/1"):
        scene = scene_of(row(name, video), tmp_path / "none", STRETCH)
        assert number(scene) == 20 and not scene.boxed
    with pytest.raises(SourceError, match="not kept"):
        scene_of(row("gate.mp4#0000-p1", video), tmp_path / "none", STRETCH)
    with pytest.raises(SourceError, match="does not say"):
        scene_of(row("gate.mp4", video), tmp_path / "none", STRETCH)


def test_a_picture_is_its_own_scene_while_it_is_the_same(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "crop.png"
    Image.new("RGB", (64, 128), (10, 200, 30)).save(path)
    one = row("crops/crop.png", path, file_digest(path))
    scene = scene_of(one, tmp_path, STRETCH)
    assert not scene.video and scene.picture.size == (64, 128)
    Image.new("RGB", (64, 128), (200, 10, 30)).save(path)
    with pytest.raises(SourceError, match="another file now"):
        scene_of(one, tmp_path, STRETCH)
    path.unlink()
    for gone in (one, row("a", Path("")), row("gate/1", Path("gate/1"))):
        with pytest.raises(SourceError, match="not on this machine"):
            scene_of(gone, tmp_path, STRETCH)
