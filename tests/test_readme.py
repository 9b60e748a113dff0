"""Every snippet of the README and the docs runs: bash and python blocks in order, in one empty folder per document.

A block marked `console` is shown but not run here: the set-up commands, which CI runs itself.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(bash|python|csv [\w.]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = sorted(
    p for p in [*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")] if BLOCK.search(p.read_text("utf-8"))
)


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
    english, chinese = (
        [
            line.split("#")[0].strip()
            for _, code in BLOCK.findall((ROOT / name).read_text("utf-8"))
            for line in code.splitlines()
        ]
        for name in ("README.md", "README.zh.md")
    )
    assert english == chinese and len(english) > 5


def test_links_in_documents_point_at_files() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), (
                f"{document.relative_to(ROOT)} links to {target}, which is not there"
            )
