"""A synthetic visible-infrared pedestrian set in the official layouts of SYSU-MM01, RegDB and LLCM.

Dressed, walking people in front of cameras that have a place, light, noise and a spectrum of their own. What is drawn,
and why the infrared pictures look as they do: docs/concepts/synthetic.md. Every picture comes with COCO-17 keypoints
and a map of parts, and is a pure function of (seed, identity, camera, shot): order and number of workers do not matter.

    make("night")                          a small SYSU-MM01, ready for `vireid train agw --data sysu=night`
    make("warm", "regdb", people=412)      thermal pictures, ten splits
    picture(7, CAMERAS["sysu"][2], shot=0) one picture, in memory
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from vireid.errors import ArgumentError, DataError
from vireid.synthetic.camera import CAMERAS, INFRARED, Camera
from vireid.synthetic.photograph import Photograph as Picture
from vireid.synthetic.photograph import person, photograph
from vireid.synthetic.tube import PARTS
from vireid.system import available_cores

__all__ = ["CAMERAS", "PARTS", "Camera", "Picture", "make", "picture"]

VERSION = 1  # of the renderer: a new number means that the same seed gives other pictures
MARK = "synthetic.json"
SIZES = {"sysu": (288, 144), "regdb": (128, 64), "llcm": (288, 144)}
PEOPLE = {"sysu": (100, 12), "regdb": (120, 10), "llcm": (100, 10)}  # people, images a camera
JPEG_QUALITY = 90
_PALETTE = np.random.default_rng(3).integers(60, 250, (256, 3)).astype(np.uint8)
_PALETTE[0] = 0


def picture(pid: int, camera: Camera, shot: int, seed: int = 0, size: tuple[int, int] = (288, 144)) -> Picture:
    """Render person `pid` before `camera` at moment `shot`; size is (height, width) in pixels.

    Returns image (H, W, 3) uint8, keypoints (17, 3) float32 (x, y in pixels, visibility 0/1), parts (H, W) uint8
    indices into PARTS. Depends on nothing but its arguments.
    """
    return photograph(person(pid, seed), pid, camera, shot, seed, size)


@dataclass(frozen=True)
class _Shot:
    path: str  # relative to the root
    camera: Camera
    shot: int
    copy: str = ""  # a second place for the same file


@dataclass(frozen=True)
class _Job:
    """All pictures of one person, and how to write them."""

    folder: Path
    pid: int
    shots: list[_Shot]
    seed: int
    size: tuple[int, int]
    scenes: int
    masks: bool


def make(
    root: Path | str,
    layout: str = "sysu",
    *,
    people: int | None = None,
    images_per_camera: int | None = None,
    test_images_per_camera: int | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    workers: int | None = None,
    scenes: int = 1,
    masks: bool = True,
    trials: int = 10,
) -> Path:
    """Write a synthetic set at `root` in the layout "sysu", "regdb" or "llcm", and return the root.

    people and images_per_camera default to a set that two cores make in under a minute. test_images_per_camera (sysu)
    is for the test people, by default the same: where it is 1, all draws of a gallery are equal. size is (height,
    width) and defaults to (288, 144), for RegDB to (128, 64) as in the release; workers to all cores. With more than
    one of `scenes` each camera has this many backgrounds, and each pass of a person is before one of them: a training
    set in which nobody can be known by the place.

    Beside the official files: keypoints.npz, masks/ with the same names as the pictures (.png, indices into PARTS) and
    synthetic.json. The tree is built beside `root` and renamed when it is whole. A synthetic tree of the same arguments
    is left as it is, one of other arguments is replaced. Raises ValueError for an unknown layout or too few people,
    DataError if `root` holds anything else.
    """
    if layout not in CAMERAS:
        raise ArgumentError(f"expected layout sysu, regdb or llcm, came {layout!r}")
    people = PEOPLE[layout][0] if people is None else people
    images = PEOPLE[layout][1] if images_per_camera is None else images_per_camera
    height, width = SIZES[layout] if size is None else size
    root = Path(root).expanduser().absolute()
    options = {
        "renderer": VERSION, "layout": layout, "people": people, "images_per_camera": images, "seed": seed,
        "size": [height, width], "scenes": scenes, "masks": masks, "trials": trials, "parts": list(PARTS),
    }  # fmt: skip
    if test_images_per_camera is not None:
        options["test_images_per_camera"] = test_images_per_camera
    _check(options)
    if _standing(root) == options:
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    building = root.with_name(f".{root.name}.making-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir()
        sysu = partial(_sysu, test_images=test_images_per_camera or images)
        plan = {"sysu": sysu, "regdb": _regdb, "llcm": _llcm}[layout](building, people, images, seed, trials)
        jobs = [_Job(building, pid, shots, seed, (height, width), scenes, masks) for pid, shots in plan.items()]
        paths, keypoints = _render(jobs, workers or available_cores())
        np.savez(building / "keypoints.npz", path=np.array(paths), keypoints=np.stack(keypoints))
        (building / MARK).write_text(json.dumps(options, indent=1) + "\n", encoding="utf-8")
        _put_in_place(building, root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def _check(options: dict[str, Any]) -> None:
    """Raise ArgumentError for numbers of which no set can be made."""
    test_images, (height, width) = options.get("test_images_per_camera"), options["size"]
    if test_images is not None and (options["layout"] != "sysu" or test_images < 1):
        raise ArgumentError(
            f"test_images_per_camera is 1 or more, of the layout sysu; got {test_images} of {options['layout']}"
        )
    minima = {"people": 4, "images_per_camera": 1, "scenes": 1, "trials": 1, "seed": 0}
    if any(options[name] < minimum for name, minimum in minima.items()) or height < 32 or width < 16:
        wanted = ", ".join(f"{name} >= {minimum}" for name, minimum in minima.items())
        came = ", ".join(f"{name}={options[name]}" for name in minima)
        raise ArgumentError(f"expected {wanted} and a size of at least (32, 16), came {came}, size=({height}, {width})")


def _put_in_place(building: Path, root: Path) -> None:
    """Rename a tree that is whole, in place of an earlier one."""
    if not root.exists():
        building.rename(root)
        return
    old = root.with_name(f".{root.name}.old-{os.getpid()}")
    root.rename(old)
    building.rename(root)
    shutil.rmtree(old)


def _standing(root: Path) -> dict | None:
    """What the synthetic tree at `root` was made from; None if there is nothing. Refuses anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    if root.is_dir() and (root / MARK).is_file():
        try:
            return json.loads((root / MARK).read_text(encoding="utf-8"))
        except ValueError:
            return {}
    came = "a file" if not root.is_dir() else ", ".join(sorted(p.name for p in root.iterdir())[:4])
    raise DataError(
        f"{root}: expected no folder, an empty one or an earlier synthetic set (with {MARK}), came {came}; "
        "give another folder, or move this one away yourself"
    )


