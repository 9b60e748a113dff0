"""The physics of the pictures: dyes do not reach the infrared, structure does; keypoints and parts sit on the body."""

from dataclasses import replace

import numpy as np
import pytest

from vireid.synthetic.body import KEYPOINTS
from vireid.synthetic.camera import CAMERAS, Camera
from vireid.synthetic.photograph import Person, person, photograph
from vireid.synthetic.scene import panorama
from vireid.synthetic.tube import LABEL, PARTS
from vireid.synthetic.wardrobe import Dye, Material

VISIBLE, NEAR_INFRARED = CAMERAS["sysu"][0], CAMERAS["sysu"][2]
THERMAL = CAMERAS["regdb"][1]
SIZE = (96, 48)


def _still(camera: Camera) -> Camera:
    return replace(camera, occlusion=0.0, motion=0.0, views=(0.0,))


def _image(who: Person, camera: Camera) -> np.ndarray:
    return photograph(who, 3, _still(camera), 0, size=SIZE).image


def _dressed(**changes: object) -> Person:
    who = person(3, 0)
    return replace(who, outfit=replace(who.outfit, **{"front": "closed", "bag": "none", "neck": "crew", **changes}))


@pytest.mark.parametrize("camera", [NEAR_INFRARED, THERMAL], ids=lambda c: c.spectrum)
def test_color_does_not_reach_the_infrared(camera: Camera) -> None:
    who = person(3, 0)
    redyed = {
        name: replace(value, color=(255 - value.color[0], 128, value.color[2] // 2))
        for name, value in vars(who.outfit).items()
        if isinstance(value, Material)
    }
    other = replace(who, outfit=replace(who.outfit, **redyed))
    assert np.array_equal(_image(who, camera), _image(other, camera))
    assert not np.array_equal(_image(who, VISIBLE), _image(other, VISIBLE))


@pytest.mark.parametrize("kind", ["stripes", "bars", "checks", "dots", "camouflage", "gradient", "logo", "print"])
def test_a_dyed_pattern_vanishes_in_the_infrared(kind: str) -> None:
    plain = _dressed(top=Material((30, 30, 30), 0.6, 4.0), top_dye=Dye())
    dyed = _dressed(top=Material((30, 30, 30), 0.6, 4.0), top_dye=Dye(kind, (240, 240, 240), 0.06))
    assert not np.array_equal(_image(plain, VISIBLE), _image(dyed, VISIBLE))
    assert np.array_equal(_image(plain, NEAR_INFRARED), _image(dyed, NEAR_INFRARED))
    assert np.array_equal(_image(plain, THERMAL), _image(dyed, THERMAL))


def test_a_structural_edge_stays_in_the_infrared() -> None:
    cloth = Material((60, 60, 60), 0.7, 4.0)
    closed, zipped = _dressed(top=cloth, pieces=()), _dressed(top=cloth, pieces=(), front="zip")
    for camera in (VISIBLE, NEAR_INFRARED, THERMAL):
        assert not np.array_equal(_image(closed, camera), _image(zipped, camera))


def test_reflectance_is_drawn_without_looking_at_the_color() -> None:
    outfits = [person(pid, 0).outfit for pid in range(400)]
    light = np.array([np.mean(o.top.color) for o in outfits])
    nir, warmth = np.array([o.top.nir for o in outfits]), np.array([o.bottom_material.warmth for o in outfits])
    assert abs(np.corrcoef(light, nir)[0, 1]) < 0.15
    assert abs(np.corrcoef([np.mean(o.bottom_material.color) for o in outfits], warmth)[0, 1]) < 0.15
    dark = nir[light < 50]
    assert dark.min() < 0.2 and dark.max() > 0.7


def test_skin_tone_hardly_matters_in_the_near_infrared_and_skin_is_warm() -> None:
    skins = [person(pid, 0).outfit.skin for pid in range(200)]
    assert np.std([np.mean(s.color) for s in skins]) / np.mean([np.mean(s.color) for s in skins]) > 0.2
    assert np.std([s.nir for s in skins]) / np.mean([s.nir for s in skins]) < 0.06
    shown = photograph(person(3, 0), 3, _still(THERMAL), 0, size=SIZE)
    gray = shown.image[..., 0].astype(float)
    assert gray[shown.parts == LABEL["head"]].mean() > gray[shown.parts == 0].mean() + 40


def test_leaves_are_bright_and_sky_is_dark_under_the_lamp() -> None:
    garden = panorama("garden", "visible", 96, 0)
    infrared = panorama("garden", "near-infrared", 96, 0)
    assert garden.shape[:2] == infrared.shape[:2] == (154, 480) and garden.shape[2] == 3 and infrared.shape[2] == 1
    sky = garden[..., 2] > 0.6
    assert sky.any() and infrared[sky].mean() < 0.2
    green = (garden[..., 1] > 2 * garden[..., 2]) & (garden[..., 1] < 0.2)
    assert infrared[green].mean() > 2 * garden[green].mean()


def test_passes_are_before_several_scenes() -> None:
    who, camera = person(3, 0), _still(VISIBLE)
    one, many = ([photograph(who, 3, camera, 5 * n, size=SIZE, scenes=s) for n in range(5)] for s in (1, 8))
    for single, several in zip(one, many, strict=True):
        assert np.array_equal(single.parts, several.parts) and np.array_equal(single.keypoints, several.keypoints)
    moved = [bool((single.image != several.image).any()) for single, several in zip(one, many, strict=True)]
    assert sum(moved) >= 3  # one in eight keeps the first scene


@pytest.mark.parametrize("camera", [VISIBLE, NEAR_INFRARED, THERMAL], ids=lambda c: c.spectrum)
def test_visible_keypoints_lie_on_their_part(camera: Camera) -> None:
    expected = {"left_knee": ("left_leg", "right_leg", "hips", "torso"), "nose": ("head", "hair"),
                "right_wrist": ("right_arm", "left_arm", "carried", "bag")}  # fmt: skip
    hits = {name: [] for name in expected}
    for pid in range(6):
        for shot in range(4):
            shown = photograph(person(pid, 0), pid, camera, shot, size=SIZE)
            assert shown.parts.max() < len(PARTS)
            for (x, y, seen), name in zip(shown.keypoints, KEYPOINTS, strict=True):
                if not seen:
                    continue
                part = PARTS[shown.parts[int(y), int(x)]]
                assert part != "background"
                if name in expected:
                    hits[name].append(part in expected[name])
    assert all(values and np.mean(values) > 0.8 for values in hits.values())


def test_left_is_on_the_right_when_a_person_faces_the_camera() -> None:
    facing = photograph(person(4, 0), 4, _still(VISIBLE), 0, size=SIZE).keypoints
    away = photograph(person(4, 0), 4, replace(_still(VISIBLE), views=(180.0,)), 0, size=SIZE).keypoints
    left, right, nose = KEYPOINTS.index("left_shoulder"), KEYPOINTS.index("right_shoulder"), KEYPOINTS.index("nose")
    assert facing[left, 0] > facing[right, 0] and facing[nose, 2] == 1
    assert away[left, 0] < away[right, 0] and away[nose, 2] == 0


def test_a_place_must_be_known() -> None:
    with pytest.raises(ValueError, match="office, hall"):
        panorama("moon", "visible", 96, 0)
