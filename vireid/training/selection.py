"""Selection: which epoch a run reports, and the name of the rule that stands beside every figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vireid.errors import ArgumentError

if TYPE_CHECKING:
    from vireid.method import Method, Progress

LAST_EPOCH, HELD_OUT, TEST_SET = "last epoch", "held-out identities", "test set (not for publication)"
AS_RELEASED = "as released, not trained here"  # of weights that were imported


@dataclass(frozen=True)
class Selection:
    """Report the best epoch instead of the last: the one with the largest `evaluate(method, at)`, the first of equals.

    It is called after every `every` epochs of the last stage and after its end, with the method in evaluation mode.
    `rule` is recorded in the run and printed beside every figure. Raises ValueError for another rule or period.
    """

    evaluate: Callable[[Method, Progress], float]
    rule: Literal["held-out identities", "test set (not for publication)"] = HELD_OUT
    every: int = 1

    def __post_init__(self) -> None:
        if self.rule not in (HELD_OUT, TEST_SET):
            raise ArgumentError(f"rule must be {HELD_OUT!r} or {TEST_SET!r}, got {self.rule!r}")
        if self.every < 1:
            raise ArgumentError(f"every must be at least 1 epoch, got {self.every}")

    def due(self, at: Progress, stages: int) -> bool:
        """Whether the epoch that just ended is measured."""
        ended = at.epoch + 1
        return at.stage + 1 == stages and (ended == at.epochs or ended % self.every == 0)

    def value(self, method: Method, at: Progress) -> float:
        """What the method is worth now; leaves it in evaluation mode. Raises ValueError for NaN and infinity."""
        method.eval()
        value = float(self.evaluate(method, at))
        if not math.isfinite(value):
            raise ArgumentError(f"the selection by {self.rule} gave {value} at epoch {at.epoch}; a number is needed")
        return value
