"""The page in Chromium with tokens: signing in, deleting people, naming a purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import OpenTab, StartServer, upload, violations
from served import examples

from vireid.deploy.bundle import Bundle
from vireid.server.auth import Tokens
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


def test_signing_in_and_out(start_server: StartServer, open_tab: OpenTab, bundle: Bundle, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    secret = tokens.add("desk", "search")
    served = start_server(settings=ServerSettings(tokens=tokens, examples=examples(bundle)))
    one = open_tab(served.url)
    one.page.wait_for_selector("#sign-in[open]")
    assert violations(one) == []
    one.page.keyboard.press("Escape")
    one.soon(lambda: one.page.is_visible("#sign-in"))
    one.page.fill("#token", "vireid_wrong")
    one.page.keyboard.press("Enter")
    one.page.wait_for_function("() => document.getElementById('sign-in-said').textContent")
    one.soon(lambda: "not valid" in one.page.inner_text("#sign-in-said") and one.page.locator(".hit").count() == 0)
    one.page.fill("#token", secret)
    one.page.keyboard.press("Enter")
    one.page.wait_for_selector(".hit")
    one.idle()
    shown = "document.querySelector('.hit img').naturalWidth > 0"
    one.soon(lambda: one.page.evaluate(shown))  # the cookie goes with pictures
    one.soon(lambda: one.page.is_hidden("#open-archive") and one.page.is_visible("#sign-out"))
    kept = one.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert secret not in kept and "vireid=" not in kept
    one.page.click("#sign-out")
    one.page.wait_for_selector("#sign-in[open]")
    assert {fault for fault in one.faults if "401" not in fault} == set()
    one.faults.clear()


def test_an_administrator_forgets_a_person(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    served = start_server()
    one = open_tab(served.url)
    one.page.click("#open-archive")
    one.page.click("#forget-count")
    one.soon(
        lambda: "at least one condition" in one.page.inner_text("#forget-said") and one.page.is_disabled("#forget-do")
    )
    one.page.fill("#forget-pid", "p5")
    one.page.click("#forget-count")
    one.page.wait_for_function("() => !document.getElementById('forget-do').disabled")
    one.soon(lambda: one.page.inner_text("#forget-said") == "8 crops would be deleted.")
    one.page.fill("#forget-track", "1-5")  # another condition has to be counted again
    one.soon(lambda: one.page.is_disabled("#forget-do"))
    one.page.fill("#forget-track", "")
    one.page.click("#forget-count")
    one.page.wait_for_function("() => !document.getElementById('forget-do').disabled")
    one.page.click("#forget-do")
    one.page.wait_for_function(
        "() => document.getElementById('forget-said').textContent.startsWith('Deleted: crops 8')"
    )
    assert "5_1_0.png" in one.page.inner_text("#forget-said .files")
    one.idle()
    one.soon(
        lambda: served.service.archive.gallery.count() == 56 and one.page.inner_text("#summary").startswith("56 crops")
    )
    one.soon(lambda: "forgotten" in one.page.inner_text("#audit"))


def test_a_purpose_is_asked_for(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(purpose_required=True, examples=examples(bundle))).url)
    one.idle()
    one.soon(lambda: one.page.locator(".hit").count() == 0)  # the example does not run without one
    upload(one, bundle)
    one.page.click("#search")
    one.soon(lambda: "purpose of the search" in one.page.inner_text("#problem"))
    one.page.fill("#purpose", "a missing child")
    assert one.searched(lambda: one.page.click("#search"))["hits"]
