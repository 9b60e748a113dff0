"""The detector that comes with vireid: people of synthetic frames, the same boxes by both runtimes, its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest
from command_line import call
from served import make_bundle

from vireid.errors import DetectorError
from vireid.ingest import nanodet
from vireid.ingest.detect import lowest_score, open_detector, weights_digest
from vireid.ingest.nanodet import NanoDet, network_size, suppressed
from vireid.search.drivers.open import open_gallery
from vireid.synthetic.make import CAMERAS
from vireid.synthetic.walk import Place, Walker, frame

VISIBLE_CAMERA, INFRARED_CAMERA = 4, 6


@lru_cache
def walked(camid: int, at: float) -> tuple[np.ndarray, Place]:
    """A frame of a camera with one person in it, and the person's box."""
    camera = next(one for one in CAMERAS["sysu"] if one.camid == camid)
    picture, (box,) = frame(camera, [Walker(pid=2, at=at, time_s=3 * at)], seed=0, number=0)
    assert box is not None
    return picture, box


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes."""
    shared = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


@pytest.fixture
def network() -> Iterator[None]:
    """The network is opened again, before the test and after it."""
    nanodet._network.cache_clear()
    yield
    nanodet._network.cache_clear()


@pytest.mark.parametrize("camid", [VISIBLE_CAMERA, INFRARED_CAMERA])
def test_people_of_both_kinds_of_camera_are_found(camid: int) -> None:
    frames, places = zip(*(walked(camid, at) for at in (0.3, 0.45, 0.6)), strict=True)
    for (boxes, scores), place in zip(open_detector()(frames), places, strict=True):
        assert boxes.dtype == scores.dtype == np.float32 and boxes.shape == (len(scores), 4)
        assert (np.diff(scores) <= 0).all() and (scores >= nanodet.MIN_SCORE).all()
        assert overlap(boxes[0], np.array(place)) > 0.6


def test_an_empty_frame_has_no_people() -> None:
    camera = next(one for one in CAMERAS["sysu"] if one.camid == VISIBLE_CAMERA)
    picture, _ = frame(camera, [], seed=0, number=0)
    ((boxes, scores),) = NanoDet()([picture])
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_frames_of_other_sizes_have_boxes_in_their_own_pixels() -> None:
    picture, place = walked(VISIBLE_CAMERA, 0.45)
    twice = np.repeat(np.repeat(picture, 2, 0), 2, 1)
    once, again = NanoDet()([picture, twice])
    assert overlap(once[0][0], again[0][0] / 2) > 0.9
    lower = np.add(place, [0, 400, 0, 400])
    ((boxes, _),) = NanoDet(0.45)([np.pad(picture, ((400, 0), (0, 0), (0, 0)))])
    assert max(overlap(box, lower) for box in boxes) > 0.5


def test_both_runtimes_give_the_same_boxes(network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, _ = walked(INFRARED_CAMERA, 0.45)
    given = {}
    for name in ("openvino", "onnxruntime"):
        nanodet._network.cache_clear()
        monkeypatch.setattr(nanodet, "installed", lambda one, name=name: one == name)
        ((given[name], _),) = NanoDet(0.3)([picture])
    assert len(given["openvino"]) > 0
    np.testing.assert_allclose(given["openvino"], given["onnxruntime"], atol=0.01)


def test_without_a_runtime_it_says_what_to_install(network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nanodet, "installed", lambda name: False)
    with pytest.raises(DetectorError, match=r"pip install 'vireid\[openvino\]'"):
        open_detector("nanodet")


def test_the_name_says_what_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        weights_digest("nanodet") == hashlib.sha256(hashlib.sha256(nanodet.WEIGHTS.read_bytes()).digest()).hexdigest()
    )
    assert lowest_score("nanodet", None) == nanodet.MIN_SCORE and lowest_score("nanodet", 0.7) == 0.7
    assert lowest_score("weights", None) == 0.3
    with pytest.raises(DetectorError, match="finds people alone, got the label 'car'"):
        open_detector("nanodet", label="car")
    with pytest.raises(DetectorError, match="did you mean nanodet"):
        open_detector("nanodett")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nanodet").mkdir()
    assert isinstance(open_detector("nanodet"), NanoDet)
    with pytest.raises(DetectorError, match="expected config"):
        open_detector("./nanodet")


def test_the_lower_of_two_overlapping_boxes_is_left_out() -> None:
    boxes = np.array([[0, 0, 10, 20], [1, 0, 11, 20], [6, 0, 16, 20], [40, 0, 50, 20]], np.float32)
    kept, scores = suppressed(boxes, np.array([0.5, 0.9, 0.6, 0.4], np.float32))
    assert kept.tolist() == [[1, 0, 11, 20], [6, 0, 16, 20], [40, 0, 50, 20]]
    assert scores.tolist() == np.array([0.9, 0.6, 0.4], np.float32).tolist()


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(320, 640, (448, 896)), (1080, 1920, (480, 864)), (640, 640, (640, 640)), (10, 10_000, (32, 20_224))],
)
def test_frames_keep_their_proportions(height: int, width: int, size: tuple[int, int]) -> None:
    assert network_size(height, width) == size


def test_a_recording_is_indexed_without_naming_a_detector(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    (tmp_path / "recordings/gate").mkdir(parents=True)
    with av.open(str(tmp_path / "recordings/gate/20261124_210000.mp4"), "w") as video:
        stream = video.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 640, 320, "yuv420p", 4_000_000
        for number in range(10):
            picture, _ = walked(VISIBLE_CAMERA, 0.4 + 0.02 * number)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        video.mux(stream.encode())
    done = call("index", tmp_path / "recordings", "--gallery", tmp_path / "g", "--model", bundle.path)
    assert done.exit_code == 0, done.output
    rows = list(open_gallery(tmp_path / "g").rows())
    assert len(rows) == 2 and len({row.track for row in rows}) == 1 and {row.camera for row in rows} == {"gate"}
