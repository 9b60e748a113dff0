"""Refine: embeddings of one trial in, embeddings of the same rows out, each changed by looking at the others.

Queries and gallery are refined together, so a figure obtained with it is transductive; it is off by default and
stamped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vireid.data.table import Table
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.layers.refiner import Apart, Refiner

STEP = 4096  # rows that a mask of kept-apart pairs is checked for at a time


@dataclass(frozen=True, kw_only=True)
class TrialEmbeddings(Embeddings):
    """The embeddings of one trial, and who asks whom in it: rows of the queries (Q,) and of the gallery (G,)."""

    query: np.ndarray
    gallery: np.ndarray
    ignore: Callable[[Table, Table], np.ndarray | None]

    def apart(self, rows: np.ndarray) -> Tensor | None:
        """Mask (n, N) for these rows: pairs of a query and a gallery image that does not count for it, in any order."""
        mask = np.zeros((len(rows), len(self)), dtype=bool)
        asking, searched = (np.flatnonzero(np.isin(rows, group)) for group in (self.query, self.gallery))
        forward = self.ignore(self.table[rows[asking]], self.table[self.gallery])
        backward = self.ignore(self.table[self.query], self.table[rows[searched]])
        if forward is None and backward is None:
            return None
        if forward is not None:
            mask[np.ix_(asking, self.gallery)] = forward
        if backward is not None:
            mask[np.ix_(searched, self.query)] |= backward.T
        return torch.from_numpy(mask)

    def nameless(self) -> TrialEmbeddings:
        """The same trial in which everybody has a pid of their own."""
        return replace(self, table=replace(self.table, pid=-1 - np.arange(len(self), dtype=np.int64)))


Refine = Callable[[TrialEmbeddings], Embeddings]  # the same rows in the same order; its `stamp` or name is printed


@dataclass(frozen=True)
class RefinedBy:
    """Refines each trial with a network, by default where that is. The rows come back with the refiner's vectors.

    With `strict`, gallery images that the protocol ignores for a query are not its neighbors either; without, they are
    left out of its list alone. Raises ValueError with `strict` for a rule that looks at identities: a refinement that
    followed it would see the labels.
    """

    refiner: Refiner
    strict: bool = False
    device: str | torch.device | None = None

    @property
    def stamp(self) -> str:
        """How figures obtained with it are marked."""
        return f"{self.refiner.name} (transductive{', ignored images are no neighbors' if self.strict else ''})"

    def __call__(self, trial: TrialEmbeddings) -> Embeddings:
        own = next(self.refiner.parameters())
        device = own.device if self.device is None else torch.device(self.device)
        apart = self._apart(trial, device) if self.strict else None
        training = self.refiner.training
        self.refiner.to(device).eval()
        try:
            with torch.no_grad():
                vectors = torch.from_numpy(trial.vectors).to(device, own.dtype)
                modality = torch.from_numpy(trial.table.modality).to(device)
                refined = self.refiner(vectors, modality, apart)
        finally:
            self.refiner.train(training)
        return Embeddings(refined.float().cpu().numpy(), trial.table, trial.stamp)

    def _apart(self, trial: TrialEmbeddings, device: torch.device) -> Apart:
        nameless = trial.nameless()
        for start in range(0, len(trial), STEP):
            rows = np.arange(start, min(start + STEP, len(trial)))
            seen, blind = trial.apart(rows), nameless.apart(rows)
            if seen is not None and (blind is None or not seen.equal(blind)):
                raise ArgumentError(
                    "what this protocol ignores depends on identities, which a refinement must not see; leave strict "
                    "out"
                )

        def apart(rows: Tensor) -> Tensor | None:
            mask = nameless.apart(rows.cpu().numpy())
            return None if mask is None else mask.to(device)

        return apart
