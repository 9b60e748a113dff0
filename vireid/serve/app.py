"""App: the search product over HTTP, and the page that uses it.

    GET  /                      the page
    POST /api/session           a token becomes a cookie for a browser; DELETE ends it
    GET  /api/about             what is here: rows, cameras, time span, the network, what the caller may do
    POST /api/search            pictures (multipart `picture`, and `ask` as JSON), or JSON alone: ranked hits     search
    POST /api/records/list      rows by id, a page at a time                                                     search
    GET  /api/thumbnail?id=     a row's picture                                                                  search
    GET  /api/attention?id=     heat map over it; POST with a picture: over the query                            search
    POST /api/marks             right and wrong; GET exports them as CSV or JSON                                 search
    POST /api/records           add one crop (multipart `picture` and `record`)                                  ingest
    POST /api/forget            delete rows for good, with thumbnails and marks                                  admin
    GET  /api/audit             the last entries of the audit log                                                admin
    GET  /api/openapi.json      all of this for programs                                                         search

Every error is JSON {"error": words}. How others are kept out stands in access.py and guard.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from vireid.layers.embedder import load_embedder
from vireid.method import MODALITIES
from vireid.retrieval.rerank import KReciprocal
from vireid.retrieval.shortest_path import LocalShortestPath
from vireid.serve.access import LOCAL_NAMES, AccessError, Caller, Sessions, Token, Tokens
from vireid.serve.archive import Archive, Forgotten, Mark, as_csv, marks_json, to_json
from vireid.serve.asked import MOST_HITS, Ask, Browse, Forget, NewMarks, NewRecord
from vireid.serve.attention import Attention
from vireid.serve.bundle import WEIGHTS, Bundle
from vireid.serve.calibrate import NEEDED, Calibration, CalibrationError
from vireid.serve.gallery import Facets, Record
from vireid.serve.guard import Guard
from vireid.serve.refining import open_refiner
from vireid.serve.search import Answer, Rerank, Searcher
from vireid.serve.search import Marks as Judged
from vireid.serve.upload import Limits, Upload, UploadError, decode
from vireid.version import __version__

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
COOKIE = "vireid"
FACETS_S, FACETS_MOST_S = 60.0, 3600.0  # counting by camera looks at every row: where their number changed, or hourly
SHORTLIST = 200  # rows that are re-ranked; a list of them has an end, so that its pages agree
THUMBNAIL_AGE_S = 600  # a browser may keep a picture so long; deleted ones are gone from it after that
DENIED_EVERY_S = 1.0  # refused requests are logged at most so often: nobody fills the disk from outside
AT_ONCE, MOST_WAITING = 2, 32  # requests that compute
HOUR_S = 3600.0
ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")
log = logging.getLogger("vireid.serve")


@dataclass(frozen=True)
class Example:
    """A query that the page offers: a JPEG, its modality, a word to show, and where it is searched ("": everywhere)."""

    name: str
    jpeg: bytes
    modality: str = "auto"
    within: str = ""


@dataclass
class Service:
    """All that the app works with. `tokens` None: this machine alone, and whoever sits there may do everything.

    `hosts` are the host names that are answered to, () any; `keep_days` is the retention; `purpose` says that every
    search has to name one; `secure` that browsers reach the service by https.
    """

    bundle: Bundle
    searcher: Searcher
    archive: Archive
    calibration: Calibration | None = None
    attention: Attention | None = None
    tokens: Tokens | None = None
    hosts: Sequence[str] = LOCAL_NAMES
    limits: Limits = field(default_factory=Limits)
    keep_days: float | None = None
    purpose: bool = False
    secure: bool = False
    examples: Sequence[Example] = ()
    reranks: dict[str, Rerank] = field(default_factory=lambda: {"k-reciprocal": KReciprocal()})


def reranks_of(bundle: Bundle, refine: Path | None = None) -> dict[str, Rerank]:
    """The re-rankings by name that suit what a bundle's network gives; that of the run `refine` was trained on it."""
    found: dict[str, Rerank] = {"k-reciprocal": KReciprocal()}
    # a network without stripes has no path to compare them by
    with contextlib.suppress(ValueError):
        found["shortest-path"] = LocalShortestPath.of(load_embedder(bundle.path / WEIGHTS))
    if refine is not None:
        refiner = open_refiner(refine, bundle)
        found[refiner.name] = refiner
    return found


