"""`vireid compare` end to end on a few random pictures, and plans that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import TINY, call, error_of, write_manifest

from vireid.errors import SettingsError
from vireid.training.run_folder import RunFolder
from vireid.workflows.compare import compare_runs, labels
from vireid.workflows.compare_plan import Entry, Plan

PLAN = """
seeds: 2
protocols: [manifest/infrared-to-visible, sysu/all/single-shot]
methods:
  agw:
    settings: &tiny {width: 4, blocks: [1, 1, 1, 1], size: [64, 32], sampler: {pids: 2, images: 2}}
    for: {manifest: {epochs: 1}, sysu: {epochs: 7}}
  plain:
    method: agw
    settings: {<<: *tiny, attention: false, pooling: average}
    for: {manifest: {epochs: 1}}
    seeds: 1
    note: without attention
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return write_manifest(tmp_path / "pictures")


def test_one_command_from_plan_to_table(plan: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "compared"
    words = ("compare", "--plan", plan, "--data", data, "--run", folder, "--device", "cpu", "--format", "md")
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == (folder / "compare.md").read_text().strip()
    assert {"compare.md", "compare.csv", "compare.json", "compare.tex"} <= {path.name for path in folder.iterdir()}
    table = result.stdout
    assert all(f"| {name} |" in table for name in ("agw", "plain", "chance")) and "plain: without attention" in table
    runs = [RunFolder.open(folder / "pictures" / line / seed).record for line, seed in (("agw", "1"), ("plain", "0"))]
    assert [record.seed for record in runs] == [1, 0] and runs[1].settings["attention"] is False
    assert not (folder / "pictures" / "plain" / "1").exists(), "one seed was asked of this line"
    checkpoint = folder / "pictures" / "agw" / "0" / "last.pt"
    before = checkpoint.stat().st_mtime_ns
    assert call(*words).stdout == table and checkpoint.stat().st_mtime_ns == before, "finished runs are kept"
    chosen = call(*words, "plain", "--seeds", "1")
    assert chosen.exit_code == 0 and "| agw |" not in chosen.stdout and "| 1 |" in chosen.stdout


def test_rows_stand_for_runs_that_are_gone(plan: Path, data: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows"

    def compared(folder: str, *words: str) -> str:
        options = ("--seeds", 1, "--run", tmp_path / folder, "--rows", rows, "--device", "cpu", "--format", "csv")
        result = call("compare", "--plan", plan, "--data", data, *options, *words)
        assert result.exit_code == 0, result.output
        return result.stdout

    first = compared("one")
    assert sorted(path.relative_to(rows).as_posix() for path in rows.rglob("*.json")) == [
        "pictures/agw/0.json",
        "pictures/plain/0.json",
    ]
    assert compared("two") == first and not (tmp_path / "two" / "pictures").exists(), "nothing is trained again"
    assert compared("three", "epochs=0") != first and (tmp_path / "three" / "pictures" / "agw" / "0").exists()
    row = rows / "pictures" / "agw" / "0.json"
    row.write_text("{}")
    error = error_of(call("compare", "--plan", plan, "--data", data, "--run", tmp_path / "four", "--rows", rows), 1)
    assert str(row) in error and "not a row of a comparison" in error


@pytest.mark.slow
def test_two_at_a_time_give_the_same_figures(plan: Path, data: Path, tmp_path: Path) -> None:
    found = [
        compare_runs(Plan.read(plan), [str(data)], tmp_path / str(jobs), jobs=jobs, device="cpu") for jobs in (1, 2)
    ]
    one, two = ([(r.name, r.seed, r.results.rows[0].metrics.cmc) for r in c.runs] for c in found)
    assert one == two


def test_failures_are_told_and_the_table_of_the_others_is_written(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    blocked = folder / "pictures" / "agw" / "1"
    assert (
        call("train", "agw", "--no-evaluate", "--data", data, "--run", blocked, *TINY, "attention=false").exit_code == 0
    )
    message = error_of(call("compare", "agw", "--data", data, "--run", folder, "--seeds", 2, *TINY), 1)
    assert "1 of 2 runs failed" in message and "pictures/agw/1" in message and "attention: False -> True" in message
    assert "| agw |" in (folder / "compare.md").read_text()


def test_settings_of_the_command_line_win() -> None:
    entry = Entry.model_validate({"settings": {"epochs": 3, "sampler": {"pids": 2}}, "for": {"sysu": {"epochs": 4}}})
    assert entry.words("sysu", (), {}) == ["epochs=4", "sampler.pids=2"]
    assert entry.words("llcm", ["epochs=9"], {}) == ["sampler.pids=2", "epochs=9"]


def test_a_line_can_name_the_run_of_another(tmp_path: Path) -> None:
    lines = {"a": Entry(), "b": Entry(settings={"base": "run:a"}), "c": Entry()}
    plan = Plan(methods=lines)
    assert list(plan.only(["b"]).methods) == ["a", "b"]
    assert lines["b"].words("sysu", (), {"a": tmp_path}) == [f"base={tmp_path}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: {agw: {setings: {epochs: 1}}}", "methods.agw.setings: Extra inputs"),
        ("seeds: 0\nmethods: {}", "seeds: Input should be greater than or equal to 1"),
        ("methods: {a: {settings: {base: 'run:b'}}}", "`run:b` names no line"),
        ("methods: {a: {settings: {x: 'run:b'}}, b: {settings: {x: 'run:c'}}, c: {}}", "`a` needs a run that itself"),
        ("seeds: 1\nseeds: 2", "`seeds` is given twice"),
        ("- agw", "holds a list"),
    ],
)
def test_wrong_plans(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        Plan.read(path)
    assert message in str(error.value)


def test_wrong_words(data: Path, tmp_path: Path) -> None:
    assert "name the methods" in error_of(call("compare", "--data", data), 2)
    assert "did you mean agw" in error_of(call("compare", "agv", "--data", data, "--run", tmp_path / "c"), 2)
    faults = error_of(call("compare", "agw", "--data", data, "--run", tmp_path / "c", "epoch=1", "width=four"), 2)
    assert "2 settings are wrong" in faults and "did you mean `epochs`" in faults and "agw on pictures" in faults
    other = error_of(
        call("compare", "agw", "--data", data, "--protocol", "sysu/all/single-shot", "--run", tmp_path / "c"), 2
    )
    assert "none of the given protocols belongs to manifest" in other
    assert not (tmp_path / "c").exists()


def test_data_sets_are_called_by_their_folder(data: Path, tmp_path: Path) -> None:
    assert labels([str(data)]) == {"pictures": str(data)}
    with pytest.raises(ValueError, match="two data sets are called 'pictures'"):
        labels([str(data), f"manifest={data}"])
