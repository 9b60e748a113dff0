"""From joints and an outfit to tubes: legs, arms, torso with its garments, head."""

from vireid.synthetic.belongings import belongings, hair
from vireid.synthetic.body import Body, Point, head_point
from vireid.synthetic.texture import PER_METER, ROW0, hip_row, leg_length
from vireid.synthetic.tube import Tube, chain, mix, profile
from vireid.synthetic.wardrobe import Outfit


def _legs(b: Body, o: Outfit, j: dict[str, Point]) -> list[Tube]:
    tubes, length = [], leg_length(b)
    thick = 0.5 * (1 + b.girth)
    flesh = ((0.0, 0.078 * thick), (0.25, 0.07 * thick), (0.48, 0.049 * thick), (0.52, 0.048), (0.66, 0.052 * thick),
             (0.9, 0.034), (1.0, 0.036))  # fmt: skip
    end = o.bottom_length if o.bottom == "trousers" else 0.0
    boot = 1.0 - o.shaft / length
    if o.shaft < 0.2 or o.bottom_ease > 0.012:
        boot = max(boot, min(end, 1.0))  # trousers fall over the shoe
    for side in ("left", "right"):
        line = [j[f"{side}_hip"], j[f"{side}_knee"], j[f"{side}_ankle"]]
        line[0] = (line[0][0], line[0][1] + 0.03, line[0][2])
        stops = []
        cuts = sorted({0.0, 0.12, 0.3, 0.46, 0.54, 0.66, 0.82, 0.93, 1.0, round(min(end, 1.0), 3), round(boot, 3)})
        for s in cuts:
            if s <= end + 1e-4:
                ease = o.bottom_ease + max(0.0, o.flare) * max(0.0, s - 0.45) / 0.55 + min(0.0, o.flare) * s
                stops.append((s * length, profile(s, flesh) + ease * (0.5 + 0.5 * s), s * length))
            if s >= end - 1e-4 and s >= boot - 1e-4:
                stops.append((s * length, profile(s, flesh) + 0.013, s * length))
            elif s >= end - 1e-4:
                stops.append((s * length, profile(s, flesh), s * length))
        tubes.append(Tube(f"{side}_leg", chain(line, stops, ROW0["leg"]), 0.0, side == "right", layer=1,
                          folds=0.26 if end else 0.04, anchor=j[f"{side}_knee"], round_last=False))  # fmt: skip
        heel, toe = j[f"{side}_heel"], j[f"{side}_toe"]
        ankle = j[f"{side}_ankle"]
        foot = [(ankle[0], ankle[1] + 0.03, ankle[2], 0.033, 0.033, ROW0["foot"]),
                (*heel, 0.036, 0.036, ROW0["foot"] + 1.0), (*mix(heel, toe, 0.35), 0.043, 0.043, ROW0["foot"] + 7.0),
                (*mix(heel, toe, 0.72), 0.043, 0.043, ROW0["foot"] + 15.0),
                (*mix(heel, toe, 1.0), 0.028, 0.028, ROW0["foot"] + 22.0)]  # fmt: skip
        tubes.append(Tube(f"{side}_foot", foot, -0.01, side == "right", folds=0.05, layer=1, anchor=j[f"{side}_knee"]))
    return tubes


def _arms(b: Body, o: Outfit, j: dict[str, Point]) -> list[Tube]:
    tubes, length = [], 0.322 * b.height
    thick = 0.45 + 0.55 * b.girth
    flesh = (
        (0.0, 0.042 * thick),
        (0.15, 0.046 * thick),
        (0.3, 0.043 * thick),
        (0.55, 0.036 * thick),
        (0.65, 0.037 * thick),
        (1.0, 0.025),
    )
    for side in ("left", "right"):
        line = [j[f"{side}_shoulder"], j[f"{side}_elbow"], j[f"{side}_wrist"]]
        for name, lo, hi in (("upper", 0.0, 0.535), ("fore", 0.535, 1.0)):
            stops = []
            cuts = sorted({lo, hi, 0.12, 0.25, 0.42, 0.65, 0.8, 0.93, round(min(o.sleeve, 1.0), 3)})
            for s in (c for c in cuts if lo <= c <= hi):
                if s <= o.sleeve + 1e-4:
                    stops.append(
                        (s * length, profile(s, flesh) + (0.25 if s == 0.0 else 0.6) * o.top_ease + 0.004, s * length)
                    )
                if s >= o.sleeve - 1e-4:
                    stops.append((s * length, profile(s, flesh), s * length))
            middle = mix(j[f"{side}_shoulder"], j[f"{side}_elbow"], 0.6) if name == "upper" else j[f"{side}_wrist"]
            tubes.append(Tube(f"{side}_arm", chain(line, stops, ROW0["arm"]), 0.02, side == "right", layer=2,
                              folds=0.26 if o.sleeve > 0.5 else 0.08, anchor=middle))  # fmt: skip
        wrist, hand, tip = j[f"{side}_wrist"], j[f"{side}_hand"], ROW0["arm"] + length * PER_METER
        palm = [(*wrist, 0.024, 0.024, tip), (*mix(wrist, hand, 0.5), 0.036, 0.026, min(tip + 6, ROW0["arm"] + 92)),
                (*hand, 0.02, 0.02, ROW0["arm"] + 94.0)]  # fmt: skip
        tubes.append(Tube(f"{side}_arm", palm, 0.03, side == "right", folds=0.1, layer=2, anchor=wrist))
    return tubes


