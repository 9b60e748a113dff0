"""One picture: a person of a given number, in front of a given camera, at a given moment; a pure function of those."""

from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, radians

import numpy as np
from PIL import Image, ImageDraw

from vireid.synthetic import body as bodies
from vireid.synthetic import wardrobe
from vireid.synthetic.camera import Camera, develop
from vireid.synthetic.draw import LINEAR, Raster, View, radiance, rasterize, relief, surface
from vireid.synthetic.figure import tubes_of
from vireid.synthetic.garments import bake
from vireid.synthetic.scene import SURFACES, panorama
from vireid.synthetic.texture import Sheet
from vireid.synthetic.tube import LABEL, PARTS, facing

SHARED_WARDROBES = 12  # some people dress alike (uniforms, fashions): a quarter of the wardrobes come from this many
SHOTS_PER_PASS = 5  # a person walks past a camera several times; a pass keeps its direction, distance and light
THERMAL_SPAN = (-4.0, 13.0)  # kelvin above the air shown as black and white by the automatic gain

_SHOWN_BY = {"shoulder": ("arm", "torso"), "elbow": ("arm",), "wrist": ("arm",), "hip": ("leg", "torso", "hips"),
             "knee": ("leg", "torso", "hips"), "ankle": ("leg", "foot", "hips")}  # fmt: skip
SHOWS = {f"{side}_{joint}": {p for part in parts for p in (part, f"{side}_{part}")}
         for side in ("left", "right") for joint, parts in _SHOWN_BY.items()}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """Who is in the picture: everything that stays the same from camera to camera."""

    body: bodies.Body
    habit: bodies.Habit
    outfit: wardrobe.Outfit
    beard: bool


@dataclass(frozen=True)
class Photograph:
    """image (H, W, 3) uint8; keypoints (17, 3) float32 x, y in pixels and visibility 0/1; parts (H, W) uint8 labels."""

    image: np.ndarray
    keypoints: np.ndarray
    parts: np.ndarray


@lru_cache(maxsize=64)
def person(pid: int, seed: int) -> Person:
    """The person with this number in the world of this seed."""
    rng = np.random.default_rng((seed, pid, 1))
    body, habit = bodies.draw_body(rng), bodies.draw_habit(rng)
    shared, which = rng.random() < 0.25, int(rng.integers(SHARED_WARDROBES))
    own = wardrobe.draw_outfit(rng, body.female)
    if shared:
        common = wardrobe.draw_outfit(np.random.default_rng((seed, which, int(body.female), 2)), body.female)
        own = wardrobe.like(common, own)
    return Person(body, habit, own, not body.female and bool(rng.random() < 0.25))


@lru_cache(maxsize=16)
def dressed(who: Person, pid: int, rig: int, seed: int) -> tuple[wardrobe.Outfit, Sheet]:
    outfit = wardrobe.on_a_day(who.outfit, np.random.default_rng((seed, pid, rig, 3)))
    return outfit, bake(who.body, outfit, who.beard)


def _keypoints(who: Person, joints: dict, view: View, raster: Raster, covered: np.ndarray | None) -> np.ndarray:
    points = bodies.keypoints(who.body, joints)
    pixel = view.project(points)
    out = np.zeros((17, 3), np.float32)
    out[:, :2] = pixel[:, :2]
    height, width = raster.index.shape
    ahead = cos(view.yaw + joints["turn"][0])
    for i, (x, y, depth) in enumerate(pixel.tolist()):
        col, row = int(x), int(y)
        if not (0 <= x < width and 0 <= y < height) or (covered is not None and covered[row, col]):
            continue
        index = raster.index[row, col]
        if index == 0:
            continue
        if i < 5:  # the face is seen from the front half only, an ear from its own side
            head = facing(view.yaw, joints["head"])
            seen = depth > head + (-0.02 if i in (3, 4) else 0.01) and (i in (3, 4) or ahead > -0.3)
        else:
            # Cloth over a joint shows it; another part in front of it hides it.
            own = PARTS[raster.labels[index]] in SHOWS[bodies.KEYPOINTS[i]]
            seen = raster.depth[index] < depth + (0.13 if own else -0.03)
        out[i, 2] = float(seen)
    return out


