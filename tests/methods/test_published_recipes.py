"""Every method's recipe is the one in golden/recipes.yaml, which names the source of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import pytest
import yaml

from vireid.method import Progress, Recipe
from vireid.methods import find, names

PUBLISHED = yaml.safe_load((Path(__file__).parents[1] / "golden/recipes.yaml").read_text("utf-8"))
DATASETS = ("sysu", "regdb", "llcm", "manifest")
OWN = {"contrast"}  # without a paper
FACTORS = ("factors", "iteration_factors")


def check(expected: object, found: object, where: str) -> None:
    """Compare what is listed: attributes by name, `class` with the type, lists element by element."""
    if isinstance(expected, Mapping):
        for key, value in expected.items():
            if key == "class":
                assert type(found).__name__ == value, where
            else:
                inner = found[key] if isinstance(found, Mapping) else getattr(found, key)
                check(value, inner, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list | tuple) and len(found) == len(expected), where
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            check(one, other, f"{where}[{place}]")
    elif isinstance(expected, Real) and not isinstance(expected, bool):
        assert found == pytest.approx(expected), where
    else:
        assert found == expected, where


def check_stage(expected: dict, recipe: Recipe, where: str) -> None:
    check({key: value for key, value in expected.items() if key not in FACTORS}, recipe, where)
    if "optimizers" in expected:
        assert set(recipe.optimizers) == set(expected["optimizers"]), where
    for epoch, factor in expected.get("factors", {}).items():
        check(factor, recipe.schedule(Progress(epoch=epoch, epochs=recipe.epochs)), f"{where}.factors[{epoch}]")
    for iteration, factor in expected.get("iteration_factors", {}).items():
        check(factor, recipe.schedule(Progress(iteration=iteration)), f"{where}.iteration_factors[{iteration}]")


@pytest.mark.parametrize("name", sorted(set(names()) - OWN))
def test_recipe_is_the_published_one(name: str) -> None:
    published = dict(PUBLISHED[name])
    assert len(published.pop("source")) > 20
    assert set(published) <= set(DATASETS)
    for dataset in DATASETS:
        stages, found = published.get(dataset, published["sysu"]), find(name).recipe_for(dataset)
        recipes = found if isinstance(found, tuple) else (found,)
        assert len(recipes) == len(stages)
        for number, (expected, recipe) in enumerate(zip(stages, recipes, strict=True)):
            check_stage(expected, recipe, f"{name}.{dataset}[{number}]")


def test_every_published_recipe_belongs_to_a_method() -> None:
    assert set(PUBLISHED) - {"common"} == set(names()) - OWN


@pytest.mark.parametrize(
    "change",
    [{"epochs": 82}, {"size": [144, 288]}, {"factors": {20: 0.2}}, {"sampler": {"pids": 4}}, {"filter": "box"}],
)
def test_a_recipe_that_differs_is_noticed(change: dict) -> None:
    recipe = find("agw").recipe_for("sysu")
    assert isinstance(recipe, Recipe)
    with pytest.raises(AssertionError):
        check_stage(PUBLISHED["agw"]["sysu"][0] | change, recipe, "agw")
