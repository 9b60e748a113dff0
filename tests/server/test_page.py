"""The search page in a real Chromium, end to end: searched with, marked, read by axe, used by keys alone."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("multipart", reason="needs the extra `serve`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")
pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright
from served import examples, jpeg, make_bundle, make_service

from vireid.deploy.bundle import Bundle
from vireid.ingest.index import Crop, index
from vireid.search.gallery import Facets
from vireid.server.app import Service, create_app
from vireid.server.auth import Tokens
from vireid.server.uploads import Limits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parent / "axe/axe.min.js.gz"
PATIENCE_MS = 180_000  # on a machine that does other work the browser's own 30 s are not enough to start it
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@dataclass
class Served:
    """A service on a port of this machine."""

    service: Service
    url: str = ""
    server: Any = None
    thread: threading.Thread | None = None

    def start(self) -> Served:
        config = uvicorn.Config(create_app(self.service), host="127.0.0.1", port=0, log_level="error", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def stop(self) -> None:
        self.server.should_exit = True
        assert self.thread is not None
        self.thread.join(20)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield found
        found.close()


@pytest.fixture
def serve(bundle: Bundle, tmp_path: Path) -> Iterator[Any]:
    running: list[Served] = []

    def start(**more: Any) -> Served:
        service = make_service(tmp_path / f"files{len(running)}", bundle, threshold=0.995, **more)
        running.append(Served(service).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


@dataclass
class Tab:
    """A page, and what it should not have: errors, and requests to anywhere else."""

    page: Any
    context: Any
    faults: list[str] = field(default_factory=list)

    def idle(self) -> None:
        self.page.wait_for_load_state("networkidle")

    def soon(self, happens: Callable[[], bool]) -> None:
        """What an action leads to is there when the page has come to it, not when the action returns."""
        until = time.monotonic() + PATIENCE_MS / 1000
        while not happens() and time.monotonic() < until:
            self.page.wait_for_timeout(50)
        assert happens()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def searched(self, work: Any) -> dict[str, Any]:
        """What the service said to the search that `work` starts, once the page shows it."""
        with self.page.expect_response(re.compile("/api/search")) as told:
            work()
        found = told.value.json()
        self.page.wait_for_function("() => !document.body.classList.contains('busy')")
        self.idle()
        return found


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    opened: list[Tab] = []

    def new(url: str, lang: str = "en-GB", size: dict[str, int] = WIDE, **more: Any) -> Tab:
        context = browser.new_context(viewport=size, locale=lang, timezone_id="Europe/Berlin", **more)
        context.set_default_timeout(PATIENCE_MS)
        made = Tab(context.new_page(), context)

        def elsewhere(sent: Any) -> None:
            if not sent.url.startswith((url, "blob:", "data:")):
                made.faults.append(sent.url)

        made.page.on("pageerror", lambda error: made.faults.append(f"error: {error}"))
        made.page.on("console", lambda told: made.faults.append(told.text) if told.type == "error" else None)
        made.page.on("request", elsewhere)
        made.page.goto(url)
        opened.append(made)
        return made

    yield new
    for one in opened:
        one.context.close()
        assert one.faults == []


def upload(tab: Tab, bundle: Bundle, name: str = "5_1_1.jpg") -> None:
    tab.page.set_input_files("#file", bundle.path.parent / "data" / name)
    tab.page.wait_for_selector("#pictures li")


def violations(tab: Tab, where: str = "html") -> list[str]:
    """What axe finds, with the element."""
    if not tab.page.evaluate("'axe' in window"):
        tab.page.evaluate(gzip.decompress(AXE.read_bytes()).decode())
    found = tab.page.evaluate("(where) => axe.run(where)", where)
    assert found["passes"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found["violations"] for node in one["nodes"]]


# --- what people come for ---------------------------------------------------------------------------------------------


def test_the_filled_in_query_is_answered_at_once(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    first = one.page.locator(".hit").first
    assert "gate 1" in first.inner_text() and "1.000" in first.inner_text() and "15 Nov" in first.inner_text()
    verdict = one.page.inner_text("#verdict")
    assert "among 64 crops" in verdict and "match" in verdict and "read as visible" in verdict
    one.soon(lambda: one.page.inner_text("#summary") == "64 crops from 4 cameras")
    shown = "[...document.querySelectorAll('.hit img')].slice(0, 6).every((x) => x.naturalWidth > 0)"
    one.soon(lambda: one.page.evaluate(shown) and one.page.locator(".hit").count() == 48)
    more = one.searched(lambda: one.page.click("#more"))
    one.soon(lambda: len(more["hits"]) == 16 and one.page.locator(".hit").count() == 64 and one.page.is_hidden("#more"))
    one.soon(lambda: one.page.evaluate("document.activeElement.closest('.hit').dataset.place") == "48")
    one.searched(lambda: one.page.locator("#examples button").last.click())
    one.soon(lambda: "Nobody in the archive" in one.page.inner_text("#verdict"))
    one.soon(lambda: one.page.locator(".hit.below").count() == one.page.locator(".hit").count() > 0)


def test_upload_and_narrow_by_modality_cameras_and_time(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve().url)
    one.soon(lambda: one.page.is_visible("#welcome"))
    one.page.click("#search")
    one.soon(lambda: "Give a picture first" in one.page.inner_text("#problem"))
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


def test_one_hit_per_track(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.focus("#per-track")
    one.page.keyboard.press("Space")
    found = one.searched(lambda: one.page.click("#search"))
    tracks = [hit["track"] for hit in found["hits"]]
    assert len(tracks) == 32 == len(set(tracks))
    one.soon(lambda: one.page.locator(".hit").count() == 32)
    one.soon(lambda: "one hit per track" in one.page.inner_text("#verdict") and one.page.is_hidden("#more"))
    one.page.click("#clear")
    one.soon(lambda: not one.page.is_checked("#per-track"))


def test_the_chances_before_move_the_percentages_alone(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    even = one.searched(lambda: one.page.click("#search"))
    assert even["prior"] == 0.5
    one.soon(lambda: "even chances before" in one.page.inner_text("#verdict"))
    one.page.select_option("#prior", "searched")
    found = one.searched(lambda: one.page.click("#search"))
    assert found["prior"] == 1 / 64
    one.soon(lambda: "chances before 1 in 64" in one.page.inner_text("#verdict"))
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in even["hits"]]
    assert all(now["probability"] < then["probability"] for now, then in zip(found["hits"], even["hits"], strict=True))
    one.page.select_option("#prior", "own")
    one.page.fill("#prior-many", "1")
    one.page.click("#search")
    one.soon(lambda: "Give 2 or more" in one.page.inner_text("#problem"))
    one.page.fill("#prior-many", "5000")
    found = one.searched(lambda: one.page.click("#search"))
    assert found["prior"] == 1 / 5000
    one.soon(lambda: "chances before 1 in 5,000" in one.page.inner_text("#verdict"))
    one.page.click("#clear")
    one.soon(lambda: one.page.is_hidden("#prior-many"))
    none = tab(serve(calibration=None, examples=examples(bundle)).url)
    none.page.wait_for_selector(".hit")
    none.soon(lambda: none.page.is_hidden("#prior"))  # without a calibration there is no percentage to move


def test_the_re_rankings_that_there_are_can_be_chosen(serve: Any, tab: Any, bundle: Bundle) -> None:
    served = serve()
    served.service.reranks["nformer"] = lambda query, gallery: -(query @ gallery.T)  # turns the order round
    one = tab(served.url)
    upload(one, bundle)
    one.soon(lambda: one.page.locator("#rerank option:not([hidden])").count() == 3)  # no stripes, no shortest path
    plain = one.searched(lambda: one.page.click("#search"))
    orders = {"": [hit["id"] for hit in plain["hits"]]}
    for name in ("k-reciprocal", "nformer"):
        one.page.select_option("#rerank", name)
        found = one.searched(lambda: one.page.click("#search"))
        assert found["stamp"]["rerank"] != "none" and found["stamp"]["rerank"].endswith("of 64")
        orders[name] = [hit["id"] for hit in found["hits"]]
    assert orders["nformer"][0] not in orders[""] and len({tuple(order) for order in orders.values()}) == 3


def test_the_timeline_shows_and_narrows(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url)
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


def test_marks_are_searched_with_again_and_exported(serve: Any, tab: Any, bundle: Bundle, tmp_path: Path) -> None:
    served = serve(examples=examples(bundle))
    one = tab(served.url)
    one.page.wait_for_selector(".hit")
    one.idle()
    ids = [hit["id"] for hit in one.searched(lambda: one.page.click("#search"))["hits"]]
    one.soon(lambda: one.page.is_disabled("#again") and one.page.get_attribute("#export-csv", "href") is None)
    with one.page.expect_response(re.compile("/api/marks")):
        one.page.locator(".hit .yes").nth(2).click()
    with one.page.expect_response(re.compile("/api/marks")):
        one.page.locator(".hit .no").nth(1).click()
    one.soon(lambda: one.page.inner_text("#marked") == "1 right, 1 wrong")
    one.soon(lambda: one.page.locator(".hit.right").count() == 1 == one.page.locator(".hit.wrong").count())
    for form in ("csv", "json"):
        with one.page.expect_download() as started:
            one.page.click(f"#export-{form}")
        started.value.save_as(tmp_path / f"marks.{form}")
    rows = list(csv.DictReader((tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["id"], row["right"]) for row in rows} == {(ids[2], "True"), (ids[1], "False")}
    assert {row["id"] for row in json.loads((tmp_path / "marks.json").read_text())} == {ids[1], ids[2]}
    found = one.searched(lambda: one.page.click("#again"))
    one.soon(
        lambda: ids[1] not in [hit["id"] for hit in found["hits"]] and "with 2 marks" in one.page.inner_text("#verdict")
    )
    with one.page.expect_response(re.compile("/api/marks")):
        one.page.locator(".hit.right .yes").click()  # pressed again: taken back
    one.soon(lambda: one.page.locator(".hit.right").count() == 0)
    assert [mark.id for mark in served.service.archive.marks.of()] == [ids[1]]


def test_one_hit_beside_the_query(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.locator(".hit .open").nth(1).click()
    one.soon(lambda: one.page.inner_text("#detail-title") == "Hit 2" and one.page.is_disabled("#detail-after") is False)
    facts = one.page.inner_text("#detail-facts")
    assert "Similarity" in facts and "Probability" in facts and "Track" in facts and "p" in facts
    one.soon(lambda: one.page.locator("#detail-query img").count() == 1 == one.page.locator("#detail-hit img").count())
    one.page.click("#detail-before")
    one.soon(lambda: one.page.inner_text("#detail-title") == "Hit 1" and one.page.is_disabled("#detail-before"))
    found = one.searched(lambda: one.page.click("#detail-like"))
    one.soon(
        lambda: (
            len(found["modality"]) == 2
            and one.page.locator("#pictures li").count() == 2
            and one.page.is_visible("#combine")
        )
    )


def test_attention_on_request(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url)
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
    other = tab(serve(attention=None, examples=examples(bundle)).url)
    other.page.wait_for_selector(".hit")
    other.soon(lambda: other.page.is_disabled("#attention") and "Not shown" in other.page.inner_text("#attention-note"))


def frame(bundle: Bundle) -> bytes:
    picture = Image.new("RGB", (320, 180), "gray")
    with Image.open(bundle.path.parent / "data/5_1_0.png") as crop:
        picture.paste(crop, (200, 60))
    return jpeg(picture, "PNG")


def test_a_box_on_a_frame_by_pointer_and_by_numbers(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve().url)
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
        one.page.fill(f"#box-{side}", f"{value * 100:.2f}")
    one.page.click("#box-use")
    exact = one.searched(lambda: one.page.click("#search"))
    assert exact["hits"][0]["similarity"] > 0.999 and exact["query"] != found["query"]
    one.page.locator("#pictures button").first.click()
    one.page.fill("#box-right", "1")
    one.soon(lambda: one.page.is_disabled("#box-use"))
    one.page.click("#box-whole")
    one.soon(lambda: one.page.locator("#pictures .cut").count() == 0)


def test_pick_from_the_archive(serve: Any, tab: Any) -> None:
    one = tab(serve().url)
    one.page.click("#pick")
    one.page.wait_for_selector("#picker-rows .hit")
    one.soon(lambda: one.page.locator("#picker-rows .hit").count() == 40)
    one.page.click("#picker-more")
    one.page.wait_for_function("() => document.querySelectorAll('#picker-rows .hit').length === 64")
    one.page.select_option("#picker-camera", "hall 2")
    one.page.wait_for_function("() => document.querySelectorAll('#picker-rows .hit').length === 16")
    one.page.locator("#picker-rows .open").first.click()
    one.soon(lambda: one.page.is_hidden("#picker"))
    found = one.searched(lambda: one.page.click("#search"))
    assert found["hits"] and found["modality"] == ["visible"]


def test_faults_are_told_and_the_page_lives_on(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(limits=Limits(picture_bytes=300_000)).url)
    one.page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    with one.page.expect_response(re.compile("/api/search")):
        one.page.click("#search")
    one.page.wait_for_selector("#problem:not([hidden])")
    one.soon(lambda: "does not begin as JPEG, PNG" in one.page.inner_text("#problem"))
    one.soon(lambda: any("415" in fault for fault in one.faults))
    one.faults.clear()  # Chromium lists the refusal in its console
    one.page.click("#clear")
    upload(one, bundle)
    assert one.searched(lambda: one.page.click("#search"))["hits"]
    big = {"name": "big.png", "mimeType": "image/png", "buffer": bytes(1_300_000)}
    one.page.set_input_files("#file", big)
    one.soon(lambda: "big.png has 1.3 MB" in one.page.inner_text("#problem"))


# --- keys, readers, languages, sizes ----------------------------------------------------------------------------------


def test_keys_alone_are_enough(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url)
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
        seen.add(one.page.evaluate("document.activeElement.id || document.activeElement.name"))
        if at() == "clear":
            break
    filled = {"pick", "modality", "in", "camera", "after", "before", "rate", "rerank", "prior", "per-track", "purpose"}
    assert filled | {"search"} <= seen
    one.page.focus("#search")
    one.searched(lambda: keys.press("Enter"))
    one.soon(lambda: at() == "answer")
    one.page.locator(".hit .open").first.focus()
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
    with one.page.expect_response(re.compile("/api/marks")):
        keys.press("r")
    keys.press("ArrowRight")
    with one.page.expect_response(re.compile("/api/marks")):
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
def test_axe_finds_nothing(serve: Any, tab: Any, bundle: Bundle, lang: str, size: Any, scheme: Any) -> None:
    one = tab(serve(examples=examples(bundle)).url, lang, size, color_scheme=scheme)
    one.page.wait_for_selector(".hit")
    one.idle()
    one.page.locator(".hit .yes").first.click()
    one.page.locator(".hit .no").nth(1).click()
    one.page.click("#attention")
    one.idle()
    found = violations(one)
    for button, dialog in (
        (".hit .open", "detail"),
        ("#open-help", "help"),
        ("#open-archive", "manage"),
        ("#pick", "picker"),
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


def test_both_languages_say_everything(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(examples=examples(bundle)).url, "zh-CN")
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


def test_texts_of_the_archive_are_never_read_as_html(serve: Any, tab: Any, bundle: Bundle) -> None:
    served = serve(fill=False)
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    path = bundle.path.parent / "data/5_1_1.jpg"
    rows = [Crop(f"{evil}{n}", path, evil, 1_700_000_000.0 + n, "visible", evil, evil, (evil,)) for n in range(3)]
    index(served.service.archive, served.service.searcher.extractor, rows, say=lambda text: None)
    one = tab(served.url)
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


def test_a_million_rows_and_hundreds_of_cameras(serve: Any, tab: Any, bundle: Bundle, monkeypatch: Any) -> None:
    """The page asks for pages and counts; it never asks for all of anything."""
    served = serve(examples=examples(bundle))
    gallery = served.service.archive.gallery
    cameras = {f"street {number}": 3000 for number in range(330)} | {"gate 1": 10_000}
    facets = Facets(cameras, {0: 600_000, 1: 400_000}, {}, 1_700_000_000.0, 1_700_900_000.0)
    monkeypatch.setattr(gallery, "facets", lambda: facets)
    monkeypatch.setattr(gallery, "count", lambda filter=None: 1_000_000)
    one = tab(served.url)
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


# --- tokens and forgetting --------------------------------------------------------------------------------------------


def test_signing_in_and_out(serve: Any, tab: Any, bundle: Bundle, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    secret = tokens.add("desk", "search")
    served = serve(tokens=tokens, examples=examples(bundle))
    one = tab(served.url)
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


def test_an_administrator_forgets_a_person(serve: Any, tab: Any, bundle: Bundle) -> None:
    served = serve()
    one = tab(served.url)
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
    one.page.wait_for_function("() => document.getElementById('forget-said').textContent.startsWith('Deleted 8')")
    one.idle()
    one.soon(
        lambda: served.service.archive.gallery.count() == 56 and one.page.inner_text("#summary").startswith("56 crops")
    )
    one.soon(lambda: "forgotten" in one.page.inner_text("#audit"))


def test_a_purpose_is_asked_for(serve: Any, tab: Any, bundle: Bundle) -> None:
    one = tab(serve(purpose=True, examples=examples(bundle)).url)
    one.idle()
    one.soon(lambda: one.page.locator(".hit").count() == 0)  # the example does not run without one
    upload(one, bundle)
    one.page.click("#search")
    one.soon(lambda: "what the search is for" in one.page.inner_text("#problem"))
    one.page.fill("#purpose", "a missing child")
    assert one.searched(lambda: one.page.click("#search"))["hits"]
