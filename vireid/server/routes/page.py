"""Routes of the page itself: its files."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

from vireid.server.conditional import conditional_response

PAGE = Path(__file__).parents[1] / "page"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index(request: Request) -> Response:
    return await page_file(request, "index.html")


@router.get("/page/{name}")
async def page_file(request: Request, name: str) -> Response:
    """A file of the page, by its name among those read at the start."""
    if name not in FILES:
        raise HTTPException(404, "there is no such file")
    media_type = f"{MEDIA_TYPES[Path(name).suffix]}; charset=utf-8"
    return conditional_response(request, FILES[name], media_type, "no-cache")
