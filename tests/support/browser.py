"""A search page in a real Chromium: a service on a port of this machine, and tabs that note errors."""

from __future__ import annotations

import gzip
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect

from vireid.deploy.bundle import Bundle
from vireid.server.app import create_app
from vireid.server.run import ReportingServer
from vireid.server.search_service import SearchService

AXE = Path(__file__).parents[1] / "server/axe/axe.min.js.gz"
HANG_S = 300.0  # ends a test that hangs; no test's result depends on how long anything takes
COUNT_REQUESTS = """
  const send = window.fetch;
  window.requests = { open: 0, last: performance.now() };
  window.fetch = async (...asked) => {
    window.requests.open += 1;
    try {
      return await send(...asked);
    } finally {
      window.requests.open -= 1;
      window.requests.last = performance.now();
    }
  };
"""
IDLE = """() =>
  window.requests.open === 0 && performance.now() - window.requests.last > 300
  && !document.body.classList.contains("busy")
  && [...document.images].every((one) => one.complete || one.loading === "lazy")
"""
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
expect.set_options(timeout=HANG_S * 1000)


class RunningServer:
    """A service on a free port of this machine, in a thread."""

    def __init__(self, service: SearchService) -> None:
        self.service = service
        listening = threading.Event()
        ports: list[int] = []

        def on_listening(port: int) -> None:
            ports.append(port)
            listening.set()

        config = uvicorn.Config(create_app(service), host="127.0.0.1", port=0, log_level="error", ws="none")
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


class StartServer(Protocol):
    """The fixture `start_server`: keywords of served.make_service."""

    def __call__(self, **changes: Any) -> RunningServer: ...


@dataclass
class Tab:
    """A page, and what it should not have: errors, and requests to other machines."""

    page: Page
    context: BrowserContext
    faults: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, url: str, lang: str, size: Any, **options: Any) -> Tab:
        context = browser.new_context(viewport=size, locale=lang, timezone_id="Europe/Berlin", **options)
        context.set_default_timeout(HANG_S * 1000)
        tab = cls(context.new_page(), context)

        def note_request(request: Any) -> None:
            if not request.url.startswith((url, "blob:", "data:")):
                tab.faults.append(request.url)

        def note_message(message: Any) -> None:
            if message.type == "error":
                tab.faults.append(message.text)

        tab.page.on("pageerror", lambda error: tab.faults.append(f"error: {error}"))
        tab.page.on("console", note_message)
        tab.page.on("request", note_request)
        tab.page.add_init_script(COUNT_REQUESTS)
        tab.page.goto(url)
        return tab

    def idle(self) -> None:
        """Wait until no request of the page is open and every picture in sight is there.

        Playwright's own "networkidle" comes once for each navigation, and not at all where a picture
        that was still loading left the page.
        """
        self.page.wait_for_function(IDLE)

    def soon(self, happens: Callable[[], bool]) -> None:
        """Wait for a condition that Playwright's `expect` has no word for; events of the page are handled meanwhile."""
        end = time.monotonic() + HANG_S
        while not happens():
            assert time.monotonic() < end, "the condition never came true"
            self.page.evaluate("() => new Promise(requestAnimationFrame)")

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def searched(self, work: Callable[[], Any]) -> dict[str, Any]:
        """The JSON of the search that `work` starts, once the page shows it."""
        with self.page.expect_response(re.compile("/api/search")) as waiting:
            work()
        answer = waiting.value.json()
        self.page.wait_for_function("() => !document.body.classList.contains('busy')")
        self.idle()
        return answer


class OpenTab(Protocol):
    """The fixture `open_tab`."""

    def __call__(self, url: str, lang: str = "en-GB", size: dict[str, int] = ..., **options: Any) -> Tab: ...


def upload(tab: Tab, bundle: Bundle, name: str = "5_1_1.jpg") -> None:
    tab.page.set_input_files("#file", bundle.path.parent / "data" / name)
    tab.page.wait_for_selector("#pictures li")


def violations(tab: Tab, where: str = "html") -> list[str]:
    """What axe finds, with the element."""
    if not tab.page.evaluate("'axe' in window"):
        tab.page.evaluate(gzip.decompress(AXE.read_bytes()).decode())
    report = tab.page.evaluate("(where) => axe.run(where)", where)
    assert report["passes"]
    return [f"{one['id']}: {node['html'][:120]}" for one in report["violations"] for node in one["nodes"]]
