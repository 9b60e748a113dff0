"""Failures of a training and wrong requests: the message, and the checkpoint that stays."""

import sys

import pytest
import torch
from loop_runs import equal, run
from small_training import Draw, SmallData, recipe, small

from vireid.errors import DiskFull, MissingPackage
from vireid.training.loop import OutOfMemory, TrainingDiverged
from vireid.training.optim import SGD, AdamW
from vireid.training.run_folder import RunFolder

EXPLODING = {"trunk": SGD(1e30), "head": AdamW(0.01)}


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


def test_wrong_requests_are_told(tmp_path):
    for options, text in (
        ({"precision": "float16"}, "`precision`: expected float32 or bfloat16, got 'float16'"),
        ({"log_every": 0}, "`log_every`: expected whole number >= 1, got 0"),
        ({"log_evry": 5}, "`log_evry` is unknown; did you mean `log_every`"),
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


def test_data_of_another_process_or_device_are_refused(tmp_path):
    data = SmallData()
    data.rank, data.world = 1, 2
    with pytest.raises(ValueError, match=r"rank 1 of 2, this process is rank 0 of 1; make them with TrainingData"):
        run(tmp_path, data=data)
    data = SmallData()
    data.device = "cuda"
    with pytest.raises(ValueError, match="method is on cpu, the data come to cuda"):
        run(tmp_path, data=data)


def test_a_missing_tensorboard_is_reported_with_the_extra_that_has_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where the package is not installed
    with pytest.raises(MissingPackage, match=r"pip install 'vireid\[log\]'") as caught:
        run(tmp_path, tensorboard=True)
    assert caught.value.name == "tensorboard"


@pytest.mark.parametrize(
    ("init", "factor", "raw", "warns"),
    [
        ("imagenet (sha256 1)", 100, "triplet", True),
        ("imagenet (sha256 1)", 1, "triplet", False),
        (None, 100, "triplet", False),
        ("imagenet (sha256 1)", 100, "", False),
    ],
)
def test_first_losses_that_destroy_a_pretrained_start_are_warned_of(tmp_path, caplog, init, factor, raw, warns):
    method = small()
    method.raw_distances = raw
    losses = method.losses
    method.losses = lambda batch, at: {**losses(batch, at), "triplet": torch.tensor(0.3 * factor)}
    stamp = {} if init is None else {"init": init}
    run(tmp_path, method, recipes=recipe(2, sampler=Draw(batches=6)), stamp=stamp)
    messages = [record.getMessage() for record in caplog.records]
    assert [m for m in messages if "is 30.0, above 8" in m and "imagenet" in m and "pooling=average" in m] == (
        messages[:1] if warns else []
    )
    assert len(messages) == int(warns)  # once, not at every step
