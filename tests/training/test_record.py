"""Tests of vireid/training/record.py and run_folder.py: the run folder, what it records, how it fails."""

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_training import SmallData, recipe, small

from vireid import system as files
from vireid.errors import DiskFull, RunError
from vireid.layers.embedder import Embedder
from vireid.system import replacing
from vireid.training.loop import train
from vireid.training.random_state import random_state, set_random_state
from vireid.training.record import RunRecord, describe, differences, to_jsonable
from vireid.training.run_folder import RunFolder


@pytest.fixture
def trained(tmp_path):
    method = small()
    train(
        method,
        SmallData(),
        tmp_path / "run",
        recipes=recipe(1),
        progress=False,
        stamp={"init": "weights abc", "x": [1]},
    )
    return RunFolder.open(tmp_path / "run"), method


def test_a_setting_that_is_newer_than_the_run_has_its_default(tmp_path):
    def record(**settings):
        more = {"seed": 0, "precision": "float32", "checkpoint": "last epoch"}
        return describe(small(), (recipe(1),), SmallData().table, {"settings": settings}, **more)

    new, now = {"width": 64, "last_stride": 1, "unused": 3}, record(width=4, blocks=[1, 2], last_stride=1)
    RunFolder.begin(tmp_path / "run", record(width=4, blocks=[1, 2]))
    assert RunFolder.begin(tmp_path / "run", now, resume=True, defaults=new).record.settings == {
        "width": 4, "blocks": [1, 2]}  # fmt: skip
    with pytest.raises(RunError, match=r"settings\.last_stride: nothing -> 1"):
        RunFolder.begin(tmp_path / "run", now, resume=True)
    with pytest.raises(RunError, match=r"settings\.last_stride: 2 -> 1"):
        RunFolder.begin(tmp_path / "run", now, resume=True, defaults={**new, "last_stride": 2})
    with pytest.raises(RunError, match=r"settings\.width: 4 -> 64"):
        RunFolder.begin(tmp_path / "run", record(width=64, blocks=[1, 2], last_stride=1), resume=True, defaults=new)


def test_settings_that_had_another_name_have_the_present_one():
    about = {"method": "D2RL", "class": "vireid.methods.d2rl.D2RL", "num_pids": 4, "dataset": "small", "data": "abc"}
    record = RunRecord.model_validate({**about, "recipes": [], "settings": {"smoothing": 0.1, "kl": 1.0}})
    assert record.settings == {"label_smoothing": 0.1, "kl": 1.0}
    mine = RunRecord.model_validate({**about, "class": "mine.py:Mine", "recipes": [], "settings": {"smoothing": 0.1}})
    assert mine.settings == {"smoothing": 0.1}


def test_the_stamp_names_another_backbone_and_other_weights_than_the_trained_ones():
    about = {"method": "AGW", "class": "vireid.methods.agw.AGW", "num_pids": 4, "dataset": "small", "data": "abc"}
    recipe = {"size": [288, 144], "epochs": 1}

    def stamp(settings, **more):
        record = RunRecord.model_validate({**about, "settings": settings, "recipes": [{**recipe, **more}]})
        return {key: record.stamp[key] for key in ("backbone", "weights") if key in record.stamp}

    assert stamp({}) == stamp({"backbone": "resnet50", "depth": None}, ema=0.0, mix=1.0) == {}
    assert stamp({"depth": 4}) == {}  # NFormer's own setting
    assert stamp({"backbone": "lite0", "depth": 11}, mix=0.35) == {
        "backbone": "lite0, 11 blocks", "weights": "0.35 trained and 0.65 of the start"}  # fmt: skip
    assert stamp({"backbone": "vit-small", "depth": None}, ema=0.99, mix=0.5) == {
        "backbone": "vit-small", "weights": "averaged with decay 0.99, 0.5 trained and 0.5 of the start"}  # fmt: skip


def test_recipe_says_what_was_run(trained):
    about = trained[0].record.plain()
    assert (about["method"], about["class"], about["num_pids"], about["camids"]) == (
        "Small", "small_training.py:Small", 4, [1, 2])  # fmt: skip
    assert about["data"] == SmallData().table.fingerprint and about["dataset"] == "small"
    assert about["recipes"][0]["optimizers"]["trunk"] == {
        "class": "SGD", "lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "clip": None}  # fmt: skip
    assert about["versions"]["torch"] == torch.__version__ and about["init"] == "weights abc" and about["x"] == [1]
    assert about["settings"] == {} and about["checkpoint"] == "last epoch"
    assert about == json.loads((trained[0].path / "recipe.json").read_text())
    assert trained[0].stamp == {
        **{"method": "Small", "dataset": "small", "data": about["data"], "seed": "0", "init": "weights abc"},
        **{"checkpoint": "last epoch", "precision": "float32", "run": "run", "vireid": about["versions"]["vireid"]},
    }


def test_a_stage_without_pictures_that_0_1_recorded_opens():
    about = {"method": "NFormer", "class": "vireid.methods.nformer.NFormer", "num_pids": 4, "dataset": "small"}
    recipes = [{"size": [288, 144], "epochs": 1}, {"size": [0, 0], "epochs": 1}]
    record = RunRecord.model_validate({**about, "data": "abc", "recipes": recipes})
    assert [recipe.size for recipe in record.recipes] == [(288, 144), None]
    assert record.plain()["recipes"][1]["size"] is None
    with pytest.raises(RunError, match="reads no pictures"):
        record.deployment  # noqa: B018


def test_checkpoint_opens_without_pickled_code(trained):
    state = torch.load(trained[0].path / "last.pt", weights_only=True)
    assert set(state) == {"format", "method", "optimizers", "random", "progress", "past", "finished"}
    loaded = trained[0].load(small())
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trained[1].parameters(), strict=True))


