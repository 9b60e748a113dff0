"""The page in Chromium: several galleries in one service, chosen on the page and kept in its address."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import OpenTab, StartServer
from served import examples

from vireid.deploy.bundle import Bundle
from vireid.search.gallery import Filter
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


def test_a_gallery_is_chosen_and_every_request_goes_to_it(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    server = start_server("harbor", "north", settings=ServerSettings(examples=examples(bundle)))
    server.others[0].archive.forget(where=Filter(cameras=("gate 1", "night 3")))
    server.others[0].forget_vectors()
    one = open_tab(server.url)
    asked: list[str] = []
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.wait_for_selector(".hit")
    one.idle()
    assert one.texts("#gallery option") == ["harbor", "north"] and one.page.input_value("#gallery") == "harbor"
    one.page.check("input[name=camera][value='gate 1']", force=True)
    asked.clear()
    answer = one.searched(lambda: one.page.select_option("#gallery", "north"))  # with the picture that was there
    assert answer["searched"] == 32 and {hit["camera"] for hit in answer["hits"]} == {"hall 2", "passage 4"}
    assert "32 crops from 2 cameras" in one.page.inner_text("#summary")
    assert one.texts("#cameras span") and all("gate 1" not in text for text in one.texts("#cameras label"))
    with one.page.expect_response(re.compile("/api/v1/marks")):
        one.page.locator(".hit .yes").first.click()
    with one.page.expect_response(re.compile("/api/v1/visits")):
        one.page.click("#visits-show")
    one.page.wait_for_selector("#visits")
    one.page.click("#pick")
    one.page.wait_for_selector("#picker-rows .hit")
    one.page.keyboard.press("Escape")
    one.page.click(".hit .open >> nth=0")
    one.page.click("#scene-show")
    one.page.wait_for_function("() => document.getElementById('scene-picture').naturalWidth > 0")
    one.page.keyboard.press("Escape")
    one.idle()
    to_api = [url for url in asked if "/api/v1/" in url]
    kinds = {re.sub(r".*/api/v1/([\w/-]+).*", r"\1", url) for url in to_api}
    assert {"about", "search", "marks", "visits", "records/list", "scene", "thumbnail"} <= kinds
    assert [url for url in to_api if "gallery=north" not in url] == []
    assert "gallery=north" in one.page.get_attribute("#export-csv", "href")
    other = open_tab(one.page.url)  # shared
    other.soon(lambda: other.page.input_value("#gallery") == "north")
    one.page.click("#clear")
    one.soon(lambda: one.page.url.endswith("#gallery=north"))


def test_one_gallery_needs_no_choice_and_an_unknown_one_is_named(start_server: StartServer, open_tab: OpenTab) -> None:
    server = start_server()
    one = open_tab(server.url)
    one.soon(lambda: "64 crops" in one.page.inner_text("#summary"))
    assert one.page.is_hidden("#gallery")
    other = open_tab(f"{server.url}/#gallery=gone")
    other.soon(lambda: "galleries gallery" in other.page.inner_text("#problem"))
    other.soon(lambda: "64 crops" in other.page.inner_text("#summary") and "gone" not in other.page.url)
    other.faults = [text for text in other.faults if "404" not in text]
