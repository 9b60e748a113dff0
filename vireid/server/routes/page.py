"""Routes of the page itself: its files, sessions, what is here, examples, and the API's description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from vireid.server.auth import Caller
from vireid.server.deps import COOKIE, Door
from vireid.server.search_service import Answers

PAGE = Path(__file__).parent.parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def add_page(app: FastAPI, door: Door, answers: Answers) -> None:
    service, anyone, search = door.service, door.needs("any"), door.needs("search")
    files = {path.name: (path.read_bytes(), KINDS[path.suffix]) for path in PAGE.iterdir() if path.suffix in KINDS}

    def file(name: str) -> Response:
        """A file of the page: those that were there at the start, by name."""
        if name not in files:
            raise HTTPException(404, "there is no such file")
        body, kind = files[name]
        return Response(body, media_type=f"{kind}; charset=utf-8", headers={"cache-control": "no-cache"})

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    def page_file(name: str) -> Response:
        return file(name)

    @app.post("/api/session")
    def begin_session(request: Request, caller: Caller = anyone) -> Response:
        """Exchange the token of the Authorization header for a cookie that lasts twelve hours."""
        if service.tokens is None:
            raise HTTPException(409, "this service runs without tokens; there is nothing to sign in to")
        token = door.token_of(request)
        assert token is not None
        door.note(caller, "sign in")
        answer = JSONResponse({"name": caller.name, "role": caller.role})
        answer.set_cookie(
            COOKIE, door.sessions.begin(token), httponly=True, samesite="strict", secure=service.secure, path="/"
        )
        return answer

    @app.delete("/api/session")
    def end_session(request: Request) -> Response:
        door.sessions.end(request.cookies.get(COOKIE, ""))
        answer = JSONResponse({})
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=service.secure)
        return answer

    @app.get("/api/about")
    def about(caller: Caller = anyone) -> dict[str, Any]:
        return answers.about(caller)

    @app.get("/api/openapi.json")
    def openapi(caller: Caller = search) -> dict[str, Any]:
        return app.openapi()

    @app.get("/api/examples/{number}")
    def example(number: int, caller: Caller = search) -> Response:
        if not 0 <= number < len(service.examples):
            raise HTTPException(404, "there is no such example")
        return Response(service.examples[number].jpeg, media_type="image/jpeg")