def _render(jobs: list[_Job], workers: int) -> tuple[list[str], list[np.ndarray]]:
    workers = min(workers, len(jobs))
    if workers == 1:
        done = [_write_person(job) for job in jobs]
    else:
        with ThreadPoolExecutor(workers) as pool:
            done = [
                part
                for parts in pool.map(_render_elsewhere, [jobs[i::workers] for i in range(workers)])
                for part in parts
            ]
    pairs = sorted((pair for part in done for pair in part), key=lambda pair: pair[0])
    return [path for path, _ in pairs], [points for _, points in pairs]


def _render_elsewhere(jobs: list[_Job]) -> list[list[tuple[str, np.ndarray]]]:
    """Render in a program of its own: a forked torch may hang, and a spawned worker runs the user's script again."""
    code = "from vireid.synthetic.make import _serve; _serve()"
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, input=pickle.dumps(jobs), capture_output=True, env=environment, check=False)
    if ended.returncode:
        last_line = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        raise RuntimeError(f"a rendering process ended early ({last_line[0]}); run again, or with workers=1 to see why")
    return pickle.loads(ended.stdout)


def _serve() -> None:
    """The other end of `_render_elsewhere`: jobs on standard input, results on standard output."""
    results = [_write_person(job) for job in pickle.load(sys.stdin.buffer)]
    sys.stdout.buffer.write(pickle.dumps(results))


