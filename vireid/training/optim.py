"""Optimizers: named groups of parameters behind one verb, the kinds of optimizer, and learning-rate schedules.

`Optimizers.step(loss, *names)` sends gradients only into the named groups, so a method that alternates between groups
freezes nothing: zero, backward, average over ranks, clip, step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vireid import distributed
from vireid.declaration import BelowOne, Count, Index, Positive, Rate, Share, settings
from vireid.errors import ArgumentError
from vireid.method import OptimizerSpec, Progress, Recipe


class LossNotFinite(FloatingPointError):
    """A loss became NaN or infinite; `losses` holds every value that was handed in, by name."""

    def __init__(self, losses: Mapping[str, float]) -> None:
        self.losses = dict(losses)
        super().__init__("the objective is not finite: " + ", ".join(f"{k}={v:g}" for k, v in self.losses.items()))


@settings
class SGD(OptimizerSpec):
    """Stochastic gradient descent; the defaults are those of AGW."""

    momentum: Share = 0.9
    """Share of the last step that is kept."""
    nesterov: bool = True
    """Whether the momentum is Nesterov's."""
    weight_decay: Rate = 5e-4
    """Factor of the weights that is added to the gradient."""
    clip: Positive | None = None
    """Largest norm of the group's gradients; null: any."""

    def build(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            params, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay
        )


