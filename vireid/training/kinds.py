"""Kinds of optimizers and of schedules by name: `optimizers.backbone=adamw`, `schedule=cosine`.

A new kind takes over the learning rate, the clipping and the warm-up, which mean the same in all kinds; everything else
is at the kind's own defaults.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vireid.method import OptimizerSpec, Recipe
from vireid.training.optim import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    IterationSteps,
    Steps,
    WarmupCosine,
    WarmupSteps,
)

OPTIMIZERS: dict[str, type] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "steps": Steps,
    "iteration-steps": IterationSteps,
    "warmup-steps": WarmupSteps,
    "cosine": Cosine,
    "warmup-cosine": WarmupCosine,
}
KEPT = ("lr", "clip", "warmup_epochs", "warmup_steps")


def kinds_of(name: str, part: Any) -> dict[str, type]:
    """The kinds that may stand at a dotted name of a recipe, whose part is there now; {} where there is no choice."""
    if isinstance(part, OptimizerSpec):
        return OPTIMIZERS
    inside = name.partition(".")[0] == "schedule" and dataclasses.is_dataclass(part)
    return SCHEDULES if inside else {}


def kind_name(class_name: str) -> str:
    """The name of a kind by its class: `adamw`, `warmup-steps`; words joined by hyphens for a class of your own."""
    for name, kind in (OPTIMIZERS | SCHEDULES).items():
        if kind.__name__ == class_name:
            return name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()


def with_kind(node: Any, name: str, kind: type) -> Any:
    """A recipe, or a part of one, in which the part at a dotted name is of another kind."""
    head, _, rest = name.partition(".")
    if not head:
        return of_kind(node, kind)
    if isinstance(node, Mapping):
        return {**node, head: with_kind(node[head], rest, kind)}
    return dataclasses.replace(node, **{head: with_kind(getattr(node, head), rest, kind)})


def of_kind(part: Any, kind: type) -> Any:
    """`part` itself if it is of the kind, else a new one."""
    if type(part) is kind:
        return part
    fields = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: getattr(part, name) for name in KEPT if name in fields and hasattr(part, name)})


def part_at(recipe: Recipe, name: str) -> Any:
    """What stands at a dotted name of a recipe; None where nothing does."""
    node: Any = recipe
    for head in name.split("."):
        node = node.get(head) if isinstance(node, Mapping) else getattr(node, head, None)
    return node
