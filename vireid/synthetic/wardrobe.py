"""What people wear: materials, dyes, garments, hair, bags, and how a person's outfit is drawn.

A Material has a visible color, a near-infrared reflectance and a surface warmth that are drawn independently: most
textile dyes do not absorb beyond 750 nm, so the fiber and its finish decide how bright cloth is under an 850 nm lamp.
A Dye is color only: it exists for the visible camera and for no other.
"""

from dataclasses import dataclass, replace

import numpy as np

PALETTE = ((24, 24, 28), (38, 40, 46), (30, 38, 66), (58, 74, 108), (92, 96, 102), (140, 142, 146), (216, 216, 212),
           (236, 234, 226), (150, 34, 40), (196, 52, 48), (40, 84, 58), (92, 104, 62), (198, 178, 142), (122, 92, 66),
           (222, 186, 70), (96, 140, 190), (206, 142, 160), (92, 60, 104), (228, 128, 52), (52, 124, 132))  # fmt: skip
PALETTE_WEIGHT = np.array([12, 9, 9, 9, 7, 6, 8, 6, 4, 4, 3, 4, 5, 4, 3, 4, 3, 2, 2, 2], float)
DENIM = ((44, 58, 92), (70, 92, 134), (28, 34, 54), (120, 142, 172))
HAIR = ((22, 20, 20), (34, 26, 22), (58, 40, 28), (96, 66, 40), (150, 112, 66), (150, 148, 146))
SKIN = ((236, 194, 168), (222, 174, 142), (198, 150, 116), (160, 112, 82), (112, 76, 56), (76, 52, 40))


@dataclass(frozen=True)
class Material:
    """A surface: sRGB color 0..255, near-infrared reflectance 0..1, warmth in kelvin above the air."""

    color: tuple[int, int, int]
    nir: float
    warmth: float


@dataclass(frozen=True)
class Dye:
    """A dyed pattern, seen by visible cameras only: kind, color and period in meters."""

    kind: str = "plain"
    color: tuple[int, int, int] = (0, 0, 0)
    period: float = 0.06


@dataclass(frozen=True)
class Piece:
    """A sewn or printed structural piece with its own material: kind names the place, size is a factor around 1."""

    kind: str
    material: Material
    size: float


@dataclass(frozen=True)
class Outfit:
    """Everything a person wears or carries; lengths are parts of the limb (sleeve, bottom_length) or meters."""

    skin: Material
    hair: Material
    hair_style: str
    fringe: float
    hat: str
    hat_material: Material
    glasses: str
    rim: Material
    top: Material
    top_dye: Dye
    inner: Material
    sleeve: float
    hem: float
    top_ease: float
    front: str
    neck: str
    neck_material: Material
    tucked: bool
    bottom: str
    bottom_material: Material
    bottom_dye: Dye
    bottom_length: float
    bottom_ease: float
    flare: float
    pieces: tuple[Piece, ...]
    shoes: Material
    sole: Material
    shaft: float
    sock: Material
    bag: str
    bag_material: Material
    strap: Material
    bag_size: float
    carried: str
    carried_material: Material


def _pick(rng: np.random.Generator, options: tuple, weights: tuple | None = None):
    p = None if weights is None else np.array(weights, float) / sum(weights)
    return options[int(rng.choice(len(options), p=p))]


def _color(rng: np.random.Generator, palette: tuple = PALETTE) -> tuple[int, int, int]:
    weight = PALETTE_WEIGHT / PALETTE_WEIGHT.sum() if palette is PALETTE else None
    base = np.array(palette[int(rng.choice(len(palette), p=weight))], float)
    base = np.clip(base * rng.uniform(0.85, 1.15) + rng.normal(0, 5, 3), 4, 250)
    return int(base[0]), int(base[1]), int(base[2])


