"""The cameras: where they hang, what they see by, how light becomes gray levels."""

from dataclasses import dataclass
from functools import lru_cache
from math import cos, radians, sin

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

VISIBLE, INFRARED = 0, 1
_STEPS = 2048
_GAMMA = (255.0 * (np.arange(_STEPS) / (_STEPS - 1)) ** (1 / 2.2) + 0.5).astype(np.uint8)
_STRAIGHT = (255.0 * np.arange(_STEPS) / (_STEPS - 1) + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Camera:
    """One camera.

    spectrum: "visible", "near-infrared" or "thermal". rig: cameras of one rig fire together and see the same moment.
    pitch: downward, degrees. sun: azimuth and height of the main light in degrees, 0 = from the camera. ambient,
    direct: shares of light. tint: linear gains of red, green, blue. sharpness: sensor pixels per output pixel. noise:
    gray levels. motion: share of smeared pictures. views: preferred directions of walking, degrees, 0 = toward the
    camera. occlusion: share of pictures with something in front. jitter: of crop and pose, a factor.
    """

    camid: int
    modality: int
    spectrum: str
    place: str
    rig: int
    pitch: float = 12.0
    sun: tuple[float, float] = (30.0, 50.0)
    ambient: float = 0.6
    direct: float = 0.6
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exposure: float = 1.0
    sharpness: float = 0.8
    noise: float = 3.0
    motion: float = 0.2
    views: tuple[float, ...] = (0.0, 180.0, 90.0, 270.0)
    occlusion: float = 0.08
    jitter: float = 0.8

    @property
    def light(self) -> tuple[float, float, float]:
        """Unit vector to the light: right, up, toward the camera."""
        azimuth, height = radians(self.sun[0]), radians(self.sun[1])
        return sin(azimuth) * cos(height), sin(height), cos(azimuth) * cos(height)


def _nir(camid: int, place: str, rig: int, **more) -> Camera:
    """A night camera with its own lamp: light from the lens, little else, more noise."""
    settings = {"sun": (8.0, 12.0), "ambient": 0.16, "direct": 1.0, "exposure": 1.0, "noise": 3.5, "sharpness": 0.68,
                "motion": 0.25}  # fmt: skip
    return Camera(camid, INFRARED, "near-infrared", place, rig, **(settings | more))


SYSU = (
    Camera(1, VISIBLE, "visible", "office", 1, 8.0, (-30, 65), 0.66, 0.5, (1.08, 1.0, 0.84), 1.02, 0.9, 3.0,
           views=(0, 180, 0, 180, 90, 45)),
    Camera(2, VISIBLE, "visible", "hall", 2, 14.0, (25, 70), 0.7, 0.45, (0.96, 1.02, 1.0), 0.85, 0.85, 3.5,
           views=(0, 180, 0, 180, 270, 315)),
    _nir(3, "hall", 3, pitch=14.0, sun=(10, 14), views=(0, 180, 0, 180, 90), exposure=1.12),
    Camera(4, VISIBLE, "visible", "gate", 4, 18.0, (60, 40), 0.5, 0.85, (1.0, 0.99, 0.95), 1.1, 0.62, 3.0,
           views=(0, 180, 0, 180, 135, 90)),
    Camera(5, VISIBLE, "visible", "garden", 5, 11.0, (-120, 55), 0.72, 0.7, (0.9, 1.0, 1.08), 0.8, 0.7, 4.0,
           views=(0, 180, 0, 180, 270, 225)),
    _nir(6, "passage", 6, pitch=18.0, sun=(-12, 18), views=(180, 0, 180, 0, 270), sharpness=0.64, noise=4.5),
)  # fmt: skip
REGDB = (
    Camera(1, VISIBLE, "visible", "street", 1, 10.0, (40, 45), 0.6, 0.7, (1.0, 1.0, 0.98), 0.95, 0.5, 3.0,
           views=(0, 180), occlusion=0.05),
    Camera(2, INFRARED, "thermal", "street", 1, 10.0, (0, 90), sharpness=0.36, noise=3.0, exposure=1.0, motion=0.1,
           views=(0, 180), occlusion=0.05),
)  # fmt: skip
LLCM = (
    Camera(1, VISIBLE, "visible", "lobby", 1, 15.0, (20, 70), 0.6, 0.5, (1.05, 1.0, 0.9), 0.55, 0.8, 6.0),
    Camera(2, VISIBLE, "visible", "office", 2, 10.0, (-40, 60), 0.5, 0.6, (1.1, 0.98, 0.8), 0.5, 0.75, 7.0),
    Camera(3, VISIBLE, "visible", "gate", 3, 18.0, (70, 35), 0.45, 0.7, (0.95, 1, 1.05), 0.6, 0.6, 6, occlusion=0.2),
    Camera(4, VISIBLE, "visible", "street", 4, 12.0, (-60, 40), 0.4, 0.7, (1.12, 1, 0.78), 0.5, 0.65, 7, occlusion=0.2),
    Camera(5, VISIBLE, "visible", "garden", 5, 14.0, (150, 50), 0.6, 0.5, (0.92, 1, 1.1), 0.6, 0.7, 6, occlusion=0.2),
    _nir(1, "lobby", 11, pitch=15.0),
    _nir(2, "office", 12, pitch=10.0, sun=(-10, 10)),
    _nir(5, "garden", 15, pitch=14.0, noise=9.0, occlusion=0.2),
    _nir(6, "passage", 16, pitch=19.0, sharpness=0.58),
)  # fmt: skip
CAMERAS = {"sysu": SYSU, "regdb": REGDB, "llcm": LLCM}


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """A tile of sensor noise of unit deviation, correlated as demosaicing leaves it: (384, 384, 3) float32."""
    rng = np.random.default_rng(78)
    gray = gaussian_filter(rng.normal(size=(384, 384, 1)), (0.5, 0.5, 0), mode="wrap")
    color = gaussian_filter(rng.normal(size=(384, 384, 3)), (0.7, 0.7, 0), mode="wrap")
    return (0.8 * gray / gray.std() + 0.6 * color / color.std()).astype(np.float32)


def develop(
    light: np.ndarray, camera: Camera, size: tuple[int, int], zoom: float, rng: np.random.Generator
) -> np.ndarray:
    """Turn light (H, W, C) float32, 1 = white, into the picture (H, W, 3) uint8: tone, motion, sensor, noise, scaling.

    zoom: how near the person stands, a factor on the sensor pixels it covers.
    """
    curve = _STRAIGHT if camera.spectrum == "thermal" else _GAMMA
    tone = np.take(curve, (light * (_STEPS - 1)).astype(np.int32), mode="clip")
    draws = rng.random(5)
    if draws[0] < camera.motion:
        step = 1 + int(draws[1] * 1.4 * size[1] / 144)
        for reach in (step, 2 * step):  # two shifted means make an even smear of four steps
            wide = tone.astype(np.uint16)
            tone[:, reach:] = (wide[:, reach:] + wide[:, :-reach] + 1) >> 1
    image = Image.fromarray(tone if tone.shape[2] == 3 else tone[..., 0])
    factor = min(1.0, camera.sharpness * zoom)
    sensor = max(8, round(size[1] * factor)), max(16, round(size[0] * factor))
    pixels = np.asarray(image.resize(sensor, Image.Resampling.BILINEAR))
    y, x = int(draws[2] * (384 - sensor[1] if sensor[1] < 384 else 1)), int(draws[3] * max(1, 384 - sensor[0]))
    rows, columns = (np.arange(y, y + sensor[1]) % 384, np.arange(x, x + sensor[0]) % 384)
    tile = _noise()[y : y + sensor[1], x : x + sensor[0]]
    if tile.shape[:2] != (sensor[1], sensor[0]):
        tile = _noise()[np.ix_(rows, columns)]
    tile = tile if pixels.ndim == 3 else tile[..., 0]
    pixels = np.clip(pixels + tile * (camera.noise * (0.75 + 0.5 * draws[4])), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if sensor != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
