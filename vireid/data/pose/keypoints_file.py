"""`vireid data pose`: the pose of every picture of a data set, as the keypoints.npz that is read with the data."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from vireid.arrays_file import read_arrays
from vireid.data import datasets
from vireid.data.datasets.files import KEYPOINTS_FILE, some
from vireid.data.pose.heatmaps import POINTS
from vireid.data.pose.sources import BATCH, OpenPoseFolder, Pictures, PoseArrays, PoseSource, Template
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.json_file import parsed
from vireid.system import choose_device, replacing

log = logging.getLogger(__name__)

FORMAT = "vireid keypoints 1"
SAVE_S = 30.0  # seconds between two records of what is done: a kill loses at most the work of so long
KINDS = "vitpose:FOLDER, rtmpose:FILE.onnx, openpose:FOLDER, arrays:FILE.npz or template"


def write_poses(
    data: str,
    estimator: str,
    *,
    out: Path | None = None,
    missing: Literal["error", "zeros"] = "error",
    batch_size: int = BATCH,
    device: str = "auto",
    replace: bool = False,
    progress: bool = True,
) -> Path:
    """Write `path` (R,) and `keypoints` (R, 17, 3) of every picture and return the file, ROOT/keypoints.npz by default.

    `estimator` is one of KINDS. A picture without a pose is an error that lists it, or with missing="zeros" has
    confidence 0 in all points. What an estimator has done is kept every half minute in FILE.part.npz, and a second call
    does the rest; pictures that did not change are not looked at again. A file that something else wrote is only
    written over with `replace`. The file appears whole or not at all. Raises DataError, ValueError.
    """
    if missing not in ("error", "zeros"):
        raise ArgumentError(f"--missing is error or zeros, got {missing!r}")
    table = datasets.load(data)
    out = table.root / KEYPOINTS_FILE if out is None else Path(out)
    if out.suffix != ".npz":
        raise ArgumentError(f"--out is a .npz file, got {out}")
    source, name = open_source(estimator, batch_size, device)
    about = json.dumps({"format": FORMAT, "estimator": name})
    part = out.with_name(f"{out.stem}.part.npz")
    former = read_poses(out)
    if former is not None and former[0] != about and not replace:
        who = json.loads(former[0])["estimator"] if former[0] else "something else"
        raise DataError(f"{out} exists and was written by {who}; give another --out, or --replace to write over it")
    stamps = picture_stamps(table)
    points = np.full((len(table), POINTS, 3), np.nan, dtype=np.float32)
    todo = np.ones(len(table), dtype=bool)
    if isinstance(source, Pictures):  # reading files takes no time worth keeping
        for stored in (read_poses(part), former):
            if stored is not None and stored[0] == about:
                reuse(table, stamps, stored, points, todo)
        if former is not None and former[0] == about and not todo.any() and same_paths(table, former):
            log.info("poses of %d pictures are up to date: %s", len(table), out)
            return out
    out.parent.mkdir(parents=True, exist_ok=True)
    estimate(source, Poses(part, about, table, points, stamps), todo, batch_size, progress)
    unknown = zero_unknown(table, points, estimator, missing)
    save_poses(Poses(out, about, table, points, stamps))
    part.unlink(missing_ok=True)
    seen = 100 * float((points[..., 2] > 0).mean())
    log.info("%d pictures, %.1f %% of the points seen, %d without a pose", len(table), seen, unknown)
    if out.resolve() != (table.root / KEYPOINTS_FILE).resolve():
        log.info("it is read with the data once it lies at %s", table.root / KEYPOINTS_FILE)
    return out


@dataclass(frozen=True)
class Poses:
    """What a file of poses holds of a table: `points` (R, 17, 3) float32 and the pictures' `stamps` (R, 2)."""

    file: Path
    about: str
    table: Table
    points: np.ndarray
    stamps: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Poses:
        return Poses(self.file, self.about, self.table[rows], self.points[rows], self.stamps[rows])


def estimate(source: PoseSource, poses: Poses, todo: np.ndarray, batch_size: int, progress: bool) -> None:
    """Fill `poses.points` where `todo` is set and clear it; what an estimator has done is kept every SAVE_S seconds."""
    rows, saved = np.flatnonzero(todo), time.monotonic()
    chunks: Iterable[int] = range(0, len(rows), batch_size)
    for start in track(chunks, description="pose", disable=not progress, console=Console(stderr=True)):
        chunk = rows[start : start + batch_size]
        poses.points[chunk] = source(poses.table[chunk])
        todo[chunk] = False
        if isinstance(source, Pictures) and time.monotonic() - saved > SAVE_S:
            save_poses(poses[~todo])
            saved = time.monotonic()


