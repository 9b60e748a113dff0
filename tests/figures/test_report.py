"""The report of a run as a page: read by axe in light and dark, and small enough to send with its pictures."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from small_run import make_run, write_people

from vireid.evaluation.results import Results
from vireid.figures import report
from vireid.training.run_folder import RunFolder
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
    return report.page(RunFolder.open(run), Results.load(run / "results.json"), "vireid train agw", pictures)


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
    pictures = [photograph(tmp_path / "figures/0.png", (3400, 2000))] * 6  # ranked lists of all protocols of SYSU-MM01
    assert pictures[0].stat().st_size > 5 * MEGABYTE
    text = written(evaluated, pictures)
    assert len(inline(text)) == 6 and len(text.encode()) < 2 * MEGABYTE
    data, _ = report.as_shown(pictures[0], 10**9)
    assert len(data) > report.PICTURES_BYTES // 6  # at the best quality they would not fit


def test_a_report_without_pictures_has_no_heading_for_them(evaluated: Path) -> None:
    text = written(evaluated, [])
    assert not inline(text) and "Ranked lists" not in text and "Results" in text


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 28)")])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(evaluated: Path, open_tab, scheme: Literal["light", "dark"], paper: str, width: int) -> None:
    from browser import violations  # it needs the extra `serve` and playwright

    path = Run.open(evaluated).report()
    tab = open_tab(path.as_uri(), size={"width": width, "height": 900}, color_scheme=scheme)
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    tab.page.click("summary")  # the whole record is read too
    assert tab.page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert violations(tab) == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width  # nothing has to be scrolled sideways
