"""Tests of vireid/training/loop.py: resume, kill, two processes, divergence, selection, logs."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_training
import torch
from small_training import PIDS, Draw, Small, SmallData, published, recipe, small, stages, torchrun, train_published

from vireid.errors import DiskFull, RunError
from vireid.training.logger import JsonLines
from vireid.training.loop import OutOfMemory, Selection, TrainingDiverged, train
from vireid.training.optim import SGD, AdamW
from vireid.training.run_folder import RunFolder

SCRIPT = Path(small_training.__file__)
EXPLODING = {"trunk": SGD(1e30), "head": AdamW(0.01)}


def run(folder, method=None, **options):
    method = small() if method is None else method
    options = {"progress": False, **options}
    train(method, options.pop("data", None) or SmallData(), folder, **options)
    return method


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def records(folder: Path, event: str | None = None):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if event in (None, line["event"])]


class Stop(Exception):
    pass


def stop_after(stage: int, epoch: int):
    def on_epoch(method, at):
        if (at.stage, at.epoch) == (stage, epoch):
            raise Stop

    return on_epoch


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


@pytest.mark.parametrize(("stage", "epoch"), [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)])
def test_resume_equals_no_interruption(tmp_path, stage, epoch):
    whole = run(tmp_path / "whole", small(dropout=0.3), recipes=stages(), log_every=1)
    with pytest.raises(Stop):
        run(tmp_path / "cut", small(dropout=0.3), recipes=stages(), log_every=1, on_epoch=stop_after(stage, epoch))
    torch.rand(5), np.random.rand(3), random.random()
    resumed = run(tmp_path / "cut", small(dropout=0.3), recipes=stages(), log_every=1, resume=True)
    assert equal(whole.state_dict(), resumed.state_dict())
    a, b = (RunFolder.open(tmp_path / name).checkpoint() for name in ("whole", "cut"))
    flat = lambda state: str({k: v for k, v in state.items() if k != "past"})  # noqa: E731
    assert flat(a) == flat(b)
    timeless = lambda r: {k: v for k, v in r.items() if k not in ("images_per_s", "elapsed_s")}  # noqa: E731
    assert [*map(timeless, records(tmp_path / "whole"))] == [*map(timeless, records(tmp_path / "cut"))]


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


def test_a_finished_run_is_left_alone(tmp_path):
    first = run(tmp_path)
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()}
    again = run(tmp_path, resume=True)
    assert equal(first.state_dict(), again.state_dict())
    assert before == {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()}


def test_a_taken_folder_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(RunError, match="already holds a run; pass resume=True"):
        run(tmp_path)


def test_resume_with_other_settings_lists_every_difference(tmp_path):
    run(tmp_path, stamp={"settings": {"gamma": 1}})
    other = SmallData()
    other.table.pid[0] = 40
    changed = recipe(4, sampler=Draw(pids=2))
    with pytest.raises(RunError) as caught:
        run(tmp_path, data=other, recipes=changed, seed=1, resume=True, stamp={"settings": {"gamma": 2}})
    text = str(caught.value)
    for line in (
        "recipes.0.epochs: 3 -> 4",
        "recipes.0.sampler.pids: 4 -> 2",
        "seed: 0 -> 1",
        "settings.gamma: 1 -> 2",
    ):
        assert line in text
    assert "\n  - data: " in text and "versions" not in text


def test_divergence_names_step_and_losses_and_keeps_the_checkpoint(tmp_path):
    folder = tmp_path / "run"
    good = recipe(2)
    bad = recipe(3, optimizers=EXPLODING)
    with pytest.raises(TrainingDiverged) as caught:
        run(folder, recipes=(good, bad))
    text = str(caught.value)
    assert "stage 1, epoch 0, iteration" in text and "trunk 5e+29" in text and "stays at its last checkpoint" in text
    state = RunFolder.open(folder).checkpoint()
    assert (state["progress"]["stage"], state["progress"]["epoch"], state["finished"]) == (0, 2, False)
    assert all(torch.isfinite(value).all() for value in state["method"].values())


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    method = small()
    losses = method.losses

    def poisoned(batch, at):
        found = losses(batch, at)
        return {**found, "triplet": found["triplet"] * (float("nan") if at.iteration == 4 else 1)}

    method.losses = poisoned
    with pytest.raises(TrainingDiverged, match=r"stage 0, epoch 1, iteration 4: .*id=[\d.]+, triplet=nan"):
        run(tmp_path, method)
    assert RunFolder.open(tmp_path).checkpoint()["progress"]["epoch"] == 1


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    method = small()
    after = method.after_step

    def poison(at):
        after(at)
        if at.iteration == 5:  # the last step of epoch 1: no further loss would show it
            method.head.weight.data[0, 0] = float("inf")

    method.after_step = poison
    with pytest.raises(TrainingDiverged, match=r"weights are not finite \(head\.weight\)"):
        run(tmp_path, method)
    assert RunFolder.open(tmp_path).checkpoint()["progress"]["epoch"] == 1


def test_out_of_memory_says_what_to_lower(tmp_path):
    method = small()

    def full(batch, at):
        raise torch.OutOfMemoryError("CUDA out of memory")

    method.losses = full
    with pytest.raises(OutOfMemory, match=r"batch of 16 images of 2x3.*Draw\(pids=4.*precision=bfloat16"):
        run(tmp_path, method)


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path, monkeypatch):
    save = torch.save

    def full(state, path):
        save(state, path)
        if state["progress"]["epoch"] == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFull, match="disk is full"):
        run(tmp_path)
    assert RunFolder.open(tmp_path).checkpoint()["progress"]["epoch"] == 1
    assert not list(tmp_path.glob("*partial*")) and not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    resumed = run(tmp_path, resume=True)
    assert equal(resumed.state_dict(), run(tmp_path / "whole").state_dict())


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


def test_wrong_requests_are_told(tmp_path):
    for options, text in (
        ({"precision": "float16"}, "precision must be one of"),
        ({"log_every": 0}, "log_every"),
        ({"recipes": ()}, "at least one recipe"),
        ({"recipes": recipe(1, step="nothing")}, "step='nothing'; Small has none"),
        ({"recipes": recipe(1, sampler=Draw(batches=0))}, "gave no batch"),
        ({"stamp": {"seed": 3}}, "stamp names \\['seed'\\]"),
    ):
        with pytest.raises(ValueError, match=text):
            run(tmp_path / text[:5].strip("\\"), **options)


def test_batches_that_are_miscounted_are_told(tmp_path):
    class Short(SmallData):
        def batches(self, recipe, at):
            yield next(super().batches(recipe, at))

    with pytest.raises(ValueError, match=r"gave 1 batches after it had announced 3; batches\(\) has to set"):
        run(tmp_path, data=Short())


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


def test_kill_at_any_moment_then_resume_equals_no_interruption(tmp_path):
    whole = run(tmp_path / "whole", small(dropout=0.2), recipes=stages(), log_every=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    chance, folder, kills, done = random.Random(0), tmp_path / "killed", 0, False
    while not done:
        log = folder / "log.jsonl"
        opened_ns = log.stat().st_mtime_ns if log.exists() else 0
        process = subprocess.Popen([sys.executable, str(SCRIPT), str(folder), "slow"], env=environment)
        while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns != opened_ns):
            time.sleep(0.005)  # until this process trains
        try:
            process.wait(timeout=chance.uniform(0.0, 0.25) if kills < 3 else 60)
            done = True
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            RunFolder.open(folder)
            if (folder / "last.pt").exists():
                RunFolder.open(folder).load(small(dropout=0.2))
    assert process.returncode == 0 and kills == 3
    assert equal(whole.state_dict(), RunFolder.open(folder).checkpoint()["method"])
    assert [r["total"] for r in records(folder, "step")] == list(range(1, 16))
    assert not list(folder.glob(".*"))


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


def test_a_published_method_resumes_bit_for_bit_from_pictures(tmp_path):
    train_published(tmp_path / "whole", tmp_path / "pictures")
    with pytest.raises(Stop):
        train_published(tmp_path / "cut", tmp_path / "pictures", on_epoch=stop_after(0, 1))
    train_published(tmp_path / "cut", tmp_path / "pictures", resume=True)
    for name in ("agw", "cajl"):
        whole, cut = (RunFolder.open(tmp_path / folder / name) for folder in ("whole", "cut"))
        assert equal(whole.checkpoint()["method"], cut.checkpoint()["method"])
        embedder = cut.embedder()
        image = torch.full((2, 3, 32, 16), 90, dtype=torch.uint8)
        method = cut.load(published(name)[0]).eval()
        modality = torch.tensor([0, 1])
        torch.testing.assert_close(embedder(image, modality), method.float().embedder(image, modality))


def test_data_of_another_process_or_device_are_refused(tmp_path):
    data = SmallData()
    data.rank, data.world = 1, 2
    with pytest.raises(ValueError, match=r"rank 1 of 2, this process is rank 0 of 1; make them with TrainingData"):
        run(tmp_path, data=data)
    data = SmallData()
    data.device = "cuda"
    with pytest.raises(ValueError, match="method is on cpu, the data come to cuda"):
        run(tmp_path, data=data)
