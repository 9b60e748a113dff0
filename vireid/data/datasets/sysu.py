"""SYSU-MM01: its official layout, splits, published counts and evaluation protocols.

Wu, Zheng, Yu, Gong, Lai: RGB-Infrared Cross-Modality Person Re-Identification, ICCV 2017; IJCV 2020.
Rules checked against the owners' MATLAB scripts (github.com/wuancong/SYSU-MM01, evaluation/) and against the Python
reader of AGW (github.com/mangye16/Cross-Modal-Re-ID-baseline).

    ROOT/cam1/0001/0001.jpg ... ROOT/cam6/0533/0020.jpg     camera / identity / image number
    ROOT/exp/train_id.txt val_id.txt test_id.txt available_id.txt
    ROOT/exp/rand_perm_cam.mat                              only for the official gallery draw

Cameras 1, 2, 4, 5 are visible, 3 and 6 infrared; 1, 2, 3 stand indoors, and 2 and 3 in the same room.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vireid.data.dataset import Counts, Dataset, Fault
from vireid.data.datasets.files import attach_keypoints, existing_folder, folders, pictures_in, read_ids, some
from vireid.data.protocol import Protocol, Trial
from vireid.data.table import Table, table_from_columns
from vireid.errors import ArgumentError, DataError
from vireid.table_file import is_digits
from vireid.types import INFRARED, VISIBLE

CAMERAS = (1, 2, 3, 4, 5, 6)
INFRARED_CAMERAS = (3, 6)
GALLERY_CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
SHOTS = {"single-shot": 1, "multi-shot": 10}
TRIALS = 10
PERMUTATIONS = "exp/rand_perm_cam.mat"

# (split, camera): (identities, images), counted from the id lists and rand_perm_cam.mat of the release.
PUBLISHED = {
    ("train", 1): (194, 4721), ("train", 2): (195, 5753), ("train", 3): (293, 5929),
    ("train", 4): (283, 4821), ("train", 5): (294, 4989), ("train", 6): (200, 4000),
    ("val", 3): (99, 1980), ("val", 4): (99, 990), ("val", 5): (96, 984),
    ("test", 1): (56, 1374), ("test", 2): (56, 1565), ("test", 3): (93, 1883),
    ("test", 4): (94, 1918), ("test", 5): (95, 1918), ("test", 6): (96, 1920),
}  # fmt: skip

# Sum of the image numbers over the gallery of trial 0, 1, ... on the true release: a draw that differs is another draw.
GALLERY_SUMS = {
    "sysu/all/single-shot": (3671, 3668, 3453, 3491, 3745, 3497, 3485, 3490, 3450, 3591),
    "sysu/indoor/single-shot": (1570, 1544, 1553, 1401, 1723, 1498, 1415, 1459, 1485, 1525),
    "sysu/all/multi-shot": (35650, 35209, 35124, 35299, 35360, 35380, 35061, 35449, 35436, 35250),
    "sysu/indoor/multi-shot": (15508, 15164, 15114, 15148, 15270, 15140, 15111, 15174, 15232, 15235),
    "sysu/all/single-shot/agw": (3649, 3566, 3469, 3639, 3419, 3482, 3705, 3545, 3586, 3453),
    "sysu/indoor/single-shot/agw": (1647, 1568, 1722, 1681, 1458, 1487, 1600, 1482, 1529, 1376),
}


def load(root: Path | str) -> Table:
    """One row per image of the train, val and test identities, in order of camera, identity and image number.

    Only ROOT/cam1 ... cam6 and folders and files named by numbers are read, so an unpacked video archive or a Thumbs.db
    does no harm. Identities outside `available_id.txt` are left out. Raises DataError if a folder or list is missing.
    """
    root = existing_folder(root, "SYSU-MM01")
    split_of = _splits(root)
    absent = [f"cam{camera}" for camera in CAMERAS if not (root / f"cam{camera}").is_dir()]
    if absent:
        raise DataError(
            f"SYSU-MM01 at {root}: expected folders cam1 ... cam6, missing {some(absent)}; unpack SYSU-MM01.zip again"
        )
    columns: dict[str, list] = {"path": [], "pid": [], "camid": [], "modality": [], "split": []}
    for camera in CAMERAS:
        for folder in folders(root / f"cam{camera}"):
            if not is_digits(folder.name) or int(folder.name) not in split_of:
                continue
            names = sorted(
                (n for n in pictures_in(folder.path) if image_stem(n)), key=lambda n: (int(image_stem(n)), n)
            )
            pid = int(folder.name)
            columns["path"] += [f"cam{camera}/{folder.name}/{name}" for name in names]
            columns["pid"] += [pid] * len(names)
            columns["camid"] += [camera] * len(names)
            columns["modality"] += [INFRARED if camera in INFRARED_CAMERAS else VISIBLE] * len(names)
            columns["split"] += [split_of[pid]] * len(names)
    if not columns["path"]:
        raise DataError(f"SYSU-MM01 at {root}: no picture camN/PPPP/IIII.jpg of a listed identity; unpack it again")
    return attach_keypoints(table_from_columns(root, columns, "sysu"))


def image_stem(name: str) -> str:
    """The image number in a file name, as digits, or "" if the name is not a number."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return stem if is_digits(stem) else ""


