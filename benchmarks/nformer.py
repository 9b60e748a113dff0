"""NFormer's refinement as lists of neighbors beside the dense form, and at the scale of a large gallery: time, memory.

Each form runs in a process of its own, whose peak of resident memory over that at the start is reported; the vectors
are there before. Weights are random: neither time nor memory depends on them.

    python benchmarks/nformer.py [--images 50000 200000] [--compare 4104] [--dim 2048]
                                                  writes benchmarks/results/nformer.txt
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe

from vireid.layers.neighbors import nearest, reciprocal
from vireid.layers.nformer import NFormerRefiner
from vireid.layers.nformer_query import RefinedGallery

HERE = Path(__file__).parent
LIMIT_BYTES = 4 << 30  # of each 50,000 images of 2048 numbers, the vectors included


def vectors(images: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors around one center for every forty images, and modalities."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((max(1, images // 40), dim), dtype=np.float32)
    found = random.standard_normal((images, dim), dtype=np.float32)
    found += centers[random.integers(0, len(centers), images)]
    return torch.from_numpy(found), torch.from_numpy(random.integers(0, 2, images))


def refiner(dim: int) -> NFormerRefiner:
    torch.manual_seed(0)
    return NFormerRefiner(dim=dim).eval()


@torch.no_grad()
def run_one(form: str, images: int, dim: int, target: Path) -> None:
    """Refine, write the result and print seconds and bytes."""
    x, modality = vectors(images, dim)
    network = refiner(dim)
    network(x[:100], modality[:100])  # libraries loaded before the measure
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    measured: dict[str, float] = {}
    if form == "dense":
        sys.path.append(str(HERE.parent / "tests" / "support"))
        from dense_nformer import dense, dense_form

        tokens = network.tokens(x)
        mask = dense(reciprocal(nearest(tokens, network.settings.k, network.settings.k_cross, modality).rows), images)
        refined = torch.nn.functional.normalize(
            dense_form(network.transformer, tokens, mask, network.draws_of(modality)[0])[1], dim=1
        )
    else:
        tokens = network.tokens(x)
        lists = reciprocal(nearest(tokens, network.settings.k, network.settings.k_cross, modality).rows)
        measured["neighbors_s"] = time.perf_counter() - start
        refined = network.transform(tokens, lists, network.draws_of(modality))
    measured["seconds"] = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured |= {"bytes": (peak - before) * scale, "whole": peak * scale}
    np.save(target, refined.numpy())
    print(json.dumps(measured))


@torch.no_grad()
def query_seconds(images: int, dim: int, queries: int = 20) -> float:
    """Seconds that one query takes against a gallery that was refined before, with a shortlist of 200."""
    x, modality = vectors(images, dim)
    gallery = RefinedGallery.of(refiner(dim), x, modality)
    gallery.refine(x[0], 1)
    start = time.perf_counter()
    for row in range(queries):
        gallery.refine(x[row] + 0.1, 1)
    return (time.perf_counter() - start) / queries


def measure(form: str, images: int, dim: int, folder: Path) -> tuple[dict[str, float], np.ndarray]:
    target = folder / f"{form}.npy"
    words = [sys.executable, __file__, "--form", form, "--images", images, "--dim", dim, "--target", target]
    done = subprocess.run([*map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout), np.load(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--compare", type=int, default=4104, help="images of the comparison; 4104 is SYSU's all-search")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--form", choices=("lists", "dense"), help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.form:
        run_one(given.form, given.images[0], given.dim, given.target)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lists, ours = measure("lists", given.compare, given.dim, folder)
        dense, theirs = measure("dense", given.compare, given.dim, folder)
        large = {images: measure("lists", images, given.dim, folder)[0] for images in given.images}
    lines = [
        describe(),
        f"{given.compare} images of {given.dim} dimensions; width 256, 4 layers, 2 heads, 5 landmarks, k 20 (10 cross)",
        f"  time    lists {lists['seconds']:.2f} s   dense {dense['seconds']:.2f} s   "
        f"x{dense['seconds'] / lists['seconds']:.1f} faster",
        f"  memory  lists {lists['bytes'] / 2**20:.0f} MiB   dense {dense['bytes'] / 2**20:.0f} MiB   "
        f"share {lists['bytes'] / dense['bytes']:.3f}",
        f"  the largest difference of a value is {np.abs(ours - theirs).max():.1e} (float32, vectors of length 1)",
        f"  one query against these as a gallery, shortlist 200: "
        f"{1000 * query_seconds(given.compare, given.dim):.0f} ms",
        *(
            f"{images} images: {one['seconds']:.1f} s, of which neighbors {one['neighbors_s']:.1f} s; "
            f"{one['bytes'] / 2**20:.0f} MiB above the vectors, {one['whole'] / 2**20:.0f} MiB in all"
            for images, one in large.items()
        ),
    ]
    text = "\n".join([*lines, ""])
    target = HERE / "results" / "nformer.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    print(text)
    for images, one in large.items():
        limit = LIMIT_BYTES * max(1, images / 50_000)
        if one["whole"] > limit:
            raise SystemExit(f"{images} images: more than {limit / 2**30:.0f} GiB in all")


if __name__ == "__main__":
    main()
