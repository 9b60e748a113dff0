"""Frozen backbone: the first parts of the pretrained network, or its batch norms alone, stay as they were loaded.

A recipe's `freeze` counts parts as Embedder.backbone_parts lists them: the stem, then layer1 to layer4. They receive no
gradient and keep their batch statistics. `frozen_norms` is for all parts: batch norms use their loaded statistics, as
in evaluation, and only their weight and bias are trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from vireid.distributed import SyncBatchNorm
from vireid.errors import ArgumentError
from vireid.layers.embedder import Embedder
from vireid.method import Method, Recipe

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, SyncBatchNorm)


def backbone_parts(method: Method) -> list[list[nn.Module]]:
    """The parts of the backbones of the networks that the method deploys: stems, then layer1 to layer4."""
    networks = [network for network in method.artifacts().values() if isinstance(network, Embedder)]
    parts: list[list[nn.Module]] = []
    for network in networks:
        for index, modules in enumerate(network.backbone_parts()):
            parts[index:] = [[*(parts[index] if index < len(parts) else []), *modules], *parts[index + 1 :]]
    return parts


def check_frozen(method: Method, recipe: Recipe) -> None:
    """Raise ArgumentError where the method's network has not what the recipe freezes."""
    parts, name = backbone_parts(method), type(method).__name__
    if recipe.freeze and recipe.freeze > len(parts):
        raise ArgumentError(
            f"freeze={recipe.freeze} counts parts of a pretrained backbone; the network of {name} has {len(parts)}"
        )
    if recipe.frozen_norms and not list(batch_norms(parts)):
        raise ArgumentError(f"frozen_norms needs batch norms in a pretrained backbone; the network of {name} has none")


def batch_norms(parts: list[list[nn.Module]]) -> Iterator[nn.Module]:
    """The batch norms in the parts."""
    inside = (module for modules in parts for part in modules for module in part.modules())
    return (module for module in inside if isinstance(module, BATCH_NORMS))


def hold(method: Method, recipe: Recipe) -> None:
    """Put into evaluation mode what the recipe freezes; called after every method.train()."""
    parts = backbone_parts(method) if recipe.freeze or recipe.frozen_norms else []
    for modules in parts[: recipe.freeze]:
        for module in modules:
            module.eval()
    for norm in batch_norms(parts) if recipe.frozen_norms else ():
        norm.eval()


@contextmanager
def without_gradient(method: Method, recipe: Recipe) -> Iterator[None]:
    """No gradient for the parts that the recipe freezes, as long as its stage lasts."""
    modules = [module for part in backbone_parts(method)[: recipe.freeze] for module in part]
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