def test_a_folder_that_is_no_run_is_told(tmp_path, trained):
    run, _ = trained
    with pytest.raises(RunError, match="no run folder"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"not a run folder: it holds no recipe\.json"):
        RunFolder.open(tmp_path / "empty")
    with pytest.raises(RunError, match="does not fit this Small: build it with num_pids=4"):
        run.load(type(run_method := small())(run_method.num_pids + 1))
    with pytest.raises(RunError, match=r"is not a vireid Embedder; build the method and use RunFolder\.load"):
        run.embedder()
    last = run.path / "last.pt"
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(
        RunError, match=r"last\.pt is cut off or is not a checkpoint \(\w+\); restore it or train again$"
    ):
        run.checkpoint()
    last.unlink()
    with pytest.raises(RunError, match="before its first epoch ended"):
        run.checkpoint()
    with pytest.raises(RunError, match="first epoch has not ended"):
        run.embedder()
    assert not run.finished
    for text, message in (
        ("{", "not readable as JSON"),
        ('{"format": 99}', "format 99.*reads format 1; restore it"),
        ("[]", "format None"),
        ('{"format": 1}', r"is not what vireid \S+ reads \(method: "),
    ):
        (run.path / "recipe.json").write_text(text)
        with pytest.raises(RunError, match=message):
            RunFolder.open(run.path)


class Own(Embedder):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))


def test_the_embedder_of_a_run_is_rebuilt_without_the_method(tmp_path):
    method = small()
    method.embedder = Own()
    train(method, SmallData(), tmp_path, recipes=recipe(1), progress=False)
    assert isinstance(RunFolder.open(tmp_path).embedder(), Own)


def test_anything_a_recipe_may_hold_becomes_json():
    @dataclass
    class Inner:
        path: Path
        values: tuple[float, ...]

    class Plain:
        def __init__(self):
            self.shown, self._hidden = np.int64(3), 4

    found = to_jsonable({"a": Inner(Path("x"), (1, 2.5)), "b": Plain(), "c": {2, 1}, "d": np.arange(2), "e": len})
    assert found == {
        "a": {"class": "Inner", "path": "x", "values": [1, 2.5]},
        **{"b": {"class": "Plain", "shown": 3}, "c": [1, 2], "d": [0, 1], "e": "builtins.len"},
    }
    json.dumps(found)
    with pytest.raises(TypeError, match="object cannot be written"):
        to_jsonable(object())
    with pytest.raises(ValueError, match="stamp names"):
        describe(small(), (), SmallData().table, {"data": "x"})


def test_differences_are_named_by_their_path():
    had = {"a": {"b": [1, 2]}, "c": 1, "d": 0}
    assert differences(had, {"a": {"b": [1, 3]}, "c": "1", "e": 5}) == [
        *("a.b.1: 2 -> 3", "c: 1 -> 1", "d: 0 -> nothing", "e: nothing -> 5")
    ]
    assert differences(had, had) == []
    assert differences([1], [1, 2], "x") == ["x: [1] -> [1, 2]"]


def test_random_states_go_round_through_a_file(tmp_path):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    np.random.randn()  # leaves a second normal number in store
    torch.save(random_state(), tmp_path / "state")
    draw = lambda: (random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist())  # noqa: E731
    first = draw()
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert draw() == first


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as partial:
        partial.write_text("old")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("new")
        raise KeyError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    (tmp_path / ".other.partial").touch()
    files.remove_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the size of files stands for the full disk")
def test_a_full_disk_is_told_whoever_writes(tmp_path):
    code = f"""
import resource, signal, torch
from pathlib import Path
from safetensors.torch import save_file
from vireid.system import replacing
from vireid.errors import DiskFull
from vireid.training.record import RunRecord
from vireid.training.run_folder import RunFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder, large = Path({str(tmp_path)!r}), torch.zeros(10**6)

def by(write):
    with replacing(folder / "file") as partial:
        write(partial)

for job in (
    lambda: RunFolder(folder, RunRecord.model_construct()).save({{"x": large}}),
    lambda: by(lambda partial: partial.write_bytes(bytes(10**6))),
    lambda: by(lambda partial: save_file({{"x": large}}, partial)),
):
    try:
        job()
    except DiskFull as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.count("disk is full") == 3, done.stderr
    assert not list(tmp_path.iterdir())


def test_safetensors_says_full_disk_in_words():
    class Safetensors(Exception):
        pass

    assert files.no_space(Safetensors("I/O error: No space left on device (os error 28)"))
    assert not files.no_space(Safetensors("I/O error: other (os error 2)")) and issubclass(DiskFull, OSError)
    assert callable(save_file)
