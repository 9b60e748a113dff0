"""The ASGI application: the search service over HTTP, and the page that uses it.

    GET  /                      the page
    POST /api/session           exchange a token for a session cookie; DELETE ends the session
    GET  /api/about             rows, cameras, time span, network, calibration, and what the caller may do
    POST /api/search            pictures (multipart `picture`, and `ask` as JSON), or JSON alone: ranked hits     search
    POST /api/records/list      rows by id, one page at a time                                                   search
    GET  /api/thumbnail?id=     the picture of a row                                                             search
    GET  /api/attention?id=     heat map over it; POST with a picture: over the query                            search
    POST /api/marks             mark hits right and wrong; GET exports the marks as CSV or JSON                  search
    POST /api/records           add one crop (multipart `picture` and `record`)                                  ingest
    POST /api/forget            delete rows with their thumbnails and marks                                      admin
    GET  /api/audit             the last entries of the audit log                                                admin
    GET  /api/openapi.json      the OpenAPI description of these routes                                          search

HEAD is answered wherever GET is. Errors are JSON {"error": message}; only an unknown host name gets Starlette's plain
text. A VireidError's message goes to the client with its `http_status`. Any other exception is logged with its
traceback, and the client gets 500 and a fixed text.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from vireid.errors import VireidError
from vireid.server.auth import DenialLog, Sessions
from vireid.server.deps import ComputePool, first_fault
from vireid.server.middleware import (
    BodyLimitMiddleware,
    HeadMiddleware,
    SameOriginMiddleware,
    SecurityHeadersMiddleware,
)  # fmt: skip
from vireid.server.retention import retention_lifespan
from vireid.server.routes import admin, page, search
from vireid.server.search_service import SearchService
from vireid.version import __version__

UNEXPECTED = "this failed on the server, whose log has the reason"
log = logging.getLogger(__name__)


def create_app(service: SearchService) -> FastAPI:
    """The application of a service."""
    settings = service.settings
    app = FastAPI(
        title="vireid search", version=__version__, openapi_url=None, docs_url=None, redoc_url=None,
        lifespan=retention_lifespan,
        middleware=[  # the first is the outermost
            Middleware(SecurityHeadersMiddleware),
            Middleware(ServerErrorMiddleware, handler=unexpected_error),  # here, so that its response has the headers
            Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts) or ["*"], www_redirect=False),
            Middleware(SameOriginMiddleware),
            Middleware(HeadMiddleware),
            Middleware(BodyLimitMiddleware, max_bytes=settings.limits.body_bytes),
        ],
    )  # fmt: skip
    app.state.service = service
    app.state.sessions = Sessions()
    app.state.denials = DenialLog(service.archive.audit)
    app.state.pool = ComputePool(settings.max_computing, settings.max_waiting)
    app.add_exception_handler(StarletteHTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(VireidError, vireid_error)
    for router in (page.router, search.router, admin.router):
        app.include_router(router)
    return app


async def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"error": first_fault(error.errors())}, 422)


async def vireid_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VireidError)
    if error.http_status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": str(error)}, error.http_status)


async def unexpected_error(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": UNEXPECTED}, 500)
