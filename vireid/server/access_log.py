"""Access log: a line of JSON for each request, and the middleware that measures it. It holds no picture and no query.

    {"at": "2026-11-24T21:04:11.207Z", "id": "4f0c...", "from": "10.0.0.7", "caller": "desk", "role": "search",
     "method": "POST", "operation": "search", "path": "/api/v1/search", "status": 200, "bytes": 5120, "ms": 84.2}

The path is without what follows `?`, where ids of rows stand. `id` is that of the answer's header X-Request-Id and of
the lines about errors in the service's log. The audit log (search/audit.py) says who searched what; this one says how
the service runs, may be rotated, and may be thrown away.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vireid.errors import ServiceError
from vireid.server.metrics import Metrics

STDOUT = Path("-")
REQUEST_ID = "x-request-id"
MAX_PATH = 200


@contextmanager
def access_log(path: Path | None) -> Iterator[logging.Logger | None]:
    """A logger whose messages are the lines of the file, `-` is standard output; None for None.

    The file is opened again where logrotate moved it away. ServiceError if it cannot be opened.
    """
    if path is None:
        yield None
        return
    logger = logging.Logger("access")
    try:
        handler = logging.StreamHandler(sys.stdout) if path == STDOUT else logging.handlers.WatchedFileHandler(path)
    except OSError as error:
        raise ServiceError(f"--access-log {path} cannot be written ({error.strerror or error})") from error
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


class AccessMiddleware:
    """Measures every request for the metrics and, where there is one, the access log; gives it an id."""

    def __init__(self, app: ASGIApp, metrics: Metrics, logger: logging.Logger | None) -> None:
        self.app, self.metrics, self.logger = app, metrics, logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = secrets.token_hex(8)
        start_s, status, sent_bytes = time.monotonic(), 500, 0

        async def send_measured(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = state["request_id"]
            sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_measured)
        finally:
            seconds = time.monotonic() - start_s
            self.metrics.requested(state.get("operation", "none"), method_of(scope), status, seconds)
            if self.logger is not None:
                entry = described(scope, state, status, sent_bytes, seconds)
                self.logger.info("%s", json.dumps(entry, ensure_ascii=False))


def method_of(scope: Scope) -> str:
    """The method, or `other` where a client made one up: metrics keep each for good."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"


def described(scope: Scope, state: dict[str, Any], status: int, sent_bytes: int, seconds: float) -> dict[str, Any]:
    """A request as the values of a line."""
    caller, client = state.get("caller"), scope.get("client")
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "id": state["request_id"],
        "from": client[0] if client else "",
        "caller": caller.name if caller else "",
        "role": caller.role if caller else "",
        "method": scope["method"][:20],
        "operation": state.get("operation", "none"),
        "path": scope["path"][:MAX_PATH],
        "status": status,
        "bytes": sent_bytes,
        "ms": round(1000 * seconds, 1),
    }
