"""The texture sheet of one dressed person: around the body in columns, down each tube in rows.

Two layers are painted together. A structural piece (seam, zip, pocket, print of rubber, skin, hair) goes into the color
sheet and into the material sheet; a dye goes into the color sheet alone. The infrared cameras read the material sheet,
so a dye cannot reach them by construction.
"""

from dataclasses import dataclass
from math import pi

import numpy as np
from PIL import Image, ImageDraw

from vireid.synthetic.body import Body
from vireid.synthetic.wardrobe import Material

COLUMNS = 256  # once around the body; column 128 is the front, 192 the person's left
PER_METER = 128.0  # rows
HEIGHTS = {"head": 64, "torso": 168, "arm": 96, "leg": 136, "skirt": 120, "foot": 24, "bag": 64, "strap": 8, "hair": 64,
           "hat": 24, "carried": 32, "neck": 16, "hood": 16}  # fmt: skip
ROW0 = dict(zip(HEIGHTS, np.cumsum([0, *HEIGHTS.values()])[:-1].tolist(), strict=True))
ROWS = sum(HEIGHTS.values())


@dataclass(frozen=True)
class Sheet:
    """Texels of a person, flat in rows: color (T, 3) uint8, nir (T,) and warmth (T,) float32, hair (T,) bool."""

    color: np.ndarray
    nir: np.ndarray
    warmth: np.ndarray
    hair: np.ndarray


def column(angle: float) -> float:
    return 128.0 + angle * COLUMNS / (2 * pi)


class Brush:
    """Paints both layers; angles in radians from the front, heights in rows of the current region."""

    def __init__(self) -> None:
        self.color = Image.new("RGB", (COLUMNS, ROWS))
        self.index = Image.new("L", (COLUMNS, ROWS))
        self._c, self._i = ImageDraw.Draw(self.color), ImageDraw.Draw(self.index)
        self.materials: list[Material] = []
        self._row0, self._rows = 0, 0

    def region(self, name: str) -> None:
        """Paint from here on in the rows of this tube."""
        self._row0, self._rows = ROW0[name], HEIGHTS[name]

    def _boxes(self, a0: float, a1: float, r0: float, r1: float):
        r0, r1 = max(0.0, r0), min(self._rows - 1.0, r1)
        if r1 < r0:
            return
        x0, x1 = column(a0), column(a1)
        for shift in (0, COLUMNS) if x0 < 0 else (0, -COLUMNS) if x1 > COLUMNS else (0,):
            yield (x0 + shift, r0 + self._row0, x1 + shift, r1 + self._row0)

    def sew(self, material: Material, a0: float, a1: float, r0: float, r1: float, shape: str = "rectangle") -> None:
        """Paint a structural piece, seen by every camera."""
        if material not in self.materials:
            self.materials.append(material)
        for box in self._boxes(a0, a1, r0, r1):
            getattr(self._c, shape)(box, fill=material.color)
            getattr(self._i, shape)(box, fill=self.materials.index(material))

    def both(self, material: Material, a0: float, a1: float, r0: float, r1: float, shape: str = "rectangle") -> None:
        """Sew the same piece on the left and, mirrored, on the right; 0 <= a0 < a1."""
        self.sew(material, a0, a1, r0, r1, shape)
        self.sew(material, -a1, -a0, r0, r1, shape)

    def dye(self, color: tuple[int, int, int], a0: float, a1: float, r0: float, r1: float, shape: str = "rectangle"):
        """Paint a dye, seen by visible cameras only."""
        for box in self._boxes(a0, a1, r0, r1):
            getattr(self._c, shape)(box, fill=color)

    def wedge(self, material: Material, half0: float, half1: float, r0: float, r1: float) -> None:
        """Paint a strip around the front whose half-angle goes from half0 at row r0 to half1 at row r1."""
        for row in range(int(r0), int(min(r1, self._rows - 1)) + 1):
            half = half0 + (half1 - half0) * (row - r0) / max(1.0, r1 - r0)
            self.sew(material, -half, half, row, row)

    def sheet(self, hair: Material) -> Sheet:
        """What has been painted; `hair` is the material to be called hair."""
        index = np.asarray(self.index).ravel()
        nir = np.array([m.nir for m in self.materials], np.float32)
        warmth = np.array([m.warmth for m in self.materials], np.float32)
        return Sheet(np.asarray(self.color).reshape(-1, 3), nir[index], warmth[index],
                     np.array([m == hair for m in self.materials])[index])  # fmt: skip


def leg_length(body: Body) -> float:
    """Hip joint to ankle joint in meters."""
    return 0.922 * body.leg * body.height


def hip_row(body: Body) -> float:
    """Row of the torso region at the hip joints: the way from the neck base down, in rows."""
    return (0.842 - body.leg) * body.height * PER_METER
