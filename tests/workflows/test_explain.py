"""`vireid explain` on runs, and on a run and a figure in print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call, error_of
from regdb_files import write_lists, write_pictures
from small_run import make_run, write_people

import vireid
from vireid.errors import ArgumentError
from vireid.evaluation.results import Results
from vireid.workflows.run import Run

PROTOCOL = "manifest/infrared-to-visible"
OTHER = f"{PROTOCOL}/ignore-same-pid-and-camera"
WORDS = {"device": "cpu", "progress": False, "pictures": 0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a plain line and one under other conditions (the first line), and another run with a plain line."""
    folder = tmp_path_factory.mktemp("explain")
    data = write_people(folder / "data", {"train": 2, "test": 5})
    for name, seed in (("one", 0), ("two", 1)):
        run = Run.open(make_run(folder / name, data, seed=seed).path)
        run.evaluate(protocols=(PROTOCOL,), layer="neck", **WORDS)
    changed = {"rerank": "k-reciprocal", "k1": 4, "k2": 2, "similarity": "euclidean", "flip": True}
    Run.open(folder / "one").evaluate(protocols=(OTHER,), layer="pooled", **changed, **WORDS)
    return folder


def test_two_lines_of_one_run_are_explained_without_a_rest(place: Path) -> None:
    explanation = vireid.explain(place / "one", place / "one", 2, 1)
    after, before = Results.load(place / "one/results.json").summaries
    names = ["ignored", "similarity", "layer", "flip", "rerank"]
    assert [cause.name for cause in explanation.causes] == names
    for column in ("R1", "mAP", "mINP"):
        parts = [cause.points[column] for cause in explanation.causes if cause.points]
        assert sum(parts) == pytest.approx(after.mean[column] - before.mean[column], abs=1e-9)
        assert explanation.rest[column] == pytest.approx(0, abs=1e-9)
    assert any(cause.points and abs(cause.points["mAP"]) > 0.001 for cause in explanation.causes)


def test_two_runs_under_one_protocol_differ_by_their_networks(place: Path) -> None:
    done = call("explain", place / "one", place / "two/results.json", "--first", 2)
    assert done.exit_code == 0, done.output
    assert "the rest holds: seed: 0 and 1" in done.stdout and "| the rest |" in done.stdout


