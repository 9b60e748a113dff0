"""Every snippet of the README and the docs runs: bash and python blocks in order, in one empty folder per document.

A block marked `console` is shown but not run here: the set-up commands, which CI runs itself. A Chinese page that holds
the commands of its English page, comments apart, is not run a second time.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(bash|python|csv [\w.]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    """The lines of all blocks without their comments."""
    blocks = [code for _, code in BLOCK.findall(document.read_text("utf-8"))]
    return [line.split("#")[0].rstrip() for code in blocks for line in code.splitlines()]


def repeats_the_english_page(document: Path) -> bool:
    """Whether this is a Chinese page with the commands of its English page."""
    english = document.with_name(document.name.replace(".zh.md", ".md"))
    return english != document and english.is_file() and commands(english) == commands(document)


PAGES = sorted(p for p in [*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")] if commands(p))
DOCUMENTS = [page for page in PAGES if not repeats_the_english_page(page)]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_snippets_run(document: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PYTHONWARNINGS": "error", "HF_HUB_OFFLINE": "1"}
    for kind, code in BLOCK.findall(document.read_text("utf-8")):
        if kind.startswith("csv"):
            (tmp_path / kind.split()[1]).write_text(code, "utf-8")
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{document.name}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_readmes_hold_the_same_commands() -> None:
    assert repeats_the_english_page(ROOT / "README.zh.md") and len(commands(ROOT / "README.md")) > 5


def test_links_in_documents_point_at_files() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), (
                f"{document.relative_to(ROOT)} links to {target}, which is not there"
            )
