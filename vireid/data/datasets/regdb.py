"""RegDB (DBPerson-Recog-DB1): its layout, its ten splits and its two protocols.

Nguyen, Hong, Kim, Park: Person Recognition System Based on a Combination of Body Images from Visible Light and Thermal
Cameras, Sensors 2017. The ten idx lists are those that visible-infrared work has used since AGW
(github.com/mangye16/Cross-Modal-Re-ID-baseline); HCML's RegDB_split.mat holds ten other splits.

    ROOT/Visible/285/male_back_v_05528_285.bmp      {male|female}_{back|front}_{v|t}_{frame}_{identity}.bmp
    ROOT/Thermal/285/male_back_t_05528_285.bmp
    ROOT/idx/{train,test}_{visible,thermal}_{1..10}.txt     lines `Visible/285/male_back_v_05528_285.bmp 0`
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vireid.data.dataset import Counts, Dataset, Fault
from vireid.data.datasets.files import attach_keypoints, existing_folder, read_pairs, some
from vireid.data.protocol import Protocol, Trial
from vireid.data.table import Table, table_from_columns
from vireid.errors import DataError
from vireid.types import INFRARED, MODALITIES, VISIBLE

TRIALS = 10
CAMID = {"visible": 1, "thermal": 2}  # the numbers that AGW's evaluation gives the two cameras
PUBLISHED = {(split, camera): (206, 2060) for split in ("train", "test") for camera in (1, 2)}  # of each trial
NAME = re.compile(r"(?P<sex>male|female)_(?P<view>back|front)_[vt]_(?P<frame>\d+)_(?P<pid>\d+)\.\w+$", re.ASCII)


def load(root: Path | str, trial: int = 0) -> Table:
    """One row per image of both halves of split `trial` (0..9; its lists are numbered trial + 1).

    `partition` is "regdb trial T": a run trained on one trial must not be evaluated on another, whose test half holds
    people it has seen. `pid` comes from the path, since label 0 of a train list and label 0 of a test list are two
    people. `camid` is 1 visible, 2 thermal. Extras: frame, sex, view. Raises DataError for a missing or odd list.
    """
    root = existing_folder(root, "RegDB")
    if isinstance(trial, bool) or not isinstance(trial, int) or not 0 <= trial < TRIALS:
        raise DataError(f"RegDB has trials 0 to {TRIALS - 1}, came trial={trial!r}")
    columns: dict[str, list] = {
        name: [] for name in ("path", "pid", "camid", "modality", "split", "frame", "sex", "view")
    }
    people: dict[str, set[int]] = {}
    for split in ("train", "test"):
        pid_of: dict[int, int] = {}  # label -> pid; both modalities of a split share their labels
        for kind in CAMID:
            path = root / "idx" / f"{split}_{kind}_{trial + 1}.txt"
            paths, labels = read_pairs(path, f"RegDB's {kind} {split} pictures of trial {trial}")
            for name, label in zip(paths, labels, strict=True):
                parts, match = name.split("/"), NAME.search(name)
                if len(parts) != 3 or parts[0].lower() != kind or match is None or parts[1] != match["pid"]:
                    raise DataError(
                        f"{path}: expected {kind.capitalize()}/ID/SEX_VIEW_{kind[0]}_FRAME_ID.bmp, came {name}; "
                        "copy idx/ from the release"
                    )
                pid = int(match["pid"])
                if pid_of.setdefault(label, pid) != pid:
                    raise DataError(f"{path}: label {label} means identity {pid_of[label]} and {pid}; copy idx/ again")
                columns["path"].append(name)
                columns["pid"].append(pid)
                columns["camid"].append(CAMID[kind])
                columns["modality"].append(VISIBLE if kind == "visible" else INFRARED)
                columns["split"].append(split)
                columns["frame"].append(int(match["frame"]))
                columns["sex"].append(match["sex"])
                columns["view"].append(match["view"])
        people[split] = set(pid_of.values())
    both = sorted(people["train"] & people["test"])
    if both:
        raise DataError(
            f"{root}/idx: identity {both[0]} is in the train and test lists of trial {trial}; copy idx/ again"
        )
    return attach_keypoints(table_from_columns(root, columns, "regdb", partition=f"regdb trial {trial}"))


def _trials(query: int) -> Callable[[Table], list[Trial]]:
    def trials(table: Table) -> list[Trial]:
        test = table.split == "test"
        rows = [np.flatnonzero(test & (table.modality == modality)) for modality in (query, 1 - query)]
        for modality, chosen in zip((query, 1 - query), rows, strict=True):
            if not len(chosen):
                raise DataError(f"RegDB: no {MODALITIES[modality]} test image in this table; load it whole")
        return [(rows[0], rows[1])]

    return trials


def _protocol(query: int) -> Protocol:
    return Protocol(
        name=f"regdb/{MODALITIES[query]}-to-{MODALITIES[1 - query]}",
        trials=_trials(query),
        stamp={
            "draw": "none (all images)",
            "shots": "all (10)",
            "queries": f"all {MODALITIES[query]} test images of one split",
            "ignored": "nothing (simultaneous twins stay)",
            "cmc": "over images",
        },
    )


protocols: dict[str, Protocol] = {p.name: p for p in map(_protocol, (VISIBLE, INFRARED))}


def _check(table: Table, synthetic: bool) -> list[Fault]:
    faults, missing = [], []
    for trial in range(TRIALS):
        lists = [table.root / "idx" / f"{s}_{k}_{trial + 1}.txt" for s in ("train", "test") for k in CAMID]
        if not all(path.is_file() for path in lists):
            missing.append(trial)
            continue
        try:
            other = load(table.root, trial=trial)
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
            halves = {(s, c): (len(np.unique(other.pid[r])), int(r.sum())) for (s, c) in PUBLISHED
                      for r in [(other.split == s) & (other.camid == c)]}  # fmt: skip
            if halves != PUBLISHED:
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


class RegDB(Dataset):
    """RegDB."""

    title = "RegDB"
    layout = "folders Visible and Thermal, and idx/train_visible_1.txt and its 39 sisters"
    load = staticmethod(load)
    protocols = protocols

    def recognizes(self, root: Path) -> int:
        folders = (root / "Visible").is_dir() and (root / "Thermal").is_dir()
        return int(folders or (root / "idx" / "train_visible_1.txt").is_file())

    def published_counts(self) -> Counts:
        return {(split, camera - 1, camera): counts for (split, camera), counts in PUBLISHED.items()}

    def check(self, table: Table, synthetic: bool) -> list[Fault]:
        return _check(table, synthetic)
