"""A run on a split of RegDB that was stopped: it resumes on the same split and ends where an uninterrupted one ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import TINY, call, error_of
from regdb_files import write_lists, write_pictures

import vireid
from vireid.cli.app import INTERRUPTED
from vireid.methods.agw import AGW

SHARED = ("--device", "cpu", "--quiet", "--no-evaluate")
WORDS = ("epochs=2", *(word for word in TINY if not word.startswith("epochs")))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_lists(tmp_path_factory.mktemp("regdb"), people=4, trials=2, pictures=4)
    write_pictures(root)
    return root


def state(run: Path) -> dict[str, Any]:
    """All that the training kept: weights, optimizers, random numbers and progress, by flat names."""
    flat: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict | list | tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in items:
                add(f"{name}.{key}", part)
        else:
            flat[name] = value

    add("", torch.load(run / "last.pt", weights_only=True))
    return flat


def equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_a_stopped_run_resumes_with_its_trial_bit_for_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped, losses = tmp_path / "whole", tmp_path / "stopped", AGW.losses
    words = ("train", "agw", "--data", f"regdb={data}", "--trial", 1, *SHARED, *WORDS)
    done = call(*words, "--run", whole)
    assert done.exit_code == 0, done.output

    def stop_in_the_second_epoch(self: AGW, batch: Any, at: Any) -> Any:
        if at.epoch == 1 and at.iteration > at.iterations_per_epoch:
            raise KeyboardInterrupt
        return losses(self, batch, at)

    with monkeypatch.context() as patch:
        patch.setattr(AGW, "losses", stop_in_the_second_epoch)
        assert call(*words, "--run", stopped).exit_code == INTERRUPTED
    assert state(stopped)[".progress.epoch"] == 1 and not state(stopped)[".finished"]
    message = error_of(call("train", "--resume", "--run", stopped, "--trial", 0, *SHARED), 1)
    assert "regdb trial 1 -> regdb trial 0" in message and state(stopped)[".progress.epoch"] == 1
    assert call("train", "--resume", "--run", stopped, *SHARED).exit_code == 0

    one, other = state(whole), state(stopped)
    assert one[".finished"] and one.keys() == other.keys()
    took = {".past.elapsed_s", ".past.log_bytes"}
    assert [name for name in one if name not in took and not equal(one[name], other[name])] == []
    assert (whole / "embedder.safetensors").read_bytes() == (stopped / "embedder.safetensors").read_bytes()
    for run in (whole, stopped):
        about = json.loads((run / "recipe.json").read_text())
        assert about["partition"] == "regdb trial 1" and about["source"]["trial"] == about["options"]["trial"] == 1
    scores = [vireid.Run.open(run).evaluate(device="cpu", progress=False, pictures=0) for run in (whole, stopped)]
    assert [row.metrics for row in scores[0].rows] == [row.metrics for row in scores[1].rows]
    assert {row.stamp["partition"] for row in scores[1].rows} == {"regdb trial 1"}
