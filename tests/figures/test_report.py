"""The report of a run as a page: read by axe in light and dark, and small enough to send with its pictures."""

from __future__ import annotations

import base64
import importlib.util
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from PIL import Image
from small_run import make_run, write_people

from vireid.data import datasets
from vireid.evaluation.results import Results
from vireid.evaluation.rows import Metrics, Row
from vireid.figures import report
from vireid.figures.report import Failure, Report, Reported, Thumbnail
from vireid.figures.report_words import FIGURES, TITLES, WORDS
from vireid.figures.stamp_words import chinese
from vireid.training.run_folder import RunFolder
from vireid.workflows import draw
from vireid.workflows.options import FigureName
from vireid.workflows.run import Run

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with results and pictures of ranked lists; read only."""
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "run", write_people(folder / "data", {"train": 2, "test": 4}))
    Run.open(run.path).evaluate(device="cpu", progress=False, pictures=4)
    return run.path


def written(run: Path, pictures: list[Path]) -> str:
    reported = Reported(RunFolder.open(run), "agw", "vireid train agw", ranked=tuple(pictures))
    return report.page(Report([reported], Results.load(run / "results.json")))


def photograph(path: Path, size: tuple[int, int], noise: int = 30) -> Path:
    """A picture (height, width) of blurred shapes with the noise of a camera, which PNG cannot make small."""
    random = np.random.default_rng(0)
    shapes = Image.fromarray(random.integers(0, 256, (size[0] // 40, size[1] // 40, 3), dtype=np.uint8))
    pixels = np.asarray(shapes.resize((size[1], size[0]), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels += random.integers(-noise // 2, noise // 2 + 1, pixels.shape, dtype=np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, compress_level=1)
    return path


def inline(text: str) -> list[Image.Image]:
    """The pictures of a page."""
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_pictures_are_inlined_in_the_size_that_is_shown(evaluated: Path, tmp_path: Path) -> None:
    wide, small = photograph(tmp_path / "figures/a.png", (500, 2304)), photograph(tmp_path / "figures/b.png", (60, 100))
    text = written(evaluated, [wide, small])
    assert [picture.size for picture in inline(text)] == [(1152, 250), (100, 60)]
    assert re.findall(r'width="(\d+)" height="(\d+)"', text) == [("1152", "250"), ("100", "60")]
    assert "full size: figures/a.png" in text
    original, shown = np.asarray(Image.open(small), float), np.asarray(inline(text)[1].convert("RGB"), float)
    assert np.abs(original - shown).mean() < 12  # it is that picture


@pytest.mark.slow
def test_a_report_with_large_pictures_stays_under_2_megabytes(evaluated: Path, tmp_path: Path) -> None:
    pictures = [photograph(tmp_path / "figures/0.png", (3400, 2000))] * 7  # ranked lists of all protocols of SYSU-MM01
    assert pictures[0].stat().st_size > 5 * MEGABYTE
    text = written(evaluated, pictures)
    assert len(inline(text)) == 7 and len(text.encode()) < 2 * MEGABYTE
    data, _ = report.as_shown(pictures[0], 10**9)
    assert len(data) > 3 * report.MAX_BYTES // 4 // 7  # at the best quality they would not fit


def test_a_report_without_pictures_has_no_heading_for_them(evaluated: Path) -> None:
    text = written(evaluated, [])
    assert not inline(text) and "Ranked lists" not in text and "Results" in text


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 28)")])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(evaluated: Path, open_tab, scheme: Literal["light", "dark"], paper: str, width: int) -> None:
    from browser import violations  # it needs the extra `serve` and playwright

    path = Run.open(evaluated).report("zh" if width < 1000 else "en")
    tab = open_tab(path.as_uri(), size={"width": width, "height": 900}, color_scheme=scheme)
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    for summary in tab.page.query_selector_all("summary"):  # the queries and the whole record are read too
        summary.click()
    assert tab.page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert violations(tab) == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width  # nothing has to be scrolled sideways


@pytest.mark.slow
def test_print_is_on_white_and_cuts_no_table(evaluated: Path, open_tab) -> None:
    page = Run.open(evaluated).report()
    tab = open_tab(page.as_uri(), size={"width": 794, "height": 1123}, color_scheme="dark")  # A4
    tab.page.emulate_media(media="print")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 794


def test_best_is_bold_and_second_is_underlined_but_floors_are_not(evaluated: Path) -> None:
    def row(name: str, rank1: float) -> Row:
        return Row("p", 0, Metrics((rank1,) * 20, rank1, rank1, 5, 5), 9, {"name": name})

    text = report.results_table(Results((row("a", 0.5), row("b", 0.7), row("c", 0.6)), (row("chance", 0.9),)), "en")
    assert text.count("<strong>70.00</strong>") == text.count("<u>60.00</u>") == 6
    assert "<td>90.00</td>" in text and "<td>50.00</td>" in text


def test_queries_open_to_their_pictures_and_words_are_chinese(evaluated: Path) -> None:
    hit = Thumbnail(b"webp", "other", ("1. another person", "camera 2, visible"))
    failure = Failure("cam1/<1>.png: average precision 3.0 %", (hit,))
    reported = Reported(RunFolder.open(evaluated), "agw", "vireid train", {"MB": "1.0"}, (failure,), "p")
    report_of = Report([reported], Results.load(evaluated / "results.json"), no_figures="no matplotlib", lang="zh")
    text = report.page(report_of)
    assert '<html lang="zh-CN">' in text and "最难的查询" in text and "Hardest" not in text
    assert "<summary>cam1/&lt;1&gt;.png: average precision 3.0 %</summary>" in text
    assert '<li class="other"><img alt="1. another person, camera 2, visible"' in text
    assert "未绘制图：no matplotlib" in text and "<td>1.0</td>" in text


def test_lines_that_the_runs_do_not_hold_stand_in_the_table_and_in_the_curves(evaluated: Path, tmp_path: Path) -> None:
    own = Results.load(evaluated / "results.json")
    rows = [replace(row, stamp={"name": name}) for row in own.rows for name in ("HOG (no training)", "night")]
    more = Results((), tuple(rows[::2])) + Results(tuple(rows[1::2])) + own
    other = Path(shutil.copytree(evaluated, tmp_path / "other"))
    text = draw.report([evaluated, other], tmp_path / "page.html", results=more).read_text("utf-8")
    assert text.count(">HOG (no training)</td>") == text.count(">night</td>") == len({r.protocol for r in own.rows})
    if importlib.util.find_spec("matplotlib"):
        assert re.search(r"<text [^>]*>night  \d", text)


def test_a_chinese_report_has_chinese_words_for_rows_and_stamps(evaluated: Path) -> None:
    table = report.results_table(Results.load(evaluated / "results.json"), "zh")
    assert ">随机</td>" in table and "CMC 计数: 按图像" in table and "特征层: " in table
    english = re.findall(
        r"(?<![\w/-])[a-z]{4,}", re.sub(r"<[^>]+>|manifest[\w/-]*|imagenet|lanczos|float32", "", table)
    )
    assert set(english) <= {"neck", "query", "test", "vireid"}  # layers and splits


def test_every_word_is_there_in_both_languages() -> None:
    for words in (WORDS, FIGURES, TITLES):
        assert words["en"].keys() == words["zh"].keys()
    assert set(FIGURES["en"]) == set(TITLES["en"]) == set(get_args(FigureName))
    known = [one for name in datasets.names() for one in datasets.find(name).protocols.values()]
    facts = {text for one in known for pair in one.stamp.items() for text in pair}
    assert [text for text in sorted(facts) if chinese(text) == text and not text.isdigit()] == []
