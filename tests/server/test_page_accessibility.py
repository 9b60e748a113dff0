"""The page in Chromium by keys alone, read by axe, in both languages, wide and narrow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import NARROW, WIDE, OpenTab, StartServer, violations
from served import examples

from vireid.deploy.bundle import Bundle
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


def test_keys_alone_are_enough(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    keys = one.page.keyboard

    def at() -> str:
        return one.page.evaluate(
            "document.activeElement.id || document.activeElement.closest('.hit')?.dataset.place || "
            "document.activeElement.className"
        )

    one.page.evaluate("document.activeElement.blur()")
    keys.press("/")
    one.soon(lambda: at() == "file")
    seen = set()
    for _ in range(60):  # every control of the form is reached
        keys.press("Tab")
        if one.page.evaluate("document.activeElement.matches('#expert > summary')"):
            keys.press("Enter")
        seen.add(one.page.evaluate("document.activeElement.id || document.activeElement.name"))
        if at() == "clear":
            break
    filled = {"pick", "modality", "in", "camera", "after", "before", "rate", "rerank", "prior", "per-track", "purpose"}
    assert filled | {"search"} <= seen
    one.page.focus("#search")
    one.searched(lambda: keys.press("Enter"))
    one.soon(lambda: at() == "answer")
    keys.press("ArrowDown")  # from the answer as a whole to its first hit
    one.soon(lambda: at() == "0")
    keys.press("ArrowRight")
    one.soon(lambda: at() == "1")
    left = one.page.evaluate("document.activeElement.getBoundingClientRect().left")
    keys.press("ArrowDown")
    one.soon(lambda: int(at()) > 2)
    assert one.page.evaluate("document.activeElement.getBoundingClientRect().left") == left
    keys.press("ArrowUp")
    one.soon(lambda: at() == "1")
    keys.press("ArrowLeft")
    one.soon(lambda: at() == "0")
    with one.page.expect_response(re.compile("/api/v1/marks")):
        keys.press("r")
    keys.press("ArrowRight")
    with one.page.expect_response(re.compile("/api/v1/marks")):
        keys.press("w")
    one.soon(lambda: one.page.inner_text("#marked") == "1 right, 1 wrong")
    keys.press("Enter")
    one.soon(lambda: one.page.is_visible("#detail"))
    keys.press("ArrowRight")
    one.soon(lambda: one.page.inner_text("#detail-title") == "Hit 3")
    keys.press("Escape")
    one.soon(lambda: one.page.is_hidden("#detail") and at() == "2")
    keys.press("a")
    one.soon(lambda: one.page.get_attribute("#attention", "aria-pressed") == "true")
    keys.press("?")
    one.soon(lambda: one.page.is_visible("#help"))
    keys.press("Escape")
    one.page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    one.page.locator(".skip").focus()
    keys.press("Enter")
    one.soon(lambda: at() == "answer")


@pytest.mark.parametrize(("lang", "size", "scheme"), [("en-GB", WIDE, "light"), ("zh-CN", NARROW, "dark")])
def test_axe_finds_nothing(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle, lang: str, size: Any, scheme: Any
) -> None:
    one = open_tab(
        start_server(settings=ServerSettings(examples=examples(bundle))).url, lang, size, color_scheme=scheme
    )
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.locator(".hit .yes").first.click()
    one.page.locator(".hit .no").nth(1).click()
    one.page.click("#attention")
    one.page.click("#visits-show")
    one.page.wait_for_selector("#visits-list .passage")
    one.page.click("#expert > summary")
    one.page.click("#export > summary")
    one.idle()
    found = violations(one)
    one.page.click("#export > summary")
    for button, dialog in (
        (".hit .open", "detail"),
        ("#open-help", "help"),
        ("#open-archive", "manage"),
        ("#pick", "picker"),
        ("#open-alarms", "alarms"),
        ("#case-keep", "keep"),
        ("#open-cases", "cases-dialog"),
    ):
        one.page.locator(button).first.click()
        one.idle()
        found += [f"{dialog}: {line}" for line in violations(one, f"#{dialog}")]
        one.page.keyboard.press("Escape")
    one.page.locator("#pictures button").first.click()
    found += [f"box: {line}" for line in violations(one, "#box")]
    one.page.keyboard.press("Escape")
    one.searched(lambda: one.page.locator("#examples button").last.click())
    found += [f"nobody: {line}" for line in violations(one, "#verdict")]
    one.page.click("#clear")
    one.page.click("#search")
    found += [f"problem: {line}" for line in violations(one)]
    assert found == []
    width = one.page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"]  # nothing has to be scrolled sideways


def test_both_languages_say_everything(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url, "zh-CN")
    one.page.wait_for_selector(".hit")
    words = one.page.evaluate("import('/page/words.js').then((found) => found.WORDS)")
    assert set(words["en"]) == set(words["zh"]) and all(words["en"].values()) and all(words["zh"].values())
    for key, text in words["en"].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", words["zh"][key])), key
    page = Path(__file__).parents[2] / "vireid/server/page"
    used = set(re.findall(r'data-t(?:-label)?="(\w+)"', (page / "index.html").read_text(encoding="utf-8")))
    for path in page.glob("*.js"):
        used |= set(re.findall(r'\bt\("(\w+)"', path.read_text(encoding="utf-8")))
    assert used <= set(words["en"])
    one.soon(lambda: one.page.get_attribute("html", "lang") == "zh-CN" and "匹配" in one.page.inner_text("#verdict"))
    left = [text for text in one.texts("body")[0].splitlines() if text in words["en"].values() and len(text) > 4]
    assert left == []  # no English word was left
    one.page.click("#language")
    one.soon(lambda: one.page.get_attribute("html", "lang") == "en" and "match" in one.page.inner_text("#verdict"))
    one.page.reload()
    one.page.wait_for_selector(".hit")
    one.soon(lambda: one.page.get_attribute("html", "lang") == "en")  # the choice is kept
