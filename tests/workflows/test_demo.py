"""The settings of the demo's methods fit the methods, and start from the pretrained backbone in a way that keeps it."""

from __future__ import annotations

import dataclasses

import pytest

from vireid import methods
from vireid.training.settings import resolve
from vireid.workflows.demo import METHODS


@pytest.mark.parametrize(("method", "dim"), [("agw", 8 * 112), ("cajl", 8 * 112), ("contrast", 16 * 112)])
def test_settings_are_valid_and_keep_the_start(method: str, dim: int) -> None:
    kind = methods.find(method)
    (recipe,), given = resolve(kind, "sysu", METHODS[method], None)
    assert (recipe.size, recipe.epochs, recipe.freeze, recipe.frozen_norms) == ((128, 64), 2, 2, True)
    assert {name: (type(spec).__name__, spec.lr) for name, spec in recipe.optimizers.items()} == {
        "backbone": ("AdamW", 0.0005),
        "head": ("AdamW", 0.005),
    }
    assert (given.backbone, given.depth, given.pooling) == ("lite0", 11, "average")
    assert kind(8, (1, 3), **dataclasses.asdict(given)).embedder.dim == dim
    assert getattr(given, "unit_triplet", True)  # raw distances of this backbone destroy the start
