"""The figures of every query, and the file that keeps them: queries.csv, a line for each query, trial and protocol.

protocol, trial, layer, flip, similarity, draw, refine, rerank, embedder, images      how it was measured
query, pid, camid, modality         the picture searched with
AP, first_rank, INP                 as in metrics.py; empty where the gallery holds no match
first_camid                         camera of the nearest picture: with `camid` the pair of cameras
nearest_1 .. nearest_10             paths of the nearest pictures, in trial 0 alone
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vireid import table_file
from vireid.data.protocol import Trial
from vireid.data.table import Table
from vireid.errors import DataError
from vireid.evaluation.metrics import Tally
from vireid.system import replacing
from vireid.table_file import read_table
from vireid.types import MODALITIES

NUMBERS = {"trial": table_file.integer, "AP": table_file.number, "first_rank": table_file.integer}  # columns
NEAREST = 10  # pictures of a list
# of the stamp: by which lines are distinguished
CONDITIONS = ("layer", "flip", "center", "similarity", "draw", "refine", "rerank")
SOURCES = ("embedder", "images")  # of the stamp: lines of other networks or pictures are out of date
ABOUT = ("query", "pid", "camid", "modality", "AP", "first_rank", "INP", "first_camid")
COLUMNS = ("protocol", "trial", *CONDITIONS, *SOURCES, *ABOUT, *(f"nearest_{k}" for k in range(1, NEAREST + 1)))


@dataclass(frozen=True)
class QueryFigures:
    """The figures of Q queries in one trial; `queries` and `nearest` are rows of `table`, -1 where a list is shorter.

    `first_rank` is 0, and the fractions `AP` and `INP` are NaN, for a query without a match in the gallery. In trials
    after the first one `nearest` has no columns.
    """

    protocol: str
    trial: int
    stamp: dict[str, str]
    table: Table
    queries: np.ndarray  # (Q,)
    first_rank: np.ndarray  # (Q,)
    AP: np.ndarray  # (Q,)
    INP: np.ndarray  # (Q,)
    nearest: np.ndarray  # (Q, k)
    similarity: np.ndarray  # (Q, k)


def of_tally(
    tally: Tally, table: Table, protocol: str, number: int, trial: Trial, stamp: dict[str, str]
) -> QueryFigures:
    """The figures that a tally collected in trial `number`, whose queries and gallery are rows of the table."""
    queries, gallery = trial
    first = np.concatenate(tally.first)
    valid = first > 0
    if tally.lists:
        places, similarity = (np.concatenate(parts) for parts in zip(*tally.lists, strict=True))
        nearest = np.where(places >= 0, gallery[places], -1)
    else:
        nearest, similarity = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    return QueryFigures(
        protocol, number, stamp, table, np.asarray(queries), first,
        AP=np.where(valid, np.concatenate(tally.precision), np.nan),
        INP=np.where(valid, np.concatenate(tally.inverse), np.nan),
        nearest=nearest, similarity=similarity,
    )  # fmt: skip


def write_queries(path: Path, figures: Sequence[QueryFigures]) -> Path:
    """Write the lines of these figures, and those of the former file that were measured in another way.

    Lines of another network, and of other pictures of the same data set, are out of date and left out. Raises DataError
    where the former file is of another kind, DiskFull.
    """
    new = [line for one in figures for line in _lines(one, first_only=True)]
    fresh, embedders = {_key(line) for line in new}, {line["embedder"] for line in new}
    images = {line["protocol"].partition("/")[0]: line["images"] for line in new}
    kept = [
        line
        for line in (read_queries(path) if path.exists() else ())
        if _key(line) not in fresh and line["embedder"] in embedders
        and images.get(line["protocol"].partition("/")[0], line["images"]) == line["images"]
    ]  # fmt: skip
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        for one in figures:
            writer.writerows(_lines(one))
        writer.writerows(kept)
    return path


def read_queries(path: Path) -> Iterator[dict[str, str]]:
    """The lines of queries.csv as texts by column; DataError for a file that is missing or of another kind."""
    if not path.is_file():
        raise DataError(f"there is no {path}; write it with `vireid evaluate`")
    table = read_table(path, DataError)
    present = tuple(table.header)
    if present != COLUMNS:
        missing, unknown = ([n for n in a if n not in b] for a, b in ((COLUMNS, present), (present, COLUMNS)))
        raise DataError(
            f"{path}, line {table.first}: expected the columns of this version's queries.csv; missing: "
            f"{', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}. Delete the file "
            "and evaluate again"
        )
    for number, line in table.rows():
        for name, read in NUMBERS.items():
            try:
                _ = read(line[name]) if line[name] else None
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}: `{name}`: {error}; delete the file and evaluate again"
                ) from None
        yield line


def _key(line: dict[str, str]) -> tuple[str, ...]:
    return tuple(line[name] for name in ("protocol", *CONDITIONS))


def _lines(one: QueryFigures, first_only: bool = False) -> Iterator[dict[str, str]]:
    """A line for each query, or for the first one alone."""
    table = one.table
    shared = {"protocol": one.protocol, "trial": str(one.trial)}
    shared |= {name: one.stamp.get(name, "") for name in (*CONDITIONS, *SOURCES)}
    for place, row in enumerate(one.queries[:1] if first_only else one.queries):
        has_match = one.first_rank[place] > 0
        line = {
            **shared,
            "query": str(table.path[row]),
            "pid": str(table.pid[row]),
            "camid": str(table.camid[row]),
            "modality": MODALITIES[int(table.modality[row])],
            "AP": f"{one.AP[place]:.6f}" if has_match else "",
            "first_rank": str(one.first_rank[place]) if has_match else "",
            "INP": f"{one.INP[place]:.6f}" if has_match else "",
        }
        hits = [int(hit) for hit in one.nearest[place] if hit >= 0]
        if hits:
            line["first_camid"] = str(table.camid[hits[0]])
            line |= {f"nearest_{k}": str(table.path[hit]) for k, hit in enumerate(hits[:NEAREST], 1)}
        yield line
