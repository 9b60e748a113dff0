"""Resume of a training after an interruption or a kill equals no interruption."""

import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest
import small_training
import torch
from loop_runs import Stop, equal, records, run, stop_after
from small_training import Draw, SmallData, published, recipe, small, stages, train_published

from vireid.errors import RunError
from vireid.training.run_folder import RunFolder


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


def test_kill_at_any_moment_then_resume_equals_no_interruption(tmp_path, start_python):
    whole = run(tmp_path / "whole", small(dropout=0.2), recipes=stages(), log_every=1)
    chance, folder, threads = random.Random(0), tmp_path / "killed", {"OMP_NUM_THREADS": "1"}
    for _ in range(3):
        process = start_python(small_training.__file__, folder, "held", stdin=subprocess.PIPE, env=threads)
        assert process.stdout.readline() == "training\n"
        time.sleep(chance.uniform(0.0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        RunFolder.open(folder)
        if (folder / "last.pt").exists():
            RunFolder.open(folder).load(small(dropout=0.2))
    process = start_python(small_training.__file__, folder, "whole", env=threads)
    process.communicate()
    assert process.returncode == 0
    assert equal(whole.state_dict(), RunFolder.open(folder).checkpoint()["method"])
    assert [r["total"] for r in records(folder, "step")] == list(range(1, 16))
    assert not list(folder.glob(".*"))


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
