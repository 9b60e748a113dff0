"""The results in Chromium: timeline, marks, one hit beside the query, attention, hostile texts."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from browser import OpenTab, StartServer, upload
from served import examples

from vireid.deploy.bundle import Bundle
from vireid.ingest.index import Crop, index
from vireid.server.settings import ServerSettings

pytestmark = pytest.mark.slow


def test_the_timeline_shows_and_narrows(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector("#timeline svg")
    one.idle()
    label = one.page.get_attribute("#timeline svg", "aria-label")
    assert "48 hits" in label and "gate 1" in label
    one.soon(lambda: one.page.locator("#timeline .dot").count() == 48)
    one.page.locator("#timeline .dot").last.click()  # the best is drawn last
    one.soon(lambda: one.page.evaluate("document.activeElement.closest('.hit').dataset.place") == "0")
    box = one.page.locator("#timeline svg").bounding_box()
    y = box["y"] + box["height"] - 30
    one.page.mouse.move(box["x"] + box["width"] * 0.5, y)
    one.page.mouse.down()
    one.page.mouse.move(box["x"] + box["width"] * 0.7, y, steps=4)
    found = one.searched(one.page.mouse.up)
    assert 0 < found["searched"] < 40 and one.page.input_value("#after") < one.page.input_value("#before")


def test_marks_are_searched_with_again_and_exported(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle, tmp_path: Path
) -> None:
    served = start_server(settings=ServerSettings(examples=examples(bundle)))
    one = open_tab(served.url)
    one.page.wait_for_selector(".hit")
    one.idle()
    ids = [hit["id"] for hit in one.searched(lambda: one.page.click("#search"))["hits"]]
    one.soon(lambda: one.page.is_disabled("#again") and one.page.get_attribute("#export-csv", "href") is None)
    with one.page.expect_response(re.compile("/api/v1/marks")):
        one.page.locator(".hit .yes").nth(2).click()
    with one.page.expect_response(re.compile("/api/v1/marks")):
        one.page.locator(".hit .no").nth(1).click()
    one.soon(lambda: one.page.inner_text("#marked") == "1 right, 1 wrong")
    one.soon(lambda: one.page.locator(".hit.right").count() == 1 == one.page.locator(".hit.wrong").count())
    for form in ("csv", "json"):
        one.page.locator("#export").evaluate("(menu) => (menu.open = true)")
        with one.page.expect_download() as started:
            one.page.click(f"#export-{form}")
        started.value.save_as(tmp_path / f"marks.{form}")
    rows = list(csv.DictReader((tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["id"], row["right"]) for row in rows} == {(ids[2], "True"), (ids[1], "False")}
    assert {row["id"] for row in json.loads((tmp_path / "marks.json").read_text())} == {ids[1], ids[2]}
    found = one.searched(lambda: one.page.click("#again"))
    one.soon(
        lambda: (
            ids[1] not in [hit["id"] for hit in found["hits"]] and "marks used: 2" in one.page.inner_text("#verdict")
        )
    )
    with one.page.expect_response(re.compile("/api/v1/marks")):
        one.page.locator(".hit.right .yes").click()  # pressed again: taken back
    one.soon(lambda: one.page.locator(".hit.right").count() == 0)
    assert [mark.id for mark in served.service.archive.marks.of()] == [ids[1]]


def test_one_hit_beside_the_query(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.locator(".hit .open").nth(1).click()
    one.soon(lambda: one.page.inner_text("#detail-title") == "Hit 2" and one.page.is_disabled("#detail-after") is False)
    facts = one.page.inner_text("#detail-facts")
    assert "Similarity" in facts and "Track" in facts and "p" in facts
    assert "Probability" not in facts  # it is below the threshold
    one.soon(lambda: one.page.locator("#detail-query img").count() == 1 == one.page.locator("#detail-hit img").count())
    one.page.click("#detail-before")
    one.soon(lambda: one.page.inner_text("#detail-title") == "Hit 1" and one.page.is_disabled("#detail-before"))
    assert "Probability" in one.page.inner_text("#detail-facts")
    found = one.searched(lambda: one.page.click("#detail-like"))
    one.soon(
        lambda: (
            len(found["modality"]) == 2
            and one.page.locator("#pictures li").count() == 2
            and one.page.is_visible("#combine")
        )
    )


def test_attention_on_request(start_server: StartServer, open_tab: OpenTab, bundle: Bundle) -> None:
    one = open_tab(start_server(settings=ServerSettings(examples=examples(bundle))).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.soon(lambda: one.page.locator(".heat").count() == 0)
    one.page.click("#attention")
    one.page.wait_for_function("() => document.querySelector('.hit .heat')?.naturalWidth > 0")
    one.page.locator(".hit .open").first.click()
    one.page.wait_for_function("() => document.querySelector('#detail-query .heat')?.naturalWidth > 0")
    one.page.keyboard.press("Escape")
    one.page.click("#attention")
    one.soon(lambda: one.page.locator(".hit .heat").count() == 0)
    other = open_tab(start_server(attention=None, settings=ServerSettings(examples=examples(bundle))).url)
    other.page.wait_for_selector(".hit")
    other.soon(
        lambda: other.page.is_disabled("#attention") and "Not available" in other.page.inner_text("#attention-note")
    )


def test_texts_of_the_archive_are_never_read_as_html(
    start_server: StartServer, open_tab: OpenTab, bundle: Bundle
) -> None:
    served = start_server(fill=False)
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    path = bundle.path.parent / "data/5_1_1.jpg"
    rows = [Crop(f"{evil}{n}", path, evil, 1_700_000_000.0 + n, "visible", evil, evil, (evil,)) for n in range(3)]
    index(served.service.archive, served.service.searcher.extractor, rows)
    one = open_tab(served.url)
    upload(one, bundle)
    one.searched(lambda: one.page.click("#search"))
    one.page.locator(".hit .open").first.click()
    one.page.keyboard.press("Escape")
    one.page.click("#open-archive")
    one.idle()
    one.soon(
        lambda: (
            one.page.title() == "vireid search"
            and one.page.locator("img[onerror], #hits script, dialog script").count() == 0
        )
    )
    one.soon(lambda: evil in one.texts(".hit .place"))