class _InMemory(MultiPartParser):
    """Starlette's parser, which would put a part of more than 1 MB into a file: a query's picture touches no disk."""

    spool_max_size = 1 << 40


def create_app(service: Service) -> Guard:
    """The ASGI application of a service: FastAPI behind the guard, which sees its failures too."""
    return Guard(_App(service).app, service.hosts, service.limits.body_bytes)


class _App:
    """The routes, and what they share."""

    def __init__(self, service: Service) -> None:
        self.service, self.archive = service, service.archive
        self.sessions = Sessions()
        self.files = {
            path.name: (path.read_bytes(), KINDS[path.suffix]) for path in PAGE.iterdir() if path.suffix in KINDS
        }
        self._facets: tuple[float, int, Facets] | None = None  # when, of how many rows
        self._facets_lock, self._denied_at, self._denied = threading.Lock(), 0.0, 0
        self._room: anyio.CapacityLimiter | None = None
        self.app = FastAPI(
            title="vireid search", version=__version__, openapi_url=None, docs_url=None, redoc_url=None,
            lifespan=self.lifespan,
        )  # fmt: skip
        for kind in (StarletteHTTPException, RequestValidationError, UploadError, ValueError, Exception):
            self.app.add_exception_handler(kind, _told)
        self.add_routes()

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """While the service runs, what is older than the retention is forgotten every hour."""
        task = asyncio.create_task(self.keep_forgetting()) if self.service.keep_days else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()

    async def keep_forgetting(self) -> None:
        assert self.service.keep_days is not None
        while True:
            try:
                await anyio.to_thread.run_sync(forget_older, self.archive, self.service.keep_days, "vireid serve")
                self._facets = None
            except (ValueError, OSError):
                log.exception("retention failed; it is tried again in an hour")
            await asyncio.sleep(HOUR_S)

    # --- who asks -----------------------------------------------------------------------------------------------------

    def caller(self, request: Request, right: str) -> Caller:
        """Who sent a request, if they may do this; HTTPException 401 or 403, noted in the audit log."""
        address = request.client.host if request.client else ""
        if self.service.tokens is None:
            return Caller("this machine", "admin", address)
        token = self.token_of(request)
        if token is None:
            self.denied("nobody", "", address, request, "no valid token")
            told = "this needs a token: send it as `Authorization: Bearer TOKEN`, or sign in on the page"
            raise HTTPException(401, told, {"WWW-Authenticate": "Bearer"})
        caller = Caller(token.name, token.role, address)
        if right != "any" and not caller.may(right):
            self.denied(token.name, token.role, address, request, f"needs {right}")
            raise HTTPException(403, f"the role {token.role} of this token may not do that; it needs {right}")
        return caller

    def token_of(self, request: Request) -> Token | None:
        tokens = self.service.tokens
        assert tokens is not None
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if secret:
            return tokens.who(secret.strip()) if kind.lower() == "bearer" else None
        digest = self.sessions.token_digest(request.cookies.get(COOKIE, ""))
        return tokens.with_digest(digest) if digest else None

    def denied(self, who: str, role: str, address: str, request: Request, why: str) -> None:
        self._denied += 1
        if time.monotonic() - self._denied_at < DENIED_EVERY_S:
            return
        path = request.url.path[:200]
        self.archive.audit.write("denied", who, role, address, path=path, why=why, times=self._denied)
        self._denied_at, self._denied = time.monotonic(), 0

    def note(self, caller: Caller, what: str, **more: Any) -> None:
        self.archive.audit.write(what, caller.name, caller.role, caller.address, **more)

    # --- what is sent -------------------------------------------------------------------------------------------------

    async def form(self, request: Request, name: str, model: type[ModelT]) -> tuple[ModelT, list[bytes]]:
        """The JSON of field `name`, and the bytes of every `picture`; a body of JSON alone has no pictures."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        limits = self.service.limits
        try:
            async with asyncio.timeout(limits.upload_s):
                if kind == "application/json":
                    return _read(model, await request.body()), []
                if kind != "multipart/form-data":
                    raise HTTPException(415, f"expected multipart/form-data or application/json, got {kind[:60]!r}")
                parser = _InMemory(request.headers, request.stream(), max_files=limits.pictures, max_fields=1)
                form = await parser.parse()
        except TimeoutError:
            raise HTTPException(408, f"the request did not arrive within {limits.upload_s:g} seconds") from None
        except MultiPartException as error:
            raise HTTPException(422, f"the form cannot be read: {error.message}") from None
        asked, pictures = "{}", []
        try:
            for key, value in form.multi_items():
                if key == "picture" and isinstance(value, UploadFile):
                    pictures.append(await value.read())
                elif key == name and isinstance(value, str):
                    asked = value
                else:
                    told = f"a form has the fields `picture` (files) and `{name}` (JSON), got {key[:60]!r}"
                    raise HTTPException(422, told)
        finally:
            await form.close()
        return _read(model, asked.encode()), pictures

    async def compute(self, work: Callable[[], T]) -> T:
        """Run what takes long beside the event loop, a few at a time; 503 where too many wait."""
        if self._room is None:
            self._room = anyio.CapacityLimiter(AT_ONCE)
        if self._room.statistics().tasks_waiting >= MOST_WAITING:
            raise HTTPException(503, "too many requests wait already; try again in a moment", {"Retry-After": "5"})
        return await anyio.to_thread.run_sync(work, limiter=self._room)

    def decoded(self, pictures: list[bytes], boxes: Sequence[Any]) -> tuple[list[Image.Image], list[Upload]]:
        """The crops to look at, and the uploads that they come from."""
        if boxes and len(boxes) != len(pictures):
            raise HTTPException(
                422, f"there are {len(boxes)} boxes for {len(pictures)} pictures; one for each, or none"
            )
        uploads = [decode(data, self.service.limits) for data in pictures]
        crops = [upload.crop(box) for upload, box in zip(uploads, boxes or [None] * len(uploads), strict=True)]
        return crops, uploads

    def facets(self) -> Facets:
        with self._facets_lock:
            now = time.monotonic()
            if self._facets is not None:
                age = now - self._facets[0]
                if age < FACETS_S or (age < FACETS_MOST_S and self._facets[1] == self.archive.gallery.count()):
                    return self._facets[2]
            found = self.archive.gallery.facets()
            self._facets = (now, sum(found.modalities.values()), found)
            return found

    # --- routes -------------------------------------------------------------------------------------------------------

    def add_routes(self) -> None:
        app, service = self.app, self.service

        def needs(name: str) -> Any:
            def check(request: Request) -> Caller:
                return self.caller(request, name)

            return Depends(check)

        anyone, search, ingest, admin = needs("any"), needs("search"), needs("ingest"), needs("admin")

        @app.get("/", include_in_schema=False)
        def page() -> Response:
            return self.file("index.html")

        @app.get("/page/{name}", include_in_schema=False)
        def page_file(name: str) -> Response:
            return self.file(name)

        @app.post("/api/session")
        def begin_session(request: Request, caller: Caller = anyone) -> Response:
            """Exchange the token of the Authorization header for a cookie that lasts twelve hours."""
            if service.tokens is None:
                raise HTTPException(409, "this service runs without tokens; there is nothing to sign in to")
            token = self.token_of(request)
            assert token is not None
            self.note(caller, "sign in")
            answer = JSONResponse({"name": caller.name, "role": caller.role})
            answer.set_cookie(
                COOKIE, self.sessions.begin(token), httponly=True, samesite="strict", secure=service.secure, path="/"
            )
            return answer

        @app.delete("/api/session")
        def end_session(request: Request) -> Response:
            self.sessions.end(request.cookies.get(COOKIE, ""))
            answer = JSONResponse({})
            answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=service.secure)
            return answer

        @app.get("/api/about")
        def about(caller: Caller = anyone) -> dict[str, Any]:
            return self.about(caller)

        @app.get("/api/openapi.json")
        def openapi(caller: Caller = search) -> dict[str, Any]:
            return app.openapi()

        @app.get("/api/examples/{number}")
        def example(number: int, caller: Caller = search) -> Response:
            if not 0 <= number < len(service.examples):
                raise HTTPException(404, "there is no such example")
            return Response(service.examples[number].jpeg, media_type="image/jpeg")

        @app.post("/api/search")
        async def ask_for(request: Request, caller: Caller = search) -> dict[str, Any]:
            ask, pictures = await self.form(request, "ask", Ask)
            return await self.compute(lambda: self.search(caller, ask, pictures))

        @app.post("/api/records/list")
        def browse(asked: Browse, caller: Caller = search) -> dict[str, Any]:
            """Rows by id. The next page begins behind the last id."""
            rows = list(self.archive.gallery.rows(asked.filter.filter(), asked.limit + 1, asked.after_id))
            self.note(caller, "browse", filter=asked.filter.told(), rows=min(len(rows), asked.limit))
            more = len(rows) > asked.limit
            return {"rows": [_row(record) for record in rows[: asked.limit]], "more": more}

        @app.get("/api/thumbnail")
        def thumbnail(id: str = Query(min_length=1, max_length=512), caller: Caller = search) -> Response:
            return self.thumbnail(id)

        @app.get("/api/attention")
        async def attention(id: str = Query(min_length=1, max_length=512), caller: Caller = search) -> Response:
            jpeg = self.thumbnail(id).body
            return await self.compute(lambda: self.overlay(Image.open(io.BytesIO(jpeg)), "auto"))

        @app.post("/api/attention")
        async def attention_of_query(request: Request, caller: Caller = search) -> Response:
            ask, pictures = await self.form(request, "ask", Ask)
            if len(pictures) != 1:
                raise HTTPException(422, f"expected one picture, got {len(pictures)}")
            return await self.compute(lambda: self.overlay(self.decoded(pictures, ask.boxes)[0][0], ask.modality))

        @app.post("/api/marks")
        def mark(asked: NewMarks, caller: Caller = search) -> dict[str, Any]:
            now = time.time()
            kept = [
                Mark(asked.query, one.id, one.right, caller.name, now, one.similarity, one.probability)
                for one in asked.marks
                if one.right is not None
            ]
            self.archive.marks.put(kept)
            self.archive.marks.take_back(asked.query, [one.id for one in asked.marks if one.right is None])
            right = sum(one.right for one in kept)
            self.note(caller, "mark", query=asked.query, right=right, wrong=len(kept) - right)
            return {"marks": len(self.archive.marks.of(asked.query))}

        @app.get("/api/marks")
        def export_marks(
            query: str | None = Query(None, pattern="^[0-9a-f]{64}$"),
            format: str = Query("json", pattern="^(csv|json)$"),
            caller: Caller = search,
        ) -> Response:
            """The marks of one query, or all, with what is known of their rows."""
            marks = self.archive.marks.of(query)
            records = {r.id: r for r in self.archive.gallery.fetch(list({m.id for m in marks}), missing="skip")}
            rows = [to_json(one, records.get(one.id)) for one in marks]
            self.note(caller, "export", marks=len(rows), query=query)
            text, kind = (as_csv(rows), "text/csv") if format == "csv" else (marks_json(rows), "application/json")
            named = {"content-disposition": f'attachment; filename="marks.{format}"'}
            return Response(text, media_type=f"{kind}; charset=utf-8", headers=named)

        @app.post("/api/records")
        async def add(request: Request, caller: Caller = ingest) -> dict[str, Any]:
            new, pictures = await self.form(request, "record", NewRecord)
            if len(pictures) != 1:
                raise HTTPException(422, f"expected one picture, got {len(pictures)}")
            return await self.compute(lambda: self.add(caller, new, pictures[0]))

        @app.post("/api/forget")
        async def forget(asked: Forget, caller: Caller = admin) -> dict[str, Any]:
            return await self.compute(lambda: self.forget(caller, asked))

        @app.get("/api/audit")
        def audit(last: int = Query(100, ge=1, le=1000), caller: Caller = admin) -> dict[str, Any]:
            return {"entries": self.archive.audit.entries(last)}

    def file(self, name: str) -> Response:
        """A file of the page: those that were there at the start, by name."""
        if name not in self.files:
            raise HTTPException(404, "there is no such file")
        body, kind = self.files[name]
        return Response(body, media_type=f"{kind}; charset=utf-8", headers={"cache-control": "no-cache"})

    def about(self, caller: Caller) -> dict[str, Any]:
        service, config = self.service, self.service.bundle.config
        shown: dict[str, Any] = {
            "version": __version__,
            "caller": {"name": caller.name, "role": caller.role, "tokens": service.tokens is not None},
            "purpose": service.purpose,
        }
        if not caller.may("search"):
            return shown
        facets, calibration = self.facets(), service.calibration
        attention = service.attention.reason if service.attention else "it is switched off"
        return {
            **shown,
            "network": {
                "method": config.method,
                "size": config.size,
                "trained_on": str(config.trained_on),
                "digest": config.digest[:12],
            },
            "rows": sum(facets.modalities.values()),
            "cameras": facets.cameras,
            "modalities": {MODALITIES[key]: rows for key, rows in facets.modalities.items()},
            "tags": facets.tags,
            "first_s": _number(facets.first_s),
            "last_s": _number(facets.last_s),
            "calibration": None if calibration is None else {
                "dataset": calibration.dataset,
                "people": calibration.people,
                "least_rate": {name: NEEDED / pair.other_pairs for name, pair in calibration.pairs.items()},
                "missing": calibration.missing,
            },
            "attention": attention,
            "reranks": list(service.reranks),
            "keep_days": service.keep_days,
            "limits": {
                "picture_bytes": service.limits.picture_bytes,
                "picture_pixels": service.limits.picture_pixels,
                "pictures": service.limits.pictures,
            },
            "examples": [{"name": e.name, "modality": e.modality, "within": e.within} for e in service.examples],
        }  # fmt: skip

    def thumbnail(self, id: str) -> Response:
        jpeg = self.archive.thumbnails.read(id)
        if jpeg is None:
            raise HTTPException(404, "there is no picture of this id")
        tag = f'"{hashlib.sha256(jpeg).hexdigest()[:16]}"'
        age = {"cache-control": f"private, max-age={THUMBNAIL_AGE_S}", "etag": tag}
        return Response(jpeg, media_type="image/jpeg", headers=age)

    def overlay(self, picture: Image.Image, modality: str) -> Response:
        attention = self.service.attention
        if attention is None or attention.reason:
            told = attention.reason if attention else "it is switched off"
            raise HTTPException(501, f"there is no heat map: {told}")
        kind = None if modality == "auto" else MODALITIES.index(modality)
        return Response(attention.overlay(picture, kind), media_type="image/png")

    def search(self, caller: Caller, ask: Ask, pictures: list[bytes]) -> dict[str, Any]:
        """Ranked hits, or that nobody is there; noted in the audit log before it is answered."""
        began = time.monotonic()
        if not pictures and not ask.like:
            raise HTTPException(422, "send a picture, or name a row with `like`")
        if self.service.purpose and not ask.purpose.strip():
            raise HTTPException(422, "say what the search is for (`purpose`); it is kept in the audit log")
        crops, uploads = self.decoded(pictures, ask.boxes)
        query = hashlib.sha256(
            json.dumps([sorted(upload.digest for upload in uploads), ask.boxes, sorted(ask.like)]).encode()
        ).hexdigest()
        searched = self.archive.gallery.count(ask.filter.filter())
        prior = prior_of(ask.prior, searched)
        found, kinds, notes = self.find(ask, crops, prior)
        hits = found.hits[ask.offset : ask.offset + ask.limit]
        rate = None if found.nobody is None else ask.false_match_rate
        bars = {} if rate is None else self.thresholds(kinds, {hit.record.modality for hit in hits}, rate)
        modality = [MODALITIES[kind] for kind in kinds]
        self.note(
            caller,
            "search",
            pictures=[upload.digest for upload in uploads],
            like=list(ask.like),
            modality=modality,
            filter=ask.filter.told(),
            false_match_rate=ask.false_match_rate,
            purpose=ask.purpose,
            marks=len(ask.right) + len(ask.wrong),
            offset=ask.offset,
            hits=len(hits),
            nobody=found.nobody,
        )
        return {
            "query": query,
            "modality": modality,
            "hits": [
                {
                    **_row(hit.record),
                    "similarity": hit.similarity,
                    "probability": hit.probability,
                    "match": hit.similarity >= bars[hit.record.modality] if hit.record.modality in bars else None,
                }
                for hit in hits
            ],
            "more": len(found.hits) > ask.offset + ask.limit,
            "nobody": found.nobody,
            "stamp": found.stamp,
            "notes": notes,
            "searched": searched,
            "prior": prior,
            "took_s": round(time.monotonic() - began, 3),
        }

    def find(self, ask: Ask, crops: list[Image.Image], prior: float) -> tuple[Answer, list[int], list[str]]:
        """What the Searcher says, the modality of each picture, and what the caller should know about the answer."""
        searcher, gallery = self.service.searcher, self.archive.gallery
        vectors, kinds = [], []
        if crops:
            for part, modality in searcher.extractor.batches(crops, ask.modality):
                vectors += list(part)
                kinds += modality.tolist()
        for record in gallery.fetch(ask.like):
            vectors.append(record.vector)
            kinds.append(record.modality)
        k = min(ask.offset + ask.limit + 1, MOST_HITS)
        more: dict[str, Any] = {
            "combine": ask.combine,
            "marks": Judged(ask.right, ask.wrong),
            "per_track": ask.per_track,
            "prior": prior,
        }
        if ask.rerank is not None:
            if ask.rerank not in self.service.reranks:
                raise HTTPException(422, f"this network is re-ranked by {' or '.join(self.service.reranks)} alone")
            more |= {"rerank": self.service.reranks[ask.rerank], "shortlist": SHORTLIST}
            k = min(k, SHORTLIST)
        given = (np.stack(vectors), kinds, k, ask.filter.filter(without=ask.like))
        try:
            answer = searcher.search_vectors(*given, false_match_rate=ask.false_match_rate, **more)
            notes = []
        except (
            CalibrationError
        ) as error:  # no table for one of the pairs: the list is an answer all the same, and says so
            answer, notes = searcher.search_vectors(*given, **more), [str(error)]
        if answer.uncalibrated and self.service.calibration is not None and answer.uncalibrated not in notes:
            notes.append(answer.uncalibrated)
        return answer, kinds, notes

    def thresholds(self, kinds: list[int], modalities: set[int], rate: float) -> dict[int, float]:
        """The similarity from which on a row of each modality matches, the strictest of the query's pictures."""
        calibration = self.service.calibration
        assert calibration is not None
        bars = {}
        for to in modalities:
            with contextlib.suppress(CalibrationError):  # no table for this pair, which the notes of the answer say
                bars[to] = max(calibration.threshold(rate, (kind, to)) for kind in set(kinds))
        return bars

    def add(self, caller: Caller, new: NewRecord, picture: bytes) -> dict[str, Any]:
        """Add one crop, or replace the one of its id."""
        upload = decode(picture, self.service.limits)
        time_s = math.nan if new.time_s is None else new.time_s
        id = new.id or hashlib.sha256(f"{upload.digest}/{new.camera}/{new.time_s}".encode()).hexdigest()[:32]
        [(vectors, kinds)] = self.service.searcher.extractor.batches([upload.image], new.modality)
        thumbnail = self.archive.thumbnails.name(id)
        record = Record(
            id=id, vector=vectors[0], camera=new.camera, time_s=time_s, modality=int(kinds[0]), path="",
            track=new.track, pid=new.pid, tags=new.tags, thumbnail=thumbnail,
        )  # fmt: skip
        self.note(caller, "add", id=id, camera=new.camera, picture=upload.digest)
        self.archive.thumbnails.write(id, upload.image)
        self.archive.gallery.upsert([record])
        self._facets = None
        return {"id": id, "modality": MODALITIES[record.modality]}

    def forget(self, caller: Caller, asked: Forget) -> dict[str, Any]:
        """Count, and with the right `expect` delete for good."""
        where, gallery = asked.filter.filter(), self.archive.gallery
        if bool(asked.ids) == (not where.empty):
            raise HTTPException(422, "name rows by `ids`, or by a `filter` that is not empty, and not by both")
        rows = len(gallery.fetch(asked.ids, missing="skip")) if asked.ids else gallery.count(where)
        if asked.expect is None:
            return {"rows": rows, "deleted": False}
        if asked.expect != rows:
            raise HTTPException(409, f"there are {rows} such rows now, not {asked.expect}; look again and confirm")
        told = {"ids": list(asked.ids)} if asked.ids else {"filter": asked.filter.told()}
        self.note(caller, "forget", **told, rows=rows)
        gone = self.archive.forget(asked.ids) if asked.ids else self.archive.forget(filter=where)
        self.note(caller, "forgotten", **told, rows=gone.rows, thumbnails=gone.thumbnails, marks=gone.marks)
        self._facets = None
        return {"rows": gone.rows, "thumbnails": gone.thumbnails, "marks": gone.marks, "deleted": True}