def cloth(rng: np.random.Generator, palette: tuple = PALETTE, warmth: float = 4.0) -> Material:
    """Draw a cloth: color from the palette, near-infrared reflectance from its own distribution, warmth likewise."""
    color = _color(rng, palette)
    # Three cloths in ten hold carbon black or a finish that stays dark in the infrared.
    nir = rng.uniform(0.05, 0.2) if rng.random() < 0.3 else rng.uniform(0.24, 0.88)
    return Material(color, float(nir), float(warmth + rng.normal(0, 1.5)))


def _trim(rng: np.random.Generator, base: Material) -> Material:
    """Another cloth sewn to `base`: at times of nearly its color, always of another make and reflectance."""
    other, near = cloth(rng), rng.random() < 0.1
    if abs(other.nir - base.nir) < 0.3:
        other = replace(other, nir=base.nir + (0.4 if base.nir < 0.5 else -0.4))
    shade = rng.uniform(0.7, 1.35)
    color = tuple(int(min(250, 8 + c * shade)) for c in base.color)
    return replace(other, color=(color[0], color[1], color[2])) if near else other


def _dye(rng: np.random.Generator, share: float) -> Dye:
    kind = (
        "plain"
        if rng.random() > share
        else _pick(
            rng,
            ("stripes", "bars", "checks", "dots", "logo", "print", "camouflage", "gradient"),
            (5, 2, 4, 2, 6, 4, 1, 2),
        )
    )
    return Dye(kind, _color(rng), float(rng.uniform(0.03, 0.11)))


PIECES = ("yoke", "pocket", "hem band", "cuff band", "strip", "rubber print", "side panel", "elbow patch", "belt",
          "side stripe", "knee patch", "thigh pocket", "back print", "shoulder panel")  # fmt: skip


