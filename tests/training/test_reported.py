"""What a run reports: averaged and mixed weights, frozen parts of the backbone; resume equals no interruption."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loop_runs import Stop, equal, run, stop_after
from small_training import SmallData, recipe, small
from torch import Tensor

from vireid.errors import ArgumentError, RunError
from vireid.method import Batch, Method, Progress, Recipe
from vireid.methods import find
from vireid.training.loop import train
from vireid.training.optim import SGD, Constant
from vireid.training.run_folder import RunFolder
from vireid.training.selection import Selection

pytestmark = pytest.mark.usefixtures("one_thread")


class Pictures(SmallData):
    """Noise of a size that the networks of published methods take."""

    def batches(self, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        yield from super().batches(dataclasses.replace(recipe, size=(32, 16)), at)


def agw(**settings: object) -> Method:
    torch.manual_seed(5)
    return find("agw")(4, (1, 2), **{"width": 4, "blocks": (1, 1, 1, 1), **settings})


def changed(**changes: object) -> Recipe:
    """Two epochs of three steps of AGW's groups."""
    groups = {"backbone": SGD(lr=0.01), "head": SGD(lr=0.05)}
    return recipe(2, optimizers=groups, schedule=Constant(), **changes)


def trained(folder: Path, method: Method | None = None, **changes: object) -> Method:
    method = agw() if method is None else method
    train(method, Pictures(), folder, recipes=changed(**changes), progress=False)  # pyright: ignore[reportArgumentType]
    return method


def embedder_state(folder: Path) -> dict[str, Tensor]:
    return RunFolder.open(folder).embedder().state_dict()


def test_the_reported_weights_are_the_running_average(tmp_path: Path) -> None:
    weights: list[dict[str, Tensor]] = []

    class Noted(type(agw())):
        def after_step(self, at: Progress) -> None:
            weights.append({name: value.clone() for name, value in self.embedder.state_dict().items()})

    torch.manual_seed(5)
    method = Noted(4, (1, 2), width=4, blocks=(1, 1, 1, 1))
    expected = {name: value.clone() for name, value in method.embedder.state_dict().items()}
    trained(tmp_path, method, ema=0.75)
    for step in weights:
        for name, value in step.items():
            average = 0.75 * expected[name] + 0.25 * value if value.is_floating_point() else value
            expected[name] = average
    torch.testing.assert_close(embedder_state(tmp_path), expected, rtol=1e-5, atol=1e-6)
    assert equal(method.embedder.state_dict(), embedder_state(tmp_path)), "the method holds what is reported"
    live = RunFolder.open(tmp_path).checkpoint()["method"]
    assert live["embedder.neck.weight"].equal(weights[-1]["neck.weight"])


def test_averaging_and_mixing_leave_the_course_of_the_training_alone(tmp_path: Path) -> None:
    trained(tmp_path / "plain")
    trained(tmp_path / "both", ema=0.9, mix=0.25)
    plain, both = (RunFolder.open(tmp_path / name).checkpoint() for name in ("plain", "both"))
    assert equal(plain["method"], both["method"]) and "reported" not in plain


def test_mixed_weights_lie_between_start_and_end(tmp_path: Path) -> None:
    start = {name: value.clone() for name, value in agw().embedder.state_dict().items()}
    trained(tmp_path / "plain")
    trained(tmp_path / "mixed", mix=0.25)
    end, mixed = embedder_state(tmp_path / "plain"), embedder_state(tmp_path / "mixed")
    for name, value in end.items():
        expected = 0.25 * value + 0.75 * start[name] if value.is_floating_point() else value
        torch.testing.assert_close(mixed[name], expected)
    loaded = RunFolder.open(tmp_path / "mixed").load(agw())
    assert equal(loaded.embedder.state_dict(), mixed)
    trained(tmp_path / "start", mix=0.0)
    state = embedder_state(tmp_path / "start")
    assert all(state[name].equal(value) for name, value in start.items() if value.is_floating_point())