def _write_person(job: _Job) -> list[tuple[str, np.ndarray]]:
    who, out = person(job.pid, job.seed), []
    for item in job.shots:
        shown = photograph(who, job.pid, item.camera, item.shot, job.seed, job.size, job.scenes)
        data = io.BytesIO()
        kind = {"quality": JPEG_QUALITY} if item.path.endswith(".jpg") else {}
        Image.fromarray(shown.image).save(data, "JPEG" if kind else "BMP", **kind)
        for path in filter(None, (item.path, item.copy)):
            (job.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (job.folder / path).write_bytes(data.getvalue())
        if job.masks:
            mask = Image.fromarray(shown.parts).convert("P")
            mask.putpalette(_PALETTE.tobytes())
            target = (job.folder / "masks" / item.path).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            mask.save(target, compress_level=1)
        out.append((item.path, shown.keypoints))
    return out


# --- the three layouts: each returns pid -> shots and writes the lists -----------------------------------------


def _ids(pids: list[int], digits: int = 0) -> str:
    return ",".join(f"{pid:0{digits}d}" for pid in pids) + "\n"


def _sysu(
    folder: Path, people: int, images: int, seed: int, trials: int, *, test_images: int
) -> dict[int, list[_Shot]]:
    """Six tenths train, one tenth val, the rest test but at most 96; not everyone is seen by every camera, as in the
    release, which tests on 96 as well."""
    rng = np.random.default_rng((seed, people, 10))
    val, test = max(1, round(0.1 * people)), min(96, people - max(2, round(0.6 * people)) - max(1, round(0.1 * people)))
    train = people - val - test
    splits = {"train": range(1, train + 1), "val": range(train + 1, train + val + 1),
              "test": range(train + val + 1, people + 1)}  # fmt: skip
    plan: dict[int, list[_Shot]] = {}
    permutations: dict[tuple[int, int], np.ndarray] = {}
    for split, pids in splits.items():
        own = test_images if split == "test" else images
        for pid in pids:
            draws = rng.random(6)
            indoors = draws[0] < 0.62 and split != "val"
            present = {1: indoors, 2: indoors, 3: draws[1] < 0.97, 4: draws[2] < 0.96, 5: draws[3] < 0.98,
                       6: split == "test" or (split == "train" and draws[4] < 0.68)}  # fmt: skip
            present[4] |= not (indoors or present[5])
            present[3] |= not present[6]
            plan[pid] = []
            for camera in CAMERAS["sysu"]:
                count = max(1, own + int(rng.integers(-1, 2)) * (own // 6))
                order = np.stack([rng.permutation(count) + 1 for _ in range(trials)])
                if present[camera.camid]:
                    permutations[camera.camid, pid] = order
                    plan[pid] += [
                        _Shot(f"cam{camera.camid}/{pid:04d}/{n + 1:04d}.jpg", camera, n) for n in range(count)
                    ]
    (folder / "exp").mkdir()
    for name, pids in {**splits, "available": range(1, people + 1)}.items():
        (folder / "exp" / f"{name}_id.txt").write_text(_ids(list(pids)), encoding="ascii")
    cells = np.empty((6, 1), object)
    for c in range(6):
        cells[c, 0] = np.empty((1, people), object)
        for pid in range(1, people + 1):
            cells[c, 0][0, pid - 1] = permutations.get((c + 1, pid), np.empty((0, 0))).astype(np.uint16)
    data = io.BytesIO()
    savemat(data, {"rand_perm_cam": cells})
    # The first 116 bytes are a text that holds the time of day; the same seed has to give the same bytes.
    header = b"MATLAB 5.0 MAT-file, synthetic set written by vireid".ljust(116)
    (folder / "exp" / "rand_perm_cam.mat").write_bytes(header + data.getvalue()[116:])
    return plan


def _regdb(folder: Path, people: int, images: int, seed: int, trials: int) -> dict[int, list[_Shot]]:
    """One visible and one thermal camera that fire together, one view of each person, random halves."""
    rng = np.random.default_rng((seed, people, 11))
    visible, thermal = CAMERAS["regdb"]
    plan: dict[int, list[_Shot]] = {}
    frame = 1
    for pid in range(1, people + 1):
        sex = "female" if person(pid, seed).body.female else "male"
        view, angle = ("back", 180.0) if rng.random() < 0.62 else ("front", 0.0)
        frames = [frame := frame + int(step) for step in rng.integers(1, 4, images)]
        plan[pid] = [
            _Shot(f"{place}/{pid}/{sex}_{view}_{letter}_{number:05d}_{pid}.bmp", replace(camera, views=(angle,)), n)
            for place, letter, camera in (("Visible", "v", visible), ("Thermal", "t", thermal))
            for n, number in enumerate(frames)
        ]
    (folder / "idx").mkdir()
    for trial in range(1, trials + 1):
        order = (rng.permutation(people) + 1).tolist()
        for part, pids in (("train", order[: people // 2]), ("test", order[people // 2 :])):
            for place in ("Visible", "Thermal"):
                lines = [f"{s.path} {label}\n" for label, pid in enumerate(pids) for s in plan[pid]
                         if s.path.startswith(place)]  # fmt: skip
                target = folder / "idx" / f"{part}_{place.lower()}_{trial}.txt"
                target.write_text("".join(lines), encoding="ascii")
    return plan


def _llcm_people(
    people: int, images: int, rng: np.random.Generator
) -> Iterator[tuple[int, list[tuple[Camera, str, int]]]]:
    """Each person's pictures as (camera, name, shot): mostly one visible camera and one or two infrared ones."""
    frame = 1000
    for pid in range(1, people + 1):
        by_number = {kind: {c.camid: c for c in CAMERAS["llcm"] if (c.modality == INFRARED) == (kind == "nir")}
                     for kind in ("vis", "nir")}  # fmt: skip
        vis = rng.permutation(list(by_number["vis"]))[: 1 + int(rng.random() < 0.25)].tolist()
        # At least one camera number on each side is absent on the other, so that the camera rule leaves a true match.
        nir = [n for n in rng.permutation(list(by_number["nir"])).tolist() if n not in vis][
            : 1 + int(rng.random() < 0.55)
        ]
        shots = []
        for kind, numbers in (("vis", vis), ("nir", nir)):
            for number in numbers:
                second = int(rng.integers(18 * 3600, 21 * 3600))
                for shot in range(max(1, images + int(rng.integers(-1, 2)) * (images // 6))):
                    frame, at = frame + int(rng.integers(1, 30)), second + shot
                    clock = f"{at // 3600:02d}{at // 60 % 60:02d}{at % 60:02d}"
                    name = f"{pid:04d}_c{number:02d}_s{clock}_f{frame % 100000:05d}_{kind}.jpg"
                    shots.append((by_number[kind][number], name, shot))
        yield pid, shots


def _llcm(folder: Path, people: int, images: int, seed: int, trials: int) -> dict[int, list[_Shot]]:
    """Low light, one or two cameras a person and modality, two thirds train; test pictures are copied by camera."""
    rng = np.random.default_rng((seed, people, 12))
    order = (rng.permutation(people) + 1).tolist()
    parts = {"train": sorted(order[: round(0.67 * people)]), "test": order[round(0.67 * people) :]}
    test, plan = set(parts["test"]), {}
    for pid, shots in _llcm_people(people, images, rng):
        plan[pid] = []
        for camera, name, shot in shots:
            kind = name[-7:-4]
            copy = f"test_{kind}/cam{camera.camid}/{pid:04d}/{name}" if pid in test else ""
            plan[pid].append(_Shot(f"{kind}/{pid:04d}/{name}", camera, shot, copy))
    (folder / "idx").mkdir()
    for part, pids in parts.items():
        for kind in ("vis", "nir"):
            lines = [f"{s.path} {label}\n" for label, pid in enumerate(sorted(pids)) for s in plan[pid]
                     if s.path.startswith(kind)]  # fmt: skip
            (folder / "idx" / f"{part}_{kind}.txt").write_text("".join(lines), encoding="ascii")
    (folder / "idx" / "test_id.txt").write_text(_ids(parts["test"], 4), encoding="ascii")
    return plan