def prior_of(asked: float | str, searched: int) -> float:
    """The probability before a picture is looked at; "searched" is one of so many rows, and even for one alone."""
    return 1 / max(2, searched) if isinstance(asked, str) else asked


def forget_older(archive: Archive, days: float, who: str) -> tuple[Forgotten, str]:
    """Apply a retention of so many days, note it in the audit log and say what was done."""
    gone, unknown = archive.forget_older(days)
    if gone.rows or gone.marks:
        archive.audit.write(
            "retention", who, "admin", days=days, rows=gone.rows, thumbnails=gone.thumbnails, marks=gone.marks
        )
    kept = f"; {unknown} rows have no time, which no age can reach" if unknown else ""
    counts = f"{gone.rows} rows, {gone.thumbnails} thumbnails and {gone.marks} marks"
    return gone, f"forgot {counts} older than {days:g} days{kept}"


def _read(model: type[ModelT], data: bytes) -> ModelT:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise HTTPException(422, _first(error.errors())) from None


def _first(errors: Sequence[Any]) -> str:
    """The first fault of a request, without repeating what was sent."""
    where = ".".join(str(part) for part in errors[0]["loc"] if part != "body") or "the request"
    return f"{where[:100]}: {errors[0]['msg'][:300]}"


async def _told(request: Request, error: Exception) -> Response:
    """Any error as JSON. A ValueError of vireid says what to do; what nobody foresaw is told to the log alone."""
    status, headers = 500, None
    told = "this failed on the server, whose log has the reason"
    if isinstance(error, StarletteHTTPException):
        status, told, headers = error.status_code, str(error.detail), error.headers
    elif isinstance(error, RequestValidationError):
        status, told = 422, _first(error.errors())
    elif isinstance(error, UploadError):
        status, told = error.status, str(error)
    elif isinstance(error, AccessError):
        status, told = 503, "the file of tokens cannot be read; the server's log has the reason"
        log.error("%s", error)
    elif isinstance(error, ValueError) and type(error).__module__.startswith("vireid."):
        status, told = 422, str(error)
    else:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": told}, status, headers)


def _row(record: Record) -> dict[str, Any]:
    """A record as the page takes it; where its file lies is not told."""
    return {
        "id": record.id,
        "camera": record.camera,
        "time_s": _number(record.time_s),
        "modality": MODALITIES[record.modality],
        "track": record.track,
        "pid": record.pid,
        "tags": list(record.tags),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