def draw_outfit(rng: np.random.Generator, female: bool) -> Outfit:
    """Draw an outfit: a top of one of six cuts, a bottom of one of six, and everything on them."""
    cut = _pick(rng, ("tee", "shirt", "sweater", "hoodie", "jacket", "coat"), (5, 4, 3, 4, 5, 3))
    low = _pick(rng, ("long", "slim", "wide", "cropped", "shorts", "skirt"), (5, 5, 3, 2, 3, 5 if female else 0))
    ease = {"tee": 0.012, "shirt": 0.018, "sweater": 0.028, "hoodie": 0.034, "jacket": 0.038, "coat": 0.045}[cut]
    hem = {"tee": (0.0, 0.12), "shirt": (0.02, 0.16), "sweater": (-0.02, 0.08), "hoodie": (0.0, 0.1),
           "jacket": (-0.06, 0.14), "coat": (0.25, 0.58)}[cut]  # fmt: skip
    sleeve = {"tee": (0.2, 0.48), "shirt": (0.3, 1.0)}.get(cut, (0.9, 1.02))
    if rng.random() < 0.06:
        sleeve = (0.06, 0.1)
    layered = cut in ("jacket", "coat", "hoodie", "shirt")
    neck = {"tee": ("crew", "vneck"), "shirt": ("collar",), "sweater": ("crew", "vneck", "high"), "hoodie": ("hood",),
            "jacket": ("collar", "hood", "high"), "coat": ("collar", "hood", "lapel")}[cut]  # fmt: skip
    length = {"long": (0.97, 1.03), "slim": (0.94, 1.0), "wide": (0.97, 1.03), "cropped": (0.68, 0.86),
              "shorts": (0.32, 0.5), "skirt": (0.3, 0.88)}[low]  # fmt: skip
    low_ease = {"slim": 0.003, "wide": 0.04, "shorts": 0.026}.get(low, 0.014) + rng.uniform(0, 0.008)
    styles = ("long", "bob", "ponytail", "bun", "short", "volume") if female else ("short", "crop", "volume", "bob")
    top = cloth(rng, warmth=5.5 - 60 * ease)
    shapes = tuple(Piece(str(k), _trim(rng, top), float(rng.uniform(0.7, 1.35)))
                   for k in rng.choice(PIECES, size=int(rng.integers(3, 7)), replace=False))  # fmt: skip
    denim = low in ("long", "slim", "cropped", "shorts") and rng.random() < 0.45
    leather = cloth(rng, warmth=2.0)
    return Outfit(
        skin=Material(_color(rng, SKIN), float(rng.normal(0.60, 0.025)), float(rng.normal(11.5, 0.7))),
        hair=Material(_color(rng, HAIR), float(rng.uniform(0.1, 0.42)), float(rng.normal(6.0, 1.0))),
        hair_style=_pick(rng, styles),
        fringe=float(rng.uniform(0.0, 1.0)),
        hat=_pick(rng, ("none", "cap", "beanie", "brim"), (84, 8, 5, 3)),
        hat_material=cloth(rng, warmth=3.0),
        glasses=_pick(rng, ("none", "thin", "thick", "sun"), (68, 12, 14, 6)),
        rim=Material((28, 24, 24), float(rng.uniform(0.05, 0.5)), 1.5),
        top=top,
        top_dye=_dye(rng, 0.35),
        inner=cloth(rng, warmth=6.5),
        sleeve=float(rng.uniform(*sleeve)),
        hem=float(rng.uniform(*hem)),
        top_ease=float(ease * rng.uniform(0.8, 1.3)),
        front=_pick(rng, ("open", "zip", "buttons"), (3, 4, 3)) if layered else "closed",
        neck=_pick(rng, neck) if rng.random() > 0.08 else "scarf",
        neck_material=_trim(rng, top),
        tucked=cut in ("tee", "shirt") and bool(rng.random() < 0.3),
        bottom="skirt" if low == "skirt" else "trousers",
        bottom_material=cloth(rng, DENIM if denim else PALETTE, 4.5),
        bottom_dye=_dye(rng, 0.15),
        bottom_length=float(rng.uniform(*length)),
        bottom_ease=float(low_ease),
        flare=float(rng.uniform(-0.01, 0.012) + (0.03 if low == "wide" else 0.0)),
        pieces=shapes,
        shoes=leather,
        sole=replace(cloth(rng, ((240, 240, 236), (30, 30, 30), (150, 110, 70))), warmth=1.0),
        shaft=float(_pick(rng, (0.05, 0.09, 0.16, 0.32), (6, 3, 2, 1 if female else 0))),
        sock=cloth(rng, warmth=7.0),
        bag=_pick(rng, ("none", "backpack", "shoulder", "tote", "crossbody"), (28, 30, 14, 14, 14)),
        bag_material=cloth(rng, warmth=0.5),
        strap=cloth(rng, warmth=1.0),
        bag_size=float(rng.uniform(0.75, 1.25)),
        carried=_pick(rng, ("none", "bottle", "umbrella", "folder", "carrier"), (74, 8, 6, 6, 6)),
        carried_material=cloth(rng, warmth=0.0),
    )


def on_a_day(outfit: Outfit, rng: np.random.Generator) -> Outfit:
    """Vary what may change between two cameras' days: coat open or closed, bag, carried thing, hat."""
    draws = rng.random(4)
    if outfit.front in ("open", "zip", "buttons") and draws[0] < 0.12:
        outfit = replace(outfit, front="zip" if outfit.front == "open" else "open")
    if draws[1] < 0.06:
        outfit = replace(outfit, bag="none" if outfit.bag != "none" else "tote")
    if draws[2] < 0.3:
        outfit = replace(outfit, carried="none")
    if draws[3] < 0.2:
        outfit = replace(outfit, hat="none")
    return outfit


def like(common: Outfit, own: Outfit) -> Outfit:
    """A common outfit worn by someone with their own hair, skin, glasses, shoes and belongings."""
    keep = ("skin", "hair", "hair_style", "fringe", "hat", "hat_material", "glasses", "rim", "shoes", "sole", "shaft",
            "sock", "bag", "bag_material", "strap", "bag_size", "carried", "carried_material")  # fmt: skip
    return replace(common, **{name: getattr(own, name) for name in keep})
