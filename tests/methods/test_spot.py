"""SPOT: the four descriptors and their losses, groups, poses on the way in, settings, the page's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_batch import batch as plain_batch

from vireid.data.pose.heatmaps import HeatMaps, WithHeatmaps
from vireid.data.table import table_from_columns
from vireid.errors import DataError
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.weighted_triplet import weighted_regularized_triplet
from vireid.method import Batch, Progress, Recipe
from vireid.methods.spot import SPOT

NAMES = ["identity", "triplet"]
NAMES += [f"{branch}_{loss}" for branch in ("base", "structure", "parts") for loss in ("identity", "triplet")]


def tiny(**settings: object) -> SPOT:
    torch.manual_seed(0)
    return SPOT(4, (1, 2), **{**SPOT.tiny, "tpi_dropout": 0.0, **settings})  # pyright: ignore[reportArgumentType]


def batch(method: SPOT) -> Batch:
    given = plain_batch()
    uniform = torch.rand(len(given), 17, 3, generator=torch.Generator().manual_seed(1))
    given.extras["heatmaps"] = method.embedder.maps.draw(uniform * torch.tensor([31.0, 63.0, 1.0]), (64, 32))
    return given


def recipe() -> Recipe:
    assert isinstance(SPOT.recipe, Recipe)
    return SPOT.recipe


@pytest.mark.parametrize(
    "settings",
    [{}, {"structure": 0.5, "part": 0.25, "margin": 0.1}, {"triplet": "weighted", "points": 17, "sigma": 1.0}],
)
def test_losses_are_those_of_four_descriptors(settings: dict) -> None:
    method = tiny(**settings)
    given = batch(method)
    losses = method.losses(given, Progress())
    assert list(losses) == NAMES
    _, branches = method.embedder.branches(given.images, given.modality, given.extras["heatmaps"])
    weights = {
        "base": 1.0,
        "structure": settings.get("structure", 1.0),
        "parts": settings.get("part", 1.0),
        "fused": 1.0,
    }
    for name, weight in weights.items():
        x = getattr(branches, name)
        assert x.shape == (16, 128)
        mean, variance = x.mean(0), x.var(0, unbiased=False)
        neck = method.embedder.neck if name == "fused" else method.necks[name]
        normalized = (x - mean) / (variance + 1e-5).sqrt() * neck.weight
        logits = normalized @ method.classifiers[name].weight.T
        expected = -logits.log_softmax(1)[torch.arange(16), given.label].mean()
        prefix = "" if name == "fused" else f"{name}_"
        torch.testing.assert_close(losses[f"{prefix}identity"], weight * expected, rtol=1e-4, atol=1e-5)
        if settings.get("triplet") == "weighted":
            triplet = weighted_regularized_triplet(x, given.label, "exact").loss
        else:
            triplet = batch_hard_triplet(x, given.label, settings.get("margin", 0.3))
        torch.testing.assert_close(losses[f"{prefix}triplet"], weight * triplet)
    values = [branches.base, branches.structure, branches.parts, branches.fused]
    assert all(not torch.allclose(values[i], values[j]) for i in range(4) for j in range(i))


def test_a_branch_of_weight_0_has_no_losses_and_no_head() -> None:
    method = tiny(structure=0.0, part=0.0)
    assert list(method.losses(batch(method), Progress())) == NAMES[:4]
    assert sorted(method.classifiers) == ["base", "fused"] and list(method.necks) == ["base"]


def test_neither_order_of_rows_nor_exchange_of_modalities_changes_the_losses() -> None:
    method = tiny().double()
    given = batch(method)
    given = replace(given, images=given.images.double(), extras={"heatmaps": given.extras["heatmaps"].double()})
    first = method.losses(given, Progress())
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(0))
    for name, loss in method.losses(given[order], Progress()).items():
        torch.testing.assert_close(loss, first[name])
    # both stems begin alike, so calling the modalities by each other's name changes nothing
    swapped = replace(given, modality=1 - given.modality)
    for name, loss in method.losses(swapped, Progress()).items():
        torch.testing.assert_close(loss, first[name])


def test_the_pose_reaches_the_loss() -> None:
    method = tiny()
    given = batch(method)
    given.extras["heatmaps"].requires_grad_()
    losses = method.losses(given, Progress())
    for name, reached in (
        ("base_triplet", False),
        ("structure_triplet", True),
        ("parts_triplet", True),
        ("triplet", True),
    ):
        (gradient,) = torch.autograd.grad(losses[name], given.extras["heatmaps"], allow_unused=True, retain_graph=True)
        assert (gradient is not None and bool(gradient.any())) is reached, name


def test_groups_hold_every_trainable_parameter_once() -> None:
    method = tiny(pooling="gem-learned", attention=True)
    names = {id(p): name for name, p in method.named_parameters()}
    groups = {group: {names[id(p)] for p in params} for group, params in method.params().items()}
    trainable = {name for name, p in method.named_parameters() if p.requires_grad}
    assert set.union(*groups.values()) == trainable and sum(map(len, groups.values())) == len(trainable)
    parts = {group: {".".join(name.split(".")[:2]) for name in found} for group, found in groups.items()}
    assert parts["backbone"] == {f"embedder.{part}" for part in ("visible", "infrared", "trunk", "pool")}
    assert parts["branches"] == {f"embedder.{part}" for part in ("relation", "fusion", "asr", "masks", "tpi", "gamma")}
    assert {name.split(".")[0] for name in groups["head"]} == {"embedder", "necks", "classifiers"}


def test_batches_bring_maps_drawn_as_the_embedder_says() -> None:
    """Every view's transform is wrapped; the recipe's other fields stay."""
    seen: list[Recipe] = []

    class Data:
        table = table_from_columns(
            Path("."),
            {"path": ["a"], "pid": [0], "camid": [1], "modality": [0], "split": ["train"]},
            "none",
        )

        def batches(self, recipe: Recipe, at: Progress):
            seen.append(recipe)
            return iter(())

    method = tiny(missing="zeros", points=17, sigma=1.25, least=0.1)
    assert list(method.batches(Data(), recipe(), Progress())) == []  # pyright: ignore[reportArgumentType]
    expected = HeatMaps(points=17, sigma=1.25, stride=4, least=0.1, missing="zeros")
    assert [view.transform for view in seen[0].views] == [WithHeatmaps(v.transform, expected) for v in recipe().views]
    assert replace(seen[0], views=recipe().views) == recipe()
    assert HeatMaps(**method.embedder.heatmaps) == expected  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="heat maps need poses, and 1 of 1 pictures have none"):
        tiny().batches(Data(), recipe(), Progress())  # pyright: ignore[reportArgumentType]


def test_no_pose_at_all_trains_and_embeds() -> None:
    method = tiny(missing="zeros")
    given = plain_batch()
    given.extras["heatmaps"] = torch.zeros(16, 18, 16, 8)
    losses = method.losses(given, Progress())
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_numbers_of_the_page() -> None:
    with torch.device("meta"):
        method = SPOT(395)
    count = sum(p.numel() for p in method.parameters())
    deployed = sum(p.numel() for p in method.embedder.parameters())
    docs = Path(__file__).parents[2] / "docs" / "methods"
    for page in ("spot.md", "spot.zh.md"):
        text = (docs / page).read_text("utf-8")
        for name, part in method.embedder.named_children():
            if name in ("relation", "fusion", "asr", "masks", "tpi", "gamma"):
                assert f"{sum(p.numel() for p in part.parameters()):,}" in text, (name, page)
        assert f"{count:,}" in text and f"{deployed:,}" in text, (count, deployed)
    assert method.embedder.asr.key.weight.shape == (256, 2048, 1, 1)
    assert method.embedder.fusion.first.weight.shape[:2] == (2304, 2304)


def test_imagenet_and_own_weights_load() -> None:
    method, other = tiny(), tiny()
    for p in other.embedder.parameters():
        torch.nn.init.normal_(p)
    assert method.load_weights(other.embedder.state_dict()) == []
    assert all(a.equal(b) for a, b in zip(method.embedder.parameters(), other.embedder.parameters(), strict=True))
    trunk = other.embedder.trunk.state_dict()
    stem = other.embedder.visible.state_dict()
    resnet = {**stem, **trunk, "fc.weight": torch.zeros(1)}
    third = tiny()
    assert third.load_weights(resnet) == ["fc.weight"]
    assert third.embedder.infrared.conv1.weight.equal(stem["conv1.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"triplet": "soft"}, "`triplet`: expected hard or weighted"),
        ({"triplet": "weighted", "margin": 0.5}, "has no margin"),
        ({"structure": -1.0}, "`structure`: expected number >= 0"),
        ({"missing": "guess"}, "`missing`: expected error or zeros or template"),
        ({"points": 25}, "`points`: expected 18 or 17"),
        ({"relation": (4, 4)}, "`relation`: expected list of 4 whole numbers"),
        ({"parts": 0}, "`parts`: expected whole number >= 1"),
        ({"pooling": "max"}, "`pooling`: expected gem or gem-learned or average"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_losses_without_heatmaps_are_no_silence() -> None:
    with pytest.raises(KeyError, match="heatmaps"):
        tiny().losses(plain_batch(), Progress())