def _torso(b: Body, o: Outfit, j: dict[str, Point]) -> list[Tube]:
    chest, pelvis, twist = j["chest"], j["pelvis"], j["turn"][2]
    h, g, ease = b.height, 0.4 + 0.6 * b.girth, o.top_ease
    shoulder, hip, neck = 0.107 * h * b.shoulder, 0.098 * h * b.hip * g, j["neck"]
    spine = chest[1] - pelvis[1]
    top = (neck[0], chest[1] + 0.024 * h, 0.6 * neck[2] + 0.4 * chest[2])
    rows = hip_row(b) / (spine + 0.024 * h)
    belly = max(0.0, b.girth - 1.0) * 0.12
    table = [(1.04, 0.038 * h, 0.04 * h), (1.02, 0.58 * shoulder, 0.046 * h), (0.985, 0.9 * shoulder, 0.054 * h),
             (0.93, 1.03 * shoulder, 0.06 * h), (0.86, 0.98 * shoulder, 0.067 * h * g),
             (0.7, 0.092 * h * b.shoulder * g, 0.072 * h * g),
             (0.4, 0.078 * h * g * (0.95 if b.female else 1.03), (0.062 + 0.4 * belly) * h * g),
             (0.12, hip, (0.066 + 0.25 * belly) * h * g), (0.0, hip, 0.066 * h * g)]  # fmt: skip
    rings = []
    for t, a, d in table:
        x, y, z = mix(pelvis, chest, t) if t < 1.0 else mix(chest, top, (t - 1.0) / 0.04)
        give = ease * (1.0 if t < 0.85 else 0.25)
        rings.append((x, y, z, a + give, d + give, ROW0["torso"] + (top[1] - y) * rows))
    end = -o.hem if not o.tucked else -0.02
    long = o.hem > 0.2
    spread = abs(j["left_ankle"][2] - j["right_ankle"][2])
    if not o.tucked:
        for k in (1, 2, 3):
            y = end * k / 3
            flare = (0.035 if long else 0.006) * k / 3
            depth = 0.066 * h * g + ease + flare + (0.2 * spread * k / 3 if long else 0.0)
            rings.append((pelvis[0], pelvis[1] + y, pelvis[2], hip + ease + flare, depth,
                          ROW0["torso"] + (top[1] - pelvis[1] - y) * rows))  # fmt: skip
    cloth = Tube("torso", rings, 0.0, twist=0.5 * twist, round_ends=False, folds=0.28, anchor=pelvis, layer=2)
    row = ROW0["leg" if o.bottom == "trousers" else "skirt"] + 1.0
    seat = [(x, y, z, 0.96 * a - 0.5 * ease, 0.96 * d - 0.5 * ease, row)
            for x, y, z, a, d, _ in rings[6:9]]  # fmt: skip
    low = pelvis[1] - 0.05 * h
    seat.append((pelvis[0], low, pelvis[2], 0.86 * hip, 0.06 * h * g, seat[-1][5] + 10))
    tubes = [Tube("hips", seat, -0.02, round_ends=False, anchor=pelvis, layer=1, folds=0.15)]
    if o.bottom == "skirt":
        drop = o.bottom_length * leg_length(b)
        cover = []
        for s in (-0.06, 0.08, 0.3, 0.55, 0.8, 1.0):
            reach = max(0.0, s) * drop / leg_length(b)
            wide = hip + 0.012 + (0.02 + 1.6 * max(0.0, o.flare + 0.02)) * max(0.0, s)
            deep = 0.066 * h * g + 0.012 + max(0.05 * max(0.0, s), 0.55 * reach * spread)
            cover.append(
                (pelvis[0], pelvis[1] - s * drop, pelvis[2], wide, deep, ROW0["skirt"] + 8 + s * drop * PER_METER)
            )
        tubes.append(Tube("hips", cover, 0.3, round_ends=False, anchor=pelvis, layer=1, folds=0.3))
    return [*tubes, cloth]


