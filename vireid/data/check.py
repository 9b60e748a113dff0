"""`vireid data check`: which data set and release lies at a path, what is in it, what is wrong and what to do."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from vireid import images
from vireid.data import datasets
from vireid.data.datasets.files import read_ids, some
from vireid.data.table import Table
from vireid.errors import DataError, PictureError
from vireid.types import MODALITIES

TITLES = {"sysu": "SYSU-MM01", "regdb": "RegDB", "llcm": "LLCM", "manifest": "manifest"}
SYNTHETIC_MARK = "synthetic.json"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. An `error` makes results wrong or training fail; a `warning` should be known."""

    level: str  # error or warning
    what: str
    to_do: str


@dataclass(frozen=True)
class Count:
    """Identities and images of one split, modality and camera, and what was published (None where nothing was)."""

    split: str
    modality: str
    camid: int
    pids: int
    images: int
    published: tuple[int, int] | None = None


@dataclass
class Report:
    """What `check` found; `ok` says that there is no error (warnings may remain)."""

    dataset: str
    release: str
    root: Path
    fingerprint: str
    images: int
    pids: int
    opened: int  # pictures that were decoded; 0 when pictures were not asked for
    counts: list[Count] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not any(fault.level == "error" for fault in self.faults)

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("data set", TITLES[self.dataset]),
            ("release", self.release),
            ("root", str(self.root)),
            ("rows", f"{self.images} images of {self.pids} identities"),
            ("pictures", f"{self.opened} opened" if self.opened else "not opened"),
            ("fingerprint", self.fingerprint),
        ]

    def _verdict(self) -> str:
        errors = sum(fault.level == "error" for fault in self.faults)
        return f"{'not usable as it is' if errors else 'fine'}: {errors} errors, {len(self.faults) - errors} warnings"

    def lines(self) -> list[str]:
        """The report as lines of plain text."""
        text = [f"{name:<12} {value}" for name, value in self._facts()]
        text += ["", f"{'split':<8} {'modality':<9} {'camera':>6} {'identities':>10} {'images':>8}  published"]
        for c in self.counts:
            text.append(f"{c.split:<8} {c.modality:<9} {c.camid:>6} {c.pids:>10} {c.images:>8}  {_published(c)}")
        text.append("")
        for fault in self.faults:
            text += [f"{fault.level}: {fault.what}", f"    -> {fault.to_do}"]
        return [*text, self._verdict()]

    def markdown(self) -> str:
        """The report as Markdown."""
        text = [f"# {TITLES[self.dataset]}: {self._verdict()}", ""]
        text += [f"- {name}: {value}" for name, value in self._facts()]
        text += ["", "| split | modality | camera | identities | images | published |", "|---|---|---:|---:|---:|---|"]
        text += [
            f"| {c.split} | {c.modality} | {c.camid} | {c.pids} | {c.images} | {_published(c)} |" for c in self.counts
        ]
        text += ["", *[f"- **{fault.level}**: {fault.what} *{fault.to_do}*" for fault in self.faults]]
        return "\n".join(text).rstrip() + "\n"


def _published(count: Count) -> str:
    if count.published is None:
        return "-"
    same = count.published == (count.pids, count.images)
    return "as published" if same else f"{count.published[0]} / {count.published[1]}"


def check(root: str | Path, pictures: bool = True, workers: int | None = None, progress: bool = True) -> Report:
    """Examine the data at `root` (a path or NAME=PATH), with `pictures` also every picture: decoded and hashed.

    `workers` threads work on the pictures (default: one per core); decoding and hashing run outside Python's lock.
    Raises DataError when no table can be made at all (a missing folder, list or column).
    """
    name, path = datasets.split_spec(root)
    table = datasets.load(f"{name}={path}")
    faults: list[Fault] = []
    counts = _counts(table)
    synthetic = (table.root / SYNTHETIC_MARK).is_file()
    release = _release(table, counts, synthetic, faults)
    faults += {"sysu": _sysu, "regdb": _regdb, "llcm": _llcm, "manifest": _manifest}[name](table, synthetic)
    faults += _modalities(table)
    faults += _shared_people(table)
    opened = _pictures(table, workers or os.cpu_count() or 1, progress, faults) if pictures else _present(table, faults)
    faults.sort(key=lambda fault: fault.level)  # errors first
    return Report(
        name, release, table.root, table.fingerprint, len(table), len(table.pids), opened, list(counts.values()), faults
    )


# --- counts and release ---------------------------------------------------------------------------------------------


