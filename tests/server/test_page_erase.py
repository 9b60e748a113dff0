"""The page in Chromium: a person is deleted from one of their hits."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import OpenTab, StartServer, Tab, violations
from served import audit_entries, examples

from vireid.deploy.bundle import Bundle
from vireid.server.auth import Tokens
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


def look_for_tracks(one: Tab) -> list[dict[str, Any]]:
    """The tracks that the page shows for its first hit."""
    one.page.locator(".hit .open").first.click()
    with one.page.expect_response(re.compile("/api/v1/person")) as waiting:
        one.page.click("#erase-open")
    one.page.wait_for_selector("#erase-tracks label")
    one.idle()
    return waiting.value.json()["tracks"]


def test_a_person_is_deleted_from_a_hit(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    server = start_server(settings=ServerSettings(examples=examples(bundle)))
    archive = server.service.archive
    one = open_tab(server.url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.click("#case-keep")
    one.page.click("#case-do")  # its picture is that of a row of the person
    one.soon(lambda: "#case=" in one.page.url)
    tracks = look_for_tracks(one)
    assert one.page.is_hidden("#detail") and "false-match rate of 1 in 100." in one.page.inner_text("#erase-hint")
    boxes = one.page.locator("#erase-tracks input")
    assert boxes.count() == len(tracks) and all(boxes.nth(place).is_checked() for place in range(len(tracks)))
    assert violations(one, "#erase") == []
    one.page.click("#erase-none")
    assert one.page.is_disabled("#erase-next")
    boxes.first.check()
    ids = tracks[0]["ids"]
    assert one.page.inner_text("#erase-count") == f"Selected tracks: 1, crops: {len(ids)}"
    one.page.click("#erase-next")
    assert "(1) with all their crops (2) for good" in one.page.inner_text("#erase-question")
    assert one.page.evaluate("document.activeElement.id") == "erase-back" and boxes.first.is_disabled()
    one.page.click("#erase-back")
    assert archive.gallery.count() == 64 and one.page.is_hidden("#erase-sure")
    one.page.click("#erase-next")
    with one.page.expect_response(re.compile("/api/v1/search")):
        one.page.click("#erase-do")
    one.page.wait_for_selector("#erase-done strong")
    said = one.page.inner_text("#erase-done")
    assert "crops 2, thumbnails 2" in said and "cases 1" in said
    assert "5_1_0.png" in said and "5_1_1.jpg" in said  # the files that they were cut from
    assert violations(one, "#erase") == []
    assert archive.gallery.count() == 62 and archive.gallery.fetch(ids, missing="skip") == []
    assert audit_entries(server.service, "forgotten")[0]["ids"] == ids and audit_entries(server.service, "find person")
    one.page.keyboard.press("Escape")
    one.soon(lambda: "62 crops" in one.page.inner_text("#summary") and "62 crops" in one.page.inner_text("#verdict"))


def test_only_an_administrator_is_offered_to_delete(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle, secrets: dict[str, str], tmp_path: Any
) -> None:
    settings = ServerSettings(examples=examples(bundle), tokens=Tokens(tmp_path / "tokens.json"))
    one = open_tab(start_server(settings=settings).url)
    one.page.wait_for_selector("#sign-in[open]")
    one.page.fill("#token", secrets["search"])
    one.page.keyboard.press("Enter")
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.locator(".hit .open").first.click()
    assert one.page.is_visible("#scene-show") and one.page.is_hidden("#erase-open")
    one.faults = [text for text in one.faults if "401" not in text]


def test_rows_that_changed_meanwhile_are_not_deleted(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    server = start_server(settings=ServerSettings(examples=examples(bundle)))
    one = open_tab(server.url)
    one.page.wait_for_selector(".hit")
    one.idle()
    ids = look_for_tracks(one)[0]["ids"]
    server.service.archive.forget(ids[:1])
    one.refusals.add(409)
    one.page.click("#erase-next")
    one.page.click("#erase-do")
    one.soon(lambda: "count again" in one.page.inner_text("#erase-said"))
    assert server.service.archive.gallery.count() == 63 and one.page.is_hidden("#erase-done")
