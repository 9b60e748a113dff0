"""The option `--no-skips`, which turns a skipped test into a failure, and the fixtures of several rooms."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from typing import Any

import pytest

collect_ignore = ["support"]  # no tests lie there, and some of it needs an extra
ALLOWED = ("is kept back",)  # arrays of code under a non-commercial licence are not passed on


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="Fail where a test is skipped because a package or program is missing."
    )


def refuse_skip(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    """Make a failure of a skip that `--no-skips` does not allow; an expected failure stays what it is."""
    if not (config.getoption("--no-skips") and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(allowed in reason for allowed in ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: --no-skips allows no skip, this one says: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report, collector.config)
    return report


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks of a few channels only lose by sharing their work among threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- pages in Chromium ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium. Without it a test is skipped, or fails."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from browser import HANG_S
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        launched = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=HANG_S * 1000)
        yield launched
        launched.close()


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Any]:
    """Opens tabs, which at the end have noted no error and no request to another machine."""
    from browser import WIDE, Tab

    tabs: list[Any] = []

    def new(url: str, lang: str = "en-GB", size: Any = WIDE, **options: Any) -> Any:
        tabs.append(Tab.open(browser, url, lang, size, **options))
        return tabs[-1]

    yield new
    for tab in tabs:
        tab.context.close()
        assert tab.faults == []
