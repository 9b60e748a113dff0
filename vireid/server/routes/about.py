"""Routes about the service: sessions, what the archive holds, examples, the OpenAPI description and its page."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from vireid.server.conditional import conditional_response
from vireid.server.deps import COOKIE, CallerDep, ServiceDep, request_token, require_role
from vireid.server.openapi import errors, file_response
from vireid.server.responses import AboutResponse, PublicAbout, SessionResponse, SignedOut

EXPLORER = {  # the page over the OpenAPI description: Swagger UI, of the package fastapi-offline
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
EXPLORER_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>vireid API</title>
<link rel="icon" href="../../page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
EXPLORER_START = 'SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null });\n'
HEADERS = {"cache-control": "private, no-cache"}

router = APIRouter(tags=["service"])


@router.post("/session", responses=errors(409))
def begin_session(request: Request, response: Response, caller: CallerDep, service: ServiceDep) -> SessionResponse:
    """Exchange the token of the Authorization header for a cookie that lasts twelve hours."""
    if service.settings.tokens is None:
        raise HTTPException(409, "this service runs without tokens; there is nothing to sign in to")
    token = request_token(request, service.settings.tokens)
    if token is None:  # revoked since the caller was checked
        raise HTTPException(401, "this token is not valid any more")
    service.log(caller, "sign in")
    secret = request.app.state.sessions.begin(token)
    response.set_cookie(
        COOKIE, secret, httponly=True, samesite="strict", secure=service.settings.https, path="/"
    )  # fmt: skip
    return SessionResponse(name=caller.name, role=caller.role)


@router.delete("/session", openapi_extra={"security": [{"session": []}, {}]})
def end_session(request: Request, response: Response, service: ServiceDep) -> SignedOut:
    """End the session of the cookie."""
    request.app.state.sessions.end(request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=service.settings.https)
    return SignedOut()


@router.get("/about")
def about(request: Request, caller: CallerDep, service: ServiceDep) -> AboutResponse | PublicAbout:
    """What the caller may do, and for the role search what the gallery holds."""
    allowed = [name for name in request.app.state.galleries if not caller.galleries or name in caller.galleries]
    return service.about(caller, allowed)


@router.get("/openapi.json", dependencies=[require_role("search")])
def openapi(request: Request) -> dict[str, Any]:
    """This description."""
    return request.app.openapi()


@router.get("/docs", dependencies=[require_role("admin")], include_in_schema=False)
def explorer() -> Response:
    """Swagger UI over the OpenAPI description."""
    return Response(EXPLORER_HTML, media_type="text/html; charset=utf-8", headers=HEADERS)


@router.get("/docs/{name}", dependencies=[require_role("admin")], include_in_schema=False)
def explorer_file(request: Request, name: str) -> Response:
    if name == "start.js":
        return Response(EXPLORER_START, media_type="text/javascript; charset=utf-8", headers=HEADERS)
    if name not in EXPLORER:
        raise HTTPException(404, "there is no such file")
    data = (files("fastapi_offline") / "static" / name).read_bytes()
    return conditional_response(request, data, f"{EXPLORER[name]}; charset=utf-8", HEADERS["cache-control"])


@router.get(
    "/examples/{number}",
    dependencies=[require_role("search")],
    response_class=Response,
    responses={**file_response("image/jpeg"), **errors(404)},
)
def example(number: int, service: ServiceDep) -> Response:
    """The picture of a query that the page offers."""
    examples = service.settings.examples
    if not 0 <= number < len(examples):
        raise HTTPException(404, "there is no such example")
    return Response(examples[number].jpeg, media_type="image/jpeg")
