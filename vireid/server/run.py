"""Runs an application with uvicorn until it is stopped, and reports its port once it listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from vireid.errors import ServiceError


class ReportingServer(uvicorn.Server):
    """A uvicorn server that calls `on_listening` with its port as soon as it accepts connections."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[int], None]) -> None:
        super().__init__(config)
        self.on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_listening(self.servers[0].sockets[0].getsockname()[1])


def run_app(
    app: FastAPI,
    host: str,
    port: int,
    on_listening: Callable[[int], None],
    certificate: Path | None = None,
    key: Path | None = None,
    proxies: Sequence[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM; port 0 takes a free one. ServiceError if it cannot start; uvicorn logs why.

    Of the addresses `proxies` the header X-Forwarded-For is believed: it names the client for the logs.
    """
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", server_header=False, access_log=False,
        timeout_keep_alive=20, limit_concurrency=200, ssl_certfile=certificate, ssl_keyfile=key,
        proxy_headers=bool(proxies), forwarded_allow_ips=list(proxies),
    )  # fmt: skip
    server = ReportingServer(config, on_listening)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after an orderly shutdown
            server.run()
    except SystemExit as error:  # so uvicorn ends when it cannot listen
        raise ServiceError(f"the service cannot listen on {host}, port {port}; is another program using it?") from error
    if not server.started:
        raise ServiceError(f"the service on {host}, port {port} did not start; the log above has the reason")
