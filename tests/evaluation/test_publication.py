"""Tables for papers: marks of the best and the second, floors, seeds, and the table's LaTeX."""

from __future__ import annotations

import pytest

from vireid.evaluation.results import Results
from vireid.evaluation.rows import Metrics, Row


def row(name: str, rank1: float, protocol: str = "p/a", trial: int = 0, **stamp: str) -> Row:
    metrics = Metrics((rank1, *(0.75,) * 19), mAP=rank1 / 2, mINP=0.25, num_queries=10, num_valid=10)
    return Row(protocol, trial, metrics, 30, {"name": name, **stamp})


def test_best_is_bold_second_is_underlined_and_floors_are_not_ranked() -> None:
    rows = (row("a_1", 0.5), row("b", 0.7), row("c", 0.6), row("b", 0.2, "p/b"))
    text = Results(rows, (row("chance", 0.9),)).latex(["R1", "mINP"])
    lines = text.splitlines()
    assert lines[0] == r"% needs \usepackage{booktabs}" and lines[1] == r"\begin{tabular}{lrrrr}"
    assert lines[3:5] == [
        r" & \multicolumn{2}{c}{p/a} & \multicolumn{2}{c}{p/b} \\",
        r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}",
    ]
    assert lines[5] == r"Method & R1 & mINP & R1 & mINP \\"
    assert lines[7:13] == [
        r"chance & 90.00 & 25.00 & -- & -- \\",
        r"\midrule",
        r"a\_1 & 50.00 & 25.00 & -- & -- \\",
        r"b & \textbf{70.00} & 25.00 & 20.00 & 25.00 \\",
        r"c & \underline{60.00} & 25.00 & -- & -- \\",
        r"\bottomrule",
    ]


def test_equal_figures_are_marked_alike() -> None:
    text = Results((row("a", 0.70001), row("b", 0.7), row("c", 0.1))).latex(["R1"])
    assert text.count(r"\textbf{70.00}") == 2 and r"\underline{10.00}" in text


def test_seeds_are_one_line_whose_deviation_is_theirs() -> None:
    rows = [row("a", r + t / 50, trial=t, seed=str(s), run=str(s)) for s, r in enumerate((0.5, 0.6)) for t in (0, 1)]
    text = Results(tuple(rows)).latex(["R1"])
    assert r"a & 56.00 $\pm$ 7.07 \\" in text  # the trials of a seed are averaged before


def test_lines_of_one_name_are_told_apart_by_their_stamps() -> None:
    text = Results((row("a", 0.5, rerank="none"), row("a", 0.6, rerank="k-reciprocal"))).latex(["R1"])
    assert "a, none & " in text and "a, k-reciprocal & " in text


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match="no columns R7; a table has R1, R5"):
        Results((row("a", 0.5),)).latex(["R7"])
