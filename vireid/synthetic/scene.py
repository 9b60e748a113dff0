"""The places in which the cameras hang: one panorama each, the same geometry in every spectrum.

A surface has a color, a near-infrared reflectance and a warmth of its own. Leaves are bright beyond 700 nm (the red
edge), the night sky and an open
door return nothing to an active lamp, window glass is a cool mirror in the thermal band.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from vireid.errors import ArgumentError

# name: sRGB color, near-infrared reflectance, kelvin above the air
SURFACES = {
    "wall": ((206, 202, 190), 0.62, 1.0), "panel": ((150, 160, 166), 0.45, 0.8), "tile": ((172, 166, 156), 0.42, 0.2),
    "joint": ((120, 114, 106), 0.3, 0.0), "wood": ((134, 92, 58), 0.55, 0.9), "door": ((112, 70, 44), 0.6, 0.6),
    "steel": ((130, 134, 138), 0.5, -1.2), "dark": ((34, 34, 38), 0.12, 0.5), "window": ((176, 200, 214), 0.08, -2.0),
    "poster": ((190, 120, 80), 0.66, 0.8), "board": ((60, 92, 74), 0.3, 0.6), "heater": ((226, 226, 220), 0.6, 13.0),
    "cloth": ((88, 60, 84), 0.5, 1.5), "leaf": ((52, 84, 36), 0.62, -0.6), "leaf light": ((96, 126, 54), 0.78, -0.4),
    "leaf dark": ((26, 46, 22), 0.36, -0.8), "grass": ((84, 108, 50), 0.58, -0.9), "bark": ((76, 62, 50), 0.34, 0.4),
    "asphalt": ((92, 92, 94), 0.16, 1.8), "paving": ((152, 146, 138), 0.36, 1.2), "brick": ((146, 86, 68), 0.46, 1.4),
    "concrete": ((160, 158, 150), 0.4, 0.9), "sky": ((204, 220, 236), 0.015, -14.0),
    "paint": ((230, 228, 220), 0.7, 1.0),
    "car red": ((136, 26, 30), 0.5, 2.5), "car silver": ((168, 172, 176), 0.3, 2.0),
    "car black": ((22, 24, 28), 0.2, 3.0),
    "tire": ((22, 22, 22), 0.05, 5.0), "lamp": ((250, 246, 230), 0.9, 9.0),
}  # fmt: skip
NAMES = tuple(SURFACES)
FLOOR = 0.86  # height of the line between wall and floor, in crop heights from the panorama's top
WIDTH, HEIGHT = 5.0, 1.6  # in crop heights


class _Canvas:
    def __init__(self, height: int, rng: np.random.Generator) -> None:
        self.h, self.rng = height, rng
        self.image = Image.new("L", (round(WIDTH * height), round(HEIGHT * height)))
        self.pen = ImageDraw.Draw(self.image)

    def box(self, name: str, x0: float, y0: float, x1: float, y1: float, shape: str = "rectangle") -> None:
        box = (x0 * self.h, y0 * self.h, max(x0 * self.h + 1, x1 * self.h), max(y0 * self.h + 1, y1 * self.h))
        getattr(self.pen, shape)(box, fill=NAMES.index(name))

    def area(self, name: str, *points: tuple[float, float]) -> None:
        self.pen.polygon([(x * self.h, y * self.h) for x, y in points], fill=NAMES.index(name))

    def spots(self, low: float = 0.25, high: float = 0.6):
        """Positions along the panorama, a random step apart."""
        x = self.rng.uniform(-0.2, 0.3)
        while x < WIDTH:
            yield x
            x += self.rng.uniform(low, high)

    def floor(self, name: str, joint: str, rows: int, fan: float) -> None:
        self.box(name, 0, FLOOR, WIDTH, HEIGHT)
        for k in range(1, rows):
            y = FLOOR + (HEIGHT - FLOOR) * (k / rows) ** 1.5
            self.box(joint, 0, y, WIDTH, y + 0.004)
        for x in np.arange(-2, WIDTH + 2, fan).tolist():
            dx = 0.35 * (x - WIDTH / 2)
            self.area(joint, (x, FLOOR), (x + 0.006, FLOOR), (x + dx + 0.01, HEIGHT), (x + dx, HEIGHT))

    def leaves(self, x: float, y: float, rx: float, ry: float, count: int) -> None:
        names = ("leaf dark", "leaf", "leaf", "leaf light")
        for k in range(count):
            px, py = x + rx * self.rng.normal() * 0.5, y + ry * self.rng.normal() * 0.45
            r = self.rng.uniform(0.012, 0.045)
            self.box(names[int(4 * k / count)], px - r, py - 0.7 * r, px + r, py + 0.7 * r, "ellipse")

    def car(self, x: float, name: str) -> None:
        y = FLOOR + 0.02
        self.area(name, (x, y), (x + 0.02, y - 0.1), (x + 0.2, y - 0.12), (x + 0.3, y - 0.21), (x + 0.62, y - 0.21),
                  (x + 0.74, y - 0.12), (x + 0.86, y - 0.1), (x + 0.88, y))  # fmt: skip
        self.area("window", (x + 0.23, y - 0.12), (x + 0.31, y - 0.195), (x + 0.6, y - 0.195), (x + 0.69, y - 0.12))
        for wx in (0.18, 0.7):
            self.box("tire", x + wx - 0.06, y - 0.06, x + wx + 0.06, y + 0.05, "ellipse")
            self.box("steel", x + wx - 0.03, y - 0.03, x + wx + 0.03, y + 0.02, "ellipse")


def _room(c: _Canvas, things: tuple[str, ...]) -> None:
    c.box("wall", 0, 0, WIDTH, FLOOR)
    c.box("panel" if c.rng.random() < 0.5 else "wall", 0, FLOOR - 0.3, WIDTH, FLOOR)
    c.floor("tile", "joint", 7, 0.22)
    c.box("dark", 0, FLOOR - 0.025, WIDTH, FLOOR)
    for x in c.spots(0.3, 0.55):
        thing = things[int(c.rng.integers(len(things)))]
        if thing == "door":
            c.box("steel", x, 0.1, x + 0.36, FLOOR)
            c.box("door", x + 0.02, 0.12, x + 0.34, FLOOR)
            c.box("steel", x + 0.29, 0.5, x + 0.32, 0.53, "ellipse")
        elif thing == "window":
            c.box("paint", x, 0.06, x + 0.42, 0.5)
            c.box("window", x + 0.02, 0.08, x + 0.2, 0.48)
            c.box("window", x + 0.22, 0.08, x + 0.4, 0.48)
            c.box("heater", x + 0.04, 0.58, x + 0.38, FLOOR - 0.04)
        elif thing == "cabinet":
            c.box("steel", x, 0.3, x + 0.3, FLOOR + 0.02)
            for k in range(4):
                c.box("dark", x + 0.01, 0.42 + 0.12 * k, x + 0.29, 0.424 + 0.12 * k)
        elif thing == "board":
            c.box("wood", x, 0.2, x + 0.45, 0.56)
            c.box("board", x + 0.015, 0.215, x + 0.435, 0.545)
        elif thing == "poster":
            c.box("poster", x, 0.2, x + 0.2, 0.48)
            c.box("paint", x + 0.03, 0.24, x + 0.17, 0.34)
        elif thing == "plant":
            c.box("brick", x + 0.06, FLOOR - 0.1, x + 0.17, FLOOR + 0.03)
            c.leaves(x + 0.115, FLOOR - 0.25, 0.1, 0.18, 60)
        elif thing == "desk":
            c.box("wood", x, FLOOR - 0.24, x + 0.5, FLOOR - 0.2)
            c.box("dark", x + 0.02, FLOOR - 0.2, x + 0.05, FLOOR + 0.02)
            c.box("dark", x + 0.45, FLOOR - 0.2, x + 0.48, FLOOR + 0.02)
            c.box("dark", x + 0.15, FLOOR - 0.38, x + 0.35, FLOOR - 0.25)
        elif thing == "curtain":
            c.box("cloth", x, 0.02, x + 0.28, FLOOR - 0.05)


def _outside(c: _Canvas, far: str, ground: str, things: tuple[str, ...]) -> None:
    c.box("sky", 0, 0, WIDTH, FLOOR)
    top = 0.0
    if far == "brick":
        c.box("brick", 0, top, WIDTH, FLOOR)
        for y in np.arange(0.0, FLOOR, 0.035).tolist():
            c.box("joint", 0, y, WIDTH, y + 0.003)
        for x in c.spots(0.5, 0.8):
            c.box("paint", x, 0.08, x + 0.26, 0.5)
            c.box("window", x + 0.02, 0.1, x + 0.24, 0.48)
    elif far == "trees":
        for x in c.spots(0.12, 0.3):
            c.box("bark", x, 0.1, x + c.rng.uniform(0.02, 0.05), FLOOR)
            c.leaves(x, c.rng.uniform(0.0, 0.4), 0.3, 0.3, 90)
        c.box("leaf dark", 0, FLOOR - 0.16, WIDTH, FLOOR)
        for x in c.spots(0.1, 0.16):
            c.leaves(x, FLOOR - 0.12, 0.14, 0.12, 40)
    else:
        c.box("concrete", 0, top, WIDTH, FLOOR)
        c.box("dark", 0, 0.0, WIDTH, 0.08)
        for x in c.spots(0.7, 1.0):
            c.box("sky", x, 0.12, x + 0.4, FLOOR - 0.12)
            c.leaves(x + 0.2, FLOOR - 0.22, 0.25, 0.15, 50)
            c.box("panel", x - 0.12, 0, x, FLOOR + 0.03)
    c.floor(ground, "joint" if ground == "paving" else ground, 6, 0.3)
    if ground == "grass":
        c.area("paving", (0, FLOOR + 0.12), (WIDTH, FLOOR + 0.2), (WIDTH, HEIGHT), (0, FLOOR + 0.42))
    for x in c.spots(0.5, 1.1):
        thing = things[int(c.rng.integers(len(things)))]
        if thing.startswith("car"):
            c.car(x, thing)
        elif thing == "lamp":
            c.box("steel", x, 0.0, x + 0.02, FLOOR + 0.03)
        elif thing == "fence":
            for k in range(12):
                c.box("steel", x + 0.05 * k, FLOOR - 0.34, x + 0.05 * k + 0.012, FLOOR)
            c.box("steel", x, FLOOR - 0.32, x + 0.58, FLOOR - 0.3)
        elif thing == "bench":
            c.box("wood", x, FLOOR - 0.14, x + 0.4, FLOOR - 0.11)
            c.box("wood", x, FLOOR - 0.24, x + 0.4, FLOOR - 0.18)
        elif thing == "hedge":
            c.leaves(x + 0.2, FLOOR - 0.1, 0.3, 0.15, 120)
        elif thing == "bicycle":
            for dx in (0.0, 0.2):
                c.box("tire", x + dx, FLOOR - 0.14, x + dx + 0.15, FLOOR + 0.01, "ellipse")
                c.box("concrete", x + dx + 0.015, FLOOR - 0.125, x + dx + 0.135, FLOOR - 0.005, "ellipse")
            c.area(
                "car red",
                (x + 0.07, FLOOR - 0.07),
                (x + 0.12, FLOOR - 0.17),
                (x + 0.27, FLOOR - 0.07),
                (x + 0.24, FLOOR - 0.15),
            )


def _draw(place: str, c: _Canvas) -> None:
    if place == "office":
        _room(c, ("door", "cabinet", "poster", "desk", "window"))
    elif place == "hall":
        _room(c, ("window", "board", "plant", "door", "curtain"))
    elif place == "lobby":
        _room(c, ("plant", "window", "poster", "steel", "door"))
    elif place == "gate":
        _outside(c, "brick", "paving", ("car red", "car silver", "fence", "lamp", "bicycle"))
    elif place == "garden":
        _outside(c, "trees", "grass", ("bench", "hedge", "lamp", "fence"))
    elif place == "passage":
        _outside(c, "columns", "paving", ("bicycle", "lamp", "bench"))
    elif place == "street":
        _outside(c, "brick", "asphalt", ("car black", "car silver", "car red", "lamp", "hedge"))
    else:
        raise ArgumentError(
            f"Expected a place among office, hall, lobby, gate, garden, passage, street; got {place!r}."
        )


@lru_cache(maxsize=256)  # of 0.6 MB a channel at 128 pixels
def panorama(place: str, spectrum: str, height: int, seed: int, scene: int = 0) -> np.ndarray:
    """The place in one spectrum: (1.6 height, 5 height, C) float32; reflectance, for "thermal" kelvin above the air.

    Another `scene` is another place of this kind, with the same spectrum.
    """
    rng = np.random.default_rng((seed, sum(place.encode()), 5) + ((scene,) if scene else ()))
    canvas = _Canvas(height, rng)
    _draw(place, canvas)
    index = np.asarray(canvas.image)
    grain = gaussian_filter(rng.normal(size=index.shape), 0.006 * height)
    stain = gaussian_filter(rng.normal(size=index.shape), 0.1 * height)
    texture = (1.0 + 0.07 * grain / grain.std() + 0.09 * stain / stain.std()).astype(np.float32)[..., None]
    if spectrum == "visible":
        look = (np.array([SURFACES[n][0] for n in NAMES]) / 255.0) ** 2.2
    elif spectrum == "near-infrared":
        look = np.array([[SURFACES[n][1]] for n in NAMES])
    else:
        look = np.array([[SURFACES[n][2]] for n in NAMES])
        texture = 1.0 + 0.5 * (texture - 1.0)
    shown = look.astype(np.float32)[index] * texture
    blur = 0.004 * height  # the place lies beyond the person, a little out of focus
    return np.stack([gaussian_filter(shown[..., k], blur) for k in range(shown.shape[2])], 2)
