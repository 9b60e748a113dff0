"""Middleware: what holds for every request and response, before a route is reached.

- SecurityHeadersMiddleware: the page runs its own files alone, in no frame, and sends nothing to other sites.
- SameOriginMiddleware: a request that another site made the browser send is refused (Origin, Sec-Fetch-Site).
- HeadMiddleware: HEAD is answered as GET is, without the body.
- BodyLimitMiddleware: a body is cut off at its limit, with or without a Content-Length.
- HostMiddleware: unknown host names are refused: a site whose name was pointed at this machine (DNS rebinding) would
  otherwise use the service through the browser. Probes use addresses, and their answers hold nothing to protect; nor
  is a token sent to another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), browsing-topics=()",
}
SAFE_METHODS = ("GET", "HEAD")


class SecurityHeadersMiddleware:
    """Adds the security headers, and `cache-control: no-store` where a response has no rule of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)


class SameOriginMiddleware:
    """Refuses with 403 what a browser sends for another site: any API request, and any request that changes data."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.is_cross_site(scope["method"], scope["path"], Headers(scope=scope)):
            await JSONResponse({"error": "another site sent this request"}, 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    @staticmethod
    def is_cross_site(method: str, path: str, headers: Headers) -> bool:
        if path.startswith("/api") and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return True
        origin = headers.get("origin")
        if origin is None or method in SAFE_METHODS:
            return False
        try:
            return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        except ValueError:  # of no address, as http://[::1
            return True


class HostMiddleware(TrustedHostMiddleware):
    """Starlette's, which the paths `open_paths` pass by under any host name."""

    def __init__(self, app: ASGIApp, open_paths: Sequence[str] = (), **options: Any) -> None:
        super().__init__(app, **options)
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = scope["type"] == "http" and scope["path"] in self.open_paths
        await (self.app if allowed else super().__call__)(scope, receive, send)


class HeadMiddleware:
    """Answers HEAD wherever GET is answered, with its status and headers and no body (FastAPI's routes do not)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                if message.get("more_body", False):
                    return
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)


class BodyLimitMiddleware:
    """Refuses bodies of more than `max_bytes`: at once by their Content-Length, else when the limit is passed."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            await JSONResponse({"error": "Content-Length is not a number"}, 400)(scope, receive, send)
            return
        if int(length[:20]) > self.max_bytes:
            await JSONResponse({"error": self.too_large()}, 413)(scope, receive, send)
            return
        received_bytes = 0

        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self.max_bytes:
                raise HTTPException(413, self.too_large())
            return message

        await self.app(scope, receive_limited, send)

    def too_large(self) -> str:
        return f"a request may have up to {self.max_bytes / 1e6:g} MB; send fewer or smaller pictures"
