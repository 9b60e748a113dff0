"""Rasterizing and shading: tubes become one index map, then all pixels of a person are shaded in one pass.

The index of a pixel names a tube segment; a table holds each segment's axis, width, texture rows and light, so cylinder
shading, texture look-up and folds are a dozen array operations over the person's pixels and no loop over segments.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from vireid.synthetic.texture import COLUMNS, Sheet
from vireid.synthetic.tube import LABEL, Tube, facing

TILE = 256
_ANGLE = (np.arcsin(np.linspace(-1, 1, 513)) * COLUMNS / (2 * pi)).astype(np.float32)
LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)  # sRGB value -> linear light, plain 2.2 power


@dataclass(frozen=True)
class View:
    """How a body stands in front of the camera: yaw (0 faces it), pitch of the camera, pixels per meter, foot point.

    stretch: horizontal factor; crops are cut tightly and resized to one shape, which widens narrow people.
    """

    yaw: float
    pitch: float
    scale: float
    x: float
    y: float
    stretch: float = 1.0

    def project(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) meters -> (n, 3) pixel x, pixel y, depth toward the camera in meters."""
        c, s = cos(self.yaw), sin(self.yaw)
        across = points[:, 0] * c + points[:, 2] * s
        depth = points[:, 2] * c - points[:, 0] * s
        down = -points[:, 1] * cos(self.pitch) + depth * sin(self.pitch)
        return np.stack([self.x + self.stretch * self.scale * across, self.y + self.scale * down, depth], 1)


@dataclass(frozen=True)
class Raster:
    """index (H, W) uint8: 0 nothing, else a row of table (K, 17), labels (K,) uint8 part, depth (K,) meters."""

    index: np.ndarray
    table: np.ndarray
    labels: np.ndarray
    depth: np.ndarray


@lru_cache(maxsize=1)
def relief() -> np.ndarray:
    """Slopes of cloth folds, (TILE * TILE,) float32, deviation about 1; one tile for all, offset per picture."""
    rng = np.random.default_rng(77)
    coarse = gaussian_filter(rng.normal(size=(TILE, TILE)), (5, 9), mode="wrap")
    fine = gaussian_filter(rng.normal(size=(TILE, TILE)), (2, 5), mode="wrap")
    tile = coarse / coarse.std() + 0.6 * fine / fine.std()
    tile /= tile.std()
    return (tile / (1 + 0.4 * np.abs(tile))).astype(np.float32).ravel()  # deep folds saturate


def _sorted(tubes: list[Tube], yaw: float) -> list[tuple[Tube, float]]:
    """Back to front: legs, torso with arms and bags by depth, neck, head; what hangs behind the body comes first."""
    keyed = []
    for n, tube in enumerate(tubes):
        depth = facing(yaw, tube.anchor or tube.rings[0][:3]) + tube.order
        behind = (
            depth < -0.055 and (tube.part in ("left_arm", "right_arm", "bag", "carried", "hair")) and tube.layer < 5
        )
        keyed.append(((0 if behind else tube.layer, depth, n), tube, depth))
    keyed.sort(key=lambda item: item[0])
    return [(tube, depth) for _, tube, depth in keyed]