def test_a_figure_in_print_is_words(place: Path) -> None:
    (place / "two/log.jsonl").write_text(
        "".join(
            json.dumps({"event": "epoch", "stage": 0, "epoch": epoch, "selected": {"held-out identities": value}})
            + "\n"
            for epoch, value in ((0, 0.5), (1, 0.75), (2, 0.625))
        )
    )
    words = [
        "name=A paper",
        "R1=50",
        "mAP=40",
        "flip=averaged",
        "rerank=none",
        "checkpoint=test set",
        "ignored=nothing",
    ]
    done = call("explain", place / "two", *words, "cmc=identities", "--format", "json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    causes = {cause["name"]: cause for cause in content["causes"]}
    assert list(causes) == ["cmc", "flip", "checkpoint"]
    assert causes["cmc"]["points"]["mAP"] == 0 and causes["flip"]["points"] is None
    assert "vireid embed" in causes["flip"]["reason"]
    assert "epoch 2 of two lies 12.50 points of mAP above epoch 3" in causes["checkpoint"]["reason"]
    assert content["rest"]["mAP"] == pytest.approx(0.4 - content["first"]["figures"]["mAP"] - 0)
    assert content["notes"][-1] == (
        "A paper does not say, so taken as in the first: protocol, similarity, layer, center, size"
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "explain compares two results"),
        (("nowhere",), 1, "no results at nowhere"),
        (("R1=50", "again"), 2, "'again': after RUN comes one other run"),
        (("R1=50", "R1=51"), 2, "R1 is given twice"),
        (("R1=5O",), 2, "R1 is a number in percent from 0 to 100, got '5O'"),
        (("R1=50", "fliip=averaged"), 2, "a figure in print has no 'fliip' (did you mean 'flip'?)"),
        (("R1=50", "flip=yes"), 2, "flip is none or averaged, got 'yes'"),
        (("R1=50", "rerank=magic"), 2, "the re-ranking 'magic' is not known"),
        (("R1=50", "ignored=all"), 2, "ignored is nothing, same identity in the same camera, or"),
        (("R1=50", "protocol=sysu/all"), 2, "no protocol is called 'sysu/all'"),
        (("R1=50", "--first", "9"), 2, "has lines 1 to"),
        (
            ("one", "two"),
            2,
            "explain compares two results, got 3 runs; several runs of one side are a pattern in quotes",
        ),
        (("nowhere-*",), 1, "no run matches 'nowhere-*'"),
    ],
)
def test_what_is_not_understood_is_said(place: Path, words: tuple[str, ...], code: int, message: str) -> None:
    assert message in error_of(call("explain", place / "two", *words), code)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two networks on three splits of a RegDB, the second network with another similarity."""
    folder = tmp_path_factory.mktemp("splits")
    data = write_lists(folder / "data", people=8, trials=3, pictures=4)
    write_pictures(data)
    for trial in range(3):
        for name, seed, similarity in (("agw", 0, "cosine"), ("other", 1, "euclidean")):
            run = make_run(folder / f"{name}-{trial}", data, seed=seed, dataset="regdb", trial=trial)
            Run.open(run.path).evaluate(protocols=("regdb/visible-to-infrared",), similarity=similarity, **WORDS)
    return folder


def test_means_over_splits_are_explained_by_means(splits: Path) -> None:
    done = call("explain", splits / "agw-*", splits / "other-?", "--format", "json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    own = {name: [mean_of(splits / f"{name}-{trial}") for trial in range(3)] for name in ("agw", "other")}
    assert content["first"]["figures"]["mAP"] == pytest.approx(sum(own["agw"]) / 3)
    assert [cause["name"] for cause in content["causes"]] == ["similarity"]
    whole = (sum(own["other"]) - sum(own["agw"])) / 3
    assert content["causes"][0]["points"]["mAP"] + content["rest"]["mAP"] == pytest.approx(whole)
    assert content["first"]["name"] == "mean of 3 runs, agw-0 to agw-2 (regdb/visible-to-infrared)"
    assert sum("standard deviation over the runs of the" in note for note in content["notes"]) == 2


def test_one_split_against_the_mean_of_all_is_worth_what_it_lies_above_them(splits: Path) -> None:
    own = [mean_of(splits / f"agw-{trial}") for trial in range(3)]
    explanation = vireid.explain(splits / "agw-1", [splits / f"agw-{trial}" for trial in range(3)])
    (cause,) = explanation.causes
    assert (cause.name, cause.first, cause.second) == (
        "splits that the first does not test",
        "1 in common",
        "3 splits",
    )
    assert cause.points and cause.points["mAP"] == pytest.approx(sum(own) / 3 - own[1])
    assert explanation.rest["mAP"] == pytest.approx(0, abs=1e-9)
    reverse = vireid.explain([splits / f"agw-{trial}" for trial in range(3)], splits / "other-2")
    assert [cause.name for cause in reverse.causes] == ["splits that the second does not test", "similarity"]
    apart = vireid.explain([splits / "agw-0", splits / "agw-1"], splits / "other-2")
    assert "they have no split in common" in apart.markdown()
    assert [cause.name for cause in apart.causes][-1] == "partition"


def test_runs_of_one_side_are_measured_alike_and_named_once(splits: Path) -> None:
    with pytest.raises(
        vireid.DataError, match=r"no figure under protocol regdb/visible-to-infrared, similarity cosine, layer"
    ):
        vireid.explain([splits / "agw-0", splits / "other-0"], splits / "agw-1")
    with pytest.raises(ArgumentError, match="name at least one run, and each once"):
        vireid.explain([splits / "agw-0"] * 2, splits / "agw-1")


def mean_of(run: Path) -> float:
    """mAP of a run with one line of results."""
    (summary,) = Results.load(run / "results.json").summaries
    return summary.mean["mAP"]
