"""Segment: some rows of a gallery in plain files that are mapped and never change; a sidecar consists of these.

    NAME/high      (N, D) int16, the upper bits of each number (lance_vectors.py): what candidates are ordered by
    NAME/low       (N, D / 2) uint8, the lower bits: read for the last few candidates alone
    NAME/step      (N,) float32, what one step of a row's numbers is
    NAME/records   the records without their vectors, an Arrow file
    NAME/codes     the codes (lance_codes.py), in a segment of CODED_ROWS rows or more
    NAME/cells     which of the codes' lists a filter can skip (lance_cells.py)
    NAME/dead-*    numbers of rows that were deleted; the newest is named by the sidecar

The columns of a filter become numbers when it is first used.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vireid.search.drivers import lance_codes as codes
from vireid.search.drivers.lance_cells import Cells
from vireid.search.drivers.lance_rows import compute, vectors_of
from vireid.search.drivers.lance_vectors import Packed, Writer, slices
from vireid.search.gallery import Filter

CODED_ROWS = 1_024  # from here on a segment has codes; below, comparing all is as fast
RECORDS, CODES, CELLS, DEAD = "records", "codes", "cells", "dead-"
Rows = np.ndarray  # numbers of rows, (n,) int64
Piece = tuple[Any, Packed]  # an Arrow table of records without vectors, and their vectors


def piece_of(table: Any) -> Piece:
    """An Arrow table or batch with all columns of a gallery."""
    import pyarrow as pa

    table = pa.table({name: table[name] for name in table.column_names})  # one schema, wherever it is from
    return table.drop_columns(["vector"]), Packed.of(np.asarray(vectors_of(table), np.float32))


def write(folder: Path, pieces: Iterable[Piece]) -> int:
    """Write a segment, without codes; returns its rows."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    rows = 0
    sink: Any = None
    vectors = Writer(folder)

    def texts_of() -> Iterator[Any]:
        for texts, packed in pieces:
            vectors.write(packed)
            yield texts

    with (folder / RECORDS).open("wb") as records:
        for texts in _blocks(texts_of()):
            sink = sink or pa.ipc.new_file(records, texts.schema)
            sink.write_table(texts, max_chunksize=codes.BLOCK)
            rows += len(texts)
        if sink:
            sink.close()
        records.flush()
        os.fsync(records.fileno())
    vectors.close()
    return rows


