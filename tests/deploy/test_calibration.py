"""Calibration: against a loop over pairs, on data whose truth is known, and what the data cannot support."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from small_run import make_run, write_people
from typer.testing import CliRunner, Result

from vireid.cli.app import app
from vireid.data import datasets
from vireid.data.datasets.sysu import ignore_same_room
from vireid.data.table import Table, table_from_columns
from vireid.deploy.calibration import NEEDED, PAIRS, Calibration, pair_name
from vireid.deploy.calibration_fit import BINS, TAIL, calibrate, fit_logistic
from vireid.deploy.export import export_bundle
from vireid.errors import CalibrationError
from vireid.system import file_digest
from vireid.training.run_folder import EMBEDDER, RunFolder
from vireid.types import INFRARED, VISIBLE


def people(count: int = 30, images: int = 1, noise: float = 0.6, seed: int = 0, cameras=(1, 2, 3, 6)) -> tuple:
    """Vectors (R, 6) around one direction for each person, and their table; cameras 3 and 6 are infrared."""
    random = np.random.RandomState(seed)
    keys = [(pid, camera) for pid in random.permutation(count) for camera in cameras for _ in range(images)]
    columns = {
        "path": [f"{row}.png" for row in range(len(keys))],
        "pid": [pid for pid, _ in keys],
        "camid": [camera for _, camera in keys],
        "modality": [INFRARED if camera in (3, 6) else VISIBLE for _, camera in keys],
        "split": ["val"] * len(keys),
    }
    table = table_from_columns(Path("nowhere"), columns, "manifest")
    centers = random.standard_normal((count, 6))
    vectors = centers[table.pid] + noise * random.standard_normal((len(keys), 6))
    return (5 * vectors).astype(np.float32), table


def pairs_by_loop(vectors: np.ndarray, table: Table, name: str, room: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities of the pairs of one person and of different people."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    same, other = [], []
    for a, b in combinations(range(len(table)), 2):
        if sorted((table.modality[a], table.modality[b])) != sorted(PAIRS[name]):
            continue
        one = table.pid[a] == table.pid[b]
        if one and table.camid[a] == table.camid[b]:
            continue
        if room and {table.camid[a], table.camid[b]} == {2, 3}:
            continue
        (same if one else other).append(float(np.float32(unit[a] @ unit[b])))
    return np.array(same), np.array(other)


@pytest.mark.parametrize("room", [False, True])
def test_rates_are_those_of_a_loop_over_pairs(room: bool) -> None:
    vectors, table = people(30, images=2)
    made = calibrate(vectors, table, embedder="d", split="val", ignore=ignore_same_room if room else None)
    assert set(made.pairs) == set(PAIRS) and not made.missing
    for name, pair in made.pairs.items():
        same, other = pairs_by_loop(vectors, table, name, room)
        assert (pair.same_pairs, pair.other_pairs, pair.people) == (len(same), len(other), 30)
        thresholds = [row.threshold for row in pair.rows]
        assert thresholds == sorted(thresholds) and len(thresholds) > 20
        for row in pair.rows:  # the loop rounds differently in the last digit
            assert row.false_match_rate == pytest.approx((other >= row.threshold).mean(), abs=1.1 / len(other))
            assert row.false_non_match_rate == pytest.approx((same < row.threshold).mean(), abs=1.1 / len(same))
        for rate in (0.5, 0.1, 0.034, 0.02):
            row = made.row(rate, name)
            assert row.false_match_rate <= rate
            below = row.threshold - 2 / BINS  # one step lower, the row's own rate of the grid is passed
            grid = 10 ** (-math.ceil(-20 * math.log10(rate) - 1e-9) / 20)
            assert (other >= below - 1e-6).mean() >= grid - 1.1 / len(other) or row.false_match_rate > 0.9 * grid


def test_intervals_cover_the_truth_and_widen_with_fewer_people() -> None:
    vectors, table = people(1000, seed=9)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    visible, infrared = (table.modality == kind for kind in (VISIBLE, INFRARED))
    truth = (unit[visible] @ unit[infrared].T)[table.pid[visible][:, None] != table.pid[infrared][None, :]]
    hits, widths = [], {20: [], 80: []}
    for seed in range(5):
        for count in widths:
            vectors, table = people(count, seed=100 + seed)
            pair = calibrate(vectors, table, embedder="d", split="val").pairs["visible/infrared"]
            row = next(row for row in pair.rows if row.false_match_interval)
            low, high = row.false_match_interval
            assert low <= row.false_match_rate <= high
            assert row.false_non_match_interval[0] <= row.false_non_match_rate <= row.false_non_match_interval[1]
            widths[count].append(high - low)
            hits.append(low <= (truth >= row.threshold).mean() <= high)
    assert np.mean(widths[20]) > 1.5 * np.mean(widths[80])
    assert np.mean(hits) >= 0.7  # of ten intervals of 90 %


def test_what_the_data_cannot_support_is_refused() -> None:
    vectors, table = people(30)
    made = calibrate(vectors, table, embedder="d", split="val")
    pair = made.pairs["visible/infrared"]
    assert pair.other_pairs == 30 * 29 * 4
    smallest = NEEDED / pair.other_pairs
    assert made.threshold(smallest, "visible/infrared") == pair.rows[-1].threshold
    message = r"1e-04 for visible/infrared needs at least 300,000 pairs of different people, there are 3,480"
    with pytest.raises(CalibrationError, match=message.replace("1e-04", "0.0001")):
        made.threshold(1e-4, (VISIBLE, INFRARED))
    for wrong in (0, 1, -1, math.nan):
        with pytest.raises(CalibrationError, match="between 0 and 1"):
            made.threshold(wrong, "visible/visible")
    with pytest.raises(CalibrationError, match="a modality pair is one of"):
        made.threshold(0.1, "visible/thermal")
    # one camera for each modality, as in RegDB: nobody is seen twice in one modality
    vectors, table = people(30, images=2, cameras=(1, 3))
    made = calibrate(vectors, table, embedder="d", split="val")
    assert set(made.missing) == {"visible/visible", "infrared/infrared"}
    with pytest.raises(
        CalibrationError, match="needs at least 30 pairs of one person by different cameras, there are 0"
    ):
        made.threshold(0.1, "visible/visible")
    with pytest.raises(CalibrationError, match=r"nothing can be calibrated:\n  visible/visible: it needs"):
        calibrate(vectors[:8], table[:8], embedder="d", split="val")
    with pytest.raises(CalibrationError, match="finite and not zero"):
        calibrate(vectors * 0, table, embedder="d", split="val")
    with pytest.raises(CalibrationError, match="no threshold separates visible/infrared"):
        vectors[::2] = vectors[0]  # equal vectors of different people
        calibrate(vectors, table, embedder="d", split="val").threshold(0.01, "visible/infrared")


def test_probability_is_calibrated_monotone_and_follows_the_prior() -> None:
    """Similarities whose log-likelihood ratio is linear: N(0.5, 0.1) and N(0.2, 0.1); the truth is then known."""
    random = np.random.RandomState(0)
    mean, deviation = (0.5, 0.2), 0.1

    def histogram(values: np.ndarray) -> np.ndarray:
        return np.bincount(((values + 1) * BINS / 2).astype(np.int64), minlength=BINS)

    same, other = random.normal(mean[0], deviation, 3000), random.normal(mean[1], deviation, 300_000)
    offset, slope, cllr = fit_logistic(histogram(same), histogram(other))
    assert slope == pytest.approx((mean[0] - mean[1]) / deviation**2, rel=0.05)
    assert -offset / slope == pytest.approx(0.35, abs=0.01)  # even odds half way
    llr = slope * random.normal(mean[0], deviation, 100_000) + offset
    assert cllr == pytest.approx(np.logaddexp(0, -llr).mean() / math.log(2), rel=0.1) and 0 < cllr < 0.4

    vectors, table = people(40)
    made = calibrate(vectors, table, embedder="d", split="val")
    grid = np.linspace(-1, 1, 201)
    for name in PAIRS:
        found = made.probability(grid, name)
        assert ((np.diff(found) > 0) | (found[1:] > 1 - 1e-12)).all() and found[0] >= 0 and found[-1] <= 1
        rare = made.probability(grid, name, prior=0.01)
        np.testing.assert_allclose(rare / (1 - rare) * 99, found / (1 - found), rtol=1e-6)
    # reliability on people that were not fitted on: of pairs said to be 60 to 90 % sure, that share is right
    fresh, fresh_table = people(400, seed=5)
    same, other = pairs_by_loop(fresh[:600], fresh_table[:600], "visible/infrared", False)
    weight = len(other) / len(same)  # even odds
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 0.95)):
        hits, misses = (((p := made.probability(x, "visible/infrared")) >= low) & (p < high) for x in (same, other))
        share = hits.sum() * weight / (hits.sum() * weight + misses.sum())
        assert low - 0.15 < share < high + 0.15, (low, high, share)


def test_curve_is_that_of_an_independent_fit() -> None:
    """The cross entropy over the single pairs of the tail, without bins, minimized without derivatives."""
    vectors, table = people(60, images=2, noise=1.0)
    made = calibrate(vectors, table, embedder="d", split="val")
    for name, pair in made.pairs.items():
        same, other = pairs_by_loop(vectors, table, name, room=False)
        edge = np.sort(other)[-math.floor(TAIL * len(other)) - 1]
        ends = (same[same > edge], other[other > edge])
        assert min(map(len, ends)) >= NEEDED

        whole = len(same), len(other)

        def cost(parameters: np.ndarray, ends=ends, whole=whole) -> float:
            halves = 0.0
            for similarity, target, count in zip(ends, (1, 0), whole, strict=True):
                odds = parameters[0] + parameters[1] * similarity
                halves += float(np.sum(np.logaddexp(0, odds) - target * odds)) / count
            return halves / 2

        options = {"xatol": 1e-9, "fatol": 1e-15, "maxiter": 4000}
        fitted = minimize(cost, np.zeros(2), method="Nelder-Mead", options=options)
        assert fitted.success
        assert (pair.offset, pair.slope) == pytest.approx(tuple(fitted.x), rel=2e-4)  # a bin is 2e-6 wide
        bits = [np.mean(np.log2(1 + np.exp(-(pair.offset + pair.slope * same)))),
                np.mean(np.log2(1 + np.exp(pair.offset + pair.slope * other)))]  # fmt: skip
        assert pair.cllr == pytest.approx(np.mean(bits), rel=1e-5)


def test_one_similarity_for_all_pairs_is_refused() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[BINS // 2] = 50
    with pytest.raises(CalibrationError, match="no more alike"):
        fit_logistic(counts, counts)


def test_separated_and_useless_similarities() -> None:
    same, other = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    same[-10], other[BINS // 2] = 50, 1000
    offset, slope, cllr = fit_logistic(same, other)
    assert 0 < slope < 1e3 and cllr < 0.1 and offset + slope > 0 > offset
    with pytest.raises(CalibrationError, match="no more alike than those of different people"):
        fit_logistic(other, same)


def test_file_and_digest(tmp_path: Path) -> None:
    vectors, table = people()
    made = calibrate(vectors, table, embedder="a" * 64, split="val")
    made.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path, "a" * 64)
    assert again == made and not list(tmp_path.glob(".*"))
    assert "| visible/infrared | 10.0" in again.markdown()
    with pytest.raises(CalibrationError, match=r"belongs to embedder aaaaaaaaaaaa\.\.\., not to bbbbbbbbbbbb"):
        Calibration.load(tmp_path, "b" * 64)
    (tmp_path / "calibration.json").write_text(made.model_dump_json().replace('"slope"', '"steep"'))
    with pytest.raises(CalibrationError, match="is not a calibration that vireid wrote"):
        Calibration.load(tmp_path)
    (tmp_path / "calibration.json").unlink()
    with pytest.raises(CalibrationError, match="make it with `vireid calibrate`"):
        Calibration.load(tmp_path)
    assert pair_name("infrared/visible") == pair_name((1, 0)) == "visible/infrared"


# --- the command ------------------------------------------------------------------------------------------------------


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words), "--quiet", "--device", "cpu"])


def test_command_on_a_run_and_its_bundle(tmp_path: Path) -> None:
    write_people(tmp_path / "data", {"train": 4, "val": 12, "test": 16})
    run = make_run(tmp_path / "run", tmp_path / "data")
    export_bundle(run, run.path / "bundle", onnx=False)
    result = call("calibrate", run.path)
    assert result.exit_code == 0 and "warning" not in result.stderr, result.output
    digest = file_digest(run.path / EMBEDDER)
    made = Calibration.load(run.path, digest)
    assert made == Calibration.load(run.path / "bundle", digest)
    assert (made.people, made.split, made.dataset) == ("unseen", "val", "manifest")
    assert made.pairs["visible/infrared"].people == 12 and "| visible/visible |" in result.stdout
    # exporting again, elsewhere too, keeps it; a run with other weights does not take it
    assert Calibration.load(export_bundle(run, tmp_path / "away", onnx=False).path) == made
    export_bundle(run, run.path / "bundle", onnx=False)
    assert Calibration.load(run.path / "bundle") == made
    other = make_run(tmp_path / "other", tmp_path / "data", seed=1)
    (other.path / "calibration.json").write_bytes((run.path / "calibration.json").read_bytes())
    assert not (export_bundle(other, tmp_path / "third", onnx=False).path / "calibration.json").exists()

    result = call("calibrate", run.path, "--split", "test", "--ignore", "frame")
    assert result.exit_code == 0 and "these are the test people" in result.stderr
    made = Calibration.load(run.path)
    assert made.people == "test" and made.ignored == "same person in the same camera; same frame"
    assert made.pairs["visible/visible"].same_pairs == 16 * 2  # of 4 by cameras 1 and 2, half share the frame number
    result = call("calibrate", run.path, "--split", "train")
    assert result.exit_code == 1 and "people of split train were trained on" in result.stderr

    # a bundle, which does not know where pictures lie
    result = call("calibrate", tmp_path / "away")
    assert result.exit_code == 2 and "pass --data" in result.stderr
    words = ("calibrate", tmp_path / "away", "--data", tmp_path / "data", "--split")
    assert call(*words, "val").exit_code == 0
    first, second = Calibration.load(tmp_path / "away"), Calibration.load(run.path / "bundle")
    assert (first.people, first.split, second.split) == ("unseen", "val", "test")
    assert "were trained on" in call(*words, "train").stderr
    write_people(tmp_path / "more", {"val": 12}, seed=3)
    result = call("calibrate", tmp_path / "away", "--data", tmp_path / "more")
    assert result.exit_code == 0 and "may have been trained on" in result.stderr
    assert Calibration.load(tmp_path / "away").people == "unknown"


def test_held_out_people_come_first(tmp_path: Path) -> None:
    write_people(tmp_path / "data", {"train": 14, "test": 10})
    held_out = tuple(range(10))
    run = make_run(tmp_path / "run", tmp_path / "data", held_out=held_out)
    result = call("calibrate", run.path)
    assert result.exit_code == 0 and "warning" not in result.stderr, result.output
    made = Calibration.load(run.path)
    assert (made.people, made.split) == ("unseen", "train (held out)") and made.pairs["visible/visible"].people == 10
    table = datasets.load(f"manifest={tmp_path / 'data'}")
    assert made.images == table[np.argsort(table.pid, kind="stable")].where("train")[: 10 * 8].fingerprint
    assert json.loads((run.path / "calibration.json").read_text())["people"] == "unseen"
    assert not (RunFolder.open(run.path).path / "embeddings").exists()
