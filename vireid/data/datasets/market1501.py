"""Market-1501 and folders of its shape: visible pictures alone, with the published protocol.

Zheng, Shen, Tian, Wang, Wang, Tian: Scalable Person Re-identification: A Benchmark, ICCV 2015.

    ROOT/bounding_box_train/0002_c1s1_000451_03.jpg     identity _c camera s sequence _ frame _ box
    ROOT/query/0001_c1s1_001051_00.jpg
    ROOT/bounding_box_test/-1_c1s1_000401_03.jpg        -1 junk: counts neither as right nor as wrong
    ROOT/bounding_box_test/0000_c1s1_000151_01.jpg      0 distractor: wrong for every query

Names as DukeMTMC-reID has them (0001_c2_f0046182.jpg) are read too. Published: 12,936 training pictures of 751 people,
3,368 queries of 750 other people, and 19,732 gallery pictures, 3,819 of them junk and 2,798 distractors.

There is no infrared picture, so training needs pseudo_infrared=true.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vireid.data.dataset import Dataset
from vireid.data.datasets.files import attach_keypoints, existing_folder, pictures_in
from vireid.data.datasets.ignore import same_pid_and_camera
from vireid.data.protocol import Protocol, Trial
from vireid.data.table import Table, table_from_columns
from vireid.errors import DataError
from vireid.types import VISIBLE

FOLDERS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
JUNK, DISTRACTOR = -1, 0
NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camera>\d+)(?:s(?P<sequence>\d+))?_f?(?P<frame>\d+)(?:_\d+)?\.\w+$", re.ASCII)
COLUMNS = ("path", "pid", "camid", "modality", "split", "sequence", "frame")


def load(root: Path | str) -> Table:
    """One row per picture, all visible; extras: sequence (0 where names have none) and frame.

    Raises DataError for a missing or empty folder, a name of another form, junk outside the gallery and an identity
    that is in the training and in the test folders.
    """
    root = existing_folder(root, "Market-1501")
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    for folder, split in FOLDERS.items():
        names = pictures_in(existing_folder(root / folder, "Market-1501"))
        if not names:
            raise DataError(f"{root / folder} holds no pictures; unpack the release again")
        for name in names:
            match = NAME.match(name)
            if match is None:
                raise DataError(f"{root / folder}: expected names like 0002_c1s1_000451_03.jpg, came {name}; rename it")
            pid = int(match["pid"])
            if pid in (JUNK, DISTRACTOR) and split != "gallery":
                raise DataError(f"{root / folder}: {name} has no identity, which the gallery alone may have; remove it")
            columns["path"].append(f"{folder}/{name}")
            columns["pid"].append(pid)
            columns["camid"].append(int(match["camera"]))
            columns["modality"].append(VISIBLE)
            columns["split"].append(split)
            columns["sequence"].append(int(match["sequence"] or 0))
            columns["frame"].append(int(match["frame"]))
    table = table_from_columns(root, columns, "market1501")
    both = np.intersect1d(table.where("train").pid, table.where(("query", "gallery")).pid)
    if len(both):
        raise DataError(f"{root}: identity {both[0]} is in the training and in the test folders; move it to one side")
    return attach_keypoints(table)


def trials(table: Table) -> list[Trial]:
    """All queries and all of the gallery but the junk, which no query counts."""
    queries = np.flatnonzero(table.split == "query")
    gallery = np.flatnonzero((table.split == "gallery") & (table.pid != JUNK))
    if not len(queries) or not len(gallery):
        raise DataError("Market-1501: this table has no query or no gallery; load it whole")
    return [(queries, gallery)]


STAMP = {
    "draw": "none (all images)",
    "shots": "all",
    "queries": "all query images",
    "ignored": "same identity in the same camera; junk",
    "cmc": "over images",
}
NAME_OF_PROTOCOL = "market1501/visible-to-visible"
protocols: dict[str, Protocol] = {
    NAME_OF_PROTOCOL: Protocol(NAME_OF_PROTOCOL, trials, same_pid_and_camera, stamp=STAMP)
}


class Market1501(Dataset):
    """Market-1501."""

    title = "Market-1501"
    layout = "folders bounding_box_train, query and bounding_box_test"
    load = staticmethod(load)
    protocols = protocols

    def recognizes(self, root: Path) -> int:
        return int(all((root / folder).is_dir() for folder in FOLDERS))