def _background(camera: Camera, size: tuple[int, int], x: float, y: float, seed: int, scene: int) -> np.ndarray:
    """A crop (H, W, C) float32 of the place, a copy; x, y in 0..1 choose it."""
    height, width = size
    wide = panorama(camera.place, camera.spectrum, height, seed, scene)
    top = int((0.1 + 0.42 * y) * height)
    left = int(x * (wide.shape[1] - width))
    top = min(top, wide.shape[0] - height)
    return wide[top : top + height, left : left + width].copy()


def shadow(size: tuple[int, int], view: View, camera: Camera, joints: dict) -> np.ndarray:
    """Soft shadow on the ground as a factor (H, W, 1)."""
    height, width = size[0] // 4, size[1] // 4
    image = Image.new("L", (width, height), 255)
    pen = ImageDraw.Draw(image)
    light = camera.light
    for foot in ("left", "right"):
        x, y, _ = (view.project(np.array([joints[f"{foot}_ankle"]]))[0] / 4).tolist()
        r = view.scale * 0.16 / 4
        pen.ellipse((x - r, y - 0.25 * r, x + r, y + 0.45 * r), fill=110)
    if camera.direct > 0.55 and camera.spectrum == "visible":
        x, y = view.x / 4, view.y / 4
        reach = view.scale * 1.3 / 4 / (light[1] + 0.2)
        dx, dy, r = -light[0] * reach, -light[2] * reach * 0.35, view.scale * 0.16 / 4
        pen.polygon((x - r, y, x + r, y, x + r + dx, y + dy, x - r + dx, y + dy), fill=120)
    image = image.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BOX)
    image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)[..., None] * np.float32(1 / 255)


