"""Guard: what holds for every request and answer, before a route is reached.

- A request for another host name than the service's own is refused: a page of the web whose name was pointed at this
  machine (DNS rebinding) would otherwise talk to it through the user's browser.
- A request that another site made the browser send is refused (Origin, Sec-Fetch-Site).
- A body is cut off at its limit, whether or not its length was told.
- Answers carry a policy under which the page runs its own files alone, in no frame, and tells no other site anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), browsing-topics=()",
}
SAFE_METHODS = ("GET", "HEAD")


class Guard:
    """ASGI middleware. `hosts` are the names that are answered to, without port; empty: any."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], body_bytes: int) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)
        self.body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                more = HEADERS if b"cache-control" in present else {**HEADERS, "cache-control": "no-store"}
                added = [(name.encode(), value.encode()) for name, value in more.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self.refusal(scope["method"], scope["path"], headers):
            status, told = refusal
            body = json.dumps({"error": told}).encode()
            kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await answer({"type": "http.response.start", "status": status, "headers": kind})
            await answer({"type": "http.response.body", "body": body})
            return

        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self.body_bytes:
                raise HTTPException(413, self.too_large())
            return message

        await self.app(scope, counted, answer)

    def refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and words for a request that is not let through."""
        host = headers.get("host", "")
        if self.hosts and _name(host) not in self.hosts:
            return 421, f"this service does not answer for {host[:100]!r}; open it by the address that it printed"
        site = headers.get("sec-fetch-site", "same-origin")
        if path.startswith("/api") and site not in ("same-origin", "none"):
            return 403, "another site sent this request"
        origin = headers.get("origin")
        if origin is not None and method not in SAFE_METHODS and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "another site sent this request"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return 400, "Content-Length is no number"
        if int(length[:20]) > self.body_bytes:
            return 413, self.too_large()
        return None

    def too_large(self) -> str:
        return f"a request may have at most {self.body_bytes / 1e6:g} MB; send fewer or smaller pictures"


def _name(host: str) -> str:
    """A Host header without its port: `[::1]:8000` to `[::1]`."""
    host = host.lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
