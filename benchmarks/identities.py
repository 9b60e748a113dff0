"""Identities over six cameras of a synthetic night: ID-F1 and HOTA of vireid.search.identities, by reid-hota.

A night: `people` pass the cameras of the SYSU layout in groups of one to three, who walk side by side, so that one
camera sees them at the same time; half of them come a second time an hour later. Every passage is a track of three
pictures. The tracks are right, so the grouping alone is measured. The prior is chosen on the first seed, and the others
are measured with it.

    python benchmarks/identities.py            writes benchmarks/results/identities.txt
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import Model
from vireid.evaluation.identity_scores import identity_scores
from vireid.ingest.index import Crop, index
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery
from vireid.search.identities import IdentityOptions, identities_of
from vireid.synthetic.make import CAMERAS, picture
from vireid.types import INFRARED

RESULT = Path(__file__).parent / "results" / "identities.txt"
SEEDS, PEOPLE, SHOTS = (61, 62, 63), 24, 3
PRIORS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
START_S, WALK_S, RETURN_S = 1_795_550_400.0, 90.0, 3600.0


def night(seed: int, people: int) -> Iterator[Crop]:
    """The crops of a night in which groups walk from camera to camera."""
    random = np.random.default_rng(seed)
    groups, pid = [], 1
    while pid <= people:
        size = min(int(random.integers(1, 4)), people + 1 - pid)
        groups.append(range(pid, pid + size))
        pid += size
    walks = [(group, 0) for group in groups] + [(group, 1) for group in groups[::2]]
    for group, again in walks:
        begin = START_S + again * RETURN_S + float(random.uniform(0, 1800))
        for step, camera in enumerate(CAMERAS["sysu"]):
            for pid in group:
                for shot in range(SHOTS):
                    yield Crop(
                        id=f"{camera.camid}/{pid}/{again}/{shot}", path=Path(f"{camera.camid}/{pid}.jpg"),
                        camera=f"{camera.place} {camera.camid}", time_s=begin + WALK_S * step + shot,
                        modality="infrared" if camera.modality == INFRARED else "visible",
                        track=f"{pid}-{again}", pid=str(pid),
                        picture=Image.fromarray(picture(pid, camera, shot + SHOTS * again, seed).image),
                    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    model = Model.open("night")
    assert model.calibration is not None
    lines = [
        f"# {describe()}",
        f"# python benchmarks/identities.py --people {options.people} --seeds {' '.join(map(str, options.seeds))}",
        "# model night; a group of one track each stands for no grouping",
    ]
    chosen, best = PRIORS[0], -1.0
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            gallery = open_gallery("memory:", model.bundle.config.dim, model.digest)
            with closing(Archive(gallery, Path(folder))) as archive:
                index(archive, FeatureExtractor(model.bundle), night(seed, options.people))
                rows = list(gallery.rows())
                tracks = len({(row.camera, row.track) for row in rows})
                lines.append(f"seed {seed}: {len(rows)} rows, {tracks} tracks, {options.people} people")
                for prior in PRIORS if seed == options.seeds[0] else (chosen,):
                    for cannot_link in (True, False):
                        settings = IdentityOptions(prior=prior, cannot_link=cannot_link)
                        identities = identities_of(gallery, model.calibration, options=settings)
                        label = {name: number for number, one in enumerate(identities) for name in one.ids}
                        scores = identity_scores(
                            [row.camera for row in rows], [row.time_s for row in rows], [row.pid for row in rows],
                            [label[row.id] for row in rows],
                        )  # fmt: skip
                        if cannot_link and scores["IDF1"] + scores["HOTA"] > best and seed == options.seeds[0]:
                            chosen, best = prior, scores["IDF1"] + scores["HOTA"]
                        figures = "  ".join(f"{name} {100 * value:5.2f}" for name, value in scores.items())
                        link = "cannot-link   " if cannot_link else "no constraint "
                        lines.append(f"  prior {prior:<6} {link} {len(identities):4d} identities  {figures}")
                single = identity_scores(
                    [row.camera for row in rows], [row.time_s for row in rows], [row.pid for row in rows],
                    [(row.camera, row.track) for row in rows],
                )  # fmt: skip
                figures = "  ".join(f"{name} {100 * value:5.2f}" for name, value in single.items())
                lines.append(f"  no grouping                 {tracks:4d} identities  {figures}")
        print("\n".join(lines), flush=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
