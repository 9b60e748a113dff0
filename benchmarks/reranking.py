"""k-reciprocal re-ranking beside the dense textbook form: time, memory and agreement.

Each form runs in a process of its own, whose peak of resident memory over that at the start is reported; both start
from the same vectors and include the distances. In float32 the two can order neighbors differently whose distances it
cannot tell apart, so agreement is given for float32 (share of results that differ) and for float64 (largest
difference).

    python benchmarks/reranking.py [--images 10000] [--dim 512] [--large 200000]
                                                                    writes benchmarks/results/reranking.txt
    python benchmarks/reranking.py --without-double                 leaves the float64 runs out (the dense one is slow)
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

from vireid.evaluation.rerank import KReciprocal

HERE = Path(__file__).parent
QUERIES = 1000  # of --large, whose results would not fit into memory with 38 %
FORMS = ("vireid", "dense")


def vectors(images: int, dim: int, kind: str) -> np.ndarray:
    """Unit vectors around one center for every forty images."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((max(1, images // 40), dim))
    found = centers[random.integers(0, len(centers), images)] + random.standard_normal((images, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(kind)


def run_one(form: str, images: int, queries: int, dim: int, kind: str, target: Path) -> None:
    """Re-rank the queries against the rest, write the final distances and print seconds and bytes."""
    sys.path.append(str(HERE.parent / "tests" / "support"))
    from dense_k_reciprocal import dense_k_reciprocal

    whole = vectors(images, dim, kind)
    query, gallery = whole[:queries], whole[queries:]
    KReciprocal()(torch.from_numpy(query[:50]), torch.from_numpy(gallery[:50]))  # libraries loaded before the measure
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if form == "dense":
        final = dense_k_reciprocal(query, gallery)
    else:
        final = 1 - KReciprocal()(torch.from_numpy(query), torch.from_numpy(gallery)).numpy()
    seconds = time.perf_counter() - start
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * scale
    np.save(target, final)
    estimate = KReciprocal().memory_bytes(len(query), len(gallery))
    print(json.dumps({"seconds": seconds, "bytes": above, "estimate": estimate}))


def both(images: int, dim: int, kind: str, folder: Path) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """What each form measured, and the differences of their results."""
    measured, final = {}, []
    for form in FORMS:
        measured[form] = measure(form, images, images * 38 // 100, dim, kind, folder)
        final.append(np.load(folder / f"{form}.npy"))
    return measured, np.abs(final[0] - final[1])


def measure(form: str, images: int, queries: int, dim: int, kind: str, folder: Path) -> dict[str, float]:
    """What one form measures in a process of its own, which writes its result into the folder."""
    words = [sys.executable, __file__, "--form", form, "--images", images, "--queries", queries, "--dim", dim]
    words += ["--kind", kind, "--target", folder / f"{form}.npy"]
    done = subprocess.run([*map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--large", type=int, default=200_000, help=f"images of a run with {QUERIES} queries, or 0")
    parser.add_argument("--without-double", action="store_true", help="leave the float64 runs out")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--queries", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.form:
        run_one(given.form, given.images, given.queries, given.dim, given.kind, given.target)
        return
    with tempfile.TemporaryDirectory() as folder:
        measured, apart = both(given.images, given.dim, "float32", Path(folder))
        ours, dense = measured["vireid"], measured["dense"]
        lines = [
            describe(),
            f"{given.images} images of {given.dim} dimensions, 38 % of them queries, k1 20, k2 6, weight 0.3",
            f"  time    vireid {ours['seconds']:.2f} s   dense {dense['seconds']:.2f} s   "
            f"x{dense['seconds'] / ours['seconds']:.1f} faster",
            f"  memory  vireid {ours['bytes'] / 2**20:.0f} MiB (estimate {ours['estimate'] / 2**20:.0f})   "
            f"dense {dense['bytes'] / 2**20:.0f} MiB   share {ours['bytes'] / dense['bytes']:.3f}",
            f"  float32: share {(apart > 1e-5).mean():.1e} of the results differs by more than 1e-5, "
            f"the largest difference is {apart.max():.1e}",
        ]
        if not given.without_double:
            _, apart = both(given.images, given.dim, "float64", Path(folder))
            lines.append(f"  float64: the largest difference is {apart.max():.1e}")
        if given.large:
            large = measure("vireid", given.large, QUERIES, given.dim, "float32", Path(folder))
            lines.append(
                f"{given.large} images, {QUERIES} of them queries: {large['seconds']:.1f} s, "
                f"memory estimate {large['estimate'] / 2**20:.0f} MiB"
            )
    text = "\n".join([*lines, ""])
    target = HERE / "results" / "reranking.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
