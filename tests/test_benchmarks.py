"""The scripts of benchmarks/ fit the package as it is: each can be imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_every_benchmark_can_be_imported():
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert "gallery" in names
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def summary(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("summary")


def test_the_table_of_the_pages_is_what_the_results_say(summary):
    made = summary.table()
    assert made.count("\n") > 10 and (FOLDER / "results" / "summary.md").read_text() == made
    for page in summary.PAGES:
        assert made in page.read_text(), f"run python benchmarks/summary.py: {page}"


GROWN = """2026-11-29, AMD EPYC, 2 cores, 2 threads, torch 2, numpy 2, load 1.0
21,000 rows of 512 numbers: codes of 21000 rows
  added in 7.1 s with making the records, optimize 4.3 s
  no filter, vireid   p50    2.00   p99   53.50 ms   recall 1.0000    1.00 times vireid's p50
  no filter, plain    p50    5.00   p99    8.30 ms   recall 0.9900    2.50 times vireid's p50
"""


def test_a_ratio_that_fell_is_reported(summary, tmp_path, monkeypatch):
    (row,) = summary.growth(GROWN)
    assert (row.work, row.ratio) == ("search in 21,000 of 512 numbers, no filter, beside plain", 2.5)
    assert "plain p50 5.00 ms, p99 8.30 ms, recall 0.9900" in row.other
    assert summary.machine(GROWN) == "AMD EPYC, 2 cores, load 1.0, 2026-11-29"
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(summary, "RESULTS", folder)
    (folder / "growth.txt").write_text(GROWN)
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert summary.fallen() == []
    (folder / "growth.txt").write_text(GROWN.replace("p50    2.00", "p50    3.00"))
    assert summary.fallen() == ["search in 21,000 of 512 numbers, no filter, beside plain: 1.67, before 2.50"]