def _counts(table: Table) -> dict[tuple[str, int, int], Count]:
    """Counts of the table, and of the published table where it has a cell that is missing here."""
    order = {split: i for i, split in enumerate(("train", "val", "test", "query", "gallery"))}
    published = _published_counts(table.dataset)
    keys = set(zip(table.split.tolist(), table.modality.tolist(), table.camid.tolist(), strict=True)) | set(published)
    counts = {}
    for split, modality, camid in sorted(keys, key=lambda key: (order.get(key[0], 9), key[1], key[2])):
        rows = (table.split == split) & (table.modality == modality) & (table.camid == camid)
        counts[split, modality, camid] = Count(
            split, MODALITIES[modality], camid, len(np.unique(table.pid[rows])), int(rows.sum()),
            published.get((split, modality, camid), (0, 0)) if published else None,
        )  # fmt: skip
    return counts


def _published_counts(dataset: str) -> dict[tuple[str, int, int], tuple[int, int]]:
    module = datasets.find(dataset)
    if dataset == "sysu":
        return {(s, int(c in module.INFRARED_CAMERAS), c): n for (s, c), n in module.PUBLISHED.items()}
    if dataset == "regdb":
        return {(s, c - 1, c): n for (s, c), n in module.PUBLISHED.items()}
    return dict(module.PUBLISHED) if dataset == "llcm" else {}


def _release(table: Table, counts: dict, synthetic: bool, faults: list[Fault]) -> str:
    if synthetic:
        for key, count in counts.items():  # nothing was published for a made set
            counts[key] = Count(count.split, count.modality, count.camid, count.pids, count.images)
        for key in [key for key, count in counts.items() if not count.images]:
            del counts[key]
        return f"synthetic ({SYNTHETIC_MARK} is there), in the layout of {TITLES[table.dataset]}"
    if table.dataset == "manifest":
        return "your own"
    different = [c for c in counts.values() if c.published != (c.pids, c.images)]
    if not different:
        return "as published"
    first = different[0]
    assert first.published is not None
    faults.append(
        Fault(
            "warning",
            f"{len(different)} of {len(counts)} counts differ from the published table; first: {first.split} camera "
            f"{first.camid} {first.modality} has {first.pids} identities and {first.images} images instead of "
            f"{first.published[0]} and {first.published[1]}",
            "unpack the archive again and compare its size; figures on this copy are not comparable to published ones",
        )
    )
    return "other than published"


# --- what is special to each data set -------------------------------------------------------------------------------


def _sysu(table: Table, synthetic: bool) -> list[Fault]:
    from vireid.data.datasets import sysu

    faults = []
    number = sysu.image_numbers(table)
    gaps, few = [], []
    for (pid, camera), rows in _groups(table.pid, table.camid):
        if not np.array_equal(np.sort(number[rows]), np.arange(1, len(rows) + 1)):
            gaps.append(f"cam{camera}/{pid:04d}")
        if camera not in sysu.INFRARED_CAMERAS and table.split[rows[0]] == "test" and len(rows) < 10:
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
    stray = _stray_sysu(table)
    if stray:
        faults.append(
            Fault(
                "warning",
                f"{len(stray)} files in the folders of listed identities are not pictures named by a number: "
                + some(stray, 5),
                "they are ignored here, but other programs draw from them: remove them",
            )
        )
    drawable = {name: p for name, p in sysu.protocols.items() if name.endswith("/agw")}
    if not (table.root / sysu.PERMUTATIONS).is_file():
        what = f"{sysu.PERMUTATIONS} is missing, so only the protocols that end in /agw can be evaluated"
        to_do = "copy evaluation/data_split/rand_perm_cam.mat from github.com/wuancong/SYSU-MM01 into exp/"
        faults.append(Fault("warning", what, to_do))
    else:
        try:
            sysu.protocols["sysu/all/multi-shot"].trials(table)
            drawable = sysu.protocols
        except DataError as error:
            faults.append(Fault("error", str(error), "copy rand_perm_cam.mat again from its repository"))
    return faults if synthetic else faults + _sysu_galleries(table, number, list(drawable))


