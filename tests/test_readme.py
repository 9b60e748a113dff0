"""Every snippet of the README and the docs runs: bash and python blocks in order, in one empty folder per document.

A block marked `console` is shown but not run here: the set-up commands, which CI runs itself. A Chinese page that holds
the commands of its English page, comments apart, is not run a second time.

The README runs as a reader runs it. In the pages each Python program is a fork (support/forked.py), because importing
torch and matplotlib each time takes most of the time of a command.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import forks

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
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


ENVIRONMENT = os.environ | {"PYTHONWARNINGS": "error", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with forks(tmp_path_factory.mktemp("forks"), ENVIRONMENT) as command:
        yield command


@pytest.fixture(scope="module")
def bin_of_forks(fork: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `vireid`, which runs the installed `vireid` in a fork."""
    folder = tmp_path_factory.mktemp("bin")
    installed = shutil.which("vireid", path=str(BIN))
    assert installed is not None
    (folder / "vireid").write_text(f'#!/bin/sh\nexec {shlex.join([*fork, installed])} "$@"\n')
    (folder / "vireid").chmod(0o755)
    return folder


def check_snippets(document: Path, folder: Path, python: list[str], programs: Path) -> None:
    """Run the blocks of a document: Python by a command, bash with `vireid` of a folder of programs."""
    path = os.pathsep.join([str(programs), str(BIN), os.environ["PATH"]])
    environment = ENVIRONMENT | {"PATH": path}
    for kind, code in BLOCK.findall(document.read_text("utf-8")):
        if kind.startswith("csv"):
            (folder / kind.split()[1]).write_text(code, "utf-8")
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [*python, "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{document.name}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
def test_snippets_of_the_readme_run(tmp_path: Path) -> None:
    check_snippets(ROOT / "README.md", tmp_path, [sys.executable], BIN)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in DOCUMENTS if p.parent != ROOT], ids=lambda p: str(p.relative_to(ROOT)))
def test_snippets_run(page: Path, tmp_path: Path, fork: list[str], bin_of_forks: Path) -> None:
    check_snippets(page, tmp_path, fork, bin_of_forks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", ["python\n1 / 0", "python\nimport os; os.kill(os.getpid(), 9)", "bash\nvireid data lose"]
)
def test_a_snippet_that_fails_in_a_fork_is_found(
    code: str, tmp_path: Path, fork: list[str], bin_of_forks: Path
) -> None:
    (tmp_path / "page.md").write_text(f"```{code}\n```\n")
    with pytest.raises(AssertionError, match=re.escape(code.partition("\n")[2])):
        check_snippets(tmp_path / "page.md", tmp_path, fork, bin_of_forks)


def test_the_readmes_hold_the_same_commands() -> None:
    assert repeats_the_english_page(ROOT / "README.zh.md") and len(commands(ROOT / "README.md")) > 5


def test_links_in_documents_point_at_files() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), (
                f"{document.relative_to(ROOT)} links to {target}, which is not there"
            )
