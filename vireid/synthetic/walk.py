"""Frames of a fixed camera that people walk through, with the box of each: what a video is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, pi, radians

import numpy as np

from vireid.synthetic import body as bodies
from vireid.synthetic.camera import Camera, develop
from vireid.synthetic.draw import View, radiance, rasterize, surface
from vireid.synthetic.figure import tubes_of
from vireid.synthetic.photograph import dressed, illumination, person, shadow
from vireid.synthetic.scene import panorama

TALL = 200  # pixels of a crop of one person
HEIGHT, WIDTH = 320, 640  # of a frame
STEPS_HZ = 0.95  # full cycles of the gait in a second
Place = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Walker:
    """A person on the way through the picture: `at` is 0 where the way begins and 1 where it ends, both outside."""

    pid: int
    at: float
    time_s: float  # since the way began
    heading: float = 30.0  # degrees, 0 is toward the camera; the sign says to which side
    down: float = 0.5  # 0 is far up in the picture, 1 is at its lower edge


def frame(camera: Camera, walkers: Sequence[Walker], seed: int, number: int) -> tuple[np.ndarray, list[Place | None]]:
    """The picture (H, W, 3) uint8 and the box of each walker, None where nothing of one is in it.

    Those who are further down are in front. Depends on nothing but its arguments.
    """
    side = TALL // 2  # on either side, for people who are half in the picture
    light = _lit(camera, seed).copy()
    boxes: dict[int, Place | None] = {}
    for place in sorted(range(len(walkers)), key=lambda one: walkers[one].down):
        boxes[place] = _drawn(light, camera, walkers[place], seed)
    light *= illumination(camera, light.shape[:2], camera.exposure, 0.0, np.zeros(3))
    steady = replace(camera, motion=0.0)
    image = develop(light[:, side:-side], steady, (HEIGHT, WIDTH), 1.0, np.random.default_rng((seed, number, 21)))
    return image.copy(), [boxes[place] for place in range(len(walkers))]


@lru_cache(maxsize=8)
def _lit(camera: Camera, seed: int) -> np.ndarray:
    """The empty place with a margin of half a person on either side, (H, W + margins, C) float32."""
    level = camera.ambient + camera.direct * max(0.3, camera.light[1])
    if camera.spectrum == "near-infrared":
        level = (camera.ambient + camera.direct) * 0.28
    return panorama(camera.place, camera.spectrum, TALL, seed)[:HEIGHT, : WIDTH + TALL] * np.float32(level)


def _drawn(light: np.ndarray, camera: Camera, walker: Walker, seed: int) -> Place | None:
    """Draw a person into the light; the box in the frame."""
    who = person(walker.pid, seed)
    outfit, sheet = dressed(who, walker.pid, camera.rig, seed)
    size = (TALL, TALL // 2)
    phase = 2 * pi * (STEPS_HZ * walker.time_s + walker.pid % 7 / 7)
    joints = bodies.pose(who.body, who.habit, phase, who.habit.arms, 0.9, 0.0)
    yaw, pitch = radians(walker.heading), radians(camera.pitch)
    scale = 0.93 * TALL / (who.body.height * cos(pitch) + 0.12)
    view = View(yaw, pitch, scale, size[1] / 2, 0.96 * TALL, 1.04 + 0.16 * abs(cos(yaw)))
    raster = rasterize(tubes_of(who.body, outfit, joints), view, size, camera.light)
    where, texel, cosine, front = surface(raster, (walker.pid % 256, walker.pid * 7 % 256))
    at = walker.at if walker.heading >= 0 else 1 - walker.at
    left, top = round(at * WIDTH + (at - 0.5) * size[1] + size[1] / 2), round(walker.down * (HEIGHT - TALL))
    left = min(max(left, 0), light.shape[1] - size[1])
    part = light[top : top + TALL, left : left + size[1]]
    part *= shadow(size, view, camera, joints)
    rows, columns = np.divmod(where, size[1])
    part[rows, columns] = radiance(sheet, camera.spectrum, texel, cosine, front, camera.ambient, camera.direct)
    edge = TALL // 2
    x0, x1 = max(left + int(columns.min()) - edge, 0), min(left + int(columns.max()) + 1 - edge, WIDTH)
    return (x0, top + int(rows.min()), x1, top + int(rows.max()) + 1) if x1 > x0 else None
