"""Conditional responses: bytes with an ETag, and 304 without a body where the client has them already (RFC 9110)."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response


def conditional_response(request: Request, data: bytes, media_type: str, cache_control: str) -> Response:
    """The bytes as a response, or 304 where If-None-Match names their ETag."""
    etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {"cache-control": cache_control, "etag": etag}
    if is_known(etag, request.headers.getlist("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


def is_known(etag: str, values: list[str]) -> bool:
    """Whether an If-None-Match names this ETag; `*` names any, and a weak one counts as its strong one.

    >>> is_known('"a"', ['W/"a", "b"']), is_known('"a"', ["*"]), is_known('"a"', ['"b"'])
    (True, True, False)
    """
    known = {one.strip().removeprefix("W/") for value in values for one in value.split(",")}
    return "*" in known or etag in known