def image_numbers(table: Table) -> np.ndarray:
    """(R,) int64 image numbers (0001.jpg is 1), which the official permutations speak of."""
    stems = [image_stem(str(path)) for path in table.path]
    if "" in stems:
        raise DataError(f"expected SYSU-MM01 paths camN/PPPP/IIII.jpg, came {table.path[stems.index('')]}")
    return np.array([int(stem) for stem in stems], dtype=np.int64)


def _splits(root: Path) -> dict[int, str]:
    split_of: dict[int, str] = {}
    for split in ("train", "val", "test"):
        for pid in read_ids(root / "exp" / f"{split}_id.txt", f"the identities of the {split} part of SYSU-MM01"):
            if split_of.get(pid, split) != split:
                raise DataError(
                    f"{root}/exp: identity {pid} stands in {split_of[pid]}_id.txt and {split}_id.txt; "
                    "the parts must be disjoint: copy exp/ from the release"
                )
            split_of[pid] = split
    if (root / "exp" / "available_id.txt").is_file():
        available = set(read_ids(root / "exp" / "available_id.txt", "the identities that are in use"))
        split_of = {pid: split for pid, split in split_of.items() if pid in available}
    return split_of


def permutations(root: Path) -> dict[tuple[int, int], np.ndarray]:
    """The official draw: (camera, identity) -> integer array (trials, n) whose rows are permutations of 1..n.

    Raises DataError if ROOT/exp/rand_perm_cam.mat is missing or of another form.
    """
    path = root / PERMUTATIONS
    if not path.is_file():
        raise DataError(
            f"{path} is missing: it fixes the gallery of the official SYSU-MM01 trials and is not part of the archive. "
            "Copy evaluation/data_split/rand_perm_cam.mat from github.com/wuancong/SYSU-MM01, or choose a protocol "
            "that ends in /agw (draw=agw), which draws from a seed and needs no file"
        )
    from scipy.io import loadmat

    try:
        cells = loadmat(path)["rand_perm_cam"].reshape(-1)
    except KeyError:
        raise DataError(f"{path}: expected a variable `rand_perm_cam`; copy it again from its repository") from None
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DataError(f"{path} cannot be read ({error}); copy it again from its repository") from error
    if len(cells) != len(CAMERAS):
        raise DataError(f"{path}: expected six cells, one a camera, came {len(cells)}; copy it again")
    drawn = {}
    for camera, cell in zip(CAMERAS, cells, strict=True):
        for index, entry in enumerate(np.asarray(cell, dtype=object).reshape(-1)):
            entry = np.asarray(entry)
            if entry.size:
                drawn[camera, index + 1] = np.atleast_2d(entry).astype(np.int64)
    return drawn


def _cells(table: Table, cameras: tuple[int, ...]) -> dict[tuple[int, int], np.ndarray]:
    """(identity, camera) -> rows of the test part sorted by path, identities and then cameras ascending."""
    rows = np.flatnonzero((table.split == "test") & np.isin(table.camid, cameras))
    rows = rows[np.lexsort((table.path[rows], table.camid[rows], table.pid[rows]))]
    if not len(rows):
        raise DataError(f"no test image in cameras {some(cameras)}: is this SYSU-MM01 table complete?")
    keys = np.stack([table.pid[rows], table.camid[rows]], axis=1)
    starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(axis=1)])
    return {(int(pid), int(cam)): r for (pid, cam), r in zip(keys[starts], np.split(rows, starts[1:]), strict=True)}


def _queries(table: Table) -> np.ndarray:
    return np.concatenate(list(_cells(table, INFRARED_CAMERAS).values()))


