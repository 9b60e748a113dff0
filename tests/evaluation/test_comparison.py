"""Comparisons from figures that can be checked by eye."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from vireid.evaluation.comparison import Comparison, Trained
from vireid.evaluation.results import COLUMNS, Results, Row
from vireid.evaluation.rows import Metrics


def results(*mean_precisions: float, protocol: str = "p", **stamp: str) -> Results:
    """One trial for each mAP; the rank-1 rate is half of it."""
    rows = [
        Row(protocol, trial, Metrics((value / 2,) * 20, value, value / 4, 10, 10), 50, {"layer": "neck", **stamp})
        for trial, value in enumerate(mean_precisions)
    ]
    return Results(tuple(rows))


def run(name: str, seed: int | None, *mean_precisions: float, data: str = "d", **more: object) -> Trained:
    stamp = {"seed": str(seed), "run": f"{name}{seed}", "embedder": f"{seed}"}
    return Trained(data, name, seed, results(*mean_precisions, **stamp), **more)  # pyright: ignore[reportArgumentType]


BOTH = Comparison(
    (
        run("agw", 0, 0.1, 0.3, pictures=100, train_s=3.0, parameters=7),
        run("agw", 1, 0.4, 0.4, pictures=300, train_s=5.0, parameters=7),
        run("mine", 0, 0.5, notes=("mine: a note",)),
        run("mine", 1, 0.6),
        run("chance", None, 0.05),
    )
)


def test_a_seed_counts_once_whatever_its_trials() -> None:
    agw = BOTH.blocks["d", "p"][0]
    assert agw.by_seed[0]["mAP"] == pytest.approx(0.2) and agw.mean["mAP"] == pytest.approx(0.3)
    assert agw.mean["R1"] == pytest.approx(0.15) and agw.mean["mINP"] == pytest.approx(0.075)
    assert agw.std is not None and agw.std["mAP"] == pytest.approx(0.1 * 2**0.5)  # of 0.2 and 0.4, n - 1


def test_ranked_by_mean_precision_and_gains_are_paired_by_seed() -> None:
    best, agw, chance = BOTH.ranked("d", "p")
    assert [best.name, agw.name, chance.name] == ["mine", "agw", "chance"]
    mean, std = best.gain(agw) or (0.0, None)
    assert mean == pytest.approx((0.3 + 0.2) / 2) and std == pytest.approx(0.05 * 2**0.5)
    assert agw.gain(agw) is None and chance.gain(agw) is None and chance.std is None


def test_markdown_says_all() -> None:
    lines = BOTH.markdown().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5] if "---" not in line]
    header, best, agw, chance = cells
    row = dict(zip(header, agw, strict=True))
    assert row["mAP"] == "30.00 ± 14.14" and row["place"] == "2" and row["gain in mAP"] == "" and row["seeds"] == "2"
    assert (row["pictures seen"], row["parameters"], row["training s"]) == ("200", "7", "4")
    assert dict(zip(header, best, strict=True))["gain in mAP"] == "+25.00 ± 7.07"
    assert dict(zip(header, chance, strict=True))["mAP"] == "5.00"
    text = "\n".join(lines[5:])
    assert "all lines: layer: neck" in text and "mine: a note" in text and "above agw" in text
    assert "run: " not in text and "seed: " not in text  # what differs between the seeds is no stamp of their mean


def test_every_figure_can_be_computed_again_from_csv_and_json() -> None:
    rows = list(csv.DictReader(io.StringIO(BOTH.csv())))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("agw", "0"), ("agw", "1"), ("mine", "0"), ("mine", "1"), ("chance", ""),
    ]  # fmt: skip
    assert float(rows[0]["mAP"]) == pytest.approx(0.2) and set(COLUMNS) <= set(rows[0])
    records = json.loads(BOTH.json())
    assert records[2]["notes"] == ["mine: a note"] and records[2]["stamp"] == {"layer": "neck"}
    assert [record["mAP"] for record in records] == pytest.approx([float(row["mAP"]) for row in rows])


def test_latex_is_a_table_for_a_paper() -> None:
    text = BOTH.latex(["mAP"])
    lines = text.splitlines()
    assert lines[6:11] == [
        r"\midrule",
        r"chance & 5.00 \\",
        r"\midrule",
        r"agw & \underline{30.00} $\pm$ 14.14 \\",
        r"mine & \textbf{55.00} $\pm$ 7.07 \\",
    ]
    assert r"\begin{tabular}{lrrrrr}" in BOTH.latex() and "% all lines: layer: neck" in text


def test_data_sets_are_ranked_apart() -> None:
    both = Comparison((*BOTH.runs, run("mine", 0, 0.1, data="e"), run("agw", 0, 0.2, data="e")))
    assert [line.name for line in both.ranked("e", "p")] == ["agw", "mine"] and len(both.ranked("d", "p")) == 3


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="seed 0 of agw on d is there twice"):
        _ = Comparison((run("agw", 0, 0.1), run("agw", 0, 0.2))).blocks
    mixed = Trained("d", "agw", 0, results(0.1) + results(0.2, flip="averaged"))
    with pytest.raises(ValueError, match="figures under 2 stamps for p"):
        _ = Comparison((mixed,)).blocks


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_is_broken_in_a_narrow_terminal(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, legacy_windows=False)
    console.print(BOTH)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(len(line) <= width for line in text.splitlines())
    assert "30.00 ± 14.14" in text and "+25.00 ± 7.07" in text and "55.00 ± 7.07" in text