def zero_unknown(table: Table, points: np.ndarray, estimator: str, missing: Literal["error", "zeros"]) -> int:
    """Give pictures without a pose zeros and return their number; DataError with missing="error"."""
    unknown = np.isnan(points).any(axis=(1, 2))
    if unknown.any() and missing == "error":
        raise DataError(
            f"{estimator} gives no pose for {unknown.sum()} of {len(table)} pictures: {some(table.path[unknown], 5)}. "
            "Complete it, or write confidence 0 for them with --missing zeros"
        )
    points[unknown] = 0
    return int(unknown.sum())


def open_source(estimator: str, batch_size: int, device: str) -> tuple[PoseSource, str]:
    """The source that a word such as vitpose:FOLDER names, and what it is called in the file: kind and digest."""
    kind, _, place = estimator.partition(":")
    if kind == "template" and not place:
        return Template(), "template"
    if kind not in ("vitpose", "rtmpose", "openpose", "arrays") or not place:
        raise ArgumentError(f"--estimator is {KINDS}, got {estimator!r}")
    path = Path(place).expanduser()
    if kind == "openpose":
        return OpenPoseFolder(path), f"openpose {path.resolve()}"
    if kind == "arrays":
        return PoseArrays(path), f"arrays {path.resolve()}"
    if kind == "vitpose":
        from vireid.data.pose.vitpose import VitPose

        source = Pictures(VitPose(path, choose_device(device)), batch_size)
        return (
            source,
            f"vitpose {digest(sorted([*path.glob('*.json'), *path.glob('*.safetensors'), *path.glob('*.bin')]))}",
        )
    from vireid.data.pose.rtmpose import RTMPose

    where = "cpu" if device == "auto" else device  # onnxruntime with CUDA is another package than torch's
    return Pictures(RTMPose(path, choose_device(where)), batch_size), f"rtmpose {digest([path])}"


def digest(files: list[Path]) -> str:
    """Start of the sha256 of the files' contents."""
    contents = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            contents.update(hashlib.file_digest(opened, "sha256").digest())
    return contents.hexdigest()[:12]


# --- the file ---------------------------------------------------------------------------------------------------------

Stored = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # about, path (K,), keypoints (K, 17, 3), stamp (K, 2)


def read_poses(file: Path) -> Stored | None:
    """What a file holds; `about` is "" in one that this command did not write, None where there is no file."""
    if not file.is_file():
        return None
    try:
        arrays = read_arrays(file)
        about, paths, points, stamp = (arrays[name] for name in ("about", "path", "keypoints", "stamp"))
        said = parsed(str(about))
        known = said["format"] == FORMAT and isinstance(said["estimator"], str)
        known = known and (points.shape, stamp.shape) == ((len(paths), POINTS, 3), (len(paths), 2))
    except (KeyError, ValueError, TypeError):
        known = False
    if not known:  # not this command's work
        return "", np.empty(0, str), np.empty((0, POINTS, 3)), np.empty((0, 2))
    return str(about), paths, points, stamp


def save_poses(poses: Poses) -> None:
    with replacing(poses.file) as partial, partial.open("wb") as opened:
        np.savez(
            opened,
            path=poses.table.path.astype(np.str_),
            keypoints=poses.points,
            stamp=poses.stamps,
            about=np.array(poses.about),
        )


def picture_stamps(table: Table) -> np.ndarray:
    """(R, 2) int64: bytes and time of every picture; DataError for one that is missing."""
    stamps = np.empty((len(table), 2), dtype=np.int64)
    for row in range(len(table)):
        try:
            status = table.full_path(row).stat()
        except OSError as error:
            raise DataError(f"the picture {table.full_path(row)} is missing; `vireid data check` lists all") from error
        stamps[row] = status.st_size, status.st_mtime_ns
    return stamps


def reuse(table: Table, stamps: np.ndarray, stored: Stored, points: np.ndarray, todo: np.ndarray) -> None:
    """Fill rows whose picture is the one that a pose was stored of; clears them in `todo`."""
    _, paths, known, known_stamps = stored
    place = {str(path): row for row, path in enumerate(paths)}
    for row, path in enumerate(table.path.tolist()):
        at = place.get(path)
        if at is not None and np.array_equal(known_stamps[at], stamps[row]):
            points[row] = known[at]
            todo[row] = False


def same_paths(table: Table, stored: Stored) -> bool:
    return set(table.path.tolist()) == {str(path) for path in stored[1]}
