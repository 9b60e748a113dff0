"""The walking body: build, habits of movement, pose in three dimensions, COCO-17 keypoints.

Axes of the body frame, in meters: x to the person's left, y up from the ground, z forward. Proportions follow
Drillis and Contini, Body Segment Parameters (New York University, 1966), which give segments as parts of the stature;
the gait is the usual sinusoid of hip and shoulder with the knee bent in the swing (Perry, Gait Analysis, 1992).
"""

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np

KEYPOINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
             "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
             "left_ankle", "right_ankle")  # fmt: skip
ARM_POSES = ("swing", "pocket", "phone", "fold", "strap")

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Body:
    """Build of one person: stature in meters, the rest as factors around 1 except `leg` (hip height / stature)."""

    height: float
    shoulder: float
    hip: float
    girth: float
    leg: float
    head: float
    female: bool


@dataclass(frozen=True)
class Habit:
    """How one person moves: amplitudes in radians, step width in meters."""

    stride: float
    swing: float
    elbow: float
    lean: float
    toe_out: float
    head_down: float
    step_width: float
    arms: str


def draw_body(rng: np.random.Generator) -> Body:
    """Draw a build."""
    female = bool(rng.random() < 0.45)
    return Body(
        height=float(np.clip(rng.normal(1.63 if female else 1.75, 0.07), 1.45, 2.0)),
        shoulder=float(np.clip(rng.normal(0.93 if female else 1.03, 0.08), 0.75, 1.25)),
        hip=float(np.clip(rng.normal(1.05 if female else 0.97, 0.08), 0.8, 1.25)),
        girth=float(np.clip(rng.gamma(7.0, 0.075) + 0.52, 0.72, 1.75)),
        leg=float(np.clip(rng.normal(0.515, 0.02), 0.465, 0.56)),
        head=float(np.clip(rng.normal(1.0, 0.04), 0.9, 1.1)),
        female=female,
    )


def draw_habit(rng: np.random.Generator) -> Habit:
    """Draw a way of moving."""
    return Habit(
        stride=float(rng.uniform(0.28, 0.5)),
        swing=float(rng.uniform(0.1, 0.55)),
        elbow=float(rng.uniform(0.1, 0.6)),
        lean=float(rng.normal(0.04, 0.04)),
        toe_out=float(rng.normal(0.12, 0.1)),
        head_down=float(max(0.0, rng.normal(0.08, 0.12))),
        step_width=float(rng.uniform(0.045, 0.105)),
        arms=str(rng.choice(ARM_POSES, p=(0.62, 0.14, 0.08, 0.08, 0.08))),
    )


def _step(start: Point, length: float, swing: float, spread: float) -> Point:
    """Point `length` away from `start`: straight down turned forward by `swing` and sideways by `spread` radians."""
    down = cos(swing) * cos(spread) * length
    return start[0] + sin(spread) * length, start[1] - down, start[2] + sin(swing) * cos(spread) * length


def _arm(pose: str, side: int, habit: Habit, phase: float) -> tuple[float, float, float, float]:
    """Shoulder swing, shoulder spread, forearm swing and forearm spread in radians; side is +1 left, -1 right."""
    swing = habit.swing * -sin(phase) * side
    if pose == "pocket":
        return -0.3, 0.28, 0.35, -0.22
    if pose == "phone" and side < 0:
        return 0.45, 0.12, 1.9, -0.35
    if pose == "fold":
        return 0.25, 0.22, 1.45, -0.8
    if pose == "strap" and side > 0:
        return -0.1, 0.25, 2.2, -0.1
    return swing, 0.1, swing + habit.elbow * (0.6 + 0.4 * max(0.0, swing / (habit.swing + 1e-6))), -0.02


