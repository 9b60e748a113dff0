"""LLCM: its layout, published counts and protocols, the honest ones and the two that circulate under the same name.

Zhang, Wang: Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for Visible-Infrared Person
Re-identification, CVPR 2023. Rules checked against github.com/ZYK100/LLCM (DEEN/data_manager.py, train.py, test.py).

    ROOT/vis/0250/0250_c03_s200519_f13770_vis.jpg   identity _c camera _s time of day _f frame _ modality
    ROOT/nir/0250/0250_c06_s195701_f13335_nir.jpg
    ROOT/idx/{train,test}_{vis,nir}.txt             lines `vis/0250/0250_c03_s200519_f13770_vis.jpg 0`
    ROOT/test_vis/cam3/0891/*.jpg, test_nir/...     copies of the test pictures; not read here

The official test reader walks the copies and draws from the sorted names inside one camera's folder of one identity.
Here the test pictures come from the idx lists and the draw from the sorted file names of one identity and camera: the
same names in the same order, so the same pictures. `vireid data check` compares copies and lists.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vireid.data.dataset import Counts, Dataset, Fault
from vireid.data.datasets.files import attach_keypoints, existing_folder, read_ids, read_pairs, some
from vireid.data.datasets.ignore import same_pid_and_camera
from vireid.data.protocol import Protocol, Trial, ignore_nothing
from vireid.data.table import Table, table_from_columns
from vireid.errors import DataError
from vireid.table_file import is_digits
from vireid.types import INFRARED, MODALITIES, VISIBLE

TRIALS = 10
KINDS = {"vis": VISIBLE, "nir": INFRARED}
NAME = re.compile(r"(?P<pid>\d+)_c(?P<camera>\d+)_s(?P<time>\d+)_f(?P<frame>\d+)_(?P<kind>vis|nir)\.\w+$", re.ASCII)

# (split, modality, camera): (identities, images), counted from the idx lists of the release.
PUBLISHED = {
    (split, modality, camera): counts
    for (split, modality), line in {
        ("train", VISIBLE): {
            1: (16, 290), 2: (6, 39), 3: (345, 5733), 4: (347, 5769), 5: (192, 3728),
            6: (2, 14), 7: (47, 571), 8: (19, 633), 9: (11, 169),
        },
        ("train", INFRARED): {
            1: (7, 53), 2: (15, 98), 4: (7, 74), 5: (479, 4291),
            6: (687, 8436), 7: (30, 431), 8: (22, 456), 9: (13, 136),
        },
        ("test", VISIBLE): {
            1: (9, 139), 2: (2, 12), 3: (162, 2773), 4: (171, 3063), 5: (99, 1994),
            6: (3, 18), 7: (24, 345), 8: (9, 252), 9: (5, 84),
        },
        ("test", INFRARED): {
            1: (4, 19), 2: (6, 47), 4: (5, 58), 5: (221, 2119),
            6: (338, 4276), 7: (19, 217), 8: (15, 311), 9: (11, 119),
        },
    }.items()
    for camera, counts in line.items()
}  # fmt: skip


def load(root: Path | str) -> Table:
    """One row per image of the idx lists; `camid` from the file name. Extras: time (HHMMSS as integer), frame.

    Raises DataError if a list is missing, a name is of another form, or an identity is in the train and test lists.
    """
    root = existing_folder(root, "LLCM")
    columns: dict[str, list] = {name: [] for name in ("path", "pid", "camid", "modality", "split", "time", "frame")}
    people: dict[str, set[int]] = {"train": set(), "test": set()}
    for split in people:
        for kind, modality in KINDS.items():
            path = root / "idx" / f"{split}_{kind}.txt"
            for name in read_pairs(path, f"LLCM's {kind} pictures of the {split} part")[0]:
                parts, match = name.split("/"), NAME.search(name)
                if len(parts) < 2 or match is None or match["kind"] != kind or int(match["pid"]) != _number(parts[-2]):
                    raise DataError(
                        f"{path}: expected {kind}/0250/0250_c03_s200519_f13770_{kind}.jpg, came {name}; "
                        "copy idx/ from the release"
                    )
                people[split].add(int(match["pid"]))
                columns["path"].append(name)
                columns["pid"].append(int(match["pid"]))
                columns["camid"].append(int(match["camera"]))
                columns["modality"].append(modality)
                columns["split"].append(split)
                columns["time"].append(int(match["time"]))
                columns["frame"].append(int(match["frame"]))
    both = sorted(people["train"] & people["test"])
    if both:
        raise DataError(f"{root}/idx: identity {both[0]} is in the train and the test lists; copy idx/ again")
    return attach_keypoints(table_from_columns(root, columns, "llcm"))


def _number(folder: str) -> int:
    return int(folder) if is_digits(folder) else -1


def _rows(table: Table, modality: int) -> np.ndarray:
    """Test rows of a modality in the official order: identity, camera, file name."""
    rows = np.flatnonzero((table.split == "test") & (table.modality == modality))
    if not len(rows):
        raise DataError(f"LLCM: no {MODALITIES[modality]} test image in this table; load it whole")
    names = np.array([str(path).rpartition("/")[2] for path in table.path[rows]])
    return rows[np.lexsort((names, table.camid[rows], table.pid[rows]))]


def draws(table: Table, modality: int) -> list[np.ndarray]:
    """Ten galleries: trial t takes one picture per identity and camera with Python's generator seeded by t."""
    rows = _rows(table, modality)
    keys = np.stack([table.pid[rows], table.camid[rows]], axis=1)
    starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(axis=1)])
    cells = np.split(rows, starts[1:])
    galleries = []
    for trial in range(TRIALS):
        stream = random.Random(trial)
        galleries.append(np.array([stream.choice(cell) for cell in cells], dtype=np.int64))
    return galleries


