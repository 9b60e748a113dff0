"""Routes for who operates the service: whether it runs, whether it can serve, and its metrics."""

from __future__ import annotations

import logging
import os
from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from vireid.errors import VireidError
from vireid.server.deps import SCHEMES, require_role
from vireid.server.openapi import ALWAYS, errors, file_response
from vireid.server.responses import HealthResponse, ReadyResponse
from vireid.server.search_service import SearchService

log = logging.getLogger(__name__)
PROBES = ("/healthz", "/readyz")  # answered without a token and under any host name
METRICS = "/metrics"  # with a token under any host name: Prometheus asks by the address that it is given

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz() -> HealthResponse:
    """Whether the process answers; looks at nothing."""
    return HealthResponse(status="ok")


@router.get("/readyz", responses={503: {"model": ReadyResponse, "description": "Something cannot be used"}})
def readyz(request: Request, response: Response) -> ReadyResponse:
    """Whether searches can be answered: the galleries, the folders of files and the tokens; the log has the reason."""
    services: list[SearchService] = list(request.app.state.galleries.values())
    faults = sorted({fault for service in services for fault in faults_of(service)})
    response.status_code = 503 if faults else 200
    status: Literal["ready", "not ready"] = "not ready" if faults else "ready"
    return ReadyResponse(status=status, faults=faults)


@router.get(
    METRICS,
    dependencies=[*SCHEMES, require_role("monitor")],
    response_class=Response,
    responses={**file_response("text/plain"), **errors(*ALWAYS)},
)
def metrics(request: Request) -> Response:
    """Metrics in the text format of Prometheus."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def faults_of(service: SearchService) -> list[str]:
    """What of a service cannot be used; without names, for everybody may read it."""
    faults = []
    try:
        service.archive.gallery.count()
    except VireidError as error:
        log.error("not ready: %s", error)
        faults.append("a gallery cannot be read")
    folder = service.archive.folder
    if folder.exists() and not os.access(folder, os.W_OK):  # the audit log lies there, and no search goes without it
        log.error("not ready: %s cannot be written", folder)
        faults.append("a folder of files cannot be written")
    try:
        if service.settings.tokens is not None:
            service.settings.tokens.all()
    except VireidError as error:
        log.error("not ready: %s", error)
        faults.append("the tokens cannot be read")
    return faults