def pose(body: Body, habit: Habit, phase: float, arms: str, walking: float, turn: float) -> dict[str, Point]:
    """Place the joints of one moment of the gait.

    phase: of the step, radians. arms: one of ARM_POSES. walking: 0 standing .. 1 full stride. turn: head turn, radians.
    Returns joint name -> (x, y, z) in meters, feet on the ground.
    """
    h, out = body.height, {}
    hip_y = body.leg * h
    thigh, shin = hip_y * 0.46, hip_y * 0.462
    hips, shoulders = 0.052 * h * body.hip, 0.107 * h * body.shoulder
    twist = 0.16 * walking * sin(phase)
    for name, side in (("left", 1), ("right", -1)):
        at = phase if side > 0 else phase + pi
        flex = habit.stride * walking * (sin(at) + 0.12)
        bend = 0.06 + walking * (1.0 * max(0.0, cos(at + 0.35)) ** 2 + 0.12 * max(0.0, sin(at)))
        hip = (side * hips * cos(twist), hip_y, -side * hips * sin(-twist))
        spread = side * ((habit.step_width - hips) / hip_y)
        knee = _step(hip, thigh, flex, spread)
        ankle = _step(knee, shin, flex - bend, spread)
        # The foot lies flat in the stance and points down while the leg is lifted behind.
        tilt = min(0.0, flex - bend + 0.35) * 0.9
        heading = side * habit.toe_out
        toe = (ankle[0] + sin(heading) * 0.105 * h, ankle[1] - 0.033 * h + sin(tilt) * 0.105 * h,
               ankle[2] + cos(heading) * cos(tilt) * 0.105 * h)  # fmt: skip
        heel = (ankle[0], ankle[1] - 0.033 * h - min(0.0, sin(tilt)) * 0.03 * h, ankle[2] - 0.032 * h)
        out |= {f"{name}_hip": hip, f"{name}_knee": knee, f"{name}_ankle": ankle, f"{name}_toe": toe,
                f"{name}_heel": heel}  # fmt: skip
    lowest = min(out[f"{s}_{j}"][1] for s in ("left", "right") for j in ("toe", "heel")) - 0.012 * h
    out = {name: (x, y - lowest, z) for name, (x, y, z) in out.items()}
    base = hip_y - lowest
    spine = 0.818 * h - hip_y + 0.004 * h
    lean = habit.lean + 0.05 * walking
    chest = (0.0, base + spine * cos(lean), spine * sin(lean))
    neck = (0.0, chest[1] + 0.042 * h, chest[2] + 0.012 * h)
    nod = habit.head_down + (0.35 if arms == "phone" else 0.0)
    head = (0.0, neck[1] + 0.072 * h * cos(nod * 0.6), neck[2] + 0.01 * h + 0.075 * h * sin(nod * 0.6))
    out |= {"pelvis": (0.0, base, 0.0), "chest": chest, "neck": neck, "head": head, "turn": (turn, nod, twist)}
    for name, side in (("left", 1), ("right", -1)):
        swing, spread, fore, fore_spread = _arm(arms, side, habit, phase)
        shoulder = (side * shoulders * cos(twist), chest[1] - 0.02 * h, chest[2] - side * shoulders * sin(twist))
        spread += 0.10 * (body.girth - 1.0)
        elbow = _step(shoulder, 0.172 * h, swing, side * spread)
        wrist = _step(elbow, 0.15 * h, fore, side * fore_spread)
        hand = _step(wrist, 0.085 * h, fore - 0.05, side * fore_spread * 0.8)
        out |= {f"{name}_shoulder": shoulder, f"{name}_elbow": elbow, f"{name}_wrist": wrist, f"{name}_hand": hand}
    return out


def head_point(body: Body, joints: dict[str, Point], side: float, up: float, forward: float) -> Point:
    """Place a point of the head given in head half-axes (left, up, forward), with the head's turn and nod."""
    turn, nod, _ = joints["turn"]
    k = body.head * 0.0575 * body.height
    x, y, z = side * 0.76 * k, up * 1.16 * k, forward * 0.95 * k
    y, z = y * cos(nod) - z * sin(nod), y * sin(nod) + z * cos(nod)
    x, z = x * cos(turn) + z * sin(turn), -x * sin(turn) + z * cos(turn)
    cx, cy, cz = joints["head"]
    return cx + x, cy + y, cz + z


def keypoints(body: Body, joints: dict[str, Point]) -> np.ndarray:
    """The COCO-17 keypoints of a pose: (17, 3) in meters, body frame."""
    face = {"nose": (0, -0.12, 1.0), "left_eye": (0.42, 0.1, 0.85), "right_eye": (-0.42, 0.1, 0.85),
            "left_ear": (0.97, -0.02, 0.0), "right_ear": (-0.97, -0.02, 0.0)}  # fmt: skip
    return np.array([head_point(body, joints, *face[k]) if k in face else joints[k] for k in KEYPOINTS])