def _honest(query: int) -> Callable[[Table], list[Trial]]:
    return lambda table: [(_rows(table, query), gallery) for gallery in draws(table, 1 - query)]


def _exchanged(table: Table) -> list[Trial]:
    return [(gallery, _rows(table, VISIBLE)) for gallery in draws(table, INFRARED)]


def _all_images(query: int) -> Callable[[Table], list[Trial]]:
    return lambda table: [(_rows(table, query), _rows(table, 1 - query))]


def _direction(query: int) -> str:
    return f"llcm/{MODALITIES[query]}-to-{MODALITIES[1 - query]}"


_OWN_CAMERA = "same identity in the same camera"


def _protocols() -> list[Protocol]:
    protocols = []
    for query in (VISIBLE, INFRARED):
        stamp = {"queries": f"all {MODALITIES[query]} test images", "cmc": "over identities"}
        drawn = {"draw": "Python seeds 0..9", "shots": "1 per camera", "ignored": _OWN_CAMERA}
        whole = {"draw": "none (all images)", "shots": "all", "ignored": "nothing"}
        protocols.append(Protocol(_direction(query), _honest(query), same_pid_and_camera, True, stamp | drawn))
        name = _direction(query) + "/all-images"
        protocols.append(Protocol(name, _all_images(query), ignore_nothing, True, stamp | whole))
    # The second branch of the released test.py transposes the similarity and exchanges the labels too, so the rows are
    # the drawn infrared pictures and the columns all visible ones: infrared-to-visible with a large gallery.
    exchanged = {
        "queries": "the drawn infrared images (exchanged)",
        "gallery": "all visible test images",
        "draw": "Python seeds 0..9",
        "shots": "all",
        "ignored": _OWN_CAMERA,
        "cmc": "over identities",
    }
    name = _direction(VISIBLE) + "/as-published-code"
    protocols.append(Protocol(name, _exchanged, same_pid_and_camera, True, exchanged))
    return protocols


protocols: dict[str, Protocol] = {p.name: p for p in _protocols()}


def _check(table: Table) -> list[Fault]:
    """The copies that the official test reader walks must hold the listed test pictures, or its draw is another."""
    faults = []
    ids = table.root / "idx" / "test_id.txt"
    if ids.is_file():
        odd = sorted(set(read_ids(ids, "the test identities")) ^ set(table.where("test").pids.tolist()))
        if odd:
            what = f"idx/test_id.txt and the test lists differ in {len(odd)} identities: {some(odd)}"
            faults.append(Fault("warning", what, "the official reader takes test_id.txt: copy idx/ from the release"))
    for kind, modality in KINDS.items():
        folder = table.root / f"test_{kind}"
        if not folder.is_dir():
            continue
        rows = np.flatnonzero((table.split == "test") & (table.modality == modality))
        listed = {f"cam{table.camid[r]}/{table.pid[r]:04d}/{table.path[r].rpartition('/')[2]}" for r in rows}
        copied = {path.relative_to(folder).as_posix() for path in folder.glob("cam*/*/*") if path.is_file()}
        if listed != copied:
            odd = sorted(listed ^ copied)
            faults.append(
                Fault(
                    "warning",
                    f"{folder.name} and idx/test_{kind}.txt differ in {len(odd)} pictures: {some(odd, 3)}",
                    "the official reader draws its galleries from the copies, so its trials differ from those here: "
                    "copy both from the release",
                )
            )
    return faults


class LLCM(Dataset):
    """LLCM."""

    title = "LLCM"
    layout = "folders vis and nir, and idx/train_vis.txt, train_nir.txt, test_vis.txt, test_nir.txt"
    load = staticmethod(load)
    protocols = protocols

    def recognizes(self, root: Path) -> int:
        folders = (root / "vis").is_dir() and (root / "nir").is_dir()
        return int(folders or (root / "idx" / "train_vis.txt").is_file())

    def published_counts(self) -> Counts:
        return PUBLISHED

    def check(self, table: Table, synthetic: bool) -> list[Fault]:
        return _check(table)
