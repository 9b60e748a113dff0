"""Results: averages, stamps, tables and the file."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from vireid.errors import DataError
from vireid.evaluation.results import Results, Row
from vireid.evaluation.rows import Metrics


def row(trial=0, rank1=0.5, protocol="sysu/all/single-shot", valid=10, **stamp):
    metrics = Metrics((rank1, *(0.75,) * 19), mAP=0.4, mINP=0.25, num_queries=10, num_valid=valid)
    return Row(protocol, trial, metrics, 301, {"draw": "official", "rerank": "none", **stamp})


def test_mean_and_sample_deviation():
    results = Results((row(0, 0.5), row(1, 0.6), row(2, 0.7)))
    assert results.mean["R1"] == pytest.approx(0.6)
    assert results.std is not None and results.std["R1"] == pytest.approx(0.1)  # n - 1: 0.0816 otherwise
    assert results.std["mAP"] == pytest.approx(0)
    assert Results((row(),)).std is None


def test_only_trials_and_partitions_are_averaged():
    ten = Results((row(0, 0.4, partition="trial 0"), row(0, 0.6, partition="trial 1")))
    (summary,) = ten.summaries
    assert summary.mean["R1"] == pytest.approx(0.5) and summary.stamp["partition"] == "trial 0, trial 1"
    apart = (
        Results((row(),)) + Results((row(rerank="k-reciprocal"),)) + Results((row(protocol="sysu/indoor/single-shot"),))
    )
    assert len(apart.summaries) == 3
    with pytest.raises(ValueError, match="one protocol and stamp"):
        _ = apart.mean
    with pytest.raises(ValueError, match="these are nothing"):
        _ = Results(()).std
    with pytest.raises(ValueError, match=r"trial 0 of sysu/all/single-shot is there twice.*'name'"):
        Results((row(),)) + Results((row(rank1=0.9),))


def test_markdown_tells_figures_and_stamps():
    results = Results((row(0, 0.5, valid=8), row(1, 0.625), row(0, 1.0, rerank="k-reciprocal", draw="official")))
    text = results.markdown()
    lines = text.splitlines()
    assert lines[0] == "| protocol | R1 | R5 | R10 | R20 | mAP | mINP | trials | queries | valid | gallery | stamp |"
    assert "| 56.25 ± 8.84 | 75.00 ± 0.00 |" in lines[2] and lines[2].endswith("| 2 | 10 | 8-10 | 301 | [1] |")
    assert "| 100.00 | 75.00 |" in lines[3] and "±" not in lines[3]
    assert "all lines: draw: official" in text and "[1]: rerank: none" in text and "[2]: rerank: k-reciprocal" in text
    assert "standard deviation over the trials (n - 1)" in text


def test_names_are_a_column():
    text = (Results((row(name="agw"),)) + Results((row(name="cajl"),))).markdown()
    assert text.startswith("| name | protocol |") and "| cajl | sysu/all/single-shot |" in text


def test_floors_stand_above_the_rows_of_their_protocol_and_in_no_average(tmp_path):
    floors = (
        row(0, 0.1, name="chance", layer="random vectors"),
        row(0, 0.1, "p", name="chance", layer="random vectors"),
    )
    results = Results((row(method="AGW"),), floors) + Results((row(protocol="p", method="AGW"),), floors[:1])
    lines = results.markdown().splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:6]] == [
        ["| chance", "sysu/all/single-shot", "10.00"], ["| AGW", "sysu/all/single-shot", "50.00"],
        ["| chance", "p", "10.00"], ["| AGW", "p", "50.00"],
    ]  # fmt: skip
    assert lines[2].endswith("|  |") and lines[3].endswith("| [1] |") and len(results.floors) == 2
    assert "chance: random vectors, under the same protocol" in results.markdown()
    assert Results((row(),), floors).mean["R1"] == 0.5
    assert Results.load(results.save(tmp_path / "results.json")) == results


def test_other_forms():
    results = Results((row(0, 0.5, partition="trial_1"), row(1, 0.6)))
    read = list(csv.DictReader(io.StringIO(results.csv())))
    assert [float(line["R1"]) for line in read] == [0.5, 0.6]
    assert [line["partition"] for line in read] == ["trial_1", ""]
    latex = results.latex()
    assert r"55.00 $\pm$ 7.07" in latex and r"\begin{tabular}{lrrrrr}" in latex and "% all lines" in latex
    console = Console(width=200, file=io.StringIO())
    console.print(results)
    assert "55.00 ± 7.07" in console.file.getvalue() and "[1]" in console.file.getvalue()


@pytest.mark.parametrize("width", [60, 200])
def test_print_and_prompt_show_the_table(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    results = Results((row(0, 0.5, name="agw"), row(1, 0.6, name="agw")))
    assert str(results) == repr(results)
    assert "agw" in str(results) and "55.00 ± 7.07" in str(results) and "Row(" not in str(results)
    assert all(len(line) <= width for line in str(results).splitlines())
    assert "\x1b" not in str(results)
    assert repr(Results(())) == "Results(())"


def test_file_round_trip(tmp_path):
    results = Results((row(0, 1 / 3), row(1, 0.1)))
    path = results.save(tmp_path / "run" / "results.json")
    assert Results.load(path) == results
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_faulty_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no results at"):
        Results.load(tmp_path / "results.json")
    path = Results((row(),)).save(tmp_path / "results.json")
    about = json.loads(path.read_text())
    del about["rows"][0]["metrics"]["mAP"]
    about["rows"][0]["speed"] = 3
    path.write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"rows\.0\.metrics\.mAP: .*required.*; rows\.0\.speed: "):
        Results.load(path)
    path.write_text("[1, 2")
    with pytest.raises(DataError, match="is not a results file"):
        Results.load(path)
    path.write_text(json.dumps({"format": "vireid results 9", "rows": []}))
    with pytest.raises(DataError, match="format"):
        Results.load(path)


def shown(table: object, width: int) -> str:
    """What a terminal of this width shows."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, legacy_windows=False)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_number_is_broken_in_a_narrow_terminal(width):
    long = "manifest/infrared-to-visible/ignore-frame"
    rows = [
        row(trial, value, protocol, name=name, run="20261128-224455")
        for name in ("agw", "cajl")
        for protocol in ("manifest/visible-to-infrared", long)
        for trial, value in ((0, 0.5), (1, 0.71828))
    ]
    results = Results(tuple(rows))
    text = shown(results, width)
    assert all(len(line) <= width for line in text.splitlines())
    for summary in results.summaries:
        assert summary.std is not None
        for column in ("R1", "R20", "mAP", "mINP"):
            assert f"{100 * summary.mean[column]:.2f} ± {100 * summary.std[column]:.2f}" in text
    assert text.count("60.91 ± 15.43") == 4 and text.count("301") >= 1
    if width == 200:
        assert "│ gallery" in text or "┃ gallery" in text


def test_columns_that_say_the_same_move_below_before_the_table_stands_upright():
    results = Results((row(0, 0.5, "p"), row(0, 0.25, "q")))
    lying, upright = shown(results, 80), shown(results, 50)
    assert "all lines: trials: 1, queries: 10, valid: 10, gallery: 301" in lying
    header = next(line for line in lying.splitlines() if "R1" in line)
    assert "mINP" in header and "trials" not in header
    assert not any("R1" in line and "R5" in line for line in upright.splitlines())
    assert upright.count("40.00") == 2 and "all lines: trials" not in upright
