"""The page in Chromium: people in an uploaded frame are offered, chosen by pointer and keys, and searched for."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import NARROW, WIDE, OpenTab, StartServer, Tab, violations
from PIL import Image
from served import examples, jpeg
from spotted import Spotter, frame

from vireid.deploy.bundle import Bundle
from vireid.server.detection import Detection
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow
THREE = frame((500, 40, 580, 300), (60, 60, 140, 320), (250, 100, 290, 220), size=(640, 360))  # unordered
ONE = frame((300, 80, 360, 260), size=(640, 360))
CROP = frame((2, 2, 62, 126), size=(64, 128))


@pytest.fixture
def detecting() -> ServerSettings:
    return ServerSettings(detection=Detection(Spotter()))


def give(tab: Tab, *pictures: Image.Image) -> None:
    """Upload pictures, and wait until the service has looked at them."""
    names = [f"{number}.png" for number in range(len(pictures))]
    files = [
        {"name": name, "mimeType": "image/png", "buffer": jpeg(picture, "PNG")}
        for name, picture in zip(names, pictures, strict=True)
    ]
    tab.page.set_input_files("#file", files)  # type: ignore[arg-type]
    tab.page.wait_for_selector(f"#pictures li:nth-child({len(pictures)})")
    tab.idle()


def asked(tab: Tab, press: Any) -> list[Any]:
    """The boxes of the search that `press` starts."""
    tab.searched(press)
    return tab.page.evaluate("import('/page/state.js').then((found) => found.state.sent.body.boxes)")


def said(tab: Tab) -> str:
    return tab.page.text_content("#status") or ""


def test_one_of_several_is_chosen_by_click(
    start_server: StartServer, open_tab: OpenTab, detecting: ServerSettings
) -> None:
    one = open_tab(start_server(settings=detecting).url)
    give(one, THREE)
    assert one.texts("#pictures .person") == ["1", "2", "3"]
    assert one.texts("#pictures .hint") == ["3 people were found. Choose one, or draw a box."]
    assert said(one) == "Picture 1: 3 people were found. Choose one, or draw a box."
    one.page.click("#search")  # nobody is chosen yet
    one.soon(lambda: "Choose who to search for in picture 1" in one.page.inner_text("#problem"))
    assert one.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Person 1 of 3 in picture 1"
    picture, person = (one.page.locator(f"#pictures {where}").bounding_box() for where in ("img", ".person >> nth=1"))
    assert picture and person  # the box lies over the person, with a margin
    scale = picture["width"] / 640
    assert abs(person["x"] - picture["x"] - 248 * scale) < 1 and abs(person["y"] - picture["y"] - 94 * scale) < 1
    assert abs(person["width"] - 44 * scale) < 1 and abs(person["height"] - 132 * scale) < 1
    one.page.click("#pictures .person >> nth=1")
    assert one.page.locator(".person[aria-pressed=true]").count() == 1 and one.page.locator(".hint").count() == 0
    boxes = asked(one, lambda: one.page.click("#search"))
    assert boxes == [pytest.approx([248 / 640, 94 / 360, 292 / 640, 226 / 360])]
    one.page.get_by_role("button", name="Whole picture").click()
    assert one.page.get_attribute("[data-key='1-whole']", "aria-pressed") == "true"
    assert asked(one, lambda: one.page.click("#search")) == []
    one.page.click("#pictures .person >> nth=0")
    one.page.get_by_role("button", name="Draw a box").click()  # a box by hand begins with the one that is chosen
    assert one.page.input_value("#box-left") == "8.8"
    one.fill_number("#box-left", "50")
    one.fill_number("#box-right", "75")
    one.page.click("#box-use")
    assert asked(one, lambda: one.page.click("#search"))[0][::2] == [0.5, 0.75]
    assert one.page.locator(".person[aria-pressed=true]").count() == 0 and one.faults == []


def test_keys_alone_choose_a_person_and_the_choice_is_said(
    start_server: StartServer, open_tab: OpenTab, detecting: ServerSettings
) -> None:
    one = open_tab(start_server(settings=detecting).url)
    give(one, THREE)
    keys = one.page.keyboard
    one.page.evaluate("document.querySelector('#language').focus()")
    for number in (1, 2, 3):
        keys.press("Tab")
        assert one.page.evaluate("document.activeElement.textContent") == str(number)
    keys.press("Enter")
    assert said(one) == "Person 3 of 3 is searched for."
    assert one.page.evaluate("document.activeElement.textContent") == "3"  # the focus stays where it was
    assert one.page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    keys.press("Shift+Tab")
    keys.press("Enter")
    assert said(one) == "Person 2 of 3 is searched for."
    for _ in range(2):
        keys.press("Tab")
    keys.press("Enter")
    assert said(one) == "The whole picture is searched."
    one.page.click("#language")
    assert one.page.get_attribute(".person", "aria-label") == "图片 1 中的第 1 个人，共 3 个"


def test_one_person_is_chosen_a_crop_is_taken_as_it_is_and_nobody_is_said(
    start_server: StartServer, open_tab: OpenTab, detecting: ServerSettings
) -> None:
    one = open_tab(start_server(settings=detecting).url)
    give(one, ONE, CROP, frame(size=(640, 360)))
    items = one.page.locator("#pictures li")
    assert [items.nth(at).locator(".person").count() for at in range(3)] == [1, 0, 0]
    hints = [items.nth(at).locator(".hint").all_inner_texts() for at in range(3)]
    assert hints == [
        ["One person was found. The box is searched."],
        [],
        ["No person was found in this picture. Draw a box around the person, or search the whole picture."],
    ]
    boxes = asked(one, lambda: one.page.click("#search"))
    assert boxes == [pytest.approx([297 / 640, 71 / 360, 363 / 640, 269 / 360]), None, None]
    one.page.get_by_role("button", name="Remove picture 1").click()
    assert asked(one, lambda: one.page.click("#search")) == []


def test_a_search_waits_for_the_people_in_its_picture(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    go_on = threading.Event()

    class Slow(Spotter):
        def __call__(self, frames: Any) -> Any:
            assert go_on.wait(300)
            return super().__call__(frames)

    settings = ServerSettings(detection=Detection(Slow()), examples=examples(bundle))
    one = open_tab(start_server(settings=settings).url)
    one.page.wait_for_selector(".hit")  # an example is a crop: nobody is looked for in it
    one.page.click("#clear")
    file: Any = {"name": "a.png", "mimeType": "image/png", "buffer": jpeg(ONE, "PNG")}
    one.page.set_input_files("#file", file)
    one.soon(lambda: one.texts("#pictures .hint") == ["Looking for people …"])

    def press() -> None:
        one.page.click("#search")
        one.soon(lambda: said(one) == "Looking for people …")
        go_on.set()

    assert asked(one, press) == [pytest.approx([297 / 640, 71 / 360, 363 / 640, 269 / 360])]
    go_on.clear()
    one.page.set_input_files("#file", file)
    one.soon(lambda: "Looking for people …" in one.texts("#pictures .hint"))
    one.page.click("#search")
    one.page.click("#clear")  # what was asked is not wanted any more
    go_on.set()
    one.idle()
    assert one.page.is_visible("#welcome") and one.page.is_hidden("#problem") and one.faults == []


def test_a_picture_that_could_not_be_looked_at_is_searched_by_hand(
    start_server: StartServer, open_tab: OpenTab
) -> None:
    def broken(frames: Any) -> Any:
        raise RuntimeError("of the runtime")

    one = open_tab(start_server(settings=ServerSettings(detection=Detection(broken))).url)
    one.refusals.add(500)
    give(one, ONE)
    assert one.texts("#pictures .hint") == ["This failed on the server, whose log has the reason"]
    assert asked(one, lambda: one.page.click("#search")) == []


def test_without_a_detector_nothing_is_asked(start_server: StartServer, open_tab: OpenTab) -> None:
    one = open_tab(start_server().url)
    sent: list[str] = []
    one.page.on("request", lambda request: sent.append(request.url))
    give(one, ONE)
    assert one.texts("#pictures .hint") == ["This looks like a whole frame. Draw a box around the person."]
    assert not any("detect" in url for url in sent)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_axe_finds_nothing_and_boxes_stay_in_the_picture(
    start_server: StartServer, open_tab: OpenTab, detecting: ServerSettings, size: dict[str, int]
) -> None:
    one = open_tab(start_server(settings=detecting).url, size=size)
    portrait = frame((20, 300, 120, 620), (200, 310, 300, 700), size=(480, 800))
    give(one, THREE, portrait)
    one.page.click("#pictures .person >> nth=0")
    assert violations(one) == []
    for at, widest in ((0, 640), (1, 480)):
        item = one.page.locator("#pictures li").nth(at)
        picture, shot = item.locator("img").bounding_box(), item.locator(".shot").bounding_box()
        assert picture and shot and 200 < picture["width"] <= min(widest, size["width"]) and picture == shot
    assert one.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_another_gallery_keeps_the_people_and_the_choice(
    start_server: StartServer, open_tab: OpenTab, detecting: ServerSettings
) -> None:
    one = open_tab(start_server("day", "night", settings=detecting).url)
    give(one, THREE)
    one.page.click("#pictures .person >> nth=2")
    boxes = asked(one, lambda: one.page.click("#search"))
    one.searched(lambda: one.page.select_option("#gallery", "night"))
    assert one.texts("#pictures .person") == ["1", "2", "3"]
    assert one.page.get_attribute("#pictures .person >> nth=2", "aria-pressed") == "true"
    assert asked(one, lambda: one.page.click("#search")) == boxes != []
    one.page.reload()  # the box of the search stays, the others are not looked for again
    one.page.wait_for_selector(".hit")
    one.idle()
    assert asked(one, lambda: one.page.click("#search")) == boxes


def test_a_gallery_that_is_chosen_meanwhile_ends_no_detection(start_server: StartServer, open_tab: OpenTab) -> None:
    go_on = threading.Event()

    class Slow(Spotter):
        def __call__(self, frames: Any) -> Any:
            assert go_on.wait(300)
            return super().__call__(frames)

    settings = ServerSettings(detection=Detection(Slow()))
    one = open_tab(start_server("day", "night", settings=settings).url)
    one.page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": jpeg(THREE, "PNG")})
    one.soon(lambda: one.texts("#pictures .hint") == ["Looking for people …"])
    with one.page.expect_request(re.compile("detect.gallery=night")):
        one.page.select_option("#gallery", "night")
    go_on.set()
    one.soon(lambda: one.texts("#pictures .person") == ["1", "2", "3"])
    assert one.faults == []