def _head(b: Body, o: Outfit, j: dict[str, Point]) -> list[Tube]:
    turn = j["turn"][0]
    k = b.head * 0.0575 * b.height
    thick = {"crop": 0.0, "short": 0.10, "bob": 0.16, "long": 0.14, "ponytail": 0.07, "bun": 0.07, "volume": 0.34}
    extra = thick[o.hair_style]
    outline = ((1.0, 0.2), (0.93, 0.5), (0.78, 0.78), (0.5, 0.95), (0.15, 1.0), (-0.2, 0.97), (-0.5, 0.86),
               (-0.78, 0.68), (-0.95, 0.42))  # fmt: skip
    rings = []
    for up, w in outline:
        grow = extra * max(0.0, min(1.0, (up + 0.25) / 0.5)) * w
        x, y, z = head_point(
            b, j, 0.0, up + (extra * 0.5 if up > 0.5 else 0.0), -0.06 * (1 - abs(up)) if up > 0 else 0.03
        )
        rings.append((x, y, z, k * (0.80 * w + grow), k * (1.0 * w + grow), ROW0["head"] + 31.5 * (1 - up) + 0.5))
    tubes = [Tube("head", rings, 0.0, twist=turn, round_ends=False, folds=0.06, layer=4, anchor=j["head"])]
    neck = j["neck"]
    base, up = (0.0, neck[1] - 0.035 * b.height, neck[2] - 0.012 * b.height), head_point(b, j, 0, -0.55, -0.2)
    wide = 0.034 * b.height * (0.75 + 0.25 * b.girth) * (0.9 if b.female else 1.03)
    collar = 0.012 if o.neck in ("high", "scarf") else 0.0
    tubes.append(Tube("head", [(*up, wide * 0.95, wide, ROW0["neck"] + 1.0),
                      (*base, wide * 1.1 + collar, wide * 1.1 + collar,
                      ROW0["neck"] + 15.0)], 0.0, round_ends=False, folds=0.05, layer=3, anchor=neck))  # fmt: skip
    nose = head_point(b, j, 0.0, -0.18, 1.05)
    tubes.append(Tube("head", [(*head_point(b, j, 0, 0.05, 0.93), 0.1 * k, 0.1 * k, ROW0["head"] + 38.0),
                      (*nose, 0.13 * k, 0.13 * k, ROW0["head"] + 40.0)], 0.0, twist=turn, folds=0.0, layer=4,
                      anchor=head_point(b, j, 0.0, 0.0, 0.35)))  # fmt: skip
    if o.neck in ("hood", "scarf"):
        wide = 0.075 if o.neck == "hood" else 0.07
        back = -0.05 if o.neck == "hood" else 0.0
        y = neck[1] - 0.02 * b.height
        tubes.append(Tube("torso", [(0.0, y + 0.03, neck[2] + back, wide + 0.012, wide, ROW0["hood"] + 2.0),
                          (0.0, y - 0.01, neck[2] + back, wide + 0.035, wide + 0.01, ROW0["hood"] + 9.0),
                          (0.0, y - 0.05, neck[2] + back, wide + 0.01, wide, ROW0["hood"] + 14.0)], 0.0, folds=0.5,
                          round_ends=False, layer=3, anchor=(0.0, y, neck[2] + 3 * back + 0.02)))  # fmt: skip
    return tubes


def tubes_of(body: Body, outfit: Outfit, joints: dict[str, Point]) -> list[Tube]:
    """All tubes of a dressed and posed person, in no particular order."""
    return [*_legs(body, outfit, joints), *_torso(body, outfit, joints), *_arms(body, outfit, joints),
            *_head(body, outfit, joints), *hair(body, outfit, joints), *belongings(body, outfit, joints)]  # fmt: skip
