"""`vireid compare --transfer`: two runs on each other's data, as table, files and picture."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import call, error_of
from PIL import Image
from small_run import WORDS, make_run, write_people

from vireid.errors import ArgumentError, DataError
from vireid.evaluation.results import Results
from vireid.evaluation.transfer_matrix import Cell, TransferMatrix
from vireid.figures.transfer import CELL, FRAME, SCALE, draw_transfer, shade
from vireid.workflows.run import Run
from vireid.workflows.transfer import names, transfer

PROTOCOL = "manifest/visible-to-infrared"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Data sets day and night, a run on each, and the matrix of the runs, all in one folder."""
    root = tmp_path_factory.mktemp("transfer")
    for seed, name in enumerate(("day", "night")):
        write_people(root / name, {"train": 3 + seed, "test": 4}, seed=seed)
        make_run(root / f"on {name}", root / name, seed=seed, words=(*WORDS, "pseudo_infrared=true") if seed else WORDS)
    words = ("compare", "--transfer", root / "on day", root / "on night", "--run", root / "matrix", "--device", "cpu")
    result = call(*words, "--format", "csv")
    assert result.exit_code == 0, result.output
    (root / "printed.csv").write_text(result.stdout)
    assert not (root / "on day/results.json").exists(), "the results of a run are those that its owner measured"
    return root


def test_every_run_is_tested_on_the_data_of_all(folder: Path) -> None:
    printed = (folder / "printed.csv").read_text()
    assert printed.strip() == (folder / "matrix/transfer.csv").read_text().strip()
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [(r["trained_on"], r["run"], r["data"], r["own"]) for r in rows] == [
        ("day", "AGW (on day)", "day", "True"),
        ("day", "AGW (on day)", "night", "False"),
        ("night", "AGW (on night)", "day", "False"),
        ("night", "AGW (on night)", "night", "True"),
    ]
    assert {row["protocol"] for row in rows} == {PROTOCOL} and all(float(row["ms_per_picture"]) > 0 for row in rows)
    run = Run.open(folder / "on day")
    words = {"protocols": (PROTOCOL,), "pictures": 0, "device": "cpu", "progress": False}
    assert float(rows[0]["mAP"]) == run.evaluate(**words).mean["mAP"]
    assert float(rows[1]["mAP"]) == run.evaluate(data=folder / "night", cross=True, **words).mean["mAP"]


def test_the_table_marks_own_data_and_stamps_the_rest(folder: Path) -> None:
    text = (folder / "matrix/transfer.md").read_text()
    lines = text.splitlines()
    assert lines[0].startswith(f"| trained on | run | day ({PROTOCOL}) | night ({PROTOCOL}) | ms per picture |")
    assert [line.count(" * |") for line in lines[2:4]] == [1, 1] and lines[2].startswith("| day | AGW (on day) |")
    assert "trained on: manifest, not on this data" in text
    assert "infrared in training: made of visible pictures" in text
    assert (folder / "matrix/transfer.tex").read_text().startswith(r"\begin{tabular}")
    assert '"stamp": {' in (folder / "matrix/transfer.json").read_text()


def test_named_data_replace_those_of_the_runs(folder: Path, tmp_path: Path) -> None:
    name = "manifest/infrared-to-visible"
    data, words = [f"manifest={folder / 'night'}"], {"protocols": (name,), "device": "cpu", "progress": False}
    matrix = transfer([folder / "on day"], data, tmp_path, **words)
    assert matrix.rows == (("day", "AGW"),) and matrix.columns == (("night", name),)
    assert not matrix.cells[0].own


def test_runs_of_one_method_are_called_by_as_much_of_their_folder_as_tells_them_apart(
    folder: Path, tmp_path: Path
) -> None:
    for place in ("a/x/0", "b/x/0", "b/1"):
        shutil.copytree(folder / "on day", tmp_path / place)
    runs = [Run.open(tmp_path / place) for place in ("a/x/0", "b/x/0", "b/1")]
    assert names(runs) == ["AGW (a/x/0)", "AGW (b/x/0)", "AGW (1)"]
    assert names(runs[:1]) == ["AGW"]


def test_data_that_a_run_cannot_be_tested_on_have_the_reason_in_place_of_figures(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folder / "night", tmp_path / "torn")
    for picture in (tmp_path / "torn").rglob("*.png"):
        picture.write_bytes(picture.read_bytes()[:60])
    data, words = [f"manifest={tmp_path / 'torn'}"], {"device": "cpu", "progress": False}
    matrix = transfer([folder / "on day"], [f"manifest={folder / 'night'}", *data], tmp_path / "matrix", **words)
    tested, torn = matrix.cells
    assert tested.results and torn.results is None and str(tmp_path / "torn") in torn.reason
    assert "cannot be tested on torn" in caplog.text
    text = matrix.markdown()
    assert f"{tested.figures} | not tested |" in text and f"AGW on torn: not tested: {torn.reason}" in text
    rows = list(csv.DictReader(io.StringIO(matrix.csv())))
    assert [(row["reason"], row["mAP"] != "") for row in rows] == [("", True), (torn.reason, False)]
    assert (tmp_path / "matrix/transfer.png").stat().st_size
    with pytest.raises(DataError, match="torn"):
        transfer([folder / "on day"], data, tmp_path / "nothing", **words)


def test_what_cannot_be_compared_is_refused(folder: Path, tmp_path: Path) -> None:
    day = folder / "on day"
    assert "given twice" in error_of(call("compare", "--transfer", day, day, "--run", tmp_path), 2)
    assert "name at least one run" in error_of(call("compare", "--transfer", "--run", tmp_path), 2)
    assert "--transfer trains nothing" in error_of(call("compare", "--transfer", day, "--seeds", 2), 2)
    assert "--data NAME=PATH" in error_of(call("compare", "agw"), 2)
    cell = cells_of(folder)[0]
    with pytest.raises(ArgumentError, match="need one cell each, got 3"):
        TransferMatrix((*cells_of(folder)[:3],))
    with pytest.raises(ArgumentError, match="got 2 cells"):
        TransferMatrix((cell, cell))


def cells_of(folder: Path) -> tuple[Cell, ...]:
    """Four cells with mAP 0, 1/3, 2/3 and 1."""
    words = {"protocols": (PROTOCOL,), "pictures": 0, "device": "cpu", "progress": False}
    row = Run.open(folder / "on day").evaluate(**words).rows[0]
    found = []
    for number in range(4):
        figures = Results((replace(row, metrics=replace(row.metrics, mAP=number / 3)),))
        run, data = divmod(number, 2)
        found.append(Cell(f"run {run}", f"data {run}", f"data {data}", PROTOCOL, run == data, 1.0, figures))
    return tuple(found)


def test_the_picture_is_darker_where_map_is_higher_and_frames_own_data(folder: Path, tmp_path: Path) -> None:
    path = draw_transfer(TransferMatrix(cells_of(folder)), tmp_path / "matrix.png")
    colors = {color: count for count, color in Image.open(path).getcolors(1 << 24) or ()}
    area = SCALE * SCALE * CELL[0] * CELL[1]
    assert all(area * 0.6 < colors[shade(number / 3)] <= area for number in range(4))
    frame = 2 * SCALE * 2 * SCALE * (CELL[0] + CELL[1])
    assert 1.8 * frame < colors[FRAME] <= 2 * frame
    assert sum(shade(1.0)) < sum(shade(0.5)) < sum(shade(0.0))
