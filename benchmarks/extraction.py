"""Images a second of one bundle through torch, onnxruntime and OpenVINO, the three in turn in one run.

`network` is a batch of pixels to vectors; `files` is FeatureExtractor from JPEG files of 256 x 128: decode, resize,
network, normalize. The networks are those of the models that come with vireid, and AGW at its published size and
small, with random weights: time does not depend on them. Of the rounds, in which the runtimes take turns, the best
counts. `difference` is the largest from torch in a coordinate of the L2-normalized vectors.

    python benchmarks/extraction.py [--images 128] [--rounds 3]        writes benchmarks/results/extraction.txt
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

from vireid import models
from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.runtimes import BACKENDS

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "support"))

from small_run import make_run, write_people  # noqa: E402

NETWORKS = {
    "AGW, ResNet-50, 288 x 144": ("size=[288,144]",),
    "small AGW, width 16, 96 x 48": ("width=16", "size=[96,48]"),
}
BATCHES = (1, 32)


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 256 x 128, smooth noise, the odd ones gray."""
    folder.mkdir()
    random = np.random.RandomState(0)
    for number in range(count):
        small = Image.fromarray(random.randint(0, 256, (16, 8, 3)).astype(np.uint8))
        picture = small.resize((128, 256), Image.Resampling.BICUBIC)
        (picture.convert("L") if number % 2 else picture).save(folder / f"{number:05}.jpg", quality=90)
    return sorted(folder.iterdir())


def rates(bundle: Bundle, files: list[Path], rounds: int) -> list[str]:
    """A line for each way of asking: images a second by runtime, and beside torch."""
    height, width = bundle.config.size
    random = np.random.RandomState(0)
    embedders = {backend: bundle.embedder(backend, "cpu") for backend in BACKENDS}
    extractors = {backend: FeatureExtractor(bundle, backend, "cpu", max(BATCHES)) for backend in BACKENDS}
    best: dict[str, dict[str, float]] = {}
    vectors: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):  # the first warms up
        for backend in BACKENDS:
            for batch in BATCHES:
                images = random.randint(0, 256, (batch, 3, height, width)).astype(np.uint8)
                modality = np.arange(batch, dtype=np.int64) % 2
                repeats = max(1, len(files) // batch // (8 if batch == 1 else 1))
                start = time.perf_counter()
                for _ in range(repeats):
                    embedders[backend](images, modality)
                note(best, f"network, batch {batch}", backend, repeats * batch, start, turn)
            start = time.perf_counter()
            vectors[backend] = extractors[backend](files, "auto")
            note(best, f"files, batch {max(BATCHES)}", backend, len(files), start, turn)
    lines = []
    for what, found in best.items():
        shown = "   ".join(f"{name} {rate:8.1f} ({rate / found['torch']:.2f})" for name, rate in found.items())
        lines.append(f"  {what:18} {shown}")
    apart = {name: float(np.abs(found - vectors["torch"]).max()) for name, found in vectors.items() if name != "torch"}
    lines.append("  difference         " + "   ".join(f"{name} {value:.1e}" for name, value in apart.items()))
    return lines


def note(best: dict[str, dict[str, float]], what: str, backend: str, images: int, start: float, turn: int) -> None:
    rate = images / (time.perf_counter() - start)
    if turn:
        known = best.setdefault(what, {})
        known[backend] = max(known.get(backend, 0.0), rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    lines = [
        describe(),
        f"images a second (and beside torch); {given.images} images, the best of {given.rounds} rounds in turn",
    ]
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        data = write_people(folder / "data", {"train": 3, "test": 2})
        files = photographs(folder / "photographs", given.images)
        bundles = {f"{name}, comes with vireid": Bundle.open(models.path_of(name)) for name in models.names()}
        for number, (name, words) in enumerate(NETWORKS.items()):
            run = make_run(folder / f"run{number}", data, words=words)
            bundles[name] = export_bundle(run, folder / f"bundle{number}")
        for name, bundle in bundles.items():
            lines += [
                f"{name}: {bundle.config.num_params:,} parameters, auto takes {bundle.fastest('cpu')}",
                *rates(bundle, files, given.rounds),
            ]
            print(*lines[-5:], sep="\n", flush=True)
    target = HERE / "results" / "extraction.txt"
    target.write_text("\n".join([*lines, ""]))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
