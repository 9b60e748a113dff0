"""The rows that a run is embedded and evaluated on: whether they are its own data, and what the stamp says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vireid.data import datasets
from vireid.data.table import Table
from vireid.errors import DataError, RunError
from vireid.training.record import RunRecord, data_name
from vireid.training.run_folder import RunFolder


@dataclass(frozen=True)
class RunRows:
    """`rows` of one split of `table`; `own` where the table is the one that the run was trained on."""

    table: Table
    rows: Table
    split: str
    own: bool

    @classmethod
    def of(
        cls, run: RunFolder, data: str | Table | None, trial: int | None, cross: bool, split: str = "test"
    ) -> RunRows:
        """The rows of a split of the run's data, or of other data where `cross` allows it; RunError, DataError."""
        table, own = checked_table(run, data, trial, cross)
        return cls(table, split_rows(table, split), split, own)

    def stamp(self, run: RunFolder, embedder: str) -> dict[str, str]:
        """The run's stamp with what the embeddings are of; data that are not the run's own are named as such."""
        stamp = run.stamp
        trained_on = data_name(stamp.pop("dataset"), stamp.pop("partition", ""))
        if not self.own:
            stamp["trained on"] = f"{trained_on}, not on this data"
        partition = {"partition": self.rows.partition} if self.rows.partition else {}
        return {
            **stamp,
            "dataset": self.rows.dataset,
            **partition,
            "embedder": embedder,
            "images": self.rows.fingerprint,
        }

    def suffix(self, flip: bool = False) -> str:
        """What tells files of one layer apart: nothing for the test images of the run's own data."""
        parts = [self.split] if self.split != "test" else []
        parts += [] if self.own else [f"{self.rows.dataset}-{self.rows.fingerprint[:6]}"]
        return "".join(f"@{part}" for part in [*parts, *(["flip"] if flip else [])])


def checked_table(
    run: RunFolder, data: str | Path | Table | None, trial: int | None, cross: bool
) -> tuple[Table, bool]:
    """The run's table, or other data where `cross` allows it (RunError otherwise), and whether it is the run's own."""
    table = data if isinstance(data, Table) else load_table(run, data, trial)
    own = belongs(run.record, table)
    if not own and not cross:
        raise RunError(refusal(run, table))
    return table, own


def load_table(run: RunFolder, data: str | Path | None, trial: int | None) -> Table:
    """The table at `data` (NAME=PATH), by default the one that the run was trained on; RunError where it says none."""
    recorded = run.record.source
    if data is None and recorded.data is None:
        raise RunError(f"{run.path} does not say where its data lie; pass --data {run.record.dataset}=PATH")
    name, path = datasets.split_spec(data or datasets.recorded_spec(str(recorded.data), recorded.sha256))
    if trial is None and datasets.find(name).name == run.record.dataset:
        trial = recorded.trial
    return datasets.load(f"{name}={path}", **({} if trial is None else {"trial": trial}))


def split_rows(table: Table, split: str = "test") -> Table:
    """The rows of a split; "test" stands for query and gallery as well."""
    rows = table.where(("test", "query", "gallery") if split == "test" else split)
    if not len(rows):
        splits = ", ".join(sorted(set(table.split.tolist()))) or "no rows"
        raise DataError(f"{table.root} has no rows of split {split}, it has {splits}; check the split column")
    return rows


def belongs(record: RunRecord, table: Table) -> bool:
    """Whether a table is the one that the run was trained on."""
    same = (record.dataset, record.partition) == (table.dataset, table.partition)
    return same and training_fingerprint(record, table) == record.data


def training_fingerprint(record: RunRecord, table: Table) -> str:
    """The fingerprint of the rows that a run would have been trained on, had it been given this table."""
    rows = table.where(record.trained_on or training_splits(table))
    return rows[~np.isin(rows.pid, record.held_out_pids)].fingerprint


def training_splits(table: Table) -> tuple[str, ...]:
    """The splits that are trained on unless people are held out."""
    return datasets.find(table.dataset).training_splits


def refusal(run: RunFolder, table: Table) -> str:
    """Why a run is not evaluated on a table that it was not trained on."""
    record = run.record
    trained, came = (record.dataset, record.partition), (table.dataset, table.partition)
    if trained != came:
        return (
            f"{run.path} was trained on {data_name(*trained)}, this data is {data_name(*came)}, whose test people may "
            "have been trained on. Evaluate on the run's own data (leave --data and --trial out), or pass --cross, "
            "which is stamped on the figures"
        )
    return (
        f"{run.path} was trained on {data_name(*trained)} with training rows {record.data}, those of "
        f"{Path(table.source.partition('=')[2] or table.root)} are {training_fingerprint(record, table)}: another "
        f"release or a changed list. Evaluate on the run's own data ({record.source.data or 'unknown'}), or pass "
        "--cross, which is stamped"
    )