def _occlude(scene: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Put a pole, a hedge, table or car, or a passing bag before the person; returns its mask (H, W) bool."""
    height, width = scene.shape[:2]
    image = Image.new("1", (width, height))
    pen = ImageDraw.Draw(image)
    outdoors = camera.place in ("gate", "garden", "street", "passage")
    kind, a, b, which, level = rng.random(5)
    if kind < 0.4:
        surfaces = ("steel", "bark", "concrete") if outdoors else ("steel", "wall", "wood")
        x, w = a * width, (0.05 + 0.07 * b) * width
        pen.rectangle((x, 0, x + w, height), fill=1)
    elif kind < 0.75:
        surfaces = (
            ("leaf dark", "leaf", "car silver", "car black", "car red") if outdoors else ("wood", "steel", "panel")
        )
        y = (0.72 + 0.2 * a) * height
        pen.rectangle((0, y, width, height), fill=1)
        if outdoors and which < 0.4:
            for x, r in zip(np.linspace(0, width, 14).tolist(), rng.uniform(0.03, 0.09, 14).tolist(), strict=True):
                pen.ellipse((x - r * height, y - r * height, x + r * height, y + r * height), fill=1)
    else:
        surfaces = ("dark", "cloth", "tire")
        w, y = (0.14 + 0.14 * b) * width, (0.25 + 0.4 * b) * height
        box = (-9, y, w, height + 9) if a < 0.5 else (width - w, y, width + 9, height + 9)
        pen.rounded_rectangle(box, 0.2 * w, fill=1)
    mask = np.array(image)
    color, nir, warmth = SURFACES[surfaces[int(which * len(surfaces))]]
    if camera.spectrum == "thermal":
        look = np.array([(warmth - THERMAL_SPAN[0]) / (THERMAL_SPAN[1] - THERMAL_SPAN[0])], np.float32)
    else:
        look = LINEAR[list(color)] if camera.spectrum == "visible" else np.array([nir], np.float32)
        look = look * np.float32((0.4 + 0.5 * level) * (camera.ambient + camera.direct))
    where = np.flatnonzero(mask.ravel())
    grain = 1.0 + 0.12 * relief()[(where * 3 // width + where % 251 * 256) % relief().size]
    scene.reshape(-1, scene.shape[2])[where] = look * grain[:, None]
    return mask


def illumination(camera: Camera, size: tuple[int, int], gain: float, aside: float, jitter: np.ndarray) -> np.ndarray:
    """Factors (H, W or 1, 1 or 3) float32 of a lamp's falloff, `aside` of the middle, or of tint and daylight."""
    height, width = size
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    if camera.spectrum == "near-infrared":
        columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
        falloff = 1.0 - 0.22 * (columns - np.float32(0.6 * aside)) ** 2
        return np.float32(gain) * (1.0 - 0.32 * (rows + 0.25) ** 2) * falloff
    tint = np.array(camera.tint, np.float32) * (1 + 0.03 * np.float32(jitter))
    return tint * (np.float32(gain) * (1.0 + np.float32(0.12 * aside) * rows))


def photograph(
    who: Person, pid: int, camera: Camera, shot: int, seed: int = 0, size: tuple[int, int] = (288, 144), scenes: int = 1
) -> Photograph:
    """Render one person; pid, camera.rig and shot choose pose and crop, camera.camid the sensor's draws.

    Each pass of a person is before one of `scenes` backgrounds of the camera.
    """
    height, width = size
    outfit, sheet = dressed(who, pid, camera.rig, seed)
    walk = np.random.default_rng((seed, pid, camera.rig, shot // SHOTS_PER_PASS, 4)).random(9)
    rng = np.random.default_rng((seed, pid, camera.rig, shot, 5))
    sensor = np.random.default_rng((seed, pid, camera.camid, camera.modality, shot, 6))
    draws, jitter = rng.random(12), rng.normal(size=8) * camera.jitter

    yaw = radians(camera.views[int(walk[0] * len(camera.views))]) + 0.3 * (walk[1] - 0.5) + 0.16 * jitter[0]
    standing = walk[2] < 0.15
    arms = who.habit.arms if draws[0] < 0.75 else bodies.ARM_POSES[int(draws[1] * 5)]
    joints = bodies.pose(who.body, who.habit, 2 * pi * draws[2], arms, 0.12 if standing else 0.75 + 0.35 * draws[3],
                         0.35 * jitter[1] * (1 if draws[4] < 0.5 else 0.3))  # fmt: skip
    pitch = radians(camera.pitch + 5 * (walk[3] - 0.5))
    tall = who.body.height * cos(pitch) + 0.12
    scale = height / tall * (0.96 + 0.032 * jitter[2])
    stretch = (1.04 + 0.16 * abs(cos(yaw)) + 0.05 * jitter[5]) * width / (0.5 * height)
    view = View(yaw, pitch, scale, width * (0.5 + 0.026 * jitter[3]), height * (0.96 + 0.014 * jitter[4]), stretch)
    zoom = 0.75 + 0.5 * walk[4]

    # The way of a pass crosses a part of the place; its pictures lie along it.
    along, down = 0.85 * walk[7] + 0.15 * draws[9], 0.7 * walk[5] + 0.3 * draws[10]
    scene = _background(camera, size, along, down, seed, int(walk[8] * scenes))
    light = camera.light
    tubes = tubes_of(who.body, outfit, joints)
    raster = rasterize(tubes, view, size, light)
    where, texel, cosine, front = surface(raster, (int(draws[5] * 256), int(draws[6] * 256)))
    leaving = radiance(sheet, camera.spectrum, texel, cosine, front, camera.ambient, camera.direct)
    if camera.spectrum == "thermal":
        low, high = THERMAL_SPAN
        scene.reshape(-1, 1)[where] = leaving
        scene = (scene - low) * np.float32(1 / (high - low))
    else:
        if camera.spectrum == "near-infrared":  # the lamp's light falls off behind the person
            level = (camera.ambient + camera.direct) * (0.18 + 0.2 * walk[5])
        else:
            level = camera.ambient + camera.direct * max(0.3, light[1])
        scene *= shadow(size, view, camera, joints) * np.float32(level)
        scene.reshape(-1, scene.shape[2])[where] = leaving
    covered = None
    if draws[7] < camera.occlusion:
        covered = _occlude(scene, camera, rng)
    if camera.spectrum != "thermal":
        gain = camera.exposure * (0.85 + 0.3 * walk[6]) * (0.92 + 0.16 * draws[8])
        scene *= illumination(camera, size, gain, walk[7] - 0.5, jitter[5:8])
    image = develop(scene, camera, size, zoom, sensor)
    parts = raster.labels[raster.index]
    label = parts.ravel()[where]
    parts.ravel()[where] = np.where((label == LABEL["head"]) & sheet.hair[texel], np.uint8(LABEL["hair"]), label)
    if covered is not None:
        parts = np.where(covered, np.uint8(0), parts)
    return Photograph(image, _keypoints(who, joints, view, raster, covered), parts)
