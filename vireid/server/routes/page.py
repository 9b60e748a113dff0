"""Routes of the page itself: its files, sessions, what the archive holds, examples, and the OpenAPI description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from vireid.server.conditional import conditional_response
from vireid.server.deps import COOKIE, CallerDep, ServiceDep, request_token, require_role

PAGE = Path(__file__).parents[1] / "page"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}

router = APIRouter()


@router.get("/", include_in_schema=False)
async def index(request: Request) -> Response:
    return await page_file(request, "index.html")


@router.get("/page/{name}", include_in_schema=False)
async def page_file(request: Request, name: str) -> Response:
    """A file of the page, by its name among those read at the start."""
    if name not in FILES:
        raise HTTPException(404, "there is no such file")
    media_type = f"{MEDIA_TYPES[Path(name).suffix]}; charset=utf-8"
    return conditional_response(request, FILES[name], media_type, "no-cache")


@router.post("/api/session")
def begin_session(request: Request, caller: CallerDep, service: ServiceDep) -> Response:
    """Exchange the token of the Authorization header for a cookie that lasts twelve hours."""
    if service.settings.tokens is None:
        raise HTTPException(409, "this service runs without tokens; there is nothing to sign in to")
    token = request_token(request, service)
    if token is None:  # revoked since the caller was checked
        raise HTTPException(401, "this token is not valid any more")
    service.log(caller, "sign in")
    response = JSONResponse({"name": caller.name, "role": caller.role})
    secret = request.app.state.sessions.begin(token)
    response.set_cookie(
        COOKIE, secret, httponly=True, samesite="strict", secure=service.settings.https, path="/"
    )  # fmt: skip
    return response


@router.delete("/api/session")
def end_session(request: Request, service: ServiceDep) -> Response:
    request.app.state.sessions.end(request.cookies.get(COOKIE, ""))
    response = JSONResponse({})
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=service.settings.https)
    return response


@router.get("/api/about")
def about(caller: CallerDep, service: ServiceDep) -> dict[str, Any]:
    return service.about(caller)


@router.get("/api/openapi.json", dependencies=[require_role("search")])
def openapi(request: Request) -> dict[str, Any]:
    return request.app.openapi()


@router.get("/api/examples/{number}", dependencies=[require_role("search")])
def example(number: int, service: ServiceDep) -> Response:
    examples = service.settings.examples
    if not 0 <= number < len(examples):
        raise HTTPException(404, "there is no such example")
    return Response(examples[number].jpeg, media_type="image/jpeg")
