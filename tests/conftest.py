"""The option `--no-skips`, which turns a skipped test into a failure, and the fixtures of several rooms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

collect_ignore = ["support"]  # no tests lie there, and some of it needs an extra
HERE = Path(__file__).parent
ALLOWED = ("is kept back",)  # arrays of code under a non-commercial licence are not passed on

# A machine with other work on it is slow, which is no fault of a test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


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


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python with words and with options of Popen, which ends with the test, however that ends.

    It finds vireid and tests/support; `env` holds further variables, and its output is a pipe.
    """
    running: list[subprocess.Popen[str]] = []

    def start(*words: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        path = os.pathsep.join(map(str, (HERE / "support", HERE.parent)))
        options = {"stdout": subprocess.PIPE, "text": True, **options}
        environment = os.environ | {"PYTHONPATH": path} | (env or {})
        running.append(subprocess.Popen([sys.executable, *map(str, words)], env=environment, **options))
        return running[-1]

    yield start
    for process in running:
        with process:  # closes its pipes and waits for it
            process.kill()


# --- pages in Chromium ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium. Without it a test is skipped, or fails."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium; with VIREID_BROWSER=firefox an installed Firefox, which also needs `pip install websockets`."""
    from browser import launch
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        launched = launch(running, lambda: request.getfixturevalue("chromium"), tmp_path_factory.mktemp("browser"))
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
