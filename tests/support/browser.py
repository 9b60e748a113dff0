"""A search page in a real browser: tabs that note errors."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect
from serving import RunningServer

from vireid.deploy.bundle import Bundle

AXE = Path(__file__).parents[1] / "server/axe/axe.min.js.gz"
HANG_S = float(
    os.environ.get("VIREID_HANG_S", "300")
)  # ends a test that hangs; no result depends on how long anything takes
COUNT_REQUESTS = """
  const send = window.fetch;
  window.requests = { open: 0, last: performance.now() };
  window.fetch = async (...asked) => {
    window.requests.open += 1;
    const done = () => {
      window.requests.open -= 1;
      window.requests.last = performance.now();
    };
    try {
      const answer = await send(...asked);
      answer.clone().blob().then(done, done);  // with its body
      return answer;
    } catch (error) {
      done();
      throw error;
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


def launch(running: Playwright, chromium: Callable[[], str], folder: Path) -> Browser:
    """Chromium, or with VIREID_BROWSER=firefox the Firefox of this machine, by a script that is written to a folder."""
    if os.environ.get("VIREID_BROWSER", "chromium") != "firefox":
        options: dict[str, Any] = {"executable_path": chromium(), "args": ["--no-sandbox"]}
        return running.chromium.launch(timeout=HANG_S * 1000, **options)
    program = next((path for name in ("firefox-esr", "firefox") if (path := shutil.which(name))), None)
    assert program is not None, "VIREID_BROWSER=firefox needs Firefox: apt-get install firefox-esr"
    script = folder / "firefox"
    proxy = Path(__file__).with_name("firefox_proxy.py")
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{proxy}" "{program}" "$@"\n')
    script.chmod(0o755)
    return running.firefox.launch(channel="moz-firefox", executable_path=script, timeout=HANG_S * 1000)


class StartServer(Protocol):
    """The fixture `start_server`: names of galleries, and keywords of served.make_service."""

    def __call__(self, *names: str, **changes: Any) -> RunningServer: ...


@dataclass
class Tab:
    """A page, and what it should not have: errors, and requests to other machines."""

    page: Page
    context: BrowserContext
    faults: list[str] = field(default_factory=list)
    refusals: set[int] = field(default_factory=set)
    """Statuses that a test expects; Chromium lists them in its console, Firefox does not."""

    @classmethod
    def open(cls, browser: Browser, url: str, lang: str, size: Any, **options: Any) -> Tab:
        context = browser.new_context(viewport=size, locale=lang, timezone_id="Europe/Berlin", **options)
        context.set_default_timeout(HANG_S * 1000)
        tab = cls(context.new_page(), context)
        origin = url.partition("#")[0]

        def note_request(request: Any) -> None:
            if not request.url.startswith((origin, "blob:", "data:")):
                tab.faults.append(request.url)

        def note_message(message: Any) -> None:
            if message.type == "error" and not any(f"status of {code}" in message.text for code in tab.refusals):
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

    def fill_number(self, selector: str, value: str) -> None:
        """Playwright's `fill` puts a number behind that of Firefox's field."""
        self.page.locator(selector).press("ControlOrMeta+a")
        self.page.locator(selector).press_sequentially(value)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def searched(self, work: Callable[[], Any]) -> dict[str, Any]:
        """The JSON of the search that `work` starts, once the page shows it."""
        with self.page.expect_response(re.compile("/api/v1/search")) as waiting:
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
