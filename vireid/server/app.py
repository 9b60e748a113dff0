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

Every error is JSON {"error": words}. The routes stand in routes_page.py, routes_search.py and routes_admin.py, what
they answer in answers.py, who may send what and how much at once in door.py. How others are kept out stands in
access.py and guard.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from vireid.errors import AccessError
from vireid.server.deps import Door, first_fault
from vireid.server.middleware import Guard
from vireid.server.routes.admin import add_admin
from vireid.server.routes.page import add_page
from vireid.server.routes.search import add_search
from vireid.server.search_service import Answers
from vireid.server.service import Example, Service, forget_older, reranks_of
from vireid.server.uploads import UploadError
from vireid.version import __version__

__all__ = ["Example", "Service", "create_app", "forget_older", "reranks_of"]

AT_ONCE, MOST_WAITING = 2, 32  # requests that compute
HOUR_S = 3600.0
log = logging.getLogger("vireid.server")


def create_app(service: Service) -> Guard:
    """The ASGI application of a service: FastAPI behind the guard, which sees its failures too."""
    door = Door(service, AT_ONCE, MOST_WAITING)
    answers = Answers(door)
    app = FastAPI(
        title="vireid search", version=__version__, openapi_url=None, docs_url=None, redoc_url=None,
        lifespan=lifespan_of(service, answers),
    )  # fmt: skip
    for kind in (StarletteHTTPException, RequestValidationError, UploadError, ValueError, Exception):
        app.add_exception_handler(kind, _told)
    for add in (add_page, add_search, add_admin):
        add(app, door, answers)
    return Guard(app, service.hosts, service.limits.body_bytes)


def lifespan_of(service: Service, answers: Answers) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """While the service runs, what is older than the retention is forgotten every hour."""

    async def keep_forgetting(days: float) -> None:
        while True:
            try:
                await anyio.to_thread.run_sync(forget_older, service.archive, days, "vireid serve")
                answers.changed()
            except (ValueError, OSError):
                log.exception("retention failed; it is tried again in an hour")
            await asyncio.sleep(HOUR_S)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(keep_forgetting(service.keep_days)) if service.keep_days else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()

    return lifespan


async def _told(request: Request, error: Exception) -> Response:
    """Any error as JSON. A ValueError of vireid says what to do; what nobody foresaw is told to the log alone."""
    status, headers = 500, None
    told = "this failed on the server, whose log has the reason"
    if isinstance(error, StarletteHTTPException):
        status, told, headers = error.status_code, str(error.detail), error.headers
    elif isinstance(error, RequestValidationError):
        status, told = 422, first_fault(error.errors())
    elif isinstance(error, UploadError):
        status, told = error.http_status, str(error)
    elif isinstance(error, AccessError):
        status, told = 503, "the file of tokens cannot be read; the server's log has the reason"
        log.error("%s", error)
    elif isinstance(error, ValueError) and type(error).__module__.startswith("vireid."):
        status, told = 422, str(error)
    else:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": told}, status, headers)
