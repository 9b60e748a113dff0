"""`vireid data check`: which data set and release lies at a path, what is in it, what is wrong and what to do."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from vireid import images
from vireid.data import datasets
from vireid.data.dataset import Counts, Dataset, Fault
from vireid.data.datasets.files import some
from vireid.data.table import Table
from vireid.errors import PictureError
from vireid.system import available_cores
from vireid.types import INFRARED, MODALITIES, VISIBLE

SYNTHETIC_MARK = "synthetic.json"
VISIBLE_ONLY = {  # what to do with a part without infrared pictures
    "train": "train with pseudo_infrared=true, which makes infrared views of visible pictures",
    "test": "search between visible and infrared is measured on other data: `vireid evaluate RUN --data ... --cross`",
}


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
    """Findings of `check`; `ok` says that there is no error (warnings may remain)."""

    dataset: str
    title: str
    release: str
    root: Path
    fingerprint: str
    images: int
    pids: int
    opened: int  # pictures that were decoded; 0 when pictures were not checked
    counts: list[Count] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not any(fault.level == "error" for fault in self.faults)

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("data set", self.title),
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
        text = [f"# {self.title}: {self._verdict()}", ""]
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
    table, dataset = datasets.load(f"{name}={path}"), datasets.find(name)
    faults: list[Fault] = []
    counts = _counts(table, dataset.published_counts())
    synthetic = (table.root / SYNTHETIC_MARK).is_file()
    release = _release(dataset, counts, synthetic, faults)
    faults += dataset.check(table, synthetic)
    faults += _modalities(table)
    faults += _shared_people(table)
    opened = _pictures(table, workers or available_cores(), progress, faults) if pictures else _present(table, faults)
    faults.sort(key=lambda fault: fault.level)  # errors first
    return Report(
        dataset.name,
        dataset.title,
        release,
        table.root,
        table.fingerprint,
        len(table),
        len(table.pids),
        opened,
        list(counts.values()),
        faults,
    )


# --- counts and release ---------------------------------------------------------------------------------------------


def _counts(table: Table, published: Counts) -> dict[tuple[str, int, int], Count]:
    """Counts of the table, and of the published table where it has a cell that is missing here."""
    order = {split: i for i, split in enumerate(("train", "val", "test", "query", "gallery"))}
    keys = set(zip(table.split.tolist(), table.modality.tolist(), table.camid.tolist(), strict=True)) | set(published)
    counts = {}
    for split, modality, camid in sorted(keys, key=lambda key: (order.get(key[0], 9), key[1], key[2])):
        rows = (table.split == split) & (table.modality == modality) & (table.camid == camid)
        counts[split, modality, camid] = Count(
            split, MODALITIES[modality], camid, len(np.unique(table.pid[rows])), int(rows.sum()),
            published.get((split, modality, camid), (0, 0)) if published else None,
        )  # fmt: skip
    return counts


def _release(dataset: Dataset, counts: dict, synthetic: bool, faults: list[Fault]) -> str:
    if synthetic:
        for key, count in counts.items():  # nothing was published for a made set
            counts[key] = Count(count.split, count.modality, count.camid, count.pids, count.images)
        for key in [key for key, count in counts.items() if not count.images]:
            del counts[key]
        return f"synthetic ({SYNTHETIC_MARK} is there), in the layout of {dataset.title}"
    if not dataset.published_counts():
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


# --- what concerns all ----------------------------------------------------------------------------------------------


def _modalities(table: Table) -> list[Fault]:
    faults = []
    splits = {"train": ("train",), "test": ("test", "query", "gallery")}
    for name, members in splits.items():
        part = table.where(members)
        if not len(part) and name == "test":
            what = f"there is no test part (split {' or '.join(members)})"
            faults.append(Fault("warning", what, "no figure can be measured on it; look at the names of its splits"))
            continue
        if len(part) and (part.modality == VISIBLE).all():
            faults.append(Fault("warning", f"the {name} part has visible pictures only", VISIBLE_ONLY[name]))
            continue
        only = np.setxor1d(part.pid[part.modality == VISIBLE], part.pid[part.modality == INFRARED])
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
        Fault("warning", f"{len(sets)} sets of identical files {words[kind][0]}: {some(sets, 3)}", words[kind][1])
        for kind, sets in kinds.items()
        if sets
    ]
