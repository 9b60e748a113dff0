"""The page in Chromium: visits, alarms, cases and case files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import OpenTab, StartServer
from served import examples

from vireid.deploy.bundle import Bundle
from vireid.live.store import NAME, WatchStore
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


def test_visits_in_a_picture_and_as_a_list(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.select_option("#rate", "")
    one.searched(lambda: one.page.click("#search"))
    with one.page.expect_response(re.compile("/api/v1/visits")) as waiting:
        one.page.click("#visits-show")
    answer = waiting.value.json()
    one.page.wait_for_selector("#visits .passage")
    passages = [passage for visit in answer["visits"] for passage in visit["passages"]]
    assert one.page.locator("#visits .passage").count() == len(passages) > 8
    assert one.page.locator("#visits svg .visit").count() == len(answer["visits"]) > 1
    assert one.texts("#visits .passage b") == [passage["camera"] for passage in passages]
    assert "Without a threshold" in one.page.inner_text("#visits-notes")
    with one.page.expect_response(re.compile("/api/v1/visits")):
        one.page.select_option("#visits-gap", "43200")
    one.soon(lambda: one.page.inner_text("#visits-title").startswith("Visits: 1,"))
    one.page.locator("#visits .passage").nth(2).click()
    one.soon(
        lambda: one.page.is_visible("#detail") and passages[2]["best"]["id"] in one.page.inner_text("#detail-facts")
    )
    one.page.keyboard.press("ArrowRight")
    one.soon(lambda: passages[3]["best"]["id"] in one.page.inner_text("#detail-facts"))
    one.page.click("#scene-show")
    one.page.wait_for_function("() => document.getElementById('scene-picture').naturalWidth > 0")
    one.soon(lambda: one.page.inner_text("#scene-note") == "The picture that was indexed.")
    one.page.click("#detail-before")
    one.soon(lambda: one.page.is_hidden("#scene"))
    one.page.keyboard.press("Escape")
    one.page.click("#visits-show")
    one.soon(lambda: one.page.is_hidden("#visits"))


def test_a_case_is_kept_shared_and_deleted(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    with one.page.expect_response(re.compile("/api/v1/marks")):
        one.page.locator(".hit .no").nth(1).click()
    one.page.click("#case-keep")
    one.page.fill("#case-name", "<b>gate</b>")
    one.page.fill("#case-note", "gray coat")
    one.page.click("#case-do")
    one.soon(lambda: "<b>gate</b>" in one.page.inner_text("#case-shown") and "#case=" in one.page.url)
    other = open_tab(one.page.url)
    other.page.wait_for_selector(".hit")
    other.soon(lambda: "gray coat" in other.page.inner_text("#case-shown"))
    other.idle()
    other.soon(lambda: "marks used: 1" in other.page.inner_text("#verdict"))
    assert other.page.locator("#pictures li").count() == 1 and "#case=" in other.page.url
    other.page.click("#open-cases")
    other.page.wait_for_selector(".case")
    other.page.fill(".case textarea", "gray coat, red bag")
    other.page.locator(".case button").nth(1).click()
    other.soon(lambda: "Saved." in other.page.inner_text(".case"))
    other.page.on("dialog", lambda asked: asked.accept())
    other.page.locator(".case .danger").click()
    other.soon(lambda: other.page.locator(".case").count() == 0 and other.page.is_visible("#cases-none"))


def test_a_case_file_is_saved_in_three_forms(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle, tmp_path: Path
) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    if one.context.browser.browser_type.name == "firefox":
        pytest.skip("Firefox saves the file, and does not report to Playwright that it does")
    one.page.wait_for_selector(".hit")
    one.idle()
    for form in ("html", "csv", "json"):
        one.page.click("#export > summary")
        with one.page.expect_download() as started:
            one.page.click(f"#case-{form}")
        started.value.save_as(tmp_path / f"case.{form}")
    rows = list(csv.DictReader((tmp_path / "case.csv").read_text(encoding="utf-8").splitlines()))
    content = json.loads((tmp_path / "case.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in rows] == [hit["id"] for hit in content["hits"]] and len(rows) == 64
    one.page.click("#case-keep")
    one.page.fill("#case-name", "case 7")
    one.page.fill("#case-note", "gray coat")
    one.page.click("#case-do")
    one.soon(lambda: "case 7" in one.page.inner_text("#case-shown"))
    one.page.click("#export > summary")
    with one.page.expect_download() as started:
        one.page.click("#case-json")
    about = json.loads(Path(started.value.path()).read_text(encoding="utf-8"))["search"]
    assert about["case"] == "case 7" and about["note"] == "gray coat"
    page = one.context.new_page()
    page.goto((tmp_path / "case.html").as_uri())
    assert page.locator("li img").count() == 64 and "searched by" in page.inner_text("dl")
    assert page.evaluate("[...document.images].every((one) => one.naturalWidth > 0)")
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))  # of 64 hits
    assert 3 <= pages <= 5


def test_alarms_are_listed_and_searched_with(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    served = start_server(settings=ServerSettings(examples=examples(bundle)))
    one = open_tab(served.url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.click("#open-alarms")
    one.soon(lambda: "No watch-list is used" in one.page.inner_text("#alarms-none"))
    store = WatchStore(served.service.archive.folder / NAME)
    event = {
        "id": "1", "kind": "alarm", "person": "missing-118", "purpose": "case 118", "camera": "hall 2", "time": "",
        "time_s": 1_700_018_120.0, "row": "hall 2/5/0", "track": "2-5", "modality": "visible", "similarity": 0.91,
        "threshold": 0.8, "false_alarms_per_day": 1,
    }  # fmt: skip
    store.raise_alarm(event, ("webhook",), 60, 0)
    store.close()
    one.page.click("#alarms-again")
    one.page.wait_for_selector(".alarm")
    text = one.page.inner_text(".alarm")
    assert "missing-118" in text and "hall 2" in text and "case 118" in text and "webhook" in text
    answer = one.searched(lambda: one.page.click(".alarm button"))
    assert answer["hits"] and one.page.locator("#pictures li").count() == 1 and one.page.is_hidden("#alarms")
