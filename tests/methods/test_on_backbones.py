"""Methods on other backbones than ResNet-50: each takes a step, is saved and loaded, and refuses what cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vireid.declaration import defaults
from vireid.layers.backbones.choice import BackboneSettings
from vireid.layers.embedder import Embedder, load_embedder, save_embedder
from vireid.method import Batch, Method, Progress
from vireid.methods import find, names
from vireid.training.frozen_backbone import hold, without_gradient
from vireid.training.optim import Optimizers
from vireid.training.settings import resolve, settings_class

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, PIDS = (64, 32), 4
SMALL = {"backbone": "lite0", "depth": 8}
MORE = {  # settings of a method that make the rest of it small, or fit it to the four rows of the maps
    "cmlspge": {"parts": 2, "part_dim": 8},
    "contrast": {"cells": ((4, 2, 1),)},
    "d2rl": {"image_width": 4, "image_blocks": 1, "discriminator_width": 4, "discriminator_layers": 2, "scales": 2},
    "hicmd": {"width": 4, "residual": 1, "dilations": (1, 2, 3), "scales": 2},
    "maum": {"start_epoch": 0, "parts": 2, "part_dim": 8},
    "msclnet": {"parts": 2, "hidden": 8},
    "spot": {"relation": (4, 6, 8, 8), "parts": 3},
}
LEARNED = {"agw": "weight", "mclnet": "weight", "d2rl": "weight", "hicmd": "bn.weight", "mpanet": "weight"}


def on_backbones() -> list[str]:
    """The methods that take a backbone."""
    return [name for name in names() if issubclass(settings_class(find(name)), BackboneSettings)]


def small(name: str, **settings: object) -> Method:
    torch.manual_seed(0)
    return find(name)(PIDS, (1, 2), **{**SMALL, **MORE.get(name, {}), **settings})


def batch(name: str) -> Batch:
    """Noise: two pictures of each person and view; for Hi-CMD two people with their negatives."""
    generator = torch.Generator().manual_seed(0)
    kind = find(name).recipe
    recipe = kind if not isinstance(kind, tuple) else kind[-1]
    label = torch.tensor([0, 1, 2, 3, 2, 3]) if name == "hicmd" else torch.arange(PIDS).repeat_interleave(2)
    view = torch.arange(len(recipe.views)).repeat_interleave(len(label))
    modality = torch.tensor([one.modality for one in recipe.views])[view]
    images = torch.randn(len(view), 3, *SIZE, generator=generator)
    images = images.clamp(-1, 1) if name == "d2rl" else images
    extras = {"heatmaps": torch.rand(len(view), 18, SIZE[0] // 4, SIZE[1] // 4, generator=generator)}
    label = label.repeat(len(recipe.views))
    return Batch(images, label, modality + 1, modality, view, extras if name == "spot" else {})


def step(method: Method, given: Batch) -> dict[str, Tensor]:
    """The losses of one step of the last stage."""
    recipe = method.recipe[-1] if isinstance(method.recipe, tuple) else method.recipe
    at = Progress(stage=len(method.recipe) - 1 if isinstance(method.recipe, tuple) else 0, epoch=1)
    return getattr(method, recipe.step)(given, Optimizers(method.params(), recipe), at)


def embeddings(network: Embedder, given: Batch) -> Tensor:
    pixels = torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.eval()(pixels, torch.tensor([0, 1, 1, 0]), *(given.extras[name][:4] for name in network.inputs))


def test_the_methods_that_take_a_backbone() -> None:
    listed = "agw cajl cajl_plus cmlspge contrast d2rl hicmd maum mclnet mpanet msclnet spot"
    assert on_backbones() == listed.split()


@pytest.mark.parametrize("name", on_backbones())
def test_a_step_on_lite0(name: str, tmp_path: Path) -> None:
    method, given = small(name), batch(name)
    before = {key: value.clone() for key, value in method.named_parameters()}
    losses = step(method.train(), given)
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    parts = method.embedder.backbone_parts()
    assert len(parts) == 5
    moved = [p for part in parts for module in part for p in module.parameters()]
    names_of = {id(p): key for key, p in method.named_parameters()}
    assert moved and all(not p.equal(before[names_of[id(p)]]) for p in moved), "every part of the backbone learns"
    vectors = embeddings(method.embedder, given)
    assert vectors.shape[0] == 4 and bool(torch.isfinite(vectors).all())
    save_embedder(method.embedder, tmp_path / "embedder.safetensors")
    assert embeddings(load_embedder(tmp_path / "embedder.safetensors"), given).equal(vectors)


@pytest.mark.parametrize("backbone", ["resnet50-ibn-a", "resnet50-ibn-b", "vit-small"])
def test_a_step_on_the_other_backbones(backbone: str) -> None:
    form = {"depth": 4} if backbone == "vit-small" else {"depth": None, "width": 4, "blocks": (1, 1, 1, 1)}
    for name in ("agw", "mpanet"):
        method, given = small(name, backbone=backbone, **form), batch(name)
        before = {key: value.clone() for key, value in method.embedder.state_dict().items()}
        assert all(bool(torch.isfinite(loss)) for loss in step(method.train(), given).values())
        after = method.embedder.state_dict()
        layers = [key for key in after if ".layer" in key and key.endswith("weight")]
        assert layers and all(not after[key].equal(before[key]) for key in layers)
        assert bool(torch.isfinite(embeddings(method.embedder, given)).all())


@pytest.mark.parametrize(
    "name",
    [name for name in names() if "label_smoothing" in defaults(settings_class(find(name))) and name != "nformer"],
)
def test_label_smoothing_changes_the_identity_losses_alone(name: str) -> None:
    kind = find(name)
    own = {**kind.tiny} or {"width": 4, "blocks": (1, 1, 1, 1)}
    changed: dict[str, bool] = {}
    values = []
    for smoothing in (0.0, 0.3):
        torch.manual_seed(0)
        method = kind(PIDS, (1, 2), **{**own, "label_smoothing": smoothing}).eval()
        torch.manual_seed(1)
        values.append({key: float(loss.detach()) for key, loss in step(method, batch(name)).items()})
    changed = {key: values[0][key] != values[1][key] for key in values[0]}
    identity = ("identity", "stripes", "heads", "modality_identity")
    assert any(changed.values())
    assert {key for key, other in changed.items() if other} == {
        key for key in changed if key.startswith(identity) or key.endswith("_identity")
    }


def test_mclnet_takes_other_schedules_for_its_extractor_or_for_all() -> None:
    kind, at = find("mclnet"), Progress(epoch=2, epochs=4, iterations_per_epoch=1)
    (recipe,), _ = resolve(kind, "sysu", ["schedule.extractor=cosine", "schedule.extractor.warmup_epochs=0"])
    factors = recipe.schedule(at)
    assert isinstance(factors, dict) and factors["modality"] == factors["centers"] == 1.0
    assert factors["backbone"] == factors["head"] == pytest.approx(0.5)
    (recipe,), _ = resolve(kind, "sysu", ["schedule=constant"])
    assert recipe.schedule(at) == 1.0


def test_a_frozen_backbone_trains_the_rest(tmp_path: Path) -> None:
    for name in ("agw", "mclnet", "d2rl", "hicmd", "mpanet"):
        method, given = small(name, **({"attention": False} if name in ("agw", "mclnet") else {})), batch(name)
        stages = method.recipe if isinstance(method.recipe, tuple) else (method.recipe,)
        recipe = dataclasses.replace(stages[-1], freeze=5, frozen_norms=True)
        before = {key: value.clone() for key, value in method.embedder.state_dict().items()}
        hold(method.train(), recipe)
        with without_gradient(method, recipe):
            losses = step(method, given)
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())
        frozen = {
            id(t) for part in method.embedder.backbone_parts() for m in part for t in (*m.parameters(), *m.buffers())
        }
        own = dict(method.embedder.named_parameters()) | dict(method.embedder.named_buffers())
        for key, tensor in own.items():
            if key in before and id(tensor) in frozen:
                assert tensor.equal(before[key]), (name, key)
        assert not method.embedder.neck.state_dict()[LEARNED[name]].equal(before[f"neck.{LEARNED[name]}"])
