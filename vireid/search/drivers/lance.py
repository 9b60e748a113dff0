"""Gallery in a folder, by LanceDB: no server, several processes, the default. Needs the extra `search`.

LanceDB (Apache-2.0) keeps a table as immutable files and a list of them per version, so readers never wait and a write
is there as a whole or not at all. What this driver adds:

**Writers wait for each other** by a lock file. Without it two processes that upsert the same new ids at once double
them (LanceDB 0.40: 2,250 rows of 2,000, three writers; with its unenforced primary key and an index 2,551 of 2,001).

**The planner.** An approximate index (IVF: the vectors in partitions) loses right answers under a filter: it looks at
the partitions near the query and the filter throws their rows away. It is worst across modalities: to a visible query
all infrared partitions are far. So the rows that pass are counted first. Few are compared one by one, which is exact.
Where more pass, all partitions are looked into, by their quantized vectors, and the candidates are ordered by the full
ones. Without a filter a quarter of the partitions is enough. `docs/concepts/gallery.md` has the recall and the times.

**The sidecar** (lance_sidecar.py). Where faiss is installed, `optimize` writes what a search needs into files of their
own, derived from the table, in place of LanceDB's index of vectors. Searches that it does not answer, and all where
faiss is missing, are planned as above.

**Purge.** LanceDB's `optimize` leaves a deleted vector in a file that is mostly alive, whatever its age. Here every
such file is rewritten, the indexes are folded, and all old versions go.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vireid.errors import GalleryError
from vireid.evaluation.score_norm import spread
from vireid.images import STRETCH, GrayRule
from vireid.search.drivers import checks, damage, exact, lance_codes, lance_indexes, lance_search, lance_sidecar
from vireid.search.drivers.lance_rows import (
    SQL,
    compute,
    condition,
    facets_of,
    newest_rows,
    records_of,
    schema_of,
    table_of,
    vectors_of,
)
from vireid.search.gallery import EVERYTHING, Facets, Filter, GalleryInfo, Hit, Moment, Record
from vireid.system import folder_bytes, locked, replacing

TABLE, LOCK, TRAINED = "records", ".writer.lock", "index.json"
KEPT = timedelta(days=7)  # old versions, until purge; LanceDB's own default
INDEX_ROWS = 50_000  # from here on a vector index is built: below, comparing all rows takes some 50 ms
EXACT_ROWS = 20_000  # that pass a filter and are compared one by one
GROWN = 4  # times the rows that a vector index was trained on, until it is trained again
PROBED = 0.25  # of the partitions, without a filter
REFINE, REFINE_FILTERED = 10, 30  # candidates by quantized vectors for each row that is wanted
FOLD_EVERY = 64  # writes, each of which leaves a file and a version
IDS_AT_ONCE = 5_000  # in one statement
PAGE = 10_000  # rows
TRIES = 5  # of a read whose files a purge removes meanwhile

T = TypeVar("T")


class LanceGallery:
    """See search/gallery.py and this file's head."""

    def __init__(
        self,
        path: Path,
        dim: int | None,
        bundle_digest: str | None,
        gray: GrayRule | None = None,
        new_gray: GrayRule = STRETCH,
    ) -> None:
        lancedb, _ = _libraries()
        self.path, self._thread_lock, self._writes = path, threading.RLock(), 0
        there = (path / f"{TABLE}.lance").is_dir()
        if not there and dim is None:
            raise checks.no_gallery(str(path))
        if not there and path.exists() and (not path.is_dir() or any(p.name != LOCK for p in path.iterdir())):
            raise GalleryError(f"{path} is not a vireid gallery and is not empty; name an empty or new folder")
        path.mkdir(parents=True, exist_ok=True)
        with damage.named(path):
            self._db: Any = lancedb.connect(
                str(path), read_consistency_interval=timedelta(0)
            )  # other processes' rows are seen
        if not there:
            with self._writing():
                if not (path / f"{TABLE}.lance").is_dir():  # another process was faster
                    self._create(int(dim or 0), checks.description(bundle_digest or "", gray or new_gray))
        with damage.named(path):
            self._table: Any = self._db.open_table(TABLE)
        kept = self._stored()
        self.dim, self.gray, self._digest = kept.dim, kept.gray, kept.digest
        checks.stored(f"lance:{path}", dim, bundle_digest, gray, kept)
        versions = path / f"{TABLE}.lance" / "_versions"
        self._sidecar = lance_sidecar.Sidecar(path, kept.dim, path / LOCK, versions, lambda: self._table.version)

    def info(self) -> GalleryInfo:
        rows, size = self.count(), folder_bytes(self.path)
        index = "none, every row is compared"
        if state := self._reading(self._sidecar.current):
            index = f"codes of {state.rows} rows"
        elif stats := self._index():
            index = f"{stats.index_type} of {stats.num_indexed_rows} rows"
        if state is None and lance_codes.available() and (why := self._sidecar.refusal):
            index += f" ({why})"
        return GalleryInfo(f"lance:{self.path}", self.dim, rows, self._digest, index, size)

    def facets(self) -> Facets:
        return self._reading(self._facets)

    def add(self, records: Iterable[Record]) -> int:
        given, vectors = checks.batch(records, self.dim)
        with self._writing():
            if there := self._there([record.id for record in given]):
                raise checks.already_there(there)
            if given:
                self._append(given, vectors)
            self._wrote()
        return len(given)

    def upsert(self, records: Iterable[Record]) -> int:
        given, vectors = checks.batch(records, self.dim)
        with self._writing():
            if there := self._there([record.id for record in given]):
                merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                table = table_of(self._table.schema, given, vectors)
                merge.execute(table)
                self._sidecar.delete(there)
                self._sidecar.add(table)
            elif given:
                self._append(given, vectors)  # cheaper: nothing is joined
            self._wrote()
        return len(given)

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> int:
        checks.deletion(ids, where)
        deleted = 0
        with self._writing():
            wheres = [condition(where)] if where is not None else [SQL.among("id", part) for part in _parts(ids)]
            for sql in wheres:
                count = self._table.count_rows(sql)
                if count:
                    self._table.delete(sql)
                deleted += count
            if deleted:
                self._sidecar.delete(ids, where)
            self._wrote()
        return deleted

    def count(self, where: Filter = EVERYTHING) -> int:
        sql = condition(where)
        return self._reading(lambda: self._table.count_rows(sql))

    def search(
        self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING, with_vectors: bool = False
    ) -> list[list[Hit]]:
        checks.hit_count(k)
        queries, sql = checks.unit_vectors(vectors, self.dim), condition(where)
        if not len(queries):
            return []

        def find() -> list[list[Hit]]:
            if state := self._sidecar.current():
                return lance_search.nearest(state.segments, state.coder, queries, k, where, with_vectors)
            passing = self._table.count_rows(sql)
            if not passing:
                return [[] for _ in queries]
            probes = self._probes(passing, sql is not None)
            return [self._nearest(query, k, sql, passing, probes, with_vectors) for query in queries]

        return self._reading(find)

    def fetch(self, ids: Sequence[str], missing: str = "refuse") -> list[Record]:
        checks.unknown_ids(ids, (), "skip" if missing == "refuse" else missing)  # the form alone

        def read() -> dict[str, Record]:
            records: dict[str, Record] = {}
            for part in _parts(list(dict.fromkeys(ids))):
                batch = self._table.search().where(SQL.among("id", part)).limit(len(part)).to_arrow()
                records |= {record.id: record for record in records_of(batch, vectors_of(batch))}
            return records

        there = self._reading(read)
        checks.unknown_ids(ids, there, missing)
        return [there[each] for each in ids if each in there]

    def sample(self, count: int, where: Filter = EVERYTHING) -> list[Record]:
        sql = condition(where) or "true"
        ids = self._reading(lambda: self._table.search().where(sql).select(["id"]).limit(None).to_arrow())["id"]
        ids = ids.take(compute().sort_indices(ids))
        return self.fetch([ids[at].as_py() for at in spread(len(ids), count)], missing="skip")

    def rows(self, where: Filter = EVERYTHING, limit: int | None = None, after_id: str = "") -> Iterator[Record]:
        columns = [name for name in self._table.schema.names if name != "vector"]
        while limit is None or limit > 0:
            page = PAGE if limit is None else min(PAGE, limit)
            after = condition(where, after_id)

            def read(after: str | None = after, page: int = page) -> Any:
                query = self._table.search().where(after).select(columns).limit(page)
                return query.order_by([{"column_name": "id", "ascending": True}]).to_arrow()

            records = records_of(self._reading(read), None)
            yield from records
            if len(records) < page:
                return
            after_id, limit = records[-1].id, None if limit is None else limit - page

    def newest(self, where: Filter = EVERYTHING, limit: int = 100, after: Moment | None = None) -> list[Record]:
        return records_of(self._reading(lambda: newest_rows(self._table, where, limit, after)), None)

    def optimize(self) -> None:
        with self._writing():
            self._fold(whole=True)

    def purge(self) -> None:
        now = timedelta(0)
        with self._writing(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")  # readers try again
            self._table.optimize(cleanup_older_than=now, delete_unverified=True)
            for fragment in self._with_deleted_rows():
                # Setting a column to itself moves the live rows to a new file, and a file without rows is dropped.
                here = f"_rowid >= {fragment << 32} AND _rowid < {(fragment + 1) << 32}"
                self._table.update(where=here, values_sql={"camera": "camera"})
            for column in self._indexed() & {"camera", "modality", "tags"}:  # by value, and keep one that no row has
                self._table.create_index(column, config=lance_indexes.by_value()[column], replace=True)
            for _ in range(2):  # the first makes a version, the second drops the one before it
                self._table.optimize(cleanup_older_than=now, delete_unverified=True)
            if left := self._with_deleted_rows():
                raise GalleryError(f"LanceDB kept deleted rows in {len(left)} files of {self.path}; please report this")
            self._sidecar.tidy(whole=True)

    def close(self) -> None:
        self._table = self._db = None

    def _facets(self) -> Facets:
        query = self._table.search().select(["camera", "modality", "tags", "time_s", "track"]).limit(None)
        return facets_of(query.to_batches(1 << 16))

    def _create(self, dim: int, description: str) -> None:
        self._db.create_table(TABLE, schema=schema_of(dim, description))

    def _stored(self) -> checks.Kept:
        schema = self._table.schema
        text = (schema.metadata or {}).get(b"vireid")
        dim = schema.field("vector").type.list_size
        return checks.described(text, f"lance:{self.path}", dim, "index the pictures again")

    def _append(self, records: list[Record], vectors: np.ndarray) -> None:
        table = table_of(self._table.schema, records, vectors)
        self._table.add(table)
        self._sidecar.add(table)

    def _there(self, ids: list[str]) -> list[str]:
        """Those of these ids that the gallery has."""
        known: list[str] = []
        for part in _parts(ids):
            batch = self._table.search().where(SQL.among("id", part)).select(["id"]).limit(len(part)).to_arrow()
            known += batch["id"].to_pylist()
        return known

    def _nearest(
        self, query: np.ndarray, k: int, sql: str | None, passing: int, probes: int | None, with_vectors: bool
    ) -> list[Hit]:
        """Candidates by the index (or by comparing all, probes None), then the exact order."""
        want = min(k, passing)
        limit = min(want + exact.SLACK, passing)
        while True:
            search = self._table.search(query, vector_column_name="vector").distance_type("l2").limit(limit)
            if sql:
                search = search.where(sql, prefilter=True)
            if probes is None:
                search = search.bypass_vector_index()
            else:
                search = search.nprobes(probes).refine_factor(REFINE_FILTERED if sql else REFINE)
            candidates = search.to_arrow()
            distance = candidates["_distance"].to_numpy()
            tied = len(distance) == limit < passing and distance[-1] - distance[want - 1] <= exact.TIED
            if not tied or limit >= exact.MAX_TIED:
                vectors = vectors_of(candidates)
                return exact.in_order(query, records_of(candidates, None), vectors, k, with_vectors)
            limit = min(4 * limit, passing, exact.MAX_TIED)

    def _probes(self, passing: int, filtered: bool) -> int | None:
        """How many partitions to look into where this many rows pass; None compares them all without the index."""
        if passing <= EXACT_ROWS or (index := self._index()) is None:
            return None
        partitions = lance_indexes.partitions(index.num_indexed_rows)
        return partitions if filtered else max(1, round(partitions * PROBED))

    def _index(self) -> Any:
        """LanceDB's statistics of the vector index, None if there is none."""
        return self._reading(lambda: self._table.index_stats("vector_idx"))

    def _fold(self, whole: bool) -> None:
        """Small files into large ones and new rows into the indexes; `whole` also builds what indexes are missing."""
        rows = self._table.count_rows()
        if whole and rows:
            there = self._indexed()
            for column, config in lance_indexes.by_value().items():
                if column not in there:
                    self._table.create_index(column, config=config)
        self._table.optimize(cleanup_older_than=KEPT)
        if whole and rows >= lance_sidecar.MIN_ROWS and lance_codes.available() and not self._sidecar.fit_for(rows):
            self._sidecar.build(self._table.search().limit(None).to_batches(PAGE))
        self._sidecar.tidy(whole=False)
        if whole and rows:
            self._index_vectors(rows)
        self._writes = 0

    def _index_vectors(self, rows: int) -> None:
        """LanceDB's index of vectors, in place of a sidecar where there is none."""
        there = "vector" in self._indexed()
        trained = self._trained_on() if there else 0
        if self._sidecar.there:
            if there:
                self._table.drop_index("vector_idx")
        elif rows >= INDEX_ROWS and rows >= GROWN * trained:
            self._table.create_index("vector", config=lance_indexes.of_vectors(rows), replace=True)
            with replacing(self.path / TRAINED) as partial:
                partial.write_text(json.dumps({"rows": rows}))

    def _indexed(self) -> set[str]:
        """Columns that have an index."""
        return {index.columns[0] for index in self._table.list_indices()}

    def _trained_on(self) -> int:
        try:
            return int(json.loads((self.path / TRAINED).read_text())["rows"])
        except (OSError, ValueError, KeyError):
            return 0

    def _wrote(self) -> None:
        self._writes += 1
        if self._writes >= FOLD_EVERY:
            self._fold(whole=False)

    def _with_deleted_rows(self) -> list[int]:
        """Fragments of the newest version (there must be no other) that hold deleted rows."""
        marks = (self.path / f"{TABLE}.lance" / "_deletions").glob("*")
        return sorted({int(mark.name.partition("-")[0]) for mark in marks})

    def _reading(self, read: Callable[[], T]) -> T:
        """A read, again if a purge by another process took its files away meanwhile."""
        if self._table is None:
            raise GalleryError(f"{self.path} was closed; open it again with open_gallery")
        with damage.named(self.path):
            for left in reversed(range(TRIES)):
                try:
                    return read()
                except (RuntimeError, OSError, ValueError) as error:
                    if not left or "not found" not in str(error).lower():
                        raise
                    time.sleep(0.05)
        raise AssertionError  # the loop ends by returning or raising

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone among the threads and processes that write here."""
        if self._db is None:
            raise GalleryError(f"{self.path} was closed; open it again with open_gallery")
        with damage.named(self.path), self._thread_lock, locked(self.path / LOCK), self._following():
            yield

    def _following(self) -> contextlib.AbstractContextManager[None]:
        """The sidecar goes with a write; there is none while a gallery is made."""
        return self._sidecar.following() if hasattr(self, "_sidecar") else contextlib.nullcontext()


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def _libraries() -> tuple[Any, Any]:
    try:
        import lancedb
        import pyarrow
    except ImportError as error:
        raise GalleryError(
            "a gallery in a folder needs LanceDB, which is not installed: pip install 'vireid[search]'"
        ) from error
    return lancedb, pyarrow
