"""Figures of runs: which ranked lists an evaluation draws under which names, and the verbs `figures` and `results`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from command_line import call, error_of
from small_run import make_run, write_people

from vireid.errors import ArgumentError
from vireid.evaluation.queries import read_queries
from vireid.evaluation.results import Results
from vireid.workflows.run import Run

PROTOCOL = "manifest/infrared-to-visible"
WORDS = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluated runs of AGW that differ in their seed, one of CAJL, with the log of an epoch."""
    folder = tmp_path_factory.mktemp("figures")
    data = write_people(folder / "data", {"train": 2, "test": 5})
    for name, method, seed in (("agw", "agw", 0), ("again", "agw", 1), ("cajl", "cajl", 0)):
        run = make_run(folder / name, data, method, seed=seed)
        Run.open(run.path).evaluate(protocols=(PROTOCOL,), pictures=0, **WORDS)
        epoch = {"event": "epoch", "stage": 0, "epoch": 0, "losses": {"id": 1.0}, "lr": {"head": 0.1}}
        (run.path / "log.jsonl").write_text(json.dumps(epoch) + "\n")
    return folder


def test_ranked_lists_have_names_of_their_own(place: Path) -> None:
    run = Run.open(place / "agw")
    query = next(iter(read_queries(run.path / "queries.csv")))["query"]
    run.evaluate(protocols=(PROTOCOL,), pictures=1, **WORDS)
    plain = run.path / "figures/ranked-manifest-infrared-to-visible.png"
    before = plain.read_bytes()
    choices = {"worst": True, "random": True, "queries": (query,)}
    run.evaluate(protocols=(PROTOCOL,), pictures=1, rerank="k-reciprocal", k1=4, k2=2, **choices, **WORDS)
    stem = "ranked-manifest-infrared-to-visible"
    names = {f"{stem}{choice}" for choice in ("", "-worst", "-random", "-queries")}
    assert {p.stem for p in plain.parent.iterdir()} == names | {f"{name}@k-reciprocal" for name in names}
    assert plain.read_bytes() == before
    assert plain.with_name(f"{stem}@k-reciprocal.png").read_bytes() != before
    with pytest.raises(ArgumentError, match=r"nowhere\.png: not a query of manifest/infrared-to-visible"):
        run.evaluate(protocols=(PROTOCOL,), queries=("nowhere.png",), **WORDS)


def test_chance_and_hog_stand_in_the_table_but_not_in_the_figures_of_the_run(place: Path) -> None:
    done = call("evaluate", place / "cajl", "--protocol", PROTOCOL, "--hog", "--pictures", 0, "--quiet")
    assert done.exit_code == 0, done.output
    names = [line.split(" | ")[0] for line in done.output.splitlines() if line.startswith("| ")]
    assert sorted(names[2:]) == ["| CAJL", "| HOG (no training)", "| chance"]
    results = Results.load(place / "cajl/results.json")
    assert {row.stamp["method"] for row in results.rows} == {"CAJL"} and len(results.floors) == 2
    assert "chance" in (place / "cajl/table.md").read_text("utf-8")


@pytest.mark.slow
def test_figures_of_a_run_are_drawn_as_far_as_it_serves_them(place: Path) -> None:
    done = call("figures", place / "again", "--quiet", "--device", "cpu")
    assert done.exit_code == 0, done.output
    drawn = {path.name for path in (place / "again/figures").glob("[!r]*.png")}
    others = {"histograms.png", "projection.png", "cameras.png", "error-rates.png", "attention.png", "training.png"}
    assert drawn == {"cmc-manifest-infrared-to-visible.png", *others}
    assert "samples" not in done.stderr and "drew projection" in done.stderr


def test_named_figures_are_drawn_in_the_named_formats_or_refused(place: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    runs = (place / "again", place / "cajl")
    done = call("figures", *runs, "--to", place / "both", "--only", "cmc", "--format", "svg", "--format", "pdf")
    assert done.exit_code == 0, done.output
    stem = "cmc-manifest-infrared-to-visible"
    folders = (place / "again/figures", place / "cajl/figures", place / "both")
    assert done.stdout.split() == [str(folder / f"{stem}.{kind}") for folder in folders for kind in ("svg", "pdf")]
    done = call("figures", place / "again", "--only", "samples", "--quiet")
    assert "makes no pictures" in error_of(done, 1)
    done = call("figures", place / "again", "--only", "cmc", "--only", "nothing", "--quiet")
    assert "error-rates" in error_of(done, 2)


def test_methods_are_compared_query_by_query(place: Path) -> None:
    runs = (place / "agw", place / "cajl")
    for run in runs:  # the latest evaluation counts
        Run.open(run).evaluate(protocols=(PROTOCOL,), pictures=0, **WORDS)
    done = call("results", *runs, place / "again", "--paired", "--format", "csv")
    assert done.exit_code == 0, done.output
    (line,) = csv.DictReader(io.StringIO(done.stdout))
    assert (line["method"], line["against"], line["seeds"], line["people"]) == ("CAJL", "AGW", "1", "5")
    mean = {run: Results.load(run / "results.json") for run in runs}
    agw, cajl = (next(row.metrics.mAP for row in mean[run].rows if row.stamp["rerank"] == "none") for run in runs)
    assert float(line["mean"]) == pytest.approx(cajl - agw, abs=1e-6)
    done = call("results", *runs, "--format", "latex", "--column", "mAP")
    assert done.exit_code == 0 and r"\toprule" in done.output and "R1" not in done.output.partition("bottomrule")[0]
    done = call("results", runs[0], "--paired")
    assert "two methods or more" in error_of(done, 2)