def agw_trials(cameras: tuple[int, ...]) -> Callable[[Table], list[Trial]]:
    """Ten trials; trial t draws one picture per identity and camera with Python's generator seeded by t.

    Identities ascend, cameras ascend within an identity: the stream of `random.seed(t); random.choice(...)` in AGW.
    """

    def trials(table: Table) -> list[Trial]:
        queries, cells = _queries(table), _cells(table, cameras)
        drawn = []
        for trial in range(TRIALS):
            stream = random.Random(trial)
            drawn.append((queries, np.array([stream.choice(rows) for rows in cells.values()], dtype=np.int64)))
        return drawn

    return trials


def official_trials(cameras: tuple[int, ...], shots: int) -> Callable[[Table], list[Trial]]:
    """The owners' trials: the first `shots` image numbers of rand_perm_cam.mat per camera and identity, in that order.

    An identity with fewer pictures in a camera gives all of them, as the published Python reader does; in the release
    none has fewer than ten.
    """

    def trials(table: Table) -> list[Trial]:
        drawn, number, queries = permutations(table.root), image_numbers(table), _queries(table)
        cells = sorted(_cells(table, cameras).items(), key=lambda item: (item[0][1], item[0][0]))  # camera, identity
        galleries: list[list[int]] = []
        for (pid, camera), rows in cells:
            order = drawn.get((camera, pid))
            if order is None:
                raise _unfit(table.root, f"has no entry for camera {camera}, identity {pid}")
            if galleries and len(order) != len(galleries):
                raise _unfit(table.root, f"has {len(order)} trials for camera {camera}, identity {pid}")
            galleries = galleries or [[] for _ in order]
            row_of = dict(zip(number[rows].tolist(), rows.tolist(), strict=True))
            for gallery, images in zip(galleries, order[:, :shots].tolist(), strict=True):
                absent = [image for image in images if image not in row_of]
                if absent:
                    raise _unfit(table.root, f"draws cam{camera}/{pid:04d}/{absent[0]:04d}.jpg, which is not there")
                gallery += [row_of[image] for image in images]
        return [(queries, np.array(gallery, dtype=np.int64)) for gallery in galleries]

    return trials


def _unfit(root: Path, what: str) -> DataError:
    return DataError(
        f"{root / PERMUTATIONS} {what}: it does not belong to these pictures. Run `vireid data check` on the folder, "
        "or choose a protocol that ends in /agw"
    )


def ignore_same_room(query: Table, gallery: Table) -> np.ndarray:
    """Camera 3 shares its room with camera 2, so its queries never see camera 2, of any person."""
    return (query.camid == 3)[:, None] & (gallery.camid == 2)[None, :]


def _protocol(mode: str, shots: str, draw: str) -> Protocol:
    cameras, k = GALLERY_CAMERAS[mode], SHOTS[shots]
    return Protocol(
        name=f"sysu/{mode}/{shots}" + ("/agw" if draw == "agw" else ""),
        trials=agw_trials(cameras) if draw == "agw" else official_trials(cameras, k),
        ignore=ignore_same_room,
        cmc_over_pids=True,
        stamp={
            "draw": "agw (Python seeds 0..9)" if draw == "agw" else "official (rand_perm_cam.mat)",
            "shots": str(k),
            "queries": "cameras 3 and 6",
            "gallery": "cameras " + ", ".join(map(str, cameras)),
            "ignored": "query camera 3: gallery camera 2",
            "cmc": "over identities",
        },
    )


protocols: dict[str, Protocol] = {
    p.name: p
    for mode in GALLERY_CAMERAS
    for p in (
        _protocol(mode, "single-shot", "official"),
        _protocol(mode, "multi-shot", "official"),
        _protocol(mode, "single-shot", "agw"),
    )
}


# --- what `vireid data check` looks for -------------------------------------------------------------------------------