class Segment:
    """See this file's head. Raises OSError or ValueError where files are missing or not as long as they should be."""

    def __init__(self, folder: Path, rows: int, dim: int, dead: str = "") -> None:
        import pyarrow as pa

        self.folder, self.rows, self.dim, self.dead_name = folder, rows, dim, dead
        self._kept: dict[str, Any] = {}  # columns as numbers
        self.packed = Packed.mapped(folder, rows, dim)
        self.slack = self.packed.slack
        reader = pa.ipc.open_file(pa.memory_map(str(folder / RECORDS)))
        self._batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *map(len, self._batches)])
        if self._starts[-1] != rows:
            raise ValueError(f"{folder} holds {self._starts[-1]} records, expected {rows}")
        self.index: Any = codes.read(folder / CODES) if (folder / CODES).exists() else None
        self.cells = Cells.load(folder / CELLS) if self.index else None
        self.dead: Rows = np.load(folder / dead) if dead else np.zeros(0, np.int64)
        self.live: np.ndarray | None = None  # mask, None where all rows are
        if len(self.dead):
            self.live = np.ones(rows, bool)
            self.live[self.dead] = False

    def encode(self, coder: codes.Coder) -> None:
        """Write the codes of a segment of CODED_ROWS or more."""
        if self.rows >= CODED_ROWS:
            self.cells, cell = Cells.of(self._plain("modality"), self.times(), codes.LIST_ROWS)
            self.cells.save(self.folder / CELLS)
            coder.write(self.folder / CODES, self.vectors, self.cells, cell)
            for name in (CELLS, CODES):
                with (self.folder / name).open("rb+") as file:
                    os.fsync(file.fileno())
            self.index = codes.read(self.folder / CODES)

    def vectors(self, rows: Rows | slice) -> np.ndarray:
        """The vectors (n, D) float32."""
        return self.packed[rows].vectors

    def sample(self, count: int) -> np.ndarray:
        """Up to `count` vectors, evenly spread."""
        return self.vectors(codes.spread(self.rows, count))

    def blocks(self) -> Iterator[np.ndarray]:
        """All vectors, some at a time."""
        for rows in slices(self.rows, codes.BLOCK):
            yield self.vectors(rows)

    def pieces(self) -> Iterator[Piece]:
        """All rows that are alive, as `write` takes them."""
        import pyarrow as pa

        for start, batch in zip(self._starts, self._batches, strict=False):
            texts = pa.Table.from_batches([batch])
            if self.live is None:
                yield texts, self.packed[start : start + len(batch)]
            else:
                live = self.live[start : start + len(batch)]
                yield texts.filter(pa.array(live)), self.packed[start + np.flatnonzero(live)]

    def times(self) -> np.ndarray:
        """Unix seconds of all rows, nan where unknown."""
        return self._plain("time_s")

    def tracks(self, wanted: Sequence[str]) -> np.ndarray:
        """Which of these different tracks each row is of, (N,) int64; -1: none of them."""
        import pyarrow as pa

        values, numbers = self._numbers("track")
        known = compute().index_in(values, value_set=pa.array(wanted, pa.string())).fill_null(-1)
        return known.to_numpy(zero_copy_only=False).astype(np.int64)[numbers]

    def records(self, rows: Rows) -> Any:
        """These rows as an Arrow table, in their order, without vectors."""
        import pyarrow as pa

        which = np.searchsorted(self._starts, rows, side="right") - 1
        places = zip(which, rows - self._starts[which], strict=True)
        return pa.Table.from_batches([self._batches[at].slice(place, 1) for at, place in places])

    def named(self, ids: Sequence[str]) -> np.ndarray:
        """Mask of the rows with one of these ids."""
        import pyarrow as pa

        masks = [compute().is_in(batch["id"], value_set=pa.array(ids, pa.string())) for batch in self._batches]
        return np.concatenate([each.to_numpy(zero_copy_only=False) for each in masks])

    def lists(self, where: Filter) -> np.ndarray:
        """The lists of codes (n,) that can hold a row that passes."""
        return self.cells.lists_for(where) if self.cells else np.zeros(0, np.int64)

    def passing(self, where: Filter) -> np.ndarray | None:
        """Mask of the rows that are alive and pass, None where all do."""
        if where.empty:
            return self.live
        if self.cells and not len(self.lists(where)):  # none of it is of this modality and time
            return np.zeros(self.rows, bool)
        mask = np.ones(self.rows, bool) if self.live is None else self.live.copy()
        if where.modality is not None:
            mask &= self._plain("modality") == where.modality
        for name, wanted in (("camera", where.cameras), ("pid", where.pids), ("track", where.tracks)):
            if wanted:
                values, numbers = self._numbers(name)
                mask &= np.take(_among(values, wanted), numbers)
        if where.after_s is not None:
            mask &= self.times() >= where.after_s  # nan, an unknown time, is neither
        if where.before_s is not None:
            mask &= self.times() < where.before_s
        for tag in where.tags:
            values, numbers, owners = self._tags
            tagged = np.zeros(self.rows, bool)
            tagged[owners[np.take(_among(values, [tag]), numbers)]] = True
            mask &= tagged
        if where.without_ids:
            mask &= ~self.named(where.without_ids)
        return mask

    def _column(self, name: str) -> Any:
        import pyarrow as pa

        return pa.chunked_array([batch[name] for batch in self._batches])

    def _plain(self, name: str) -> np.ndarray:
        return self._once(name, lambda: self._column(name).to_numpy())

    def _numbers(self, name: str) -> tuple[Any, np.ndarray]:
        """The different texts of a column, and the number of each row's."""
        return self._once(name, lambda: _encoded(self._column(name)))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @functools.cached_property
    def _tags(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """The different tags, the number of each tag of each row, and the row that has it."""
        column = self._column("tags").combine_chunks()
        return *_encoded(column.flatten()), compute().list_parent_indices(column).to_numpy()


def _encoded(column: Any) -> tuple[Any, np.ndarray]:
    import pyarrow as pa

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = column.dictionary_encode()
    numbers = coded.indices.to_numpy()
    small = np.uint8 if len(coded.dictionary) <= 1 << 8 else np.int32
    return coded.dictionary, numbers.astype(small)


def _among(values: Any, wanted: Sequence[str]) -> np.ndarray:
    import pyarrow as pa

    return compute().is_in(values, value_set=pa.array(wanted, pa.string())).to_numpy(zero_copy_only=False)


def _blocks(pieces: Iterable[Any]) -> Iterator[Any]:
    """Tables of about codes.BLOCK rows from pieces of any size."""
    import pyarrow as pa

    waiting: list[Any] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= codes.BLOCK:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting).combine_chunks()
