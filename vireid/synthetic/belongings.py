"""What is fastened to a person: falling hair and hats, bags and straps, things in the hand."""

from math import pi, sin

from vireid.synthetic.body import Body, Point, head_point
from vireid.synthetic.texture import ROW0
from vireid.synthetic.tube import Tube
from vireid.synthetic.wardrobe import Outfit


def hair(b: Body, o: Outfit, j: dict[str, Point]) -> list[Tube]:
    """What stands out from the scalp: falling hair, a ponytail, a bun, a hat."""
    k = b.head * 0.0575 * b.height
    tubes, row = [], ROW0["hair"]
    back = head_point(b, j, 0.0, 0.1, -0.55)
    behind = head_point(b, j, 0.0, 0.0, -1.6)
    if o.hair_style in ("long", "bob"):
        drop = (0.2 + 0.14 * o.fringe) if o.hair_style == "long" else 0.09 + 0.05 * o.fringe
        rings = [(back[0], back[1] - s * drop - 0.02, back[2] - 0.25 * k * s, k * w, 0.6 * k * w, row + 2 + 50 * s)
                 for s, w in ((0.0, 0.95), (0.4, 1.12), (0.75, 1.05), (1.0, 0.75))]  # fmt: skip
        tubes.append(Tube("hair", rings, 0.0, round_ends=False, folds=0.2, layer=4, anchor=behind))
    elif o.hair_style == "ponytail":
        knot = head_point(b, j, 0.0, 0.35, -1.1)
        rings = [(knot[0], knot[1] - s * 0.22, knot[2] - 0.02 - 0.035 * sin(pi * s), 0.033 * w, 0.03 * w,
                  row + 2 + 50 * s)
                 for s, w in ((0.0, 0.8), (0.3, 1.2), (0.7, 1.0), (1.0, 0.4))]  # fmt: skip
        tubes.append(Tube("hair", rings, 0.0, folds=0.1, layer=4, anchor=behind))
    elif o.hair_style == "bun":
        knot = head_point(b, j, 0.0, 0.55 + 0.6 * o.fringe, -0.95 + 0.6 * o.fringe)
        rings = [
            (knot[0], knot[1] + s, knot[2], 0.042 - abs(s), 0.042 - abs(s), row + 20 + 300 * s) for s in (0.012, -0.012)
        ]
        tubes.append(Tube("hair", rings, 0.0, folds=0.1, layer=4, anchor=behind))
    if o.hat != "none":
        row = ROW0["hat"]
        rings = []
        for n, (up, w) in enumerate(
            ((1.12, 0.5), (1.02, 0.8), (0.75, 1.0), (0.42 if o.hat != "beanie" else 0.25, 1.1))
        ):
            x, y, z = head_point(b, j, 0.0, up, -0.05)
            rings.append((x, y, z, 0.86 * k * w, 1.04 * k * w, row + 2.0 + 6 * n))
        tubes.append(Tube("hair", rings, 0.0, twist=j["turn"][0], folds=0.1, layer=5, anchor=j["head"]))
        if o.hat == "cap":
            rims = [(*head_point(b, j, 0.0, 0.42, f), k * w, k * 0.3, row + 20.0) for f, w in ((0.7, 0.8), (1.6, 0.6))]
            tubes.append(Tube("hair", rims, 0.0, folds=0.0, layer=5, anchor=head_point(b, j, 0.0, 0.0, 0.6)))
        elif o.hat == "brim":
            rims = [(*head_point(b, j, 0.0, u, 0.0), k * 1.75, k * 1.75, row + 20.0) for u in (0.5, 0.36)]
            tubes.append(Tube("hair", rims, 0.0, round_ends=False, folds=0.0, layer=5, anchor=j["head"]))
    return tubes


