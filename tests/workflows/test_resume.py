"""`vireid train --resume --run RUN`: settings come from the run, others are listed, more epochs continue it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import TINY, call, error_of, write_manifest

import vireid
from vireid.workflows.repeat import command_of

SHARED = ("--device", "cpu", "--quiet", "--no-evaluate")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_manifest(folder)
    return folder


def train(*words: object) -> None:
    done = call("train", *words, *SHARED)
    assert done.exit_code == 0, done.output


def recorded(run: Path) -> dict:
    return json.loads((run / "recipe.json").read_text())


def progress(run: Path) -> tuple[bool, int, int]:
    """Whether it is finished, its stage, and the epochs of that stage that were trained."""
    state = torch.load(run / "last.pt", weights_only=True)
    return state["finished"], state["progress"]["stage"], state["progress"]["epoch"]


def test_the_run_alone_says_what_is_resumed(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("agw", "--data", data, "--run", run, "--seed", 3, "--select", "heldout", "--holdout", 1, *TINY)
    before = recorded(run)
    last = (run / "last.pt").read_bytes()
    train("--resume", "--run", run)
    assert recorded(run) == before and (run / "last.pt").read_bytes() == last  # it was finished
    (run / "last.pt").unlink()  # as if it was stopped before the first epoch ended
    train("--resume", "--run", run)
    assert recorded(run) == before and progress(run) == (True, 0, 1)
    message = error_of(call("train", "--resume", "--run", run, "--seed", 4, *SHARED), 1)
    assert "cannot be resumed" in message and "seed: 3 -> 4" in message


def test_given_settings_that_differ_are_listed(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("agw", "--data", data, "--run", run, *TINY)
    words = ("width=8", "sampler.images=1", "--precision", "bfloat16")
    message = error_of(call("train", "--resume", "--run", run, *words, *SHARED), 1)
    assert "settings.width: 4 -> 8" in message and "sampler.images: 2 -> 1" in message
    assert "precision: float32 -> bfloat16" in message and "blocks" not in message
    assert "trained with a method" not in message and progress(run) == (True, 0, 1)
    train("--resume", "--run", run, "width=4")  # given, and the same


def test_more_epochs_continue_a_finished_run_and_the_record_says_so(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("agw", "--data", data, "--run", run, *TINY)
    assert "continued_from" not in recorded(run)
    train("--resume", "--run", run, "epochs=3")
    assert progress(run) == (True, 0, 3) and recorded(run)["recipes"][0]["epochs"] == 3
    opened = vireid.Run.open(run)
    assert opened.record.continued_from == (1,) and opened.record.stamp["continued"] == "after epoch 1"
    scores = opened.evaluate(device="cpu", progress=False, pictures=0)
    assert {row.stamp["continued"] for row in scores.rows} == {"after epoch 1"}
    train("--resume", "--run", run)  # continued already: nothing to do
    assert vireid.Run.open(run).record.continued_from == (1,)
    message = error_of(call("train", "--resume", "--run", run, "epochs=2", *SHARED), 1)
    assert "epochs: 3 -> 2" in message


def test_a_run_of_your_own_method_remembers_its_file(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("from vireid.methods.agw import AGW\n\n\nclass Mine(AGW):\n    pass\n")
    train(mine, "--data", data, "--run", tmp_path / "run", *TINY)
    train("--resume", "--run", tmp_path / "run", "epochs=2")
    assert progress(tmp_path / "run") == (True, 0, 2)
    moved = mine.rename(tmp_path / "moved.py")
    assert "name its file" in error_of(call("train", "--resume", "--run", tmp_path / "run", *SHARED), 1)
    message = error_of(call("train", moved, "--resume", "--run", tmp_path / "run", *SHARED), 1)
    assert "class: mine.py:Mine -> moved.py:Mine" in message


def test_a_refining_run_of_two_stages_continues_in_its_last(data: Path, tmp_path: Path) -> None:
    train("agw", "--data", data, "--run", tmp_path / "agw", *TINY)
    words = ("width=8", "depth=2", "landmarks=2", "k=4", "k_cross=2", "epochs=1", "sampler.length=4", "sampler.pids=2")
    run = tmp_path / "nformer"
    train("nformer", "--data", data, "--run", run, f"base={tmp_path / 'agw'}", *words)
    assert progress(run) == (True, 1, 1)
    train("--resume", "--run", run, "stages.1.epochs=2")
    assert progress(run) == (True, 1, 2)
    assert [recipe["epochs"] for recipe in recorded(run)["recipes"]] == [1, 2]
    message = error_of(call("train", "--resume", "--run", run, "epochs=4", *SHARED), 1)
    assert "recipes.0.epochs: 1 -> 4" in message  # the first stage is over


def test_a_run_that_is_not_there_is_trained_with_what_is_given(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("agw", "--resume", "--data", data, "--run", run, *TINY)
    assert progress(run) == (True, 0, 1)
    assert "name a method and the data" in error_of(call("train", "--resume", "--run", tmp_path / "none", *SHARED), 2)


def test_kinds_and_reported_weights_are_resumed_and_repeated(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("schedule=cosine", "optimizers.head=adamw", "optimizers.head.lr=0.001", "ema=0.5", "mix=0.5", "freeze=1")
    train("agw", "--data", data, "--run", run, *TINY, *words)
    command = command_of(vireid.Run.open(run).record)
    assert all(word in command.split() for word in words) and "milestones" not in command
    assert "nesterov" not in command and "optimizers.backbone" not in command
    train("--resume", "--run", run, "epochs=2")
    assert progress(run) == (True, 0, 2)
    recipe = recorded(run)["recipes"][0]
    assert recipe["schedule"]["class"] == "Cosine" and recipe["optimizers"]["head"]["class"] == "AdamW"
    message = error_of(call("train", "--resume", "--run", run, "schedule=steps", *SHARED), 1)
    assert "schedule.class: Cosine -> Steps" in message


def test_a_run_without_the_newer_settings_of_a_recipe_is_resumed(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("agw", "--data", data, "--run", run, *TINY)
    about = recorded(run)
    for name in ("freeze", "frozen_norms", "ema", "mix"):
        del about["recipes"][0][name]
    del about["recipes"][0]["schedule"]["warmup_steps"], about["settings"]["backbone"], about["settings"]["depth"]
    (run / "recipe.json").write_text(json.dumps(about))
    train("--resume", "--run", run)
    message = error_of(call("train", "--resume", "--run", run, "mix=0.5", *SHARED), 1)
    assert "recipes.0.mix: 1.0 -> 0.5" in message and "freeze" not in message
    assert command_of(vireid.Run.open(run).record).count("=") == len(TINY) + 1  # and the data
    train("--resume", "--run", run, "epochs=2")
    assert progress(run) == (True, 0, 2)
