"""Tubes: chains of elliptic rings, the only shape there is, and the names of the parts they show."""

from dataclasses import dataclass
from itertools import pairwise
from math import cos, sin

from vireid.synthetic.body import Point
from vireid.synthetic.texture import PER_METER

PARTS = ("background", "hair", "head", "torso", "left_arm", "right_arm", "hips", "left_leg", "right_leg", "left_foot",
         "right_foot", "bag", "carried")  # fmt: skip
LABEL = {name: i for i, name in enumerate(PARTS)}


@dataclass
class Tube:
    """One chain of rings (x, y, z, half-width, half-depth, row of the texture sheet).

    order: depth bias in meters toward the camera. mirror: the texture runs the other way round. twist: turn of the
    rings about the vertical, radians. round_ends: each ring is also drawn as a disc, the last one only with round_last.
    anchor: the point whose depth decides the order. layer: 0 behind all .. 5 in front.
    """

    part: str
    rings: list[tuple[float, float, float, float, float, float]]
    order: float = 0.0
    mirror: bool = False
    twist: float = 0.0
    round_ends: bool = True
    round_last: bool = True
    folds: float = 0.25
    anchor: Point | None = None
    layer: int = 1


def mix(p: Point, q: Point, t: float) -> Point:
    """The point a share t of the way from p to q."""
    return p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]), p[2] + t * (q[2] - p[2])


def chain(points: list[Point], stops: list[tuple[float, float, float]], row0: float) -> list:
    """Rings along a polyline at stops (meters from its start, half-width, row offset in meters)."""
    lengths = [sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) ** 0.5 for p, q in pairwise(points)]
    rings = []
    for s, w, r in stops:
        k, rest = 0, s
        while k < len(lengths) - 1 and rest > lengths[k]:
            rest -= lengths[k]
            k += 1
        x, y, z = mix(points[k], points[k + 1], rest / max(lengths[k], 1e-6))
        rings.append((x, y, z, w, w, row0 + r * PER_METER))
    return rings


def profile(s: float, table: tuple[tuple[float, float], ...]) -> float:
    """The width at s of a table of (s, width), straight between its entries."""
    for (s0, w0), (s1, w1) in pairwise(table):
        if s <= s1:
            return w0 + (w1 - w0) * (s - s0) / (s1 - s0)
    return table[-1][1]


def facing(yaw: float, point: Point) -> float:
    """Depth toward the camera of a point of the body frame, in meters, for a body turned by `yaw`."""
    return -point[0] * sin(yaw) + point[2] * cos(yaw)