def rasterize(tubes: list[Tube], view: View, shape: tuple[int, int], light: tuple[float, float, float]) -> Raster:
    """Draw tubes back to front into an index map (H, W); light: unit vector (right, up, toward the camera)."""
    order = _sorted(tubes, view.yaw)
    rings = np.array([r for tube, _ in order for r in tube.rings])  # (n, 6)
    count = [len(tube.rings) for tube, _ in order]
    first = np.repeat(np.cumsum([0, *count[:-1]]), count)
    last = first + np.repeat(count, count) - 1
    yaw = view.yaw + np.repeat([tube.twist for tube, _ in order], count)
    mirror = np.repeat([-1.0 if tube.mirror else 1.0 for tube, _ in order], count)
    folds = np.repeat([tube.folds for tube, _ in order], count)
    at = np.arange(len(rings))
    pixel = view.project(rings[:, :3])
    p = pixel[:, :2]
    w = view.scale * np.sqrt((rings[:, 3] * np.cos(yaw)) ** 2 + (rings[:, 4] * np.sin(yaw)) ** 2)
    disc = np.stack([view.stretch * w, w], 1)  # half-axes of a round end
    before, after = np.maximum(at - 1, first), np.minimum(at + 1, last)
    # Tangents skip over coincident rings (a cuff is two rings at one place).
    tangent = p[np.minimum(after + 1, last)] - p[np.maximum(before - 1, first)]
    length = np.hypot(tangent[:, 0], tangent[:, 1]) + 1e-9
    tangent = np.where(length[:, None] > 0.5, tangent / length[:, None], (0.0, 1.0))
    w *= np.abs(tangent[:, 0]) + view.stretch * np.abs(tangent[:, 1])
    slope = np.clip((w[after] - w[before]) / (np.hypot(*(p[after] - p[before]).T) + 2.0), -1.2, 1.2)
    axial = slope * (-tangent[:, 0] * light[0] + tangent[:, 1] * light[1])
    side = np.stack([tangent[:, 1], -tangent[:, 0]], 1) * w[:, None]
    left, right = (p - side).tolist(), (p + side).tolist()

    step = p[after] - p
    size = np.hypot(step[:, 0], step[:, 1])
    short = size < 0.35
    solid = view.scale * np.linalg.norm(rings[after, :3] - rings[:, :3], axis=1)
    end_on = (size < 0.4 * solid).tolist()
    unit = np.where(short[:, None], tangent, step / np.maximum(size, 1e-6)[:, None])
    along = np.where(short[:, None], 0.0, unit / np.maximum(size, 0.35)[:, None])
    across = np.stack([unit[:, 1], -unit[:, 0]], 1)
    turn = np.sign(across[:, 0] + 1e-6) * mirror
    table = np.empty((len(rings) + 1, 17), np.float32)
    table[0] = 0
    table[1:] = np.stack([p[:, 0], p[:, 1], along[:, 0], along[:, 1], across[:, 0], across[:, 1], np.maximum(w, 0.7),
                          w[after] - w, rings[:, 5], rings[after, 5] - rings[:, 5],
                          128.0 - mirror * yaw * COLUMNS / (2 * pi),
                          turn, across[:, 0] * light[0] - across[:, 1] * light[1], np.full(len(w), light[2]), axial,
                          axial[after] - axial, folds], 1)  # fmt: skip
    index = Image.new("L", (shape[1], shape[0]))
    pen = ImageDraw.Draw(index)
    centers, axes, skip = p.tolist(), disc.tolist(), short.tolist()
    k = 0
    for tube, _ in order:
        end = k + len(tube.rings) - 1
        for i in range(k, end + 1):
            name = min(i, end - 1) + 1
            (x, y), (a, b) = centers[i], axes[i]
            stub = i < end and end_on[i]  # discs alone
            if tube.round_ends and not (skip[i] and i < end) and (tube.round_last or i < k + 6 or stub):
                pen.ellipse((x - a, y - b, x + a, y + b), fill=name)
            if i < end and not skip[i] and not (stub and tube.round_ends):
                pen.polygon((*left[i], *right[i], *right[i + 1], *left[i + 1]), fill=name)
        k = end + 1
    labels = np.array([0, *(LABEL[tube.part] for tube, _ in order for _ in tube.rings)])
    return Raster(np.asarray(index), table, labels.astype(np.uint8), np.concatenate([[-9.0], pixel[:, 2]]))


def surface(raster: Raster, offset: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Look up every pixel of a raster.

    offset: of the folds, rows and columns. Returns flat pixel positions (M,), texels (M,), the cosine to the light (M,)
    and the cosine to the camera (M,), float32.
    """
    flat = raster.index.ravel()
    where = np.flatnonzero(flat)
    y, x = np.divmod(where.astype(np.int32), raster.index.shape[1])
    t = np.take(raster.table.T.copy(), flat[where].astype(np.intp), axis=1)  # (17, M)
    x, y = x - t[0], y - t[1]
    s = np.clip(x * t[2] + y * t[3], 0.0, 1.0)
    u = np.clip((x * t[4] + y * t[5]) / np.maximum(t[6] + s * t[7], 0.7), -1.0, 1.0)
    row = (t[8] + s * t[9]).astype(np.int32)
    column = (t[10] + t[11] * _ANGLE[((u + 1.0) * 256.0).astype(np.int32)]).astype(np.int32) & (COLUMNS - 1)
    fold = relief()[((row + offset[0]) & (TILE - 1)) * TILE + ((column + offset[1]) & (TILE - 1))] * t[16]
    u = np.clip(u + fold, -1.0, 1.0)
    front = np.sqrt(1.0 - u * u)
    return where, row * COLUMNS + column, u * t[12] + front * t[13] + t[14] + s * t[15] + 0.3 * fold, front


def radiance(sheet: Sheet, spectrum: str, texel: np.ndarray, cosine: np.ndarray, front: np.ndarray,
             ambient: float, direct: float) -> np.ndarray:  # fmt: skip
    """Light that leaves each pixel: (M, 3) for "visible", (M, 1) for "near-infrared" and "thermal".

    Reflected light is in units of white; "thermal" is in kelvin above the air. ambient, direct: shares of light.
    """
    if spectrum == "thermal":
        # Emission hardly depends on the angle until it grazes; folds touch the skin here and there.
        return (sheet.warmth[texel] * (0.86 + 0.14 * front) + 1.2 * (cosine - front))[:, None]
    shade = ambient * (0.55 + 0.45 * front) + direct * np.maximum(cosine, 0.0)
    if spectrum == "near-infrared":
        return (sheet.nir[texel] * shade)[:, None]
    return np.take(LINEAR, np.take(sheet.color, texel, axis=0)) * shade[:, None]
