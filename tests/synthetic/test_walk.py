"""Frames of people on their way: everybody is where the box says, and nothing else changes."""

import numpy as np
import pytest

from vireid.synthetic.camera import CAMERAS, Camera
from vireid.synthetic.walk import HEIGHT, WIDTH, Walker, frame

GATE, PASSAGE = CAMERAS["sysu"][3], CAMERAS["sysu"][5]


@pytest.mark.parametrize("camera", [GATE, PASSAGE], ids=["visible", "infrared"])
def test_everybody_is_where_the_box_says(camera: Camera) -> None:
    walkers = [Walker(3, 0.3, 2.0, heading=30.0, down=0.2), Walker(5, 0.3, 2.0, heading=-30.0, down=0.8)]
    picture, boxes = frame(camera, walkers, 0, 7)
    empty, _ = frame(camera, (), 0, 7)
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    changed = np.abs(picture.astype(int) - empty).max(2) > 24
    inside = np.zeros_like(changed)
    for box in boxes:
        assert box is not None
        left, top, right, bottom = box
        inside[top:bottom, left:right] = True
        assert changed[top:bottom, left:right].mean() > 0.25
    assert changed[~inside].mean() < 0.02  # their shadows
    assert boxes[0][0] < WIDTH / 2 < boxes[1][0]  # type: ignore[index]
    again, _ = frame(camera, walkers, 0, 7)
    np.testing.assert_array_equal(picture, again)


def test_a_way_begins_and_ends_outside_of_the_picture() -> None:
    places = [frame(GATE, [Walker(3, at, 0.0)], 0, 0)[1][0] for at in (0.0, 0.06, 0.5, 1.0)]
    assert places[0] is None and places[3] is None
    assert places[1] is not None and places[2] is not None
    assert places[1][0] == 0 and 0 < places[2][0] < places[2][2] < WIDTH
    assert places[1][2] - places[1][0] < places[2][2] - places[2][0]
