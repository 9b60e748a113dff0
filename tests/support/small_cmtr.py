"""A small CMTR and the recipe of CMTR."""

import torch

from vireid.method import Recipe
from vireid.methods.cmtr import CMTR


def tiny(**settings: object) -> CMTR:
    torch.manual_seed(0)
    return CMTR(4, (1, 2), **{**CMTR.tiny, **settings})  # pyright: ignore[reportArgumentType]


def recipe() -> Recipe:
    assert isinstance(CMTR.recipe, Recipe)
    return CMTR.recipe