def _check(table: Table, synthetic: bool) -> list[Fault]:
    faults = []
    number = image_numbers(table)
    gaps, few = [], []
    for (pid, camera), rows in _groups(table.pid, table.camid):
        if not np.array_equal(np.sort(number[rows]), np.arange(1, len(rows) + 1)):
            gaps.append(f"cam{camera}/{pid:04d}")
        if camera not in INFRARED_CAMERAS and table.split[rows[0]] == "test" and len(rows) < 10:
            few.append(f"cam{camera}/{pid:04d}")
    if gaps:
        faults.append(
            Fault(
                "warning",
                f"image numbers do not run 1..n in {len(gaps)} folders: {some(gaps, 5)}",
                "pictures may be missing or doubled there: compare these folders with the archive",
            )
        )
    if few:
        faults.append(
            Fault(
                "warning",
                f"{len(few)} test folders hold fewer than ten pictures: {some(few, 5)}",
                "multi-shot takes what is there; do not compare it with published multi-shot figures",
            )
        )
    empty = _empty_cameras(table)
    if empty:
        faults.append(
            Fault(
                "error",
                f"{some(empty)} {'hold' if len(empty) > 1 else 'holds'} no picture PPPP/IIII.jpg of a listed identity",
                "SYSU-MM01 has pictures of all six cameras, named by numbers alone: unpack SYSU-MM01.zip again",
            )
        )
    stray = _stray(table)
    if stray:
        faults.append(
            Fault(
                "warning",
                f"{len(stray)} files in the folders of listed identities are not pictures named by a number: "
                + some(stray, 5),
                "they are ignored here, but other programs draw from them: remove them",
            )
        )
    drawable = {name: p for name, p in protocols.items() if name.endswith("/agw")}
    if not (table.root / PERMUTATIONS).is_file():
        what = f"{PERMUTATIONS} is missing, so only the protocols that end in /agw can be evaluated"
        to_do = "copy evaluation/data_split/rand_perm_cam.mat from github.com/wuancong/SYSU-MM01 into exp/"
        faults.append(Fault("warning", what, to_do))
    else:
        try:
            protocols["sysu/all/multi-shot"].trials(table)
            drawable = protocols
        except DataError as error:
            faults.append(Fault("error", str(error), "copy rand_perm_cam.mat again from its repository"))
    return faults if synthetic else faults + _check_galleries(table, number, list(drawable))


def _check_galleries(table: Table, number: np.ndarray, names: list[str]) -> list[Fault]:
    """On the published test part the draws must give the recorded galleries."""
    for (split, camera), published in PUBLISHED.items():
        rows = (table.split == split) & (table.camid == camera)
        if split == "test" and (len(np.unique(table.pid[rows])), int(rows.sum())) != published:
            return []  # the differing count is reported already
    wrong = []
    for name in names:
        drawn = tuple(int(number[gallery].sum()) for _, gallery in protocols[name].trials(table))
        if drawn != GALLERY_SUMS[name]:
            wrong.append(name)
    if not wrong:
        return []
    what = f"the galleries drawn for {some(wrong)} are not those recorded on the release"
    return [Fault("warning", what, "compare the test file names and rand_perm_cam.mat with the release")]


def _stray(table: Table) -> list[str]:
    """Files that are not named by a number in the folders of listed identities, also where no picture was read."""
    listed, stray = _splits(table.root), []
    for camera in CAMERAS:
        for folder in folders(table.root / f"cam{camera}"):
            if is_digits(folder.name) and int(folder.name) in listed:
                names = [p.name for p in Path(folder.path).iterdir()]
                stray += [f"cam{camera}/{folder.name}/{n}" for n in sorted(names) if not image_stem(n)]
    return stray


def _empty_cameras(table: Table) -> list[str]:
    return [f"cam{camera}" for camera in CAMERAS if not (table.camid == camera).any()]


def _groups(pid: np.ndarray, camid: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    order = np.lexsort((camid, pid))
    keys = np.stack([pid[order], camid[order]], axis=1)
    starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(axis=1)])
    for rows in np.split(order, starts[1:]):
        yield (int(pid[rows[0]]), int(camid[rows[0]])), rows


class SYSU(Dataset):
    """SYSU-MM01."""

    title = "SYSU-MM01"
    layout = "folders cam1 ... cam6 with PPPP/IIII.jpg, and exp/train_id.txt, val_id.txt, test_id.txt"
    load = staticmethod(load)
    protocols = protocols
    training_splits = ("train", "val")  # as for all published figures
    selection_protocol = "sysu/all/single-shot/agw"  # what published scripts choose by
    compared_protocols = ("sysu/all/single-shot", "sysu/indoor/single-shot")
    same_room = ((2, 3),)

    def recognizes(self, root: Path) -> int:
        return int(any((root / f"cam{camera}").is_dir() for camera in CAMERAS))

    def published_counts(self) -> Counts:
        return {(s, int(c in INFRARED_CAMERAS), c): counts for (s, c), counts in PUBLISHED.items()}

    def check(self, table: Table, synthetic: bool) -> list[Fault]:
        return _check(table, synthetic)

    def drawn(self, names: Sequence[str], draw: str) -> list[str]:
        if draw not in ("official", "agw"):
            raise ArgumentError(f"--draw is official or agw, got {draw!r}")
        stems = dict.fromkeys(name.removesuffix("/agw") for name in names or protocols)
        wanted = [stem + ("/agw" if draw == "agw" else "") for stem in stems]
        return wanted if names else [name for name in wanted if name in protocols]  # agw draws single shots alone