def belongings(b: Body, o: Outfit, j: dict[str, Point]) -> list[Tube]:
    """Bag with its straps, and the thing in the right hand."""
    tubes, k = [], o.bag_size
    chest, pelvis, row = j["chest"], j["pelvis"], ROW0["bag"]
    if o.bag == "backpack":
        z = chest[2] - 0.065 * b.height * (0.4 + 0.6 * b.girth) - 0.07 * k
        rings = [(0.0, chest[1] + 0.03 - s * 0.46 * k, z, 0.145 * k * w, 0.085 * k * w, row + 2 + 58 * s)
                 for s, w in ((0.0, 0.72), (0.12, 0.98), (0.6, 1.08), (0.92, 1.04), (1.0, 0.85))]  # fmt: skip
        tubes.append(Tube("bag", rings, 0.0, round_ends=False, folds=0.3, layer=2, anchor=(0.0, chest[1], z - 0.12)))
    elif o.bag in ("shoulder", "crossbody"):
        hung = 1 if o.bag == "shoulder" else -1
        hip = 0.105 * b.height * b.hip * (0.4 + 0.6 * b.girth)
        x = -(hip + 0.06)
        y = pelvis[1] + (0.02 if o.bag == "crossbody" else 0.12)
        rings = [(x, y - s * 0.24 * k, 0.02, 0.06 * w, 0.15 * k * w, row + 2 + 58 * s)
                 for s, w in ((0.0, 0.9), (0.15, 1.0), (0.9, 1.0), (1.0, 0.9))]  # fmt: skip
        tubes.append(Tube("bag", rings, 0.03, round_ends=False, folds=0.2, layer=2, anchor=(x, y, 0.0)))
        top = j["left_shoulder"] if hung < 0 else j["right_shoulder"]
        top = (0.62 * top[0], top[1] + 0.045, top[2])
        deep = 0.078 * b.height * (0.4 + 0.6 * b.girth) + o.top_ease
        for face in (1, -1):
            middle = (0.5 * (top[0] + x), 0.5 * (top[1] + y), face * deep)
            line = [
                (*p, 0.016, 0.016, ROW0["strap"] + 2.0 + i) for i, p in enumerate((top, middle, (x, y, face * 0.06)))
            ]
            tubes.append(Tube("bag", line, 0.0, folds=0.0, layer=2, anchor=(0.0, y, face * 0.2)))
    elif o.bag == "tote":
        x, y, z = j["left_hand"]
        y -= 0.02
        handle = [(x, y, z, 0.012, 0.012, ROW0["strap"] + 2.0), (x, y - 0.13, z, 0.012, 0.07, ROW0["strap"] + 5.0)]
        rings = [(x, y - 0.12 - s * 0.26 * k, z, 0.055 * w, 0.155 * k * w, row + 2 + 58 * s)
                 for s, w in ((0.0, 1.0), (0.5, 1.05), (1.0, 1.0))]  # fmt: skip
        tubes += [Tube("bag", handle, 0.02, folds=0.0, layer=2, anchor=(x, y, z)),
                  Tube("bag", rings, 0.03, round_ends=False, folds=0.2, layer=2, anchor=(x, y, z))]  # fmt: skip
    if o.carried != "none":
        x, y, z = j["right_hand"]
        length, width, deep = {"bottle": (0.2, 0.033, 0.033), "umbrella": (0.62, 0.026, 0.026),
                               "folder": (0.3, 0.02, 0.11), "carrier": (0.36, 0.07, 0.13)}[o.carried]  # fmt: skip
        grip = 0.05 if o.carried != "carrier" else -0.02
        rings = [(x, y + grip - s * length, z + 0.02, width * w, deep * w, ROW0["carried"] + 2 + 26 * s)
                 for s, w in ((0.0, 0.6), (0.15, 1.0), (0.85, 1.0), (1.0, 0.8))]  # fmt: skip
        tubes.append(Tube("carried", rings, 0.05, round_ends=False, folds=0.15, layer=2, anchor=(x, y, z)))
    return tubes
