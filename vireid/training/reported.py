"""Reported weights: what a run saves for use and evaluates, where that is not just what the last step left.

    a <- ema a + (1 - ema) w       after every step; a = w at the beginning of a stage, w the trained weights
    mix x + (1 - mix) w_0          x = a, or w without ema; w_0 the weights before the first step

The second is Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022: between a pretrained start and what
was trained on one kind of pictures lie networks that do better on other kinds. Batch statistics are averaged and mixed
as the weights are; counters are those of the trained network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vireid.errors import RunError
from vireid.method import Method, Recipe

Tensors = dict[str, Tensor]


def deployed_tensors(method: Method) -> Tensors:
    """The floating-point weights and buffers of what the method deploys (of all of it, if nothing), as they change."""
    networks: Mapping[str, nn.Module] = method.artifacts() or {"": method}
    return {
        f"{part}.{name}": tensor
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def start_of(method: Method, stages: tuple[Recipe, ...]) -> Tensors | None:
    """A copy of the weights before the first step, where a stage mixes with them."""
    if all(recipe.mix == 1 for recipe in stages):
        return None
    return {name: tensor.clone() for name, tensor in deployed_tensors(method).items()}


class ReportedWeights:
    """The reported weights of one stage; nothing is kept where the recipe neither averages nor mixes."""

    def __init__(self, method: Method, recipe: Recipe, start: Tensors | None, saved: Mapping[str, Any] | None) -> None:
        self.ema, self.mix, self.start = recipe.ema, recipe.mix, start
        self.own = deployed_tensors(method) if self.in_use else {}
        self.average: Tensors | None = None
        if self.ema:
            begin = (saved or {}).get("average") or self.own
            self.average = {name: begin[name].to(tensor, copy=True) for name, tensor in self.own.items()}

    @property
    def in_use(self) -> bool:
        """Whether other weights are reported than those that the last step left."""
        return bool(self.ema) or self.mix < 1

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averages after a step."""
        if self.average is not None:
            average, own = list(self.average.values()), list(self.own.values())
            torch._foreach_lerp_(average, own, 1 - self.ema)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The method holds the reported weights inside, and the trained ones again afterwards, bit for bit."""
        if not self.in_use:
            yield
            return
        trained = {name: tensor.clone() for name, tensor in self.own.items()}
        report(self.own, self.average, self.start, self.mix)
        try:
            yield
        finally:
            copy(trained, self.own)

    def state_dict(self, method_start: Tensors | None) -> dict[str, Any]:
        """What a checkpoint keeps beside the trained weights; {} where nothing is kept."""
        if not self.in_use and method_start is None:
            return {}
        return {"reported": {"mix": self.mix, "average": self.average, "start": method_start}}


@torch.no_grad()
def report(own: Tensors, average: Tensors | None, start: Tensors | None, mix: float) -> None:
    """Change the trained weights `own` into the reported ones, in place."""
    if average is not None:
        copy(average, own)
    if mix < 1:
        assert start is not None
        for name, tensor in own.items():
            tensor.copy_(mix * tensor + (1 - mix) * start[name].to(tensor))


@torch.no_grad()
def copy(source: Tensors, target: Tensors) -> None:
    """Copy tensors by name, in place."""
    for name, tensor in target.items():
        tensor.copy_(source[name])


def load_reported(method: Method, saved: Mapping[str, Any] | None) -> None:
    """Change a method that holds the trained weights of a checkpoint into what the run reports; RunError."""
    if saved is None:
        return
    own = deployed_tensors(method)
    for part in (saved["average"], saved["start"]):
        if part is not None and part.keys() != own.keys():
            raise RunError(
                "the averaged weights of this checkpoint are of another network; build the method as trained"
            )
    report(own, saved["average"], saved["start"], saved["mix"])