def _sysu_galleries(table: Table, number: np.ndarray, names: list[str]) -> list[Fault]:
    """On the published test part the draws must give the recorded galleries."""
    from vireid.data.datasets import sysu

    for (split, camera), published in sysu.PUBLISHED.items():
        rows = (table.split == split) & (table.camid == camera)
        if split == "test" and (len(np.unique(table.pid[rows])), int(rows.sum())) != published:
            return []  # the differing count is told already
    wrong = []
    for name in names:
        drawn = tuple(int(number[gallery].sum()) for _, gallery in sysu.protocols[name].trials(table))
        if drawn != sysu.GALLERY_SUMS[name]:
            wrong.append(name)
    if not wrong:
        return []
    what = f"the galleries drawn for {some(wrong)} are not those recorded on the release"
    return [Fault("warning", what, "compare the test file names and rand_perm_cam.mat with the release")]


def _stray_sysu(table: Table) -> list[str]:
    from vireid.data.datasets import sysu

    known = {f"{camera}/{pid}" for pid, camera in zip(table.pid.tolist(), table.camid.tolist(), strict=True)}
    stray = []
    for camera in sysu.CAMERAS:
        for folder in sorted((table.root / f"cam{camera}").iterdir()):
            if folder.is_dir() and folder.name.isdigit() and f"{camera}/{int(folder.name)}" in known:
                names = [p.name for p in folder.iterdir()]
                stray += [f"cam{camera}/{folder.name}/{n}" for n in sorted(names) if not sysu.image_stem(n)]
    return stray


def _regdb(table: Table, synthetic: bool) -> list[Fault]:
    from vireid.data.datasets import regdb

    faults, missing = [], []
    for trial in range(regdb.TRIALS):
        lists = [table.root / "idx" / f"{s}_{k}_{trial + 1}.txt" for s in ("train", "test") for k in regdb.CAMID]
        if not all(path.is_file() for path in lists):
            missing.append(trial)
            continue
        try:
            other = regdb.load(table.root, trial=trial)
        except DataError as error:
            faults.append(Fault("error", f"trial {trial}: {error}", "copy idx/ from the release"))
            continue
        if trial and set(other.path.tolist()) != set(table.path.tolist()):
            faults.append(
                Fault(
                    "warning",
                    f"trial {trial} lists other pictures than trial 0",
                    "each trial should divide the same 8,240 pictures: copy idx/ from the release",
                )
            )
        if not synthetic and trial:
            halves = {(s, c): (len(np.unique(other.pid[r])), int(r.sum())) for (s, c) in regdb.PUBLISHED
                      for r in [(other.split == s) & (other.camid == c)]}  # fmt: skip
            if halves != regdb.PUBLISHED:
                faults.append(
                    Fault(
                        "warning",
                        f"trial {trial} does not divide the people 206 to 206 with ten pictures each per camera",
                        "copy idx/ from the release",
                    )
                )
    if missing:
        faults.append(
            Fault(
                "warning",
                f"lists of trial {some(missing)} are missing",
                "the published figure is the mean of ten trials, each with its own training: copy idx/ whole",
            )
        )
    return faults


def _llcm(table: Table, synthetic: bool) -> list[Fault]:
    """The copies that the official test reader walks must hold the listed test pictures, or its draw is another."""
    faults = []
    ids = table.root / "idx" / "test_id.txt"
    if ids.is_file():
        odd = sorted(set(read_ids(ids, "the test identities")) ^ set(table.where("test").pids.tolist()))
        if odd:
            what = f"idx/test_id.txt and the test lists differ in {len(odd)} identities: {some(odd)}"
            faults.append(Fault("warning", what, "the official reader takes test_id.txt: copy idx/ from the release"))
    for kind, modality in datasets.find("llcm").KINDS.items():
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


def _manifest(table: Table, synthetic: bool) -> list[Fault]:
    """A column that ties a query to simultaneous gallery pictures of the same person gives the answer away."""
    faults = []
    test = table[~np.isin(table.split, ("train", "val"))]
    if "frame" in table.extras and len(test):
        seen: dict[tuple, set[int]] = defaultdict(set)
        for pid, frame, modality in zip(test.pid, test.extras["frame"].tolist(), test.modality, strict=True):
            if frame != "" and frame == frame:
                seen[int(pid), frame].add(int(modality))
        both = sum(len(modalities) == 2 for modalities in seen.values())
        if both:
            faults.append(
                Fault(
                    "warning",
                    f"{both} test pictures have a twin of the same person and the same `frame` in the other modality",
                    "unless that is wanted, evaluate with `ignore=frame`: manifest/visible-to-infrared/ignore-frame",
                )
            )
    return faults


# --- what concerns all ----------------------------------------------------------------------------------------------


