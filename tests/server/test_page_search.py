"""The search page in Chromium: give pictures, narrow, search, and read the verdict."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import OpenTab, StartServer, upload
from PIL import Image
from served import examples, jpeg

from vireid.deploy.bundle import Bundle
from vireid.search.gallery import Facets
from vireid.server.settings import ServerSettings
from vireid.server.uploads import Limits

pytestmark = pytest.mark.slow


def test_the_filled_in_query_is_answered_at_once(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    first = one.page.locator(".hit").first
    assert "gate 1" in first.inner_text() and "1.000" in first.inner_text() and "15 Nov" in first.inner_text()
    verdict = one.page.inner_text("#verdict")
    assert "among 64 crops" in verdict and "match" in verdict and "treated as visible" in verdict
    assert "Calibrated on 40 people of your own data (manifest, val)" in verdict
    one.soon(lambda: one.page.inner_text("#summary") == "64 crops from 4 cameras")
    shown = "[...document.querySelectorAll('.hit img')].slice(0, 6).every((x) => x.naturalWidth > 0)"
    one.soon(lambda: one.page.evaluate(shown) and one.page.locator(".hit").count() == 48)
    more = one.searched(lambda: one.page.click("#more"))
    one.soon(lambda: len(more["hits"]) == 16 and one.page.locator(".hit").count() == 64 and one.page.is_hidden("#more"))
    one.soon(lambda: one.page.evaluate("document.activeElement.closest('.hit').dataset.place") == "48")
    one.searched(lambda: one.page.locator("#examples button").last.click())
    one.soon(lambda: "No match in the archive" in one.page.inner_text("#verdict"))
    one.soon(lambda: one.page.locator(".hit.below").count() == one.page.locator(".hit").count() > 0)
    assert not any("%" in text for text in one.texts(".hit.below .chance"))


def test_a_thermal_picture_is_read_by_the_range_of_a_camera(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    served = start_server()
    one = open_tab(served.url)
    one.soon(lambda: one.page.is_visible("#welcome"))
    assert one.page.evaluate("document.getElementById('gray-part').hidden")
    gallery = served.service.archive.gallery
    served.service.archive.gray.add({"roof": (1, 2.5), "yard": (1, 2.5), "attic": (0, 9)}, gallery)
    one.page.reload()
    one.page.click("#expert summary")
    one.soon(lambda: one.page.is_visible("#gray"))
    assert one.texts("#gray option") == ["Any camera", "attic (0 to 9)", "roof, yard (1 to 2.5)"]
    upload(one, bundle)
    one.page.select_option("#gray", label="roof, yard (1 to 2.5)")
    found = one.searched(lambda: one.page.click("#search"))
    assert found["stamp"]["gray"] == "1 to 2.5"
    one.page.reload()
    one.soon(lambda: one.page.input_value("#gray") == "[1,2.5]")


def test_upload_and_narrow_by_modality_cameras_and_time(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    one = open_tab(start_server().url)
    one.soon(lambda: one.page.is_visible("#welcome"))
    one.page.click("#search")
    one.soon(lambda: "Choose a picture first" in one.page.inner_text("#problem"))
    upload(one, bundle)
    one.page.check("input[name=modality][value=visible]", force=True)
    found = one.searched(lambda: one.page.click("#search"))
    one.soon(lambda: found["searched"] == 64 and one.page.is_hidden("#problem") and one.page.is_hidden("#welcome"))
    one.page.check("input[name=camera][value='night 3']", force=True)
    found = one.searched(lambda: one.page.click("#search"))
    one.soon(
        lambda: {hit["camera"] for hit in found["hits"]} == {"night 3"} and set(one.texts(".hit .place")) == {"night 3"}
    )
    one.page.uncheck("input[name=camera][value='night 3']", force=True)
    one.page.check("input[name=in][value=infrared]", force=True)
    one.page.fill("#after", "2023-11-15T03:00")  # Berlin: 02:00 UTC
    one.page.fill("#before", "2023-11-15T05:00")
    found = one.searched(lambda: one.page.click("#search"))
    assert {hit["modality"] for hit in found["hits"]} == {"infrared"}
    assert all(1_700_013_600 <= hit["time_s"] < 1_700_020_800 for hit in found["hits"]) and found["searched"] > 0
    one.page.check("input[name=camera][value='gate 1']", force=True)
    one.searched(lambda: one.page.click("#search"))
    one.soon(lambda: "No crop passes" in one.page.inner_text("#verdict") and one.page.locator(".hit").count() == 0)
    one.page.click("#clear")
    one.soon(lambda: one.page.is_visible("#welcome") and one.page.locator("#pictures li").count() == 0)
    one.soon(
        lambda: one.page.input_value("#after") == "" and one.page.locator("input[name=camera]:checked").count() == 0
    )


def test_one_hit_per_track(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.click("#expert > summary")
    one.page.focus("#per-track")
    one.page.keyboard.press("Space")
    found = one.searched(lambda: one.page.click("#search"))
    tracks = [hit["track"] for hit in found["hits"]]
    assert len(tracks) == 32 == len(set(tracks))
    one.soon(lambda: one.page.locator(".hit").count() == 32)
    one.soon(lambda: "one hit per track" in one.page.inner_text("#verdict") and one.page.is_hidden("#more"))
    one.page.click("#clear")
    one.soon(lambda: not one.page.is_checked("#per-track"))


def test_the_prior_changes_only_the_probabilities(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    found = one.searched(lambda: one.page.click("#search"))
    assert found["prior"] == 1 / 32
    one.soon(lambda: "prior 1 in about 32 tracks" in one.page.inner_text("#verdict"))
    one.page.click("#expert > summary")
    one.page.select_option("#prior", "0.5")
    even = one.searched(lambda: one.page.click("#search"))
    assert even["prior"] == 0.5
    one.soon(lambda: "prior 1 in 2 " in one.page.inner_text("#verdict"))
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in even["hits"]]
    assert all(now["probability"] < then["probability"] for now, then in zip(found["hits"], even["hits"], strict=True))
    one.page.select_option("#prior", "own")
    one.fill_number("#prior-many", "1")
    one.page.click("#search")
    one.soon(lambda: "Enter 2 or more" in one.page.inner_text("#problem"))
    one.fill_number("#prior-many", "5000")
    found = one.searched(lambda: one.page.click("#search"))
    assert found["prior"] == 1 / 5000
    one.soon(lambda: "prior 1 in 5,000" in one.page.inner_text("#verdict"))
    one.page.click("#clear")
    one.soon(lambda: one.page.is_hidden("#prior-many"))
    none = open_tab(start_server(calibration=None, settings=ServerSettings(examples=examples(bundle))).url)
    none.page.wait_for_selector(".hit")
    none.soon(lambda: none.page.is_hidden("#prior"))  # without a calibration there is no percentage to move


def test_the_re_rankings_that_there_are_can_be_chosen(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    served = start_server()
    served.service.rerankers["nformer"] = lambda query, gallery: -(query @ gallery.T)  # turns the order round
    one = open_tab(served.url)
    upload(one, bundle)
    one.page.click("#expert > summary")
    one.soon(lambda: one.page.locator("#rerank option:not([hidden])").count() == 4)  # no stripes, no shortest path
    plain = one.searched(lambda: one.page.click("#search"))
    orders = {"": [hit["id"] for hit in plain["hits"]]}
    for name in ("k-reciprocal", "nformer"):
        one.page.select_option("#rerank", name)
        found = one.searched(lambda: one.page.click("#search"))
        assert found["stamp"]["rerank"] != "none" and found["stamp"]["rerank"].endswith("of 64")
        orders[name] = [hit["id"] for hit in found["hits"]]
    assert orders["nformer"][0] not in orders[""] and len({tuple(order) for order in orders.values()}) == 3


def frame(bundle: Bundle) -> bytes:
    picture = Image.new("RGB", (320, 180), "gray")
    with Image.open(bundle.path.parent / "data/5_1_0.png") as crop:
        picture.paste(crop, (200, 60))
    return jpeg(picture, "PNG")


def test_a_box_on_a_frame_by_pointer_and_by_numbers(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    one = open_tab(start_server().url)
    one.page.set_input_files("#file", {"name": "frame.png", "mimeType": "image/png", "buffer": frame(bundle)})
    one.page.wait_for_selector("#pictures .hint")
    with Image.open(bundle.path.parent / "data/5_1_0.png") as crop:
        width, height = crop.size
    one.page.locator("#pictures button").first.click()
    stage = one.page.locator("#box-stage").bounding_box()
    scale = stage["width"] / 320
    one.page.mouse.move(stage["x"] + 200 * scale, stage["y"] + 60 * scale)
    one.page.mouse.down()
    one.page.mouse.move(stage["x"] + (200 + width) * scale, stage["y"] + (60 + height) * scale, steps=5)
    one.page.mouse.up()
    one.soon(lambda: abs(float(one.page.input_value("#box-left")) - 62.5) < 0.5)
    one.page.click("#box-use")
    one.soon(
        lambda: one.page.locator("#pictures .cut").count() == 1 and one.page.locator("#pictures .hint").count() == 0
    )
    found = one.searched(lambda: one.page.click("#search"))
    assert found["hits"][0]["id"] == "gate 1/5/0" and found["hits"][0]["similarity"] > 0.99
    one.page.locator("#pictures button").first.click()
    sides = {"left": 200 / 320, "top": 60 / 180, "right": (200 + width) / 320, "bottom": (60 + height) / 180}
    for side, value in sides.items():
        one.fill_number(f"#box-{side}", f"{value * 100:.2f}")
    one.page.click("#box-use")
    exact = one.searched(lambda: one.page.click("#search"))
    assert exact["hits"][0]["similarity"] > 0.999 and exact["query"] != found["query"]
    one.page.locator("#pictures button").first.click()
    one.fill_number("#box-right", "1")
    one.soon(lambda: one.page.is_disabled("#box-use"))
    one.page.click("#box-whole")
    one.soon(lambda: one.page.locator("#pictures .cut").count() == 0)


def test_pick_from_the_archive(start_server: StartServer, open_tab: OpenTab) -> None:
    one = open_tab(start_server().url)
    one.page.click("#pick")
    one.page.wait_for_selector("#picker-rows .hit")
    one.soon(lambda: one.page.locator("#picker-rows .hit").count() == 40)
    assert one.texts("#picker-rows .divide") == ["Wed, 15 Nov 2023"]
    newest = [one.page.locator("#picker-rows .hit").nth(place).inner_text().split() for place in (0, 2, 39)]
    assert newest[0] == ["passage", "4", "09:17:21"] and newest[1] == ["night", "3", "09:16:21"]  # Berlin
    one.page.click("#picker-more")
    one.page.wait_for_function("() => document.querySelectorAll('#picker-rows .hit').length === 64")
    one.page.select_option("#picker-camera", "hall 2")
    one.page.wait_for_function("() => document.querySelectorAll('#picker-rows .hit').length === 16")
    one.page.fill("#picker-before", "2023-11-15T04:00")
    one.page.wait_for_function("() => document.querySelectorAll('#picker-rows .hit').length === 4")
    one.page.fill("#picker-before", "2001-01-01T00:00")
    one.soon(lambda: "No crop passes the filter" in one.page.inner_text("#picker-said"))
    one.page.fill("#picker-before", "")
    one.page.locator("#picker-rows .open").first.click()
    one.soon(lambda: one.page.is_hidden("#picker"))
    found = one.searched(lambda: one.page.click("#search"))
    assert found["hits"] and found["modality"] == ["visible"]


def test_errors_are_reported_and_the_page_goes_on(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(limits=Limits(picture_bytes=300_000))).url)
    one.page.set_input_files("#file", {"name": "x.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"})
    one.soon(lambda: "x.pdf is not a picture" in one.page.inner_text("#problem"))
    assert one.page.locator("#pictures li").count() == 0
    one.page.set_input_files("#file", {"name": "x.tif", "mimeType": "image/tiff", "buffer": b"II*\0 no picture"})
    one.soon(lambda: one.page.inner_text("#pictures .gone") == "x.tif")  # no browser shows one
    one.refusals.add(415)
    with one.page.expect_response(re.compile("/api/v1/search")) as refused:
        one.page.click("#search")
    assert refused.value.status == 415
    one.page.wait_for_selector("#problem:not([hidden])")
    one.soon(lambda: "Picture 1 cannot be read as a picture" in one.page.inner_text("#problem"))
    one.page.click("#clear")
    upload(one, bundle)
    assert one.searched(lambda: one.page.click("#search"))["hits"]
    big = {"name": "big.png", "mimeType": "image/png", "buffer": bytes(1_300_000)}
    one.page.set_input_files("#file", big)
    one.soon(lambda: "big.png has 1.3 MB" in one.page.inner_text("#problem"))


def test_a_million_rows_and_hundreds_of_cameras(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle, monkeypatch: Any
) -> None:
    """The page asks for pages and counts; it never asks for all of anything."""
    served = start_server(settings=ServerSettings(examples=examples(bundle)))
    gallery = served.service.archive.gallery
    cameras = {f"street {number}": 3000 for number in range(330)} | {"gate 1": 10_000}
    facets = Facets(cameras, {0: 600_000, 1: 400_000}, {}, 1_700_000_000.0, 1_700_900_000.0, 90_000)
    monkeypatch.setattr(gallery, "facets", lambda: facets)
    monkeypatch.setattr(gallery, "count", lambda where=None: 1_000_000)
    one = open_tab(served.url)
    sizes: list[int] = []
    one.page.on(
        "response", lambda answer: sizes.append(len(answer.body())) if "/api/" in answer.url and answer.ok else None
    )
    one.page.wait_for_selector(".hit")
    one.idle()
    one.soon(lambda: one.page.inner_text("#summary") == "1,000,000 crops from 331 cameras")
    one.soon(lambda: "among 1,000,000 crops" in one.page.inner_text("#verdict"))
    one.soon(lambda: one.page.locator(".hit").count() == 48 and max(sizes) < 60_000)
    one.page.fill("#camera-word", "gate")
    one.soon(lambda: one.page.locator("#cameras label:visible").count() == 1)
    one.page.check("input[name=camera][value='gate 1']", force=True)
    assert len(one.searched(lambda: one.page.click("#search"))["hits"]) == 16
