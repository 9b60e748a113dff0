"""The documentation builds without a warning, its pages lead on in both languages, and its notebook runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)")
ENGLISH_ALONE = {"architecture.md"}  # for those who change vireid; its words are those of the code
PAGES = sorted(page for page in DOCS.rglob("*.md") if not page.name.endswith(".zh.md"))


def chinese(page: Path) -> Path:
    return page.with_name(f"{page.stem}.zh.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_and_its_translation_lead_to_each_other(page: Path) -> None:
    translated = chinese(page)
    assert translated.is_file() == (str(page.relative_to(DOCS)) not in ENGLISH_ALONE)
    if translated.is_file():
        assert page.read_text("utf-8").splitlines()[1:3] == ["", f"[中文]({translated.name})"]
        assert translated.read_text("utf-8").splitlines()[1:3] == ["", f"[English]({page.name})"]


def test_chinese_pages_link_to_chinese_pages() -> None:
    for page in [ROOT / "README.zh.md", *DOCS.rglob("*.zh.md")]:
        for target in LINK.findall(page.read_text("utf-8")):
            own = (page.parent / target).name == page.name.replace(".zh.md", ".md")
            assert own or target.endswith(".zh.md") or not chinese(page.parent / target).is_file(), f"{page}: {target}"


def test_figures_of_the_shipped_model_are_those_of_its_card() -> None:
    card = (ROOT / "vireid/models/night/README.md").read_text("utf-8")
    rank1, mean_ap = re.findall(
        r"sysu/all/single-shot \| ([\d.]+) .*?\| [\d.]+ .*?\| [\d.]+ .*?\| [\d.]+ .*?\| ([\d.]+)", card
    )[0]
    for page in ("README.md", "README.zh.md", "docs/learn/own-model.md", "docs/learn/own-model.zh.md"):
        text = (ROOT / page).read_text("utf-8")
        assert f"{float(rank1):.1f} ±" in text, f"{page}: rank 1 of night is {rank1}"
        assert page.startswith("docs") or f"{float(mean_ap):.1f} ±" in text, f"{page}: mAP of night is {mean_ap}"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    shutil.copy(DOCS / "learn/first-steps.ipynb", tmp_path)
    command = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "first-steps.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "sysu/all/single-shot |" in (tmp_path / "first-steps.ipynb").read_text("utf-8")


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((DOCS / "learn/first-steps.ipynb").read_text("utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    commands = (tmp_path / "reference/commands/index.html").read_text("utf-8")
    names = (tmp_path / "zh/reference/api/index.html").read_text("utf-8")
    assert 'id="vireid-evaluate"' in commands and 'id="vireid.Searcher"' in names
