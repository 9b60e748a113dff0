"""Painting a person: skin, face, hair, garments and their pieces, onto the texture sheet."""

from dataclasses import replace
from math import pi

import numpy as np

from vireid.synthetic.body import Body
from vireid.synthetic.texture import HEIGHTS, PER_METER, Brush, Sheet, hip_row, leg_length
from vireid.synthetic.wardrobe import Dye, Material, Outfit

METAL = Material((170, 170, 172), 0.62, -1.5)


def _seam(material: Material) -> Material:
    """A doubled, shadowed edge of the same cloth."""
    dark = tuple(int(0.6 * c) for c in material.color)
    return replace(material, color=(dark[0], dark[1], dark[2]), nir=0.66 * material.nir, warmth=material.warmth - 0.6)


def _pattern(brush: Brush, dye: Dye, rows: float, radius: float) -> None:
    """Print a dye over the first `rows` rows of the region; radius in meters turns meters into angles."""
    step, turn = max(3.0, dye.period * PER_METER), dye.period / radius
    angles = np.arange(-pi, pi, max(turn, 0.12)).tolist()
    if dye.kind in ("stripes", "checks"):
        for r in np.arange(0, rows, step).tolist():
            brush.dye(dye.color, -pi, pi, r, min(rows, r + step * 0.42))
    if dye.kind in ("bars", "checks"):
        for a in angles:
            brush.dye(dye.color, a, a + 0.38 * max(turn, 0.12), 0, rows)
    if dye.kind in ("dots", "camouflage"):
        big = 1.0 if dye.kind == "dots" else 2.1
        for i, r in enumerate(np.arange(0, rows - 2, step * big * 0.8).tolist()):
            for j, a in enumerate(angles[:: 1 if big == 1.0 else 2]):
                wobble = 0.0 if big == 1.0 else ((7 * i + 5 * j) % 5 - 2) * 0.2
                a += 0.5 * turn * (i % 2) + wobble * turn
                brush.dye(dye.color, a, a + 0.45 * turn * big, r, min(rows, r + 0.45 * step * big), "ellipse")
    if dye.kind == "gradient":
        brush.dye(dye.color, -pi, pi, rows * 0.55, rows)
    if dye.kind in ("logo", "print"):
        half = 0.3 if dye.kind == "logo" else 0.75
        brush.dye(
            dye.color, -half, half, 24, 24 + 30 * half / 0.75 + 8, "ellipse" if dye.period > 0.07 else "rectangle"
        )
        light = (255 - dye.color[0], 255 - dye.color[1], 255 - dye.color[2])
        brush.dye(light, -0.5 * half, 0.5 * half, 32, 36)


def _head(brush: Brush, o: Outfit, beard: bool) -> None:
    brush.region("head")
    skin, hair = o.skin, cropped(o)
    brush.sew(skin, -pi, pi, 0, 63)
    top = 13 + 9 * o.fringe if o.hair_style != "crop" else 12 + 3 * o.fringe
    brush.sew(hair, -pi, pi, 0, top)
    low = 44 if o.hair_style in ("short", "crop", "volume") else 63
    brush.both(hair, 1.45, pi, 0, low)
    brush.both(hair, 0.95 if low == 63 else 1.12, 1.5, 0, 30 if low == 44 else 52)
    brush.both(_seam(skin), 1.4, 1.75, 28, 42, "ellipse")  # ears
    pupil = Material((40, 30, 28), 0.12, 10.5)
    red = tuple(int(c * f) for c, f in zip(skin.color, (0.86, 0.62, 0.62), strict=True))
    brush.both(Material((225, 220, 214), 0.55, 11.0), 0.26, 0.58, 31, 34, "ellipse")
    brush.both(pupil, 0.35, 0.49, 31, 34)
    brush.both(o.hair, 0.22, 0.66, 26, 27)  # brows
    brush.sew(_seam(skin), -0.12, 0.12, 44, 45)
    if beard:
        brush.sew(hair, -1.25, 1.25, 48, 63)
    brush.dye((red[0], red[1], red[2]), -0.24, 0.24, 51, 53)  # hemoglobin: lips fade in the near-infrared
    brush.sew(_seam(skin), -0.2, 0.2, 52, 52)
    if o.glasses != "none":
        wide = {"thin": 1, "thick": 2, "sun": 2}[o.glasses]
        dark = o.glasses == "sun"
        # A tinted lens is dyed, hence clear at 850 nm; glass is opaque in the thermal band and as cool as the air.
        lens = replace(skin, nir=0.92 * skin.nir, warmth=1.5, color=(30, 30, 32) if dark else skin.color)
        brush.sew(o.rim, -1.45, 1.45, 30, 30 + wide)
        brush.both(o.rim, 0.06, 0.78, 28 - wide, 37 + wide, "ellipse")
        brush.both(lens, 0.15, 0.69, 28, 37, "ellipse")
        brush.both(lens if dark else pupil, 0.35, 0.49, 31, 34)


