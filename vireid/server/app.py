"""The ASGI application: the search service over HTTP, and the page that uses it.

    GET  /                         the page
    below /api/v1:
    POST session                   exchange a token for a session cookie; DELETE ends the session
    GET  about                     rows, cameras, time span, network, calibration, and what the caller may do
    POST search                    pictures (multipart `picture`, and `ask` as JSON), or JSON alone: ranked hits  search
    POST visits                    the same, answered as passages at cameras, grouped into visits            search
    POST detect                    the people in a picture, as boxes                                             search
    GET  scene?id=                 the frame that a row was cut from                                             search
    POST case-file                 a search with all its hits as HTML, CSV or JSON                               search
    POST cases                     keep a search; GET lists and opens cases, DELETE deletes one                  search
    GET  alarms                    alarms of the watch-list                                                      search
    POST records/list              rows by id or the newest first, one page at a time                            search
    GET  thumbnail?id=             the picture of a row                                                          search
    GET  attention?id=             heat map over it; POST with a picture: over the query                         search
    POST marks                     mark hits right and wrong; GET exports the marks as CSV or JSON               search
    POST records                   add one crop (multipart `picture` and `record`)                               ingest
    POST person                    the tracks of a row's person, to choose from before forget                    admin
    POST forget                    delete rows with thumbnails, marks, alarms and what cases hold of them        admin
    GET  audit                     the last entries of the audit log                                             admin
    GET  openapi.json              the OpenAPI description of these routes                                       search
    GET  docs                      Swagger UI over it                                                            admin

    GET  /healthz, /readyz         whether it runs, whether it can serve                                         anybody
    GET  /metrics                  for Prometheus                                                                monitor

The paths of version 0.1, without `v1`, stay for one version.

HEAD is answered wherever GET is. Errors are JSON {"error": message}; only an unknown host name gets Starlette's plain
text. A VireidError's message goes to the client with its `http_status`, or its `public` text where the message names
files of this machine. Any other exception is logged with its traceback, and the client gets 500 and a fixed text.
"""

from __future__ import annotations

import logging

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import compile_path

from vireid.errors import VireidError
from vireid.server.access_log import AccessMiddleware
from vireid.server.auth import DenialLog, Sessions
from vireid.server.deps import SCHEMES, ComputePool, first_fault, note_operation
from vireid.server.metrics import Metrics
from vireid.server.middleware import (
    BodyLimitMiddleware,
    HeadMiddleware,
    HostMiddleware,
    SameOriginMiddleware,
    SecurityHeadersMiddleware,
)  # fmt: skip
from vireid.server.openapi import ALWAYS, describe, errors
from vireid.server.retention import retention_lifespan
from vireid.server.routes import about, admin, alarms, cases, detect, health, page, person, scene, search, visits
from vireid.server.schemas import AddRequest, CaseFileRequest, DetectRequest, SearchRequest, VisitsRequest
from vireid.server.search_service import SearchService
from vireid.version import __version__

FORMER_ROOMS = (about, search, admin)  # whose routers are the API of version 0.1
ROOMS = (*FORMER_ROOMS, visits, detect, cases, alarms, scene, person)
API, FORMER_API = "/api/v1", "/api"
UNEXPECTED = "this failed on the server, whose log has the reason"
log = logging.getLogger(__name__)


def create_app(*services: SearchService, access_log: logging.Logger | None = None) -> FastAPI:
    """The application of one service or of several galleries, whose names differ and whose settings are the same.

    A request chooses one by `?gallery=NAME`. `access_log` gets a message for each request (access_log.py).
    """
    settings = services[0].settings
    galleries = {service.name: service for service in services}
    assert len(galleries) == len(services) and all(service.settings == settings for service in services)
    pool = ComputePool(settings.max_computing, settings.max_waiting)
    metrics = Metrics(galleries, pool)
    any_name = health.PROBES if settings.tokens is None else (*health.PROBES, health.METRICS)
    app = FastAPI(
        title="vireid search", version=__version__, openapi_url=None, docs_url=None, redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        lifespan=retention_lifespan, dependencies=[Depends(note_operation)],
        middleware=[  # the first is the outermost
            Middleware(AccessMiddleware, metrics=metrics, logger=access_log),
            Middleware(SecurityHeadersMiddleware),
            Middleware(ServerErrorMiddleware, handler=unexpected_error),  # here, so that its response has the headers
            Middleware(
                HostMiddleware, open_paths=any_name, allowed_hosts=list(settings.hosts) or ["*"],
                www_redirect=False,
            ),
            Middleware(SameOriginMiddleware),
            Middleware(HeadMiddleware),
            Middleware(BodyLimitMiddleware, max_bytes=settings.limits.body_bytes),
        ],
    )  # fmt: skip
    app.state.galleries, app.state.metrics = galleries, metrics
    app.state.sessions = Sessions()
    app.state.denials = DenialLog(services[0].archive.audit)
    app.state.pool = pool
    app.add_exception_handler(StarletteHTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(VireidError, vireid_error)
    app.include_router(page.router)
    app.include_router(health.router)
    former = [Depends(FormerPaths())]
    for room in ROOMS:
        app.include_router(room.router, prefix=API, responses=errors(*ALWAYS), dependencies=SCHEMES)
    for room in FORMER_ROOMS:
        app.include_router(room.router, prefix=FORMER_API, include_in_schema=False, dependencies=former)
    app.openapi = lambda: describe(app, (SearchRequest, AddRequest, DetectRequest, VisitsRequest, CaseFileRequest))
    return app


class FormerPaths:
    """Logs each path of version 0.1 the first time that it is used."""

    def __init__(self) -> None:
        self.logged: set[object] = set()

    def __call__(self, request: Request) -> None:
        if (operation := request.scope["endpoint"]) not in self.logged:
            self.logged.add(operation)
            path = request.url.path
            new = path.replace(FORMER_API, API, 1)
            log.warning("%s is of version 0.1 and will be removed; a client should call %s", path[:200], new[:200])


async def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := methods_of(request)):
        headers["Allow"] = ", ".join(methods)  # Starlette names those of one route
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers)


def methods_of(request: Request) -> list[str]:
    """The methods that the description has for the path of a request."""
    paths = request.app.openapi()["paths"]
    matching = [path for path in paths if compile_path(path)[0].match(request.url.path)]
    return [name.upper() for path in matching for name in paths[path]]


async def validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"error": first_fault(error.errors())}, 422)


async def vireid_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VireidError)
    request.app.state.metrics.errors.labels(type(error).__name__).inc()
    if error.http_status >= 500:
        log.error("%s %s (%s): %s", request.method, request.url.path, request.state.request_id, error)
    return JSONResponse({"error": error.public or str(error)}, error.http_status)


async def unexpected_error(request: Request, error: Exception) -> Response:
    request.app.state.metrics.errors.labels("unexpected").inc()
    log.error("%s %s (%s) failed", request.method, request.url.path, request.state.request_id, exc_info=error)
    return JSONResponse({"error": UNEXPECTED}, 500)
