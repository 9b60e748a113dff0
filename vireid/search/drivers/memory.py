"""Gallery in memory: an exact scan with numpy. Gone when closed; for tests, evaluation and about 100,000 rows."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from vireid.errors import GalleryError
from vireid.evaluation.score_norm import spread
from vireid.images import STRETCH, GrayRule
from vireid.search.drivers import checks, exact
from vireid.search.gallery import EVERYTHING, Facets, Filter, GalleryInfo, Hit, Moment, Record

BLOCK = 1 << 22  # similarities at a time


class Codes:
    """Texts (or tuples of them) as numbers, so that a condition on them is one look at an array of int32."""

    def __init__(self) -> None:
        self.of: dict[object, int] = {}

    def __call__(self, value: object) -> int:
        return self.of.setdefault(value, len(self.of))

    def among(self, column: np.ndarray, values: Iterable[object]) -> np.ndarray:
        """Mask of the rows whose value is one of these."""
        return np.isin(column, [self.of[value] for value in values if value in self.of])


class MemoryGallery:
    """See search/gallery.py. Rows lie in arrays with room to grow; the last row takes the place of a deleted one."""

    def __init__(self, dim: int | None, bundle_digest: str = "", gray: GrayRule = STRETCH) -> None:
        if dim is None:
            raise GalleryError("a gallery in memory starts empty and needs dim=, the length of its vectors")
        self.dim, self.gray, self._digest, self._lock = dim, gray, bundle_digest, threading.RLock()
        self._vectors = np.zeros((0, dim), np.float32)
        self._columns: dict[str, np.ndarray] = {
            name: np.zeros(0, np.int32) for name in ("camera", "track", "pid", "tags", "modality")
        }
        self._columns["time_s"] = np.zeros(0)
        self._codes = {name: Codes() for name in ("camera", "track", "pid", "tags")}
        self._records: list[Record] = []
        self._place: dict[str, int] = {}

    def info(self) -> GalleryInfo:
        return GalleryInfo("memory:", self.dim, len(self._records), self._digest, "none, every row is compared", None)

    def facets(self) -> Facets:
        with self._lock:
            return exact.facets_of((r.camera, r.modality, r.time_s, r.tags, r.track) for r in self._records)

    def add(self, records: Iterable[Record]) -> int:
        given, vectors = checks.batch(records, self.dim)
        with self._lock:
            if there := [record.id for record in given if record.id in self._place]:
                raise checks.already_there(there)
            return self._put(given, vectors)

    def upsert(self, records: Iterable[Record]) -> int:
        given, vectors = checks.batch(records, self.dim)
        with self._lock:
            return self._put(given, vectors)

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> int:
        checks.deletion(ids, where)
        with self._lock:
            if where is not None:
                ids = [self._records[row].id for row in self._passing(where)]
            rows = {self._place[each] for each in ids if each in self._place}
            for row in sorted(rows, reverse=True):
                self._remove(row)
            return len(rows)

    def count(self, where: Filter = EVERYTHING) -> int:
        with self._lock:
            return len(self._passing(where))

    def search(
        self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING, with_vectors: bool = False
    ) -> list[list[Hit]]:
        checks.hit_count(k)
        queries = checks.unit_vectors(vectors, self.dim)
        with self._lock:
            rows = self._passing(where)
            return [self._nearest(query, rows, k, with_vectors) for query in queries]

    def fetch(self, ids: Sequence[str], missing: str = "refuse") -> list[Record]:
        with self._lock:
            checks.unknown_ids(ids, self._place, missing)
            rows = [self._place[each] for each in ids if each in self._place]
            return [self._records[row].with_vector(self._vectors[row]) for row in rows]

    def sample(self, count: int, where: Filter = EVERYTHING) -> list[Record]:
        with self._lock:
            rows = sorted(self._passing(where).tolist(), key=lambda row: self._records[row].id)
            chosen = [rows[at] for at in spread(len(rows), count)]
            return [self._records[row].with_vector(self._vectors[row]) for row in chosen]

    def rows(self, where: Filter = EVERYTHING, limit: int | None = None, after_id: str = "") -> Iterator[Record]:
        with self._lock:
            records = [self._records[row] for row in self._passing(where)]
        records = sorted((record for record in records if record.id > after_id), key=lambda record: record.id)
        yield from records[:limit]

    def newest(self, where: Filter = EVERYTHING, limit: int = 100, after: Moment | None = None) -> list[Record]:
        with self._lock:
            records = [self._records[row] for row in self._passing(where)]
            ids = exact.newest(((record.time_s, record.id) for record in records), limit, after)
            return [self._records[self._place[each]] for each in ids]

    def optimize(self) -> None: ...

    def purge(self) -> None:
        """Overwrite the room behind the last row, where deleted vectors may lie."""
        with self._lock:
            self._vectors = self._vectors[: len(self._records)].copy()

    def close(self) -> None: ...

    def _put(self, given: list[Record], vectors: np.ndarray) -> int:
        fresh = sum(record.id not in self._place for record in given)
        self._grow(len(self._records) + fresh)
        for record, vector in zip(given, vectors, strict=True):
            row = self._place.setdefault(record.id, len(self._records))
            if row == len(self._records):
                self._records.append(record)
            self._records[row] = record.with_vector(None)
            self._vectors[row] = vector
            for name, codes in self._codes.items():
                self._columns[name][row] = codes(getattr(record, name))
            self._columns["modality"][row], self._columns["time_s"][row] = record.modality, record.time_s
        return len(given)

    def _grow(self, rows: int) -> None:
        if rows <= len(self._vectors):
            return
        room = max(rows, 2 * len(self._vectors), 1024)
        for name, column in self._columns.items():
            self._columns[name] = np.resize(column, room) if len(column) else np.zeros(room, column.dtype)
        larger = np.empty((room, self.dim), np.float32)
        larger[: len(self._vectors)] = self._vectors
        self._vectors = larger

    def _remove(self, row: int) -> None:
        last = len(self._records) - 1
        del self._place[self._records[row].id]
        if row != last:
            self._records[row], self._vectors[row] = self._records[last], self._vectors[last]
            for column in self._columns.values():
                column[row] = column[last]
            self._place[self._records[row].id] = row
        self._records.pop()

    def _passing(self, where: Filter) -> np.ndarray:
        """Rows (n,) that pass, in order."""
        count = len(self._records)
        if where.empty:
            return np.arange(count)
        columns = {name: column[:count] for name, column in self._columns.items()}
        passing = np.ones(count, bool)
        for name, values in (("camera", where.cameras), ("pid", where.pids), ("track", where.tracks)):
            if values:
                passing &= self._codes[name].among(columns[name], values)
        if where.tags:
            codes = self._codes["tags"]
            passing &= codes.among(columns["tags"], [tags for tags in codes.of if set(where.tags) <= set(tags)])  # type: ignore[arg-type]
        if where.modality is not None:
            passing &= columns["modality"] == where.modality
        if where.after_s is not None:
            passing &= columns["time_s"] >= where.after_s
        if where.before_s is not None:
            passing &= columns["time_s"] < where.before_s
        passing[[self._place[each] for each in where.without_ids if each in self._place]] = False
        return np.flatnonzero(passing)

    def _nearest(self, query: np.ndarray, rows: np.ndarray, k: int, with_vectors: bool) -> list[Hit]:
        everything = len(rows) == len(self._records)
        similarity = np.empty(len(rows), np.float32)
        step = max(1, BLOCK // self.dim)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            vectors = self._vectors[: len(rows)][part] if everything else self._vectors[rows[part]]
            similarity[part] = vectors @ query
        if k + exact.SLACK < len(rows):
            bar = np.partition(similarity, len(rows) - k)[len(rows) - k] - exact.TIED
            near = np.flatnonzero(similarity >= bar)
            near = near[np.argsort(-similarity[near], kind="stable")][: max(exact.MAX_TIED, k + exact.SLACK)]
        else:
            near = np.arange(len(rows))
        rows = rows[near]
        return exact.in_order(query, [self._records[row] for row in rows], self._vectors[rows], k, with_vectors)