def _top(brush: Brush, body: Body, o: Outfit, hip: float) -> None:
    hem = min(hip + o.hem * PER_METER, HEIGHTS["torso"] - 1)
    brush.region("torso")
    brush.sew(o.top, -pi, pi, 0, HEIGHTS["torso"] - 1)
    _pattern(brush, o.top_dye, hem, 0.15 * body.girth)
    seam = _seam(o.top)
    for piece in o.pieces:
        m, k = piece.material, piece.size
        if piece.kind == "yoke":
            brush.sew(m, -pi, pi, 0, 16 * k)
        elif piece.kind == "pocket":
            brush.sew(m, 0.25, 0.25 + 0.55 * k, 28, 28 + 15 * k)
        elif piece.kind == "hem band":
            brush.sew(m, -pi, pi, hem - 8 * k, hem + 2)
        elif piece.kind == "strip":
            brush.sew(m, -pi, pi, 38, 38 + 7 * k)
        elif piece.kind == "rubber print":
            brush.sew(m, -0.5 * k, 0.5 * k, 26, 26 + 22 * k, "ellipse" if k > 1 else "rectangle")
        elif piece.kind == "back print":
            brush.sew(m, pi - 0.7 * k, pi + 0.7 * k, 18, 18 + 26 * k)
        elif piece.kind == "side panel":
            brush.both(m, pi / 2 - 0.4 * k, pi / 2 + 0.4 * k, 18, hem)
    brush.sew(seam, -pi, pi, hem - 2, hem)
    brush.both(seam, 0.65, 1.2, min(hip - 10, hem - 14), min(hip - 9, hem - 13))  # slit pockets
    if o.front == "open":
        brush.wedge(seam, 0.36, 0.62, 0, hem)
        brush.wedge(o.inner, 0.3, 0.56, 0, min(hem, hip - 6))
        if hem > hip - 5:
            brush.wedge(o.bottom_material, 0.5, 0.58, hip - 5, hem)
    elif o.front == "zip":
        brush.sew(seam, -0.09, 0.09, 0, hem)
        brush.sew(METAL, -0.03, 0.03, 0, hem)
    elif o.front == "buttons":
        brush.sew(seam, -0.04, 0.04, 0, hem)
        for r in range(8, int(hem), 11):
            brush.sew(o.sole, 0.03, 0.11, r, r + 1)
    if o.neck == "vneck":
        brush.wedge(seam, 0.66, 0.05, 0, 17)
        brush.wedge(o.skin, 0.55, 0.0, 0, 15)
    elif o.neck == "lapel":
        brush.wedge(o.neck_material, 0.75, 0.12, 0, 28)
        brush.wedge(o.inner, 0.4, 0.0, 0, 26)
    elif o.neck == "collar":
        brush.wedge(o.neck_material if o.neck_material.nir > 0.6 else seam, 1.0, 0.3, 0, 7)
        brush.wedge(o.inner if o.front != "closed" else o.skin, 0.3, 0.02, 0, 8)
    else:
        brush.sew(seam, -pi, pi, 0, 3)
    if o.tucked and any(p.kind == "belt" for p in o.pieces):
        belt = next(p.material for p in o.pieces if p.kind == "belt")
        brush.sew(belt, -pi, pi, hip - 15, hip - 11)
        brush.sew(METAL, -0.12, 0.12, hip - 15, hip - 11)
    if o.tucked:
        brush.sew(o.bottom_material, -pi, pi, hip - 11, HEIGHTS["torso"] - 1)
    # Straps over the shoulders, front and back; the rest of a bag is its own tube.
    if o.bag == "backpack":
        brush.both(o.strap, 0.59, 0.85, 0, 44)


