"""A film for two cameras, one visible and one infrared: synthetic people walk through, and who is where is known."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vireid.synthetic.camera import Camera
from vireid.synthetic.make import CAMERAS, picture
from vireid.synthetic.walk import Place, Walker, frame

FPS = 5
CROSSING_S, SLOT_S = 8.0, 12.0  # of one way through the picture, and from one to the next
CAMERA_IDS = {"gate": 4, "hall": 6}  # of the SYSU layout: visible, and infrared with its own lamp
PICTURE_CAMERAS, PICTURE_SHOT = (1, 2, 5), 90  # where the pictures for the watch-list were taken: other visible cameras
EMPTY = 8  # different pictures of the empty place


@dataclass(frozen=True)
class Passage:
    """One way of a person through the picture of a camera; seconds since the film began."""

    camera: str
    pid: int
    begin_s: float
    heading: float
    down: float


def camera_of(name: str) -> Camera:
    return next(camera for camera in CAMERAS["sysu"] if camera.camid == CAMERA_IDS[name])


def plan(minutes: float, people: int, wanted: int, wanted_at: list[float], seed: int) -> list[Passage]:
    """Who walks when: a person or two in most slots of a camera, and the wanted one alone before the infrared camera.

    `wanted_at` has the slots of the wanted person before the infrared camera as fractions of the film; she also walks
    through the visible one once, in the second slot.
    """
    random = np.random.default_rng((seed, 31))
    slots = int(minutes * 60 / SLOT_S)
    alone = {"gate": {1}, "hall": {min(int(at * slots), slots - 1) for at in wanted_at}}
    others = [pid for pid in range(1, people + 1) if pid != wanted]
    passages = []
    for camera, hers in alone.items():
        order: list[int] = []
        for slot in range(slots):
            begin_s = slot * SLOT_S + 1.0
            if slot in hers:
                passages.append(_passage(camera, wanted, begin_s, random))
                continue
            for place in range(int(random.choice(3, p=(0.1, 0.6, 0.3)))):
                order = order or random.permutation(others).tolist()
                passages.append(_passage(camera, int(order.pop()), begin_s + 2.0 * place, random))
    return passages


def _passage(camera: str, pid: int, begin_s: float, random: np.random.Generator) -> Passage:
    heading = float(random.choice((-1, 1)) * random.uniform(15, 50))
    return Passage(camera, pid, begin_s, heading, float(random.uniform(0.1, 0.9)))


def film(folder: Path, passages: list[Passage], minutes: float, seed: int) -> None:
    """Write CAMERA.jpgs (frames one behind the other), CAMERA.index and truth.json into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    truth: dict[str, dict[int, list[tuple[int, Place]]]] = {}
    for name in CAMERA_IDS:
        camera, hers = camera_of(name), [one for one in passages if one.camera == name]
        empty = [frame(camera, (), seed, number)[0] for number in range(EMPTY)]
        places: dict[int, list[tuple[int, Place]]] = {}
        offsets, end = [0], 0
        with (folder / f"{name}.jpgs").open("wb") as file:
            for number in range(int(minutes * 60 * FPS)):
                walkers = _walkers(hers, number / FPS)
                image, boxes = (empty[number % EMPTY], []) if not walkers else frame(camera, walkers, seed, number)
                seen = [(one.pid, box) for one, box in zip(walkers, boxes, strict=True) if box is not None]
                if seen:
                    places[number] = seen
                end += file.write(_jpeg(image))
                offsets.append(end)
        (folder / f"{name}.index").write_text(json.dumps({"fps": FPS, "offsets": offsets}))
        truth[name] = places
    (folder / "truth.json").write_text(json.dumps({"passages": [asdict(one) for one in passages], "places": truth}))


def _walkers(passages: list[Passage], at_s: float) -> list[Walker]:
    return [
        Walker(one.pid, (at_s - one.begin_s) / CROSSING_S, at_s - one.begin_s, one.heading, one.down)
        for one in passages
        if 0 <= at_s - one.begin_s <= CROSSING_S
    ]


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    return file.getvalue()


def pictures_of(pid: int, folder: Path, seed: int) -> list[Path]:
    """Pictures of a person by other visible cameras, as somebody would hand them in."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for camid in PICTURE_CAMERAS:
        camera = next(one for one in CAMERAS["sysu"] if one.camid == camid)
        paths.append(folder / f"{pid}-{camid}.png")
        Image.fromarray(picture(pid, camera, PICTURE_SHOT, seed).image).save(paths[-1])
    return paths
