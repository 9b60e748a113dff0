"""The page in Chromium when something is slow or fails, and what a reload keeps."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import NARROW, OpenTab, StartServer, Tab, upload
from served import examples, picture

from vireid.deploy.bundle import Bundle
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


@pytest.fixture
def searched(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> Tab:
    """A page with an answer."""
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    return one


def is_busy(one: Tab) -> bool:
    return one.page.evaluate("document.body.classList.contains('busy')")


def test_a_slow_search_says_so_until_the_newest_is_answered(searched: Tab) -> None:
    one, held = searched, list[Any]()
    one.page.route("**/api/v1/search", lambda route: held.append(route))
    one.page.click("#search")
    one.soon(lambda: len(held) == 1 and is_busy(one) and "Searching" in one.page.inner_text("#busy"))
    one.page.check("input[name=in][value=infrared]", force=True)
    one.page.click("#search")  # takes the place of the first, which ends now
    one.soon(lambda: len(held) == 2)
    one.page.evaluate("() => new Promise((done) => setTimeout(done, 100))")
    assert is_busy(one) and one.page.is_visible("#busy")
    assert one.page.get_attribute("#answer", "aria-busy") == "true"
    held[1].continue_()
    one.soon(lambda: not is_busy(one) and one.page.is_hidden("#busy"))
    one.soon(lambda: {"passage 4", "night 3"} >= set(one.texts(".hit .place")))
    one.page.click("#search")
    one.soon(lambda: len(held) == 3)
    one.page.click("#stop")
    one.soon(lambda: not is_busy(one) and one.page.is_hidden("#problem") and one.page.locator(".hit").count() > 0)


def test_a_mark_that_is_not_kept_does_not_stay_on_the_screen(searched: Tab) -> None:
    one = searched
    one.page.route("**/api/v1/marks", lambda route: route.fulfill(status=507, json={"error": "the disk is full"}))
    one.page.locator(".hit .yes").first.click()
    one.soon(lambda: one.page.inner_text("#problem") == "The disk is full")
    one.soon(lambda: one.page.locator(".hit.right").count() == 0 and one.page.is_disabled("#again"))
    one.page.unroute("**/api/v1/marks")
    one.page.locator(".hit .yes").first.click()
    one.soon(lambda: one.page.locator(".hit.right").count() == 1)
    one.faults.clear()  # Chromium lists the refusal in its console


def test_enter_takes_the_box_that_was_drawn(searched: Tab) -> None:
    one = searched
    for key_from in ("pointer", "number"):
        one.page.locator("#pictures button").first.click()
        stage = one.page.locator("#box-stage").bounding_box()
        if key_from == "pointer":
            one.page.mouse.move(stage["x"] + 4, stage["y"] + 4)
            one.page.mouse.down()
            one.page.mouse.move(stage["x"] + stage["width"] * 0.8, stage["y"] + stage["height"] * 0.8, steps=4)
            one.page.mouse.up()
        else:
            one.fill_number("#box-right", "60")
        one.page.keyboard.press("Enter")
        one.soon(lambda: one.page.is_hidden("#box") and one.page.locator("#pictures .cut").count() == 1)
    assert one.page.evaluate("parseFloat(document.querySelector('#pictures .cut').style.width)") < 60


def test_a_reload_repeats_the_search_with_its_pictures_and_marks(
    searched: Tab, open_tab: OpenTab, bundle: Bundle
) -> None:
    one = searched
    one.page.click("#clear")
    upload(one, bundle, "6_1_0.png")
    one.page.check("input[name=modality][value=visible]", force=True)
    one.page.check("input[name=camera][value='gate 1']", force=True)
    one.searched(lambda: one.page.click("#search"))
    with one.page.expect_response(re.compile("/api/v1/marks")):
        one.page.locator(".hit .no").nth(1).click()
    before = one.searched(lambda: one.page.click("#again"))
    one.soon(lambda: "#search=" in one.page.url)
    with one.page.expect_response(re.compile("/api/v1/search")) as waiting:
        one.page.reload()
    after = waiting.value.json()
    one.idle()
    assert after["query"] == before["query"] and [h["id"] for h in after["hits"]] == [h["id"] for h in before["hits"]]
    assert one.page.is_checked("input[name=camera][value='gate 1']") and one.page.locator("#pictures li").count() == 1
    other = open_tab(one.page.url)  # somebody else has not the picture
    other.soon(lambda: "not part of its address" in other.page.inner_text("#problem"))
    one.page.click("#clear")
    one.soon(lambda: "#" not in one.page.url)


def test_a_search_with_rows_of_the_archive_is_shared_by_its_address(searched: Tab, open_tab: OpenTab) -> None:
    one = searched
    one.page.click("#clear")
    one.page.click("#pick")
    one.page.wait_for_selector("#picker-rows .hit")
    one.page.select_option("#picker-modality", "infrared")
    one.soon(lambda: set(one.texts("#picker-rows .place")) == {"night 3", "passage 4"})
    one.page.locator("#picker-rows .open").first.click()
    before = one.searched(lambda: one.page.click("#search"))
    one.soon(lambda: "#search=" in one.page.url)
    other = open_tab(one.page.url)
    other.page.wait_for_selector(".hit")
    other.idle()
    assert other.page.locator("#pictures li").count() == 1
    assert other.texts("#hits .place") == one.texts("#hits .place") and before["hits"]


@pytest.mark.parametrize("search", ['{"like":', '{"like":5}', '{"filter":{"cameras":5},"like":["gate 1/5/0"]}'])
def test_an_address_that_was_cut_off_or_changed_is_reported(searched: Tab, open_tab: OpenTab, search: str) -> None:
    other = open_tab(f"{searched.page.url.partition('#')[0]}#search={quote(search)}")
    other.soon(lambda: "incomplete or was changed" in other.page.inner_text("#problem"))
    assert other.page.is_hidden("#found") and other.page.locator("#pictures li").count() == 0


def test_an_address_of_rows_alone_is_searched(searched: Tab, open_tab: OpenTab) -> None:
    """As other programs write it, which do not know the id of the query."""
    asked = quote('{"like":["gate 1/5/0"]}')
    other = open_tab(f"{searched.page.url.partition('#')[0]}#search={asked}")
    other.page.wait_for_selector(".hit")
    assert other.page.locator("#pictures li").count() == 1


def test_marks_go_from_the_cards_with_the_query_that_they_belong_to(searched: Tab) -> None:
    one = searched
    with one.page.expect_response(re.compile("/api/v1/marks")):
        one.page.locator(".hit .yes").first.click()
    one.soon(lambda: one.page.is_enabled("#again") and one.page.locator(".hit.right").count() == 1)
    one.page.click("#pick")
    one.page.locator("#picker-rows .open").first.click()
    one.soon(lambda: one.page.locator("#pictures li").count() == 2)
    assert one.page.locator(".hit.right").count() == 0 and one.page.is_disabled("#again")


def test_the_menu_of_files_closes(searched: Tab) -> None:
    one = searched

    def is_open() -> bool:
        return one.page.locator("#export").evaluate("(menu) => menu.open")

    one.page.click("#export > summary")
    one.soon(is_open)
    one.page.keyboard.press("Escape")
    one.soon(lambda: not is_open())
    assert one.page.evaluate("document.activeElement.tagName") == "SUMMARY"
    one.page.keyboard.press("Enter")
    one.soon(is_open)
    one.page.click("#verdict")
    one.soon(lambda: not is_open())
    one.page.click("#export > summary")
    one.page.locator("#more, #hits .open").first.focus()
    one.soon(lambda: not is_open())


@pytest.mark.parametrize(("kind", "said"), [("video", "is not kept"), ("video, boxed", "marks the person")])
def test_frames_around_a_hit_say_the_same_of_its_box(searched: Tab, bundle: Bundle, kind: str, said: str) -> None:
    one, jpeg = searched, picture(bundle)
    one.page.route(
        "**/api/v1/scene?*",
        lambda route: route.fulfill(
            body=jpeg,
            content_type="image/jpeg",
            headers={"vireid-scene": kind if "offset_s=0" in route.request.url else "video"},
        ),
    )
    one.page.locator(".hit .open").first.click()
    one.page.click("#scene-show")
    one.soon(lambda: said in one.page.inner_text("#scene-note"))
    one.page.click("#scene-after")
    one.soon(lambda: "0.5" in one.page.inner_text("#scene-seconds") and said in one.page.inner_text("#scene-note"))


def test_nothing_is_wider_than_the_smallest_phone(searched: Tab, open_tab: OpenTab) -> None:
    other = open_tab(searched.page.url, size={"width": 320, "height": 700})
    other.page.wait_for_selector("#search")
    assert other.page.evaluate("document.documentElement.scrollWidth") <= 320  # less a scroll bar


def test_the_audit_log_is_read_on_a_phone(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url, size=NARROW)
    one.page.wait_for_selector(".hit")
    one.page.click("#open-archive")
    one.page.wait_for_selector("#audit td")
    cells = one.page.evaluate(
        "[...document.querySelectorAll('#audit td')].map((x) => [x.clientWidth, x.scrollWidth, x.dataset.head])"
    )
    assert all(wide > 200 and inner <= wide for wide, inner, _ in cells)
    assert {head for _, _, head in cells} == {"When", "Who", "What", "Details"}
