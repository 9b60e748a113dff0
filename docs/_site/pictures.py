"""`make pictures`: the pictures of README and documentation, from a model that comes with vireid and synthetic people.

The people are of a seed that no shipped model was trained, selected or calibrated on. The search page and the report
are taken in Chromium through Playwright. What is there already in --work is kept; another model has another folder.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import vireid
from vireid.deploy.model import bundle_of
from vireid.models import DEFAULT
from vireid.synthetic.make import make
from vireid.workflows.draw import draw_figures
from vireid.workflows.options import TrainOptions
from vireid.workflows.train import train_with

PICTURES = Path(__file__).parents[1] / "pictures"
PROTOCOL = "sysu/all/single-shot"
PEOPLE, IMAGES, SCENES, SEED, SIZE = 100, 4, 4, 0, (128, 64)
WAIT_S = 600
WIDE = {"width": 1280, "height": 860}
LIGHT = ((".webp", "en-GB", "light"), (".zh.webp", "zh-CN", "light"))  # end of the name, language, color scheme
DARK = ("-dark.webp", "en-GB", "dark")
MAX_BYTES = 1_500_000  # of all pictures together


def save(name: str, picture: bytes | Path, width: int = 1280) -> None:
    """Write docs/pictures/NAME as WebP, no wider than `width` pixels."""
    image = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.save(PICTURES / name, quality=86, method=6)
    print(f"{PICTURES / name}: {image.width} x {image.height}, {(PICTURES / name).stat().st_size / 1000:.0f} kB")


def run_of(model: str, work: Path) -> vireid.Run:
    """A run folder that holds the weights of the model untouched, evaluated on the synthetic people."""
    data = work / f"people-{PEOPLE}-{IMAGES}-{SCENES}-{SEED}"
    if not (data / "exp").is_dir():
        make(data, people=PEOPLE, images_per_camera=IMAGES, scenes=SCENES, seed=SEED, size=SIZE, masks=False)
    folder = work / model
    if not folder.is_dir():
        train_with(model, f"sysu={data}", folder, TrainOptions(progress=False), ["epochs=0"])
    run = vireid.Run.open(folder)
    run.evaluate(protocols=(PROTOCOL,), hog=True, pictures=3, progress=False)
    return run


@contextmanager
def search_demo(model: str, work: Path) -> Iterator[str]:
    """The address of the search demo while it runs."""
    command = [sys.executable, "-m", "vireid", "search-demo", "--root", str(work / "demo"), "--model", model, "--quiet"]
    with subprocess.Popen([*command, "--port", "8765"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                print(line, end="")
                if address := re.search(r"http://[\w.:]+", line):
                    yield address[0]
                    break
            else:
                raise SystemExit("the search demo did not start")
        finally:
            process.terminate()


def shot(browser: Browser, address: str, language: str, scheme: Any, ready: str) -> bytes:
    """The first screen of a page, once `ready` is on it."""
    context = browser.new_context(viewport=WIDE, locale=language, color_scheme=scheme, timezone_id="UTC")
    page = context.new_page()
    page.set_default_timeout(WAIT_S * 1000)
    page.goto(address)
    page.wait_for_selector(ready)
    page.wait_for_function("() => [...document.images].every((one) => one.complete || one.loading === 'lazy')")
    page.wait_for_timeout(1500)  # pictures that fade in
    picture = page.screenshot()
    context.close()
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/pictures"), help="Folder of data, run and gallery.")
    parser.add_argument("--model", default=DEFAULT, help="A shipped model.")
    words = parser.parse_args()
    work = words.work / bundle_of(words.model).config.digest[:8]
    PICTURES.mkdir(exist_ok=True)
    run = run_of(words.model, work)
    stem = PROTOCOL.replace("/", "-")
    save("ranked.webp", run.path / f"figures/ranked-{stem}.png")
    for lang, end in (("en", ".webp"), ("zh", ".zh.webp")):
        draw_figures([run.path], only=("cmc", "histograms"), lang=lang, progress=False)
        save(f"cmc{end}", run.path / f"figures/cmc-{stem}.png", 900)
        save(f"histograms{end}", run.path / "figures/histograms.png", 900)
    chromium = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for end, language, scheme in LIGHT:
            report = run.report("zh" if language.startswith("zh") else "en")
            save(f"report{end}", shot(browser, report.resolve().as_uri(), language, scheme, "main"))
        with search_demo(words.model, work) as address:
            for end, language, scheme in (*LIGHT, DARK):
                save(f"search{end}", shot(browser, address, language, scheme, "#hits li img"))
        browser.close()
    total = sum(path.stat().st_size for path in PICTURES.iterdir())
    print(f"{total / 1000:.0f} kB in all")
    if total > MAX_BYTES:
        raise SystemExit(f"the pictures may take {MAX_BYTES / 1000:.0f} kB")


if __name__ == "__main__":
    main()