def test_resume_with_averages_and_a_mixture(tmp_path: Path) -> None:
    stages = (changed(ema=0.5), changed(ema=0.8, mix=0.5))
    options = {"progress": False, "recipes": stages}
    train(agw(), Pictures(), tmp_path / "whole", **options)  # pyright: ignore[reportArgumentType]
    for stage in (0, 1):
        with pytest.raises(Stop):
            train(agw(), Pictures(), tmp_path / "cut", on_epoch=stop_after(stage, 1), resume=True, **options)  # pyright: ignore
    train(agw(), Pictures(), tmp_path / "cut", resume=True, **options)  # pyright: ignore[reportArgumentType]
    whole, cut = (RunFolder.open(tmp_path / name) for name in ("whole", "cut"))
    assert equal(whole.embedder().state_dict(), cut.embedder().state_dict())
    a, b = whole.checkpoint(), cut.checkpoint()
    assert equal(a["method"], b["method"])
    for part in ("average", "start"):
        assert equal(a["reported"][part], b["reported"][part])


def test_methods_without_artifacts_are_averaged_whole(tmp_path: Path) -> None:
    method = run(tmp_path, recipes=recipe(2, ema=0.5))
    live = RunFolder.open(tmp_path).checkpoint()
    assert not live["method"]["head.weight"].equal(method.state_dict()["head.weight"])
    assert live["reported"]["average"][".head.weight"].equal(method.state_dict()["head.weight"])


def test_averages_of_another_network_are_refused(tmp_path: Path) -> None:
    trained(tmp_path, ema=0.5)
    folder = RunFolder.open(tmp_path)
    state = folder.checkpoint()
    state["reported"]["average"].pop("embedder.neck.weight")
    folder.save(state)
    with pytest.raises(RunError, match="averaged weights of this checkpoint are of another network"):
        folder.load(agw())


@pytest.mark.parametrize("freeze", [1, 3])
def test_frozen_parts_stay_as_they_were(tmp_path: Path, freeze: int) -> None:
    before = {name: value.clone() for name, value in agw().state_dict().items()}
    method = trained(tmp_path, freeze=freeze)
    frozen = ("embedder.visible.", "embedder.infrared.", "embedder.trunk.layer1.", "embedder.trunk.layer2.")
    frozen = frozen[: 2 if freeze == 1 else 4]
    for name, value in method.state_dict().items():
        kept = name.startswith(frozen)
        assert value.equal(before[name]) == kept or not value.dim() or "neck.bias" in name, name
    assert all(p.requires_grad for p in method.embedder.trunk.parameters()), "a later training may train them"


def test_frozen_norms_keep_their_statistics_and_train_their_weights(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in agw().state_dict().items()}
    method = trained(tmp_path, frozen_norms=True)
    after = method.state_dict()
    statistics = [name for name in after if name.endswith(("running_mean", "running_var"))]
    backbone = [name for name in statistics if ".layer" in name or ".visible." in name or ".infrared." in name]
    assert len(backbone) > 10 and len(statistics) > len(backbone)
    assert all(after[name].equal(before[name]) == (name in backbone) for name in statistics)
    assert not after["embedder.trunk.layer3.0.bn2.weight"].equal(before["embedder.trunk.layer3.0.bn2.weight"])


def test_what_cannot_be_frozen_is_refused_before_the_run_is_made(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"freeze=6 counts parts .* AGW has 5"):
        trained(tmp_path / "run", freeze=6)
    with pytest.raises(ArgumentError, match="the network of Small has 0"):
        run(tmp_path / "run", small(), recipes=recipe(1, freeze=1))
    with pytest.raises(ArgumentError, match="frozen_norms needs batch norms"):
        run(tmp_path / "run", small(), recipes=recipe(1, frozen_norms=True))
    assert not (tmp_path / "run").exists()


def test_an_epoch_is_selected_by_the_reported_weights_and_reported_with_them(tmp_path: Path) -> None:
    start, seen = agw().embedder.neck.weight.detach().clone(), []

    def evaluate(method: Method, at: Progress) -> float:
        seen.append(method.embedder.neck.weight.detach().clone())
        return -at.epoch  # the first is the best

    method = agw()
    options = {"recipes": changed(mix=0.25, ema=0.5), "select": Selection(evaluate), "progress": False}
    train(method, Pictures(), tmp_path, **options)  # pyright: ignore[reportArgumentType]
    folder = RunFolder.open(tmp_path)
    live, saved = folder.checkpoint(), folder.checkpoint("best.pt")["method"]
    expected = 0.25 * live["reported"]["average"]["embedder.neck.weight"] + 0.75 * start
    torch.testing.assert_close(seen[1], expected)
    assert not seen[0].equal(seen[1]) and saved["embedder.neck.weight"].equal(seen[0])
    assert method.embedder.neck.weight.equal(seen[0]) and embedder_state(tmp_path)["neck.weight"].equal(seen[0])
