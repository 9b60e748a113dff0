"""Swagger UI in Chromium: for administrators, with nothing from another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import OpenTab, StartServer

from vireid.server.auth import Tokens
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


def test_an_administrator_tries_an_operation(
    start_server: StartServer, open_tab: OpenTab, secrets: dict[str, str], tmp_path: Path
) -> None:
    server = start_server(settings=ServerSettings(tokens=Tokens(tmp_path / "tokens.json")))
    one = open_tab(server.url)
    for role, status in (("search", 403), ("admin", 200)):
        headers = {"authorization": f"Bearer {secrets[role]}"}
        assert one.context.request.post(f"{server.url}/api/v1/session", headers=headers).status == 200
        assert one.context.request.get(f"{server.url}/api/v1/docs").status == status
    one.page.goto(f"{server.url}/api/v1/docs")  # what it loads from elsewhere would be a fault of the tab
    one.page.wait_for_selector(".opblock")
    operations = [
        (method, path)
        for path, methods in one.context.request.get(f"{server.url}/api/v1/openapi.json").json()["paths"].items()
        for method in methods
    ]
    assert one.page.locator(".opblock").count() == len(operations) > 20
    about = one.page.locator("#operations-service-about")
    about.locator(".opblock-summary-control").click()
    about.locator(".try-out__btn").click()
    about.locator(".execute").click()
    answer = about.locator(".live-responses-table .response")
    answer.wait_for()
    assert answer.locator(".response-col_status").inner_text().startswith("200")
    assert '"rows": 64' in answer.inner_text()
    one.faults = [text for text in one.faults if "401" not in text]  # of the search page before the sign-in
