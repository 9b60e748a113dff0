"""How often the modality judged from the picture is wrong, as it is and under what cameras and codecs add.

    python benchmarks/modality.py                    the three synthetic layouts; writes benchmarks/results/modality.txt
    python benchmarks/modality.py NAME=PATH [...]    these data sets instead, on the screen alone

Each picture is judged as it is, saved again as JPEG of quality 40, with independent noise of 6 gray levels in each
channel (and JPEG 75), with noise of 12 (and JPEG 50), and with a colored cast (red + 6 %, green - 3 %, blue + 4 %).
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

from vireid.data import datasets
from vireid.data.table import Table
from vireid.deploy.infrared_detection import BAR, chroma
from vireid.synthetic.make import make
from vireid.types import INFRARED, VISIBLE

RESULT = Path(__file__).parent / "results" / "modality.txt"
LAYOUTS = {"sysu": 60, "regdb": 60, "llcm": 60}
CAST = (1.06, 0.97, 1.04)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


def variants(picture: np.ndarray, random: np.random.RandomState) -> Iterator[tuple[str, np.ndarray]]:
    def noise(deviation: float) -> np.ndarray:
        return np.clip(picture + random.normal(0, deviation, picture.shape), 0, 255).astype(np.uint8)

    yield "as it is", picture
    yield "jpeg 40", jpeg(picture, 40)
    yield "noise 6, jpeg 75", jpeg(noise(6), 75)
    yield "noise 12, jpeg 50", jpeg(noise(12), 50)
    yield "cast", np.clip(picture * np.array(CAST), 0, 255).astype(np.uint8)


def lines(name: str, table: Table, most: int) -> Iterator[str]:
    random = np.random.RandomState(0)
    rows = np.sort(random.permutation(len(table))[:most])
    found: dict[str, list[float]] = {}
    for row in rows:
        with Image.open(table.full_path(row)) as image:
            picture = np.array(image.convert("RGB"))
        for variant, changed in variants(picture, random):
            found.setdefault(variant, []).append(chroma(changed))
    modality = table.modality[rows]
    for variant, values in found.items():
        visible, infrared = (np.array(values)[modality == kind] for kind in (VISIBLE, INFRARED))
        yield (
            f"{name:<9}{variant:<19}{len(visible):>6} visible, wrong {np.mean(visible < BAR):7.2%}, "
            f"least chroma {visible.min():5.1f}; {len(infrared):>6} infrared, wrong {np.mean(infrared >= BAR):7.2%}, "
            f"99 % below {np.quantile(infrared, 0.99):5.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", help="NAME=PATH")
    parser.add_argument("--most", type=int, default=1500, help="pictures of each data set, drawn by a seed")
    given = parser.parse_args()
    told = [describe(), f"bar {BAR} gray levels of chroma (vireid/deploy/infrared_detection.py)"]
    with tempfile.TemporaryDirectory() as name:
        sets = {spec: datasets.load(spec) for spec in given.data}
        if not sets:
            made = {k: make(Path(name) / k, k, people=n, images_per_camera=4) for k, n in LAYOUTS.items()}
            sets = {f"{layout}=": datasets.load(f"{layout}={path}") for layout, path in made.items()}
        for spec, table in sets.items():
            told += lines(spec.partition("=")[0], table, given.most)
    text = "\n".join(told) + "\n"
    print(text)
    if not given.data:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