def _groups(pid: np.ndarray, camid: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    order = np.lexsort((camid, pid))
    keys = np.stack([pid[order], camid[order]], axis=1)
    starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(axis=1)])
    for rows in np.split(order, starts[1:]):
        yield (int(pid[rows[0]]), int(camid[rows[0]])), rows


def _modalities(table: Table) -> list[Fault]:
    faults = []
    splits = {"train": ("train",), "test": ("test", "query", "gallery")}
    for name, members in splits.items():
        part = table.where(members)
        only = np.setxor1d(part.pid[part.modality == 0], part.pid[part.modality == 1])
        if len(only):
            faults.append(
                Fault(
                    "error" if name == "train" else "warning",
                    f"{len(only)} {name} identities have pictures of one modality only: pid {some(only)}",
                    "add their other pictures or take them out of the training part"
                    if name == "train"
                    else "as queries they have no match and do not count; in the gallery they are distractors",
                )
            )
    return faults


def _shared_people(table: Table) -> list[Fault]:
    held_out = table.where(("test", "query", "gallery"))
    both = np.intersect1d(table.where(("train", "val")).pid, held_out.pid)
    if not len(both):
        return []
    return [
        Fault(
            "error",
            f"{len(both)} identities are in the training and in the test part: pid {some(both)}",
            "a test on people seen in training says nothing: move each identity to one side",
        )
    ]


def _missing(absent: list[str], faults: list[Fault]) -> None:
    if absent:
        faults.append(
            Fault(
                "error",
                f"{len(absent)} listed pictures are missing: {some(absent, 5)}",
                "unpack or copy them again, or remove their lines",
            )
        )


def _present(table: Table, faults: list[Fault]) -> int:
    _missing([str(path) for row, path in enumerate(table.path) if not table.full_path(row).is_file()], faults)
    return 0


def _examine(path: Path, name: str) -> tuple[str, str]:
    """("fine", sha256), ("missing", "") or ("unreadable", what is wrong) of a picture, decoded to its last pixel."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "missing", ""
    except OSError as error:
        return "unreadable", f"{name}: {error.strerror or error}"
    try:
        images.read(data, name)
    except PictureError as error:
        return "unreadable", str(error)
    return "fine", hashlib.sha256(data).hexdigest()


def _examined(table: Table, workers: int) -> Iterator[tuple[str, str]]:
    """Results in order, with a bounded number of pictures in flight."""
    with ThreadPoolExecutor(workers) as pool:
        rest = iter(range(len(table)))
        while batch := list(islice(rest, 64 * workers)):
            yield from pool.map(_examine, map(table.full_path, batch), [str(table.path[row]) for row in batch])


def _pictures(table: Table, workers: int, progress: bool, faults: list[Fault]) -> int:
    from rich.progress import track

    results: Iterable[tuple[str, str]] = _examined(table, workers)
    if progress:
        results = track(results, description="pictures", total=len(table), transient=True)
    absent, unreadable, rows_of, fine = [], [], defaultdict(list), 0
    for row, (state, detail) in enumerate(results):
        if state == "fine":
            fine += 1
            rows_of[detail].append(row)
        elif state == "missing":
            absent.append(str(table.path[row]))
        else:
            unreadable.append(detail)
    _missing(absent, faults)
    if unreadable:
        faults.append(
            Fault(
                "error",
                f"{len(unreadable)} pictures cannot be decoded: {some(unreadable, 5)}",
                "copy them again from the archive, or remove them and their lines",
            )
        )
    faults += _duplicates(table, [rows for rows in rows_of.values() if len(rows) > 1])
    return fine


def _duplicates(table: Table, groups: list[list[int]]) -> list[Fault]:
    kinds: dict[str, list[str]] = {"identities": [], "splits": [], "same": []}
    for rows in groups:
        names = " = ".join(table.path[rows[:3]])
        if len(np.unique(table.pid[rows])) > 1:
            kinds["identities"].append(names)
        elif len(np.unique(table.split[rows])) > 1:
            kinds["splits"].append(names)
        else:
            kinds["same"].append(names)
    words = {
        "identities": ("under different identities", "one of the labels is wrong: look at them and remove one"),
        "splits": ("in different splits", "the test would contain what was trained on: remove one"),
        "same": ("inside one identity", "harmless in training; in a test the copy is a trivial match"),
    }
    return [
        Fault("warning", f"{len(found)} sets of identical files {words[kind][0]}: {some(found, 3)}", words[kind][1])
        for kind, found in kinds.items()
        if found
    ]
