"""A service on a free port of this machine."""

from __future__ import annotations

import threading

import uvicorn

from vireid.server.app import create_app
from vireid.server.run import ReportingServer
from vireid.server.search_service import SearchService


class RunningServer:
    """A service on a free port of this machine, in a thread; several are galleries of one server."""

    def __init__(self, service: SearchService, *others: SearchService) -> None:
        self.service, self.others = service, others
        listening = threading.Event()
        ports: list[int] = []

        def on_listening(port: int) -> None:
            ports.append(port)
            listening.set()

        config = uvicorn.Config(create_app(service, *others), host="127.0.0.1", port=0, log_level="error", ws="none")
        self._server = ReportingServer(config, on_listening)
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()
        listening.wait()
        assert ports, "the server did not start"
        self.url = f"http://127.0.0.1:{ports[0]}"

    def _run(self, listening: threading.Event) -> None:
        try:
            self._server.run()
        finally:
            listening.set()  # where it ended before it listened

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