@settings
class Adam(OptimizerSpec):
    """Adam (Kingma and Ba, ICLR 2015), weight decay added to the gradient."""

    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: Rate = 0.0
    """Factor of the weights that is added to the gradient."""
    clip: Positive | None = None
    """Largest norm of the group's gradients; null: any."""

    def build(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


@settings
class AdamW(OptimizerSpec):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: Rate = 1e-2
    """Share of the weights that is taken off in a step of learning rate 1."""
    clip: Positive | None = None
    """Largest norm of the group's gradients; null: any."""

    def build(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


class Optimizers:
    """One optimizer per named group of parameters, as `recipe.optimizers` says.

    A group that a setting leaves empty has no optimizer. Raises ValueError where the names of `params` and
    `recipe.optimizers` differ or none of a group's parameters is trainable.
    """

    def __init__(self, params: Mapping[str, list[nn.Parameter]], recipe: Recipe) -> None:
        if set(params) != set(recipe.optimizers):
            raise ArgumentError(
                f"params() of the method names {sorted(params)}, its recipe's optimizers name "
                f"{sorted(recipe.optimizers)}; they have to be the same names"
            )
        for name, group in params.items():
            if group and not any(p.requires_grad for p in group):
                raise ArgumentError(f"optimizer `{name}` got {len(group)} parameters, none of them trainable")
        self.specs = dict(recipe.optimizers)
        self.params = {name: [p for p in group if p.requires_grad] for name, group in params.items()}
        self.built = {name: self.specs[name].build(group) for name, group in self.params.items() if group}

    def step(self, loss: Tensor | Mapping[str, Tensor], *names: str) -> None:
        """Take one step on the groups `names` (all of them without names) along the gradient of `loss`.

        `loss` is a scalar, or scalars by name whose sum is the objective; names make the error readable that is raised
        (LossNotFinite, before anything changes) when the objective is NaN or infinite on any rank. A parameter that the
        loss does not depend on is left alone, weight decay and momentum included.
        """
        unknown = set(names) - set(self.specs)
        if unknown:
            raise ArgumentError(f"no optimizer is called {sorted(unknown)}; the recipe names {sorted(self.specs)}")
        losses: dict[str, Tensor] = {"loss": loss} if isinstance(loss, Tensor) else dict(loss)
        objective = torch.stack(list(losses.values())).sum()
        if distributed.any_rank(not bool(torch.isfinite(objective)), objective.device):
            raise LossNotFinite({name: value.item() for name, value in losses.items()})
        chosen = [name for name in names or self.built if name in self.built]
        if not chosen:  # every named group is empty: all of it is frozen, or a setting leaves it out
            return
        inputs = list({id(p): p for name in chosen for p in self.params[name]}.values())
        for p in inputs:
            p.grad = None
        with torch.autocast(objective.device.type, enabled=False):  # backward repeats the types of the forward pass
            objective.backward(inputs=inputs)
        distributed.average_gradients(inputs)
        for name in chosen:
            clip = getattr(self.specs[name], "clip", None)
            if clip is not None:
                nn.utils.clip_grad_norm_(self.params[name], clip)
            self.built[name].step()

    def scale(self, factor: float | Mapping[str, float]) -> None:
        """Set every learning rate to its spec's `lr` times `factor` (one number, or one per optimizer name)."""
        factors = factor if isinstance(factor, Mapping) else dict.fromkeys(self.specs, factor)
        if set(factors) != set(self.specs):
            raise ArgumentError(
                f"the schedule names {sorted(factors)}, the recipe's optimizers name {sorted(self.specs)}"
            )
        for name, optimizer in self.built.items():
            for group in optimizer.param_groups:
                group["lr"] = self.specs[name].lr * factors[name]

    @property
    def lr(self) -> dict[str, float]:
        """The learning rates in force, by optimizer name."""
        return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self.built.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors, by optimizer name."""
        return {name: optimizer.state_dict() for name, optimizer in self.built.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of optimizers of the same names; raises ValueError where the names differ."""
        if set(state) != set(self.built):
            raise ArgumentError(
                f"the checkpoint holds optimizers {sorted(state)}, the recipe names {sorted(self.built)}"
            )
        for name, optimizer in self.built.items():
            optimizer.load_state_dict(state[name])


def split_by_module(method: nn.Module, **parts: Sequence[nn.Module | nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by group: those of the modules in each of `parts`, and all others as "backbone"."""
    groups = {
        name: [p for part in given for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
        for name, given in parts.items()
    }
    inside = {id(p) for group in groups.values() for p in group}
    groups = {"backbone": [p for p in method.parameters() if id(p) not in inside], **groups}
    return {name: [p for p in group if p.requires_grad] for name, group in groups.items()}


@settings
class Constant:
    """The learning rate never changes."""

    def __call__(self, at: Progress) -> float:
        return 1.0


@settings
class Steps:
    """The factor is `gamma` to the number of milestones (epochs) reached."""

    milestones: tuple[Index, ...] = (20, 50)
    """Epochs from which on the rate is multiplied by gamma once more."""
    gamma: Rate = 0.1
    """Factor of one milestone."""

    def __call__(self, at: Progress) -> float:
        return self.gamma ** sum(at.epoch >= m for m in self.milestones)


@settings
class IterationSteps:
    """The factor is `gamma` to the number of times that `every` iterations have passed; the defaults are Hi-CMD's."""

    every: Count = 50_000
    """Iterations after which the rate is multiplied by gamma."""
    gamma: Rate = 0.5
    """Factor of one of these times."""

    def __call__(self, at: Progress) -> float:
        return self.gamma ** (at.iteration // self.every)


def warmup(at: Progress, epochs: int, steps: int = 0) -> float:
    """Factor of a linear warm-up over `steps` iterations, or with steps=0 over `epochs`; 1 behind it.

    >>> [warmup(Progress(epoch=epoch), 4) for epoch in (0, 3, 9)], warmup(Progress(iteration=4), 4, 10)
    ([0.25, 1.0, 1.0], 0.5)
    """
    done, length = (at.iteration + 1, steps) if steps else (at.epoch + 1, epochs)
    return min(1.0, done / length) if length else 1.0


@settings
class WarmupSteps:
    """Linear warm-up, (epoch + 1) / warmup_epochs, then steps at milestones; the defaults are AGW's released code."""

    warmup_epochs: Index = 10
    """Epochs of the warm-up; 0: none."""
    milestones: tuple[Index, ...] = (20, 50)
    """Epochs from which on the rate is multiplied by gamma once more."""
    gamma: Rate = 0.1
    """Factor of one milestone."""
    warmup_steps: Index = 0
    """Iterations of the warm-up, in place of its epochs; 0: by epochs."""

    def __call__(self, at: Progress) -> float:
        return warmup(at, self.warmup_epochs, self.warmup_steps) * Steps(self.milestones, self.gamma)(at)


@settings
class Cosine:
    """Linear warm-up, then half a cosine from 1 to `final` over the epochs that are left.

    Progress is read once per epoch with `per_epoch`, else at every iteration (as a fraction of the epoch).
    """

    warmup_epochs: Index = 0
    """Epochs of the warm-up; 0: none."""
    final: Share = 0.0
    """Factor at the end."""
    per_epoch: bool = True
    """Whether the factor changes with epochs, else with iterations."""
    warmup_steps: Index = 0
    """Iterations of the warm-up, in place of its epochs; 0: by epochs."""

    def __call__(self, at: Progress) -> float:
        into = 0.0 if self.per_epoch else at.iteration / at.iterations_per_epoch - at.epoch
        epoch, warm = at.epoch + into, float(self.warmup_epochs)
        if self.warmup_steps:
            warm = self.warmup_steps / at.iterations_per_epoch
            if at.iteration < self.warmup_steps:
                return warmup(at, 0, self.warmup_steps)
        elif epoch < warm:
            return (epoch + 1) / warm if self.per_epoch else epoch / warm
        done = max(0.0, epoch - warm) / max(1, at.epochs - warm)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2


@settings
class WarmupCosine:
    """Half a cosine from 1 to `final` over all epochs, whose first ones a linear warm-up from `start` replaces.

    With t = epoch + 1: below `warmup_epochs` start + (1 - start) t / warmup_epochs, then final + (1 - final)
    (1 + cos(pi t / epochs)) / 2, so the last epoch has `final`. It is timm's schedule as PMT's released code (Lu, Zou,
    Zhang: "Learning Progressive Modality-Shared Transformers", AAAI 2023; hulu88/PMT) calls it, epochs from 1. Without
    `per_epoch`, t counts the epochs done with their fraction, for a transformer that starts from random weights.
    """

    warmup_epochs: Index = 3
    """Epochs of the warm-up; 0: none."""
    start: Share = 0.01
    """Factor before the first epoch."""
    final: Share = 0.01
    """Factor at the end."""
    per_epoch: bool = True
    """Whether the factor changes with epochs, else with iterations."""
    warmup_steps: Index = 0
    """Iterations of the warm-up, in place of its epochs; 0: by epochs."""

    def __call__(self, at: Progress) -> float:
        t = at.epoch + 1 if self.per_epoch else at.iteration / at.iterations_per_epoch
        if self.warmup_steps:
            if at.iteration < self.warmup_steps:
                return self.start + (1 - self.start) * warmup(at, 0, self.warmup_steps)
        elif t < self.warmup_epochs:
            return self.start + (1 - self.start) * t / self.warmup_epochs
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, t / at.epochs))) / 2
