"""The floor of the synthetic set: how well raw pixels and HOG find people inside a modality and across.

    python benchmarks/synthetic_floor.py [--people 180] [--images 6] [--seed 0]

Test identities of the SYSU-MM01 layout. Queries are all pictures of one side, the gallery all pictures of the other
from other cameras than the query's (rows "same camera": the query's own camera without the query itself; rows
"single-shot": one gallery picture per person and camera). Camera 3 never sees camera 2, which is the same place. HOG
after Dalal and Triggs, CVPR 2005. Prints a Markdown table in percent.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vireid.synthetic import make as synthetic

INFRARED_CAMERAS = (3, 6)


def hog(gray: np.ndarray, cell: int = 8, bins: int = 9) -> np.ndarray:
    """Histograms of oriented gradients of a picture (H, W): vector of 2 x 2 blocks, each normalized and clipped."""
    dy, dx = np.gradient(np.sqrt(gray))
    size, angle = np.hypot(dx, dy), (np.arctan2(dy, dx) % np.pi) * bins / np.pi
    low = np.floor(angle).astype(int)
    part = angle - low
    rows, columns = gray.shape[0] // cell, gray.shape[1] // cell
    cells = np.zeros((rows, columns, bins))
    y, x = np.mgrid[: rows * cell, : columns * cell]
    for shift, weight in ((0, 1 - part), (1, part)):
        where = (y // cell, x // cell, (low[y, x] + shift) % bins)
        np.add.at(cells, where, (size * weight)[y, x])
    blocks = np.concatenate([cells[i : rows - 1 + i, j : columns - 1 + j] for i in (0, 1) for j in (0, 1)], 2)
    blocks /= np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-3
    blocks = np.minimum(blocks, 0.2)
    return (blocks / (np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-3)).ravel()


def describe(path: Path) -> dict[str, np.ndarray]:
    """The floor's descriptors of one picture."""
    image = Image.open(path).convert("RGB")
    small = np.asarray(image.resize((24, 48), Image.Resampling.BOX), np.float64)
    gray = np.asarray(image.convert("L").resize((48, 96), Image.Resampling.BOX), np.float64)
    return {
        "gray pixels 24 x 48": small.mean(2).ravel(),
        "color pixels 24 x 48": small.ravel(),
        "HOG 48 x 96": hog(gray),
    }


def score(
    x: np.ndarray, pid: np.ndarray, cam: np.ndarray, query: np.ndarray, allowed: np.ndarray
) -> tuple[float, float]:
    """Rank-1 and mAP over queries that have a true match; allowed (R, R) says which pictures a query may find."""
    x = x - x.mean(1, keepdims=True)
    x /= np.linalg.norm(x, axis=1, keepdims=True) + 1e-12
    first, precision = [], []
    for row, similarity in zip(query, x[query] @ x.T, strict=True):
        seen = np.flatnonzero(allowed[row])
        match = pid[seen[np.argsort(-similarity[seen], kind="stable")]] == pid[row]
        if match.any():
            first.append(match[0])
            precision.append((np.cumsum(match)[match] / (np.flatnonzero(match) + 1)).mean())
    return 100 * float(np.mean(first)), 100 * float(np.mean(precision))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=180)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = synthetic.make(Path(folder) / "set", people=given.people, images_per_camera=given.images,
                              seed=given.seed, masks=False)  # fmt: skip
        test = {int(i) for i in (root / "exp" / "test_id.txt").read_text().split(",")}
        paths = [p for p in sorted(root.glob("cam?/*/*.jpg")) if int(p.parent.name) in test]
        told = [describe(path) for path in paths]
    pid = np.array([int(p.parent.name) for p in paths])
    cam = np.array([int(p.parent.parent.name[3:]) for p in paths])
    infrared = np.isin(cam, INFRARED_CAMERAS)
    place = np.where(cam == 3, 2, cam)
    other, own = place[:, None] != place[None], (cam[:, None] == cam[None]) & ~np.eye(len(cam), dtype=bool)
    # The first picture of each person and camera stands for a single-shot gallery.
    _, firsts = np.unique(pid * 10 + cam, return_index=True)
    single = np.isin(np.arange(len(cam)), firsts)[None]
    settings = {
        "visible to visible, same camera": (~infrared, own),
        "visible to visible": (~infrared, other & ~infrared[None]),
        "infrared to infrared, same camera": (infrared, own),
        "infrared to infrared": (infrared, other & infrared[None]),
        "infrared to visible": (infrared, other & ~infrared[None]),
        "visible to infrared": (~infrared, other & infrared[None]),
        "infrared to visible, single-shot": (infrared, other & ~infrared[None] & single),
        "visible to infrared, single-shot": (~infrared, other & infrared[None] & single),
    }
    features = {name: np.stack([t[name] for t in told]) for name in told[0]}
    features["chance"] = np.random.default_rng(0).normal(size=(len(paths), 64))
    print(f"{len(test)} test identities, {len(paths)} pictures, seed {given.seed}; rank-1 / mAP in percent\n")
    print("| query to gallery | " + " | ".join(features) + " |")
    print("|---|" + "---|" * len(features))
    for name, (queries, allowed) in settings.items():
        cells = [score(x, pid, cam, np.flatnonzero(queries), allowed) for x in features.values()]
        print(f"| {name} | " + " | ".join(f"{r:.1f} / {m:.1f}" for r, m in cells) + " |")


if __name__ == "__main__":
    main()
