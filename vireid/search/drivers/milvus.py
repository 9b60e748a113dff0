"""Gallery in Milvus, for archives that one machine does not hold. Needs the extra `milvus`.

`milvus:http://host:19530#collection` speaks to a server or cluster (the token comes from VIREID_MILVUS_TOKEN, never
from the url); `milvus:FILE.db` is milvus-lite in this process, with the same calls. Tested with milvus-lite 3.2 only.

The index is FLAT unless the url ends in ?index=HNSW when the collection is made: exact, and a cluster divides it over
its nodes. With HNSW the rows that pass a filter are counted first: few are compared here one by one, otherwise the
search list `ef` is widened with the share that passes, and on until the hits stay the same: rows of the other modality,
which a filter throws away, may all lie nearer than the first that passes. Candidates are ordered by their full vectors
either way.

milvus-lite serves its own process through a port of 127.0.0.1, and lets one process at a time open a file. (Its server
mode, which is not used here, listens on all addresses without a password.)
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from vireid.errors import GalleryError
from vireid.evaluation.score_norm import spread
from vireid.images import STRETCH, GrayRule
from vireid.search.drivers import checks, exact
from vireid.search.drivers.milvus_rows import EXPR, TEXTS, parts, record_of, row_of, time_of
from vireid.search.gallery import (
    EVERYTHING,
    LIMITS_BYTES,
    MAX_TAGS,
    Facets,
    Filter,
    GalleryInfo,
    Hit,
    Moment,
    Record,
)

TOKEN = "VIREID_MILVUS_TOKEN"
COLLECTION, REWRITTEN = "vireid", "_rewritten"
INDEXES = {"FLAT": {}, "HNSW": {"M": 16, "efConstruction": 200}}
EXACT_ROWS = 10_000  # that pass a filter and are compared here, with HNSW
EF, MAX_EF = 128, 32_768  # Milvus's bound
EF_STEP = 4  # by which a search with a filter is widened
BATCH_BYTES = 8 << 20  # in one call; gRPC's bound is 64 MiB
COLUMNS = ("id", "time_s", "modality", "tags", *TEXTS)


class MilvusGallery:
    """See search/gallery.py and this file's head. A call of more than a few thousand records is several of Milvus's."""

    def __init__(
        self,
        place: str,
        dim: int | None,
        bundle_digest: str | None,
        gray: GrayRule | None = None,
        new_gray: GrayRule = STRETCH,
    ) -> None:
        self._uri, self._name, index = _place(place)
        self.lite = "://" not in self._uri
        if self.lite and dim is None and not Path(self._uri).exists():
            raise checks.no_gallery(f"milvus:{self._uri}")
        self._client = _connect(self._uri)
        try:
            self._finish_purge()
            if not self._client.has_collection(self._name):
                if dim is None:
                    raise checks.no_gallery(f"milvus:{place}")
                self._create(self._name, checks.Kept(dim, bundle_digest or "", gray or new_gray), index or "FLAT")
            about = self._client.describe_collection(self._name)
            self._kept = _stored(about, place)
            self.dim, self.gray = self._kept.dim, self._kept.gray
            self._columns = [name for name in COLUMNS if name in {field["name"] for field in about["fields"]}]
            self.index = str(self._client.describe_index(self._name, "vector")["index_type"])
            if index and index != self.index:
                raise GalleryError(f"{place} was made with the index {self.index}; leave ?index={index} out")
            checks.stored(f"milvus:{place}", dim, bundle_digest, gray, self._kept)
            self._client.load_collection(self._name)
        except BaseException:
            self.close()
            raise

    def info(self) -> GalleryInfo:
        size = None
        if self.lite:
            size = sum(file.stat().st_size for file in Path(self._uri).rglob("*") if file.is_file())
        index = f"{self.index}, every row is compared" if self.index == "FLAT" else self.index
        url = f"milvus:{self._uri}#{self._name}"
        return GalleryInfo(url, self.dim, self.count(), self._kept.digest, index, size)

    def facets(self) -> Facets:
        rows = self._all("", ["camera", "modality", "time_s", "tags", "track"])
        return exact.facets_of(
            (r["camera"], r["modality"], time_of(r["time_s"]), r["tags"] or (), r["track"]) for r in rows
        )

    def add(self, records: Iterable[Record]) -> int:
        given, vectors = checks.batch(records, self.dim)
        if there := self._there([record.id for record in given]):
            raise checks.already_there(there)
        return self._put(given, vectors)  # not insert: Milvus would keep two rows of one id that came meanwhile

    def upsert(self, records: Iterable[Record]) -> int:
        given, vectors = checks.batch(records, self.dim)
        return self._put(given, vectors)

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> int:
        checks.deletion(ids, where)
        deleted = 0
        for expression in (
            [EXPR.condition(where)] if where is not None else [EXPR.among("id", part) for part in parts(ids)]
        ):
            if count := self._count(expression):
                self._client.delete(self._name, filter=expression)
            deleted += count
        return deleted

    def count(self, where: Filter = EVERYTHING) -> int:
        return self._count(EXPR.condition(where))

    def search(
        self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING, with_vectors: bool = False
    ) -> list[list[Hit]]:
        checks.hit_count(k)
        queries, expression = checks.unit_vectors(vectors, self.dim), EXPR.condition(where)
        passing = self._count(expression) if len(queries) else 0
        if not passing:
            return [[] for _ in queries]
        want = min(k, passing)
        if want > exact.MAX_TIED or (self.index != "FLAT" and passing <= EXACT_ROWS):
            return self._compare_all(queries, want, expression, with_vectors)
        total = passing if expression == "" else self._count("")
        return [self._nearest(query, want, expression, passing, total, with_vectors) for query in queries]

    def fetch(self, ids: Sequence[str], missing: str = "refuse") -> list[Record]:
        checks.unknown_ids(ids, (), "skip" if missing == "refuse" else missing)  # the form alone
        there: dict[str, Record] = {}
        for part in parts(list(dict.fromkeys(ids))):
            rows = self._client.query(
                self._name, filter=EXPR.among("id", part), output_fields=[*self._columns, "vector"]
            )
            there |= {row["id"]: record_of(row, np.asarray(row["vector"], np.float32)) for row in rows}
        checks.unknown_ids(ids, there, missing)
        return [there[each] for each in ids if each in there]

    def sample(self, count: int, where: Filter = EVERYTHING) -> list[Record]:
        ids = [row["id"] for row in self._all(EXPR.condition(where), ["id"])]
        return self.fetch([ids[at] for at in spread(len(ids), count)], missing="skip")

    def rows(self, where: Filter = EVERYTHING, limit: int | None = None, after_id: str = "") -> Iterator[Record]:
        expression = EXPR.condition(where, after_id or None)
        for place, row in enumerate(self._all(expression, self._columns)):
            if place == limit:
                return
            yield record_of(row, None)

    def newest(self, where: Filter = EVERYTHING, limit: int = 100, after: Moment | None = None) -> list[Record]:
        rows = self._all(EXPR.condition(where), ["id", "time_s"])
        ids = exact.newest(((time_of(row["time_s"]), row["id"]) for row in rows), limit, after)
        return [record.with_vector(None) for record in self.fetch(ids, missing="skip")]

    def optimize(self) -> None:
        self._client.flush(self._name)

    def purge(self) -> None:
        """milvus-lite: the collection is written again. A server compacts; when it drops the old files is set there."""
        if not self.lite:
            self._client.flush(self._name)
            self._client.compact(self._name)
            return
        fresh = self._name + REWRITTEN
        self._client.flush(self._name)
        self._create(fresh, self._kept, self.index)
        self._client.load_collection(fresh)
        step = self._rows_at_once()
        batch: list[dict[str, Any]] = []
        for row in self._all("", [*self._columns, "vector"]):
            batch.append({**dict.fromkeys(TEXTS, ""), **row})
            if len(batch) == step:
                self._client.insert(fresh, batch)
                batch = []
        if batch:
            self._client.insert(fresh, batch)
        self._client.flush(fresh)
        self._client.drop_collection(self._name)  # from here on the new one is whole: _finish_purge
        self._finish_purge()
        self._client.load_collection(self._name)
        self._columns = list(COLUMNS)

    def close(self) -> None:
        self._client.close()

    def _create(self, name: str, kept: checks.Kept, index: str) -> None:
        DataType = _library().DataType
        about = checks.description(kept.digest, kept.gray)
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False, description=about)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LIMITS_BYTES["id"])
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=kept.dim)
        schema.add_field("time_s", DataType.DOUBLE, nullable=True)
        schema.add_field("modality", DataType.INT8)
        schema.add_field(
            "tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=MAX_TAGS,
            max_length=LIMITS_BYTES["tags"],
        )  # fmt: skip
        for column in TEXTS:
            schema.add_field(column, DataType.VARCHAR, max_length=LIMITS_BYTES[column])
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type=index, metric_type="IP", params=INDEXES[index])
        self._client.create_collection(
            name, schema=schema, index_params=indexes, consistency_level="Strong", properties={"vireid": about}
        )  # milvus-lite keeps no description and a server may keep no properties

    def _finish_purge(self) -> None:
        """Clear up after a purge, also one that was killed: the old collection goes only when the new one is whole."""
        fresh = self._name + REWRITTEN
        if self._client.has_collection(fresh):
            if self._client.has_collection(self._name):
                self._client.drop_collection(fresh)
            else:
                self._client.rename_collection(fresh, self._name)

    def _rows_at_once(self) -> int:
        return max(1, min(5_000, BATCH_BYTES // (4 * self.dim + 1_000)))

    def _put(self, records: list[Record], vectors: np.ndarray) -> int:
        step = self._rows_at_once()
        for start in range(0, len(records), step):
            part = slice(start, start + step)
            rows = [row_of(record, vector) for record, vector in zip(records[part], vectors[part], strict=True)]
            rows = [{name: row[name] for name in (*self._columns, "vector")} for row in rows]
            self._client.upsert(self._name, rows)
        return len(records)

    def _there(self, ids: list[str]) -> list[str]:
        known: list[str] = []
        for part in parts(ids):
            known += [
                r["id"] for r in self._client.query(self._name, filter=EXPR.among("id", part), output_fields=["id"])
            ]
        return known

    def _count(self, expression: str) -> int:
        return int(self._client.query(self._name, filter=expression, output_fields=["count(*)"])[0]["count(*)"])

    def _all(self, expression: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Rows by id."""
        batch = min(1_000, self._rows_at_once())
        with _quiet():  # milvus-lite has no snapshot to offer
            pages = self._client.query_iterator(self._name, batch_size=batch, filter=expression, output_fields=columns)
        try:
            while page := pages.next():
                yield from page
        finally:
            pages.close()

    def _nearest(
        self, query: np.ndarray, want: int, expression: str, passing: int, total: int, with_vectors: bool
    ) -> list[Hit]:
        limit, ef = min(want + exact.SLACK, passing, exact.MAX_TIED), 0
        nearest: list[str] | None = None
        while True:
            ef = min(MAX_EF, max(ef, EF * -(-total // passing), 2 * limit))
            hits = self._candidates(query, limit, expression, ef)
            similarity = [hit["distance"] for hit in hits]
            tied = len(hits) == limit < passing and similarity[want - 1] - similarity[-1] <= exact.TIED
            if tied and limit < exact.MAX_TIED:
                limit = min(4 * limit, passing, exact.MAX_TIED)
                continue
            rows = [hit["entity"] for hit in hits]
            vectors = np.array([row["vector"] for row in rows], np.float32).reshape(-1, self.dim)
            best = exact.in_order(query, [record_of(row, None) for row in rows], vectors, want, with_vectors)
            before, nearest = nearest, [hit.record.id for hit in best]
            if self.index == "FLAT" or passing == total or ef == MAX_EF or nearest == before:
                return best
            ef *= EF_STEP

    def _candidates(self, query: np.ndarray, limit: int, expression: str, ef: int) -> list[Any]:
        return self._client.search(
            self._name, data=[query], limit=limit, filter=expression, output_fields=[*self._columns, "vector"],
            search_params={"metric_type": "IP", "params": {"ef": ef} if self.index == "HNSW" else {}},
        )[0]  # fmt: skip

    def _compare_all(self, queries: np.ndarray, want: int, expression: str, with_vectors: bool) -> list[list[Hit]]:
        rows = list(self._all(expression, ["id", "vector"]))
        vectors = np.array([row["vector"] for row in rows], np.float32)
        results = []
        for query in queries:
            near = np.argsort(-exact.similarities(query, vectors), kind="stable")[:want]  # rows come by id
            records = self.fetch([rows[at]["id"] for at in near], missing="skip")
            kept = np.array([record.vector for record in records])
            results.append(exact.in_order(query, records, kept, want, with_vectors))
        return results


def _stored(about: dict[str, Any], place: str) -> checks.Kept:
    text = about.get("properties", {}).get("vireid") or about.get("description")
    dims = [field["params"]["dim"] for field in about["fields"] if field["name"] == "vector"]
    advice = "name another collection, or index the pictures again"
    kept = checks.described(text, f"milvus:{place}", int(dims[0]) if dims else 0, advice)
    if not dims:
        raise GalleryError(f"milvus:{place} holds no vectors; {advice}")
    return kept


def _place(place: str) -> tuple[str, str, str]:
    """Milvus's uri, the collection and the index that was settings for, if any.

    >>> _place("http://host:19530?index=HNSW#night"), _place("archive.db")
    (('http://host:19530', 'night', 'HNSW'), ('archive.db', 'vireid', ''))
    """
    rest, _, name = place.partition("#")
    rest, _, options = rest.partition("?")
    settings = parse_qs(options, keep_blank_values=True)
    index = settings.pop("index", [""])[0]
    if settings or (index and index not in INDEXES):
        raise GalleryError(f"after ? comes index={' or index='.join(INDEXES)}, got {options!r}")
    if "://" not in rest and not rest.endswith(".db"):
        raise GalleryError(f"milvus: takes http://host:19530 or a file that ends in .db, got {rest!r}")
    if "://" in rest and (parts := urlsplit(rest)).password is not None:
        raise GalleryError(f"passwords do not belong in the url of {parts.hostname}; put user:password in {TOKEN}")
    if name and not name.replace("_", "a").isalnum():
        raise GalleryError(f"a collection's name has letters, digits and _, got {name!r}")
    return rest, name or COLLECTION, index


def _connect(uri: str) -> Any:
    client = _library().MilvusClient
    if "://" in uri:
        return client(uri, token=os.environ.get(TOKEN, ""))
    Path(uri).absolute().parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet():
            return client(uri)
    except Exception as error:
        raise GalleryError(
            f"milvus-lite could not open {uri} ({str(error).strip()[:200]}); it lets one process at a time do so"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without pymilvus's log lines, which it also writes where the caller deals with the error."""
    logger = logging.getLogger("pymilvus")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _library() -> Any:
    try:
        import pymilvus
    except ImportError as error:
        raise GalleryError(
            "a gallery in Milvus needs pymilvus, which is not installed: pip install 'vireid[milvus]'"
        ) from error
    return pymilvus
