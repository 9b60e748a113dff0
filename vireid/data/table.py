"""Table: one row per image, as numpy columns; what every loader returns and everything else reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vireid.errors import DataError
from vireid.images import GrayRule
from vireid.types import INFRARED, VISIBLE

COLUMNS = ("path", "pid", "camid", "modality", "split")
ENDS = ("thermal_low", "thermal_high")


@dataclass(frozen=True)
class Table:
    """R images. `path` is relative to `root` with forward slashes; `pid` and `camid` are the dataset's own numbers.

    `partition` names the split of identities that `split` was made from (for RegDB "trial 3"): a run stores it and
    evaluation refuses another. `source` is what it was loaded from, as `vireid.load` takes it. `extras` holds optional
    columns, e.g. frame (R,), time (R,), keypoints (R, 17, 3), thermal_low and thermal_high (R,).
    """

    root: Path
    path: np.ndarray  # (R,) str
    pid: np.ndarray  # (R,) int64
    camid: np.ndarray  # (R,) int64
    modality: np.ndarray  # (R,) int64
    split: np.ndarray  # (R,) str: train, val, test (a manifest may also say query and gallery)
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    dataset: str = "manifest"
    partition: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        rows = len(self.path)
        for name, value in {**{c: getattr(self, c) for c in COLUMNS}, **self.extras}.items():
            if len(value) != rows:
                raise DataError(f"every column needs {rows} rows like `path`; `{name}` has {len(value)}")
        if rows and not np.isin(self.modality, (VISIBLE, INFRARED)).all():
            raise DataError(f"modality must be {VISIBLE} (visible) or {INFRARED} (infrared)")

    def __len__(self) -> int:
        return len(self.path)

    def __getitem__(self, rows: np.ndarray | slice | list[int]) -> Table:
        """The same table with only these rows (boolean mask, indices or slice)."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        extras = {name: value[rows] for name, value in self.extras.items()}
        return replace(self, extras=extras, **columns)

    def where(self, split: str | tuple[str, ...] | None = None, modality: int | None = None) -> Table:
        """The rows of these splits and this modality."""
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            keep &= np.isin(self.split, (split,) if isinstance(split, str) else split)
        if modality is not None:
            keep &= self.modality == modality
        return self[keep]

    @cached_property
    def pids(self) -> np.ndarray:
        """Sorted distinct identities."""
        return np.unique(self.pid)

    @cached_property
    def camids(self) -> np.ndarray:
        """Sorted distinct cameras."""
        return np.unique(self.camid)

    @cached_property
    def label(self) -> np.ndarray:
        """(R,) int64: position of each pid among this table's sorted pids, so take it from the training rows."""
        return np.searchsorted(self.pids, self.pid)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any path, pid, camid, modality, split or range of gray values."""
        digest = hashlib.sha256()
        for name in COLUMNS:
            digest.update("\0".join(getattr(self, name).astype(str)).encode())
        if self.thermal_ranges is not None:
            digest.update(self.thermal_ranges.tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def thermal_ranges(self) -> np.ndarray | None:
        """(R, 2) float64: low and high of each row's gray values of more than 8 bits, nan where it has no range.

        None where no row has one.
        """
        if not set(ENDS) <= self.extras.keys():
            return None
        ends = np.stack([self.extras[name].astype(np.float64) for name in ENDS], axis=1)
        return None if np.isnan(ends).all() else ends

    def gray(self, row: int, otherwise: GrayRule) -> GrayRule:
        """How the gray values of a row's picture become 8 bits: by its own range, else by the rule given."""
        if self.thermal_ranges is None or np.isnan(self.thermal_ranges[row, 0]):
            return otherwise
        return GrayRule(*self.thermal_ranges[row].tolist())

    def gray_words(self, otherwise: GrayRule) -> str:
        """The rules of all rows in words: the one given, and the cameras that have a range of their own."""
        words = [str(otherwise)]
        if self.thermal_ranges is not None:
            own = np.flatnonzero(~np.isnan(self.thermal_ranges[:, 0]))
            first = {int(self.camid[row]): int(row) for row in own[::-1]}
            words += [f"camera {camid}: {self.gray(first[camid], otherwise)}" for camid in sorted(first)]
        return "; ".join(words)

    def full_path(self, row: int) -> Path:
        return self.root / str(self.path[row])


def table_from_columns(root: Path, columns: Mapping[str, object], dataset: str, partition: str = "") -> Table:
    """Build a Table from lists; names beyond the five columns become extras. DataError for an integer over 64 bits."""
    kinds = {"path": np.str_, "pid": np.int64, "camid": np.int64, "modality": np.int64, "split": np.str_}
    try:
        fixed: dict[str, Any] = {name: np.asarray(columns[name], dtype=kind) for name, kind in kinds.items()}
    except OverflowError:
        numbers = [(name, max(columns[name], key=abs)) for name in ("pid", "camid", "modality")]  # pyright: ignore
        name, value = max(numbers, key=lambda each: abs(each[1]))
        raise DataError(
            f"{root}: `{name}` is an integer of at most 64 bits, came {value}; number them again from 1"
        ) from None
    extras = {name: np.asarray(value) for name, value in columns.items() if name not in kinds}
    return Table(Path(root), **fixed, extras=extras, dataset=dataset, partition=partition)
