"""The training loop: its course, callbacks, samples, selection, precision, logs, two processes."""

import random
from pathlib import Path

import numpy as np
import pytest
import small_training
import torch
from loop_runs import Stop, equal, records, run, stop_after
from small_training import PIDS, Small, SmallData, recipe, small, stages, torchrun, train_published

from vireid.errors import RunError
from vireid.training.logger import JsonLines
from vireid.training.loop import Selection
from vireid.training.run_folder import RunFolder

SCRIPT = Path(small_training.__file__)


def test_losses_fall_and_the_run_folder_is_whole(tmp_path):
    run(tmp_path / "run", recipes=recipe(15), log_every=2)
    epochs = records(tmp_path / "run", "epoch")
    assert [e["epoch"] for e in epochs] == list(range(15)) and epochs[-1]["total"] == 45
    assert epochs[-1]["losses"]["id"] < epochs[0]["losses"]["id"] * 0.9
    steps = records(tmp_path / "run", "step")
    assert len(steps) == 22 and steps[0]["iteration"] == 2
    assert set(steps[0]) == {
        *("event", "total", "stage", "epoch", "iteration", "losses", "watch", "lr", "images_per_s", "elapsed_s")
    }
    assert set(steps[0]["losses"]) == {"id", "triplet"} and set(steps[0]["watch"]) == {"pooled"}
    assert epochs[0]["lr"] == {"trunk": 0.01, "head": 0.005} and epochs[-1]["lr"]["trunk"] == pytest.approx(0.002)
    assert RunFolder.open(tmp_path / "run").finished
    assert not list((tmp_path / "run").glob(".*"))


def test_the_loop_is_the_one_of_its_docstring(tmp_path):
    from vireid.method import Progress
    from vireid.training.optim import Optimizers

    trained = run(tmp_path, recipes=stages())
    method, data, at = small(), SmallData(), Progress()
    method.train()
    for at.stage, stage in enumerate(stages()):
        at.iteration, at.epochs = 0, stage.epochs
        optim, step = Optimizers(method.params(), stage), getattr(method, stage.step)
        for at.epoch in range(stage.epochs):
            for batch in method.batches(data, stage, at):
                optim.scale(stage.schedule(at))
                step(batch, optim, at)
                method.after_step(at)
                at.iteration += 1
    assert equal(trained.state_dict(), method.state_dict())


def test_callbacks_do_not_change_the_course(tmp_path):
    def draw(method, at):
        torch.rand(7), np.random.rand(2), random.random()
        method.eval()
        return float(-at.epoch)

    plain = run(tmp_path / "plain", small(dropout=0.3))
    run(tmp_path / "busy", small(dropout=0.3), on_epoch=draw, select=Selection(draw))
    assert equal(plain.state_dict(), RunFolder.open(tmp_path / "busy").checkpoint()["method"])


def test_samples_are_written_per_epoch_and_do_not_change_the_course(tmp_path):
    seen = []

    class Showing(Small):
        def samples(self, batch, at):
            seen.append((at.stage, at.epoch, at.iteration))
            assert not self.training and not torch.is_grad_enabled()
            noise = torch.rand(len(batch), 3, 8, 4)
            return {"drawn": noise, "half": noise[:1].mul(0).add(0.5)} if at.stage == 1 else None

    def built(kind):
        torch.manual_seed(3)
        return kind(PIDS, (1, 2), dropout=0.3)

    plain = run(tmp_path / "plain", built(Small), recipes=stages())
    showing = run(tmp_path / "showing", built(Showing), recipes=stages())
    assert equal(plain.state_dict(), showing.state_dict()) and showing.training == plain.training
    assert seen == [(0, 0, 3), (0, 1, 6), (1, 0, 3), (1, 1, 6), (1, 2, 9)]
    assert not (tmp_path / "plain" / "samples").exists()
    files = sorted(p.name for p in (tmp_path / "showing" / "samples").iterdir())
    assert files == ["1-000.png", "1-001.png", "1-002.png"]


