"""A RegDB in the form of its release: the lists of its splits alone, or with small pictures of noise."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image


def write_lists(root: Path, people: int = 412, trials: int = 2, pictures: int = 10) -> Path:
    """The idx lists of the release's form; labels restart at 0 in the test lists and follow a random order."""
    (root / "idx").mkdir(parents=True)
    (root / "Visible").mkdir()
    (root / "Thermal").mkdir()
    for trial in range(trials):
        pids = list(range(1, people + 1))
        random.Random(trial).shuffle(pids)
        for split, half in (("train", pids[: people // 2]), ("test", pids[people // 2 :])):
            for kind in ("visible", "thermal"):
                lines = [
                    f"{kind.capitalize()}/{pid}/male_back_{kind[0]}_{100 * pid + 2 * n:05d}_{pid}.bmp {label}"
                    for label, pid in enumerate(half)
                    for n in range(pictures)
                ]
                (root / "idx" / f"{split}_{kind}_{trial + 1}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_pictures(root: Path) -> None:
    """A picture of noise for every line of the lists; people differ in brightness."""
    for path in sorted((root / "idx").glob("*_1.txt")):  # every trial lists all pictures
        for line in path.read_text().splitlines():
            name = line.rpartition(" ")[0]
            pid = int(Path(name).parent.name)
            pixels = np.random.default_rng([pid, len(name), sum(name.encode())]).integers(0, 60, (64, 32, 3)) + 30 * pid
            (root / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