def _limbs(brush: Brush, body: Body, o: Outfit) -> None:
    arm, leg = 0.322 * body.height * PER_METER, leg_length(body) * PER_METER
    brush.region("arm")
    brush.sew(o.skin, -pi, pi, 0, 95)
    cuff = min(o.sleeve * arm, 94)
    brush.sew(o.top, -pi, pi, 0, cuff)
    if o.top_dye.kind in ("stripes", "bars", "checks", "dots", "camouflage"):
        _pattern(brush, o.top_dye, cuff, 0.05)
    pieces = {p.kind: p for p in o.pieces}
    if "cuff band" in pieces:
        brush.sew(pieces["cuff band"].material, -pi, pi, cuff - 6 * pieces["cuff band"].size, cuff)
    if "elbow patch" in pieces and o.sleeve > 0.6:
        brush.sew(pieces["elbow patch"].material, pi - 1.0, pi + 1.0, 0.46 * arm, 0.62 * arm, "ellipse")
    if "strip" in pieces and o.sleeve > 0.6:
        brush.sew(pieces["strip"].material, -pi, pi, 0.3 * arm, 0.3 * arm + 6)
    if "shoulder panel" in pieces:
        brush.sew(pieces["shoulder panel"].material, -pi, pi, 0, min(cuff, 0.22 * arm))
    brush.sew(_seam(o.top), -pi, pi, cuff - 1, cuff)
    brush.region("leg")
    brush.sew(o.skin, -pi, pi, 0, 135)
    brush.sew(o.sock, -pi, pi, leg * 0.86, 135)
    if o.bottom == "trousers":
        end = o.bottom_length * leg
        brush.sew(o.bottom_material, -pi, pi, 0, end)
        _pattern(brush, o.bottom_dye, end, 0.08)
        if "side stripe" in pieces:
            brush.sew(pieces["side stripe"].material, pi / 2 - 0.3, pi / 2 + 0.3, 0, end)
        if "knee patch" in pieces and o.bottom_length > 0.7:
            brush.sew(pieces["knee patch"].material, -0.9, 0.9, 0.44 * leg, 0.58 * leg)
        if "thigh pocket" in pieces and o.bottom_length > 0.4:
            brush.sew(pieces["thigh pocket"].material, 0.9, 2.2, 0.26 * leg, 0.4 * leg)
        brush.sew(_seam(o.bottom_material), -pi, pi, end - 2, end)
    elif o.sock.nir > 0.5:
        brush.sew(o.sock, -pi, pi, 0, 135)  # tights
    over = o.shaft > 0.2 and o.bottom_ease <= 0.012  # boots over slim trousers
    end = o.bottom_length * leg if o.bottom == "trousers" and not over else 0.0
    brush.sew(o.shoes, -pi, pi, max(leg - o.shaft * PER_METER, end + 1), 135)


def _rest(brush: Brush, o: Outfit, body: Body) -> None:
    brush.region("skirt")
    brush.sew(o.bottom_material, -pi, pi, 0, 119)
    _pattern(brush, o.bottom_dye, 119, 0.2)
    end = o.bottom_length * leg_length(body) * PER_METER + 8
    band = next((p for p in o.pieces if p.kind == "hem band"), None)
    brush.sew(band.material if band else _seam(o.bottom_material), -pi, pi, end - (7 if band else 2), end)
    brush.region("foot")
    brush.sew(o.shoes, -pi, pi, 0, 23)
    brush.sew(o.sole, -pi, -1.0, 0, 23)
    brush.sew(o.sole, 1.0, pi, 0, 23)
    for r in (9, 12, 15):
        brush.sew(o.sole, -0.4, 0.4, r, r)
    brush.region("bag")
    brush.sew(o.bag_material, -pi, pi, 0, 63)
    seam = _seam(o.bag_material)
    brush.sew(seam, -pi, pi, 30, 32)
    brush.sew(seam, -pi, pi, 12, 13)
    brush.sew(o.strap, pi - 0.5, pi + 0.5, 34, 52)
    for region, material in (("strap", o.strap), ("hair", o.hair), ("hat", o.hat_material),
                             ("carried", o.carried_material), ("neck", o.skin), ("hood", o.top)):  # fmt: skip
        brush.region(region)
        brush.sew(material, -pi, pi, 0, HEIGHTS[region] - 1)
    brush.region("hair")
    for a in np.arange(-pi, pi, 0.35).tolist():
        brush.sew(replace(o.hair, nir=0.8 * o.hair.nir), a, a + 0.1, 0, 63)
    brush.region("neck")
    if o.neck in ("high", "scarf"):
        brush.sew(o.top if o.neck == "high" else o.neck_material, -pi, pi, 4, 15)
    brush.region("hood")
    if o.neck == "scarf":
        brush.sew(o.neck_material, -pi, pi, 0, 15)


def cropped(o: Outfit) -> Material:
    """The hair as it looks on the scalp: skin shines through a crop."""
    if o.hair_style != "crop":
        return o.hair
    return replace(o.hair, nir=0.5 * (o.hair.nir + o.skin.nir), warmth=0.5 * (o.hair.warmth + o.skin.warmth))


def bake(body: Body, outfit: Outfit, beard: bool) -> Sheet:
    """Paint the sheet of one dressed person."""
    brush = Brush()
    _head(brush, outfit, beard)
    _top(brush, body, outfit, hip_row(body))
    _limbs(brush, body, outfit)
    _rest(brush, outfit, body)
    return brush.sheet(cropped(outfit))