def test_selection_reports_the_best_epoch_and_its_rule(tmp_path):
    seen = []

    def evaluate(method, at):
        assert not method.training
        seen.append({name: value.clone() for name, value in method.state_dict().items()})
        return [0.2, 0.9, 0.9, 0.4][len(seen) - 1]

    method = run(tmp_path, recipes=recipe(7), select=Selection(evaluate, "test set (not for publication)", every=2))
    assert len(seen) == 4 and equal(method.state_dict(), seen[1])
    assert [r.get("selected") for r in records(tmp_path, "epoch")][3] == {"test set (not for publication)": 0.9}
    opened = RunFolder.open(tmp_path)
    assert opened.stamp["checkpoint"] == "test set (not for publication)"
    assert opened.checkpoint("best.pt")["epoch"] == 3
    assert equal(opened.load(small()).state_dict(), seen[1])
    assert equal(run(tmp_path, recipes=recipe(7), select=Selection(evaluate, "test set (not for publication)", every=2),
                     resume=True).state_dict(), seen[1])  # fmt: skip
    with pytest.raises(RunError, match="no epoch was selected by held-out identities; resume"):
        with pytest.raises(Stop):
            run(tmp_path / "early", select=Selection(evaluate, every=3), on_epoch=stop_after(0, 1))
        RunFolder.open(tmp_path / "early").embedder()
    with pytest.raises(ValueError, match="gave nan"):
        run(tmp_path / "nan", select=Selection(lambda method, at: float("nan")))
    with pytest.raises(ValueError, match="held-out identities"):
        Selection(evaluate, "luck")


def test_bfloat16_trains_near_float32(tmp_path):
    seen = []
    method = small()
    method.trunk[1].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    run(tmp_path / "half", method, precision="bfloat16")
    full = run(tmp_path / "full")
    assert set(seen) == {torch.bfloat16}
    assert method.head.weight.dtype == torch.float32
    assert not equal(method.state_dict(), full.state_dict())
    torch.testing.assert_close(method.head.weight, full.head.weight, atol=0.05, rtol=0)


def test_compile_keeps_the_names(tmp_path, monkeypatch):
    import torch.nn as nn

    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))  # no compiler is needed to run tests
    method = run(tmp_path, compile=True)
    assert compiled == [method.trunk]


def test_tensorboard_and_other_loggers(tmp_path):
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class Mine:
        def __init__(self):
            self.records, self.closed = [], False

        def log(self, record):
            self.records.append(record)

        def close(self):
            self.closed = True

    mine = Mine()
    run(tmp_path, tensorboard=True, loggers=[mine], log_every=3)
    assert mine.closed and len(mine.records) == 6
    events = event_file.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    ids = events.Scalars("losses/id")
    assert [e.step for e in ids] == [3, 6, 9]
    assert ids[0].value == pytest.approx(mine.records[0]["losses"]["id"])
    assert {"lr/trunk", "watch/pooled", "epoch_losses/triplet", "images_per_s"} <= set(events.Tags()["scalars"])


def test_progress_without_a_terminal_is_a_line_per_epoch(tmp_path, capsys):
    run(tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[1].startswith("epoch 2/3  id ") and lines[1].endswith("images/s")


def test_log_lines_after_the_checkpoint_are_dropped(tmp_path):
    log = JsonLines(tmp_path / "log")
    log.log({"a": 1})
    kept = log.bytes
    log.log({"a": float("nan")})
    log.close()
    assert (tmp_path / "log").read_text() == '{"a": 1}\n{"a": "nan"}\n'
    again = JsonLines(tmp_path / "log", kept)
    again.log({"a": 3})
    again.close()
    assert (tmp_path / "log").read_text() == '{"a": 1}\n{"a": 3}\n'


def test_two_processes_equal_one(tmp_path):
    torchrun(str(SCRIPT), str(tmp_path / "two"), "twice", str(tmp_path / "pictures"))
    assert all((tmp_path / f"compared_{rank}").exists() for rank in (0, 1))  # two_processes.py
    double = torch.float64
    run(tmp_path / "one", small(double), data=SmallData(double))
    train_published(tmp_path / "one", tmp_path / "pictures" / "0")
    for name in (".", "agw", "cajl"):  # mined losses over all rows, batch norm of each stem, pictures from files
        one, two = (RunFolder.open(tmp_path / folder / name) for folder in ("one", "two"))
        assert (one.record.world, two.record.world) == (1, 2)
        states = one.checkpoint()["method"], two.checkpoint()["method"]
        assert list(states[0]) == list(states[1])
        for key, value in states[0].items():
            torch.testing.assert_close(states[1][key], value, rtol=1e-8, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")
        for a, b in zip(records(one.path, "epoch"), records(two.path, "epoch"), strict=True):
            assert a["losses"] == pytest.approx(b["losses"], rel=1e-6)
