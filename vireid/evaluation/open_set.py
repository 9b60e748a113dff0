"""Open set: rank-1 identification at a fixed false-alarm rate, where the gallery may hold no image of the person.

A search with threshold t answers with the gallery's best image if its similarity is above t, and "nobody" otherwise.

    FPIR(t) = share of the searches for people who are not there that are answered       (false alarms)
    TPIR(t) = share of the searches for people who are there whose answer is right       (rank 1, above t)

TPIR is reported at the smallest t with FPIR(t) <= 1 % and <= 10 %. Both rates are those of ISO/IEC
19795-1 and of NIST's FRVT 1:N reports (Grother, Ngan, Hanaoka, NISTIR 8271, 2019); re-identification papers call them
FAR and DIR at rank 1 (Liao, Mo, Zhu, Hu, Li: Open-set person re-identification, arXiv:1408.0872, 2014).

People who are not there: every query searches a second time, with the images of its own identity taken out of the
gallery. So all queries serve both rates, and a benchmark whose queries all have a match can be measured too. A wrong
image as similar as the right one comes first, as in the other metrics here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vireid.data.protocol import Protocol
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import Similarity, compare_rows

RATES = (0.01, 0.1)


@dataclass(frozen=True)
class OpenSet:
    """Fractions; `tpir[i]` is the rank-1 rate at a false-alarm rate of at most `rates[i]`, above `thresholds[i]`."""

    rates: tuple[float, ...]
    tpir: tuple[float, ...]
    thresholds: tuple[float, ...]
    fpir: tuple[float, ...]  # what is reached: it moves in steps of 1 / num_absent
    num_present: int  # searches for people who are there
    num_absent: int  # searches for people who are not


def open_set(
    similarity: Tensor | np.ndarray,
    query_pid: np.ndarray,
    gallery_pid: np.ndarray,
    ignored: np.ndarray | None = None,
    rates: Sequence[float] = RATES,
) -> OpenSet:
    """Rank-1 rates of a similarity matrix (Q, G), pids (Q,), (G,) and a mask (Q, G) of images that do not count.

    Raises ValueError for shapes that do not fit, similarities that are not finite, rates that so few searches cannot
    show (a rate p takes 1 / p searches), and when no query has a match.

    >>> found = open_set(np.array([[0.9, 0.3], [0.2, 0.8], [0.6, 0.1]]), [1, 2, 2], [1, 2], rates=[1 / 3])
    >>> round(found.tpir[0], 3), round(found.thresholds[0], 3)  # absent ones reach 0.3, 0.2 and 0.6; one of three may
    (0.667, 0.3)
    """
    best = Best(np.asarray(gallery_pid))
    best.add(torch.as_tensor(similarity), np.asarray(query_pid), ignored)
    return best.open_set(rates)


def evaluate_open_set(
    embeddings: Embeddings, protocol: Protocol, similarity: Similarity | None = None, rates: Sequence[float] = RATES
) -> list[OpenSet]:
    """The open-set figures of each trial of a protocol; errors as `open_set`."""
    per_trial = []
    for queries, gallery in protocol.trials(embeddings.table):
        best = Best(embeddings.table.pid[gallery])
        for part, block, ignored in compare_rows(embeddings, protocol, queries, gallery, similarity):
            best.add(block, embeddings.table.pid[queries[part]], ignored)
        per_trial.append(best.open_set(rates))
    return per_trial


class Best:
    """Collects the best right and the best wrong similarity of each query from blocks of rows."""

    def __init__(self, gallery_pid: np.ndarray) -> None:
        if not len(gallery_pid):
            raise ArgumentError("the gallery is empty; check the protocol and the split of the table")
        self.gallery_pid = gallery_pid
        self.right: list[np.ndarray] = []
        self.wrong: list[np.ndarray] = []

    def add(self, similarity: Tensor, query_pid: np.ndarray, ignored: np.ndarray | None) -> None:
        """Add queries: similarity (q, G), pids (q,), ignored (q, G) or None."""
        shape = (len(query_pid), len(self.gallery_pid))
        if tuple(similarity.shape) != shape or (ignored is not None and np.shape(ignored) != shape):
            raise ArgumentError(f"similarity and ignored must be {shape} like the pids, got {tuple(similarity.shape)}")
        values = similarity.float().cpu().numpy()
        if not np.isfinite(values).all():
            raise ArgumentError("similarities must be finite; look for NaN in the embeddings and embed again")
        same = query_pid[:, None] == self.gallery_pid[None, :]
        counts = np.ones(shape, bool) if ignored is None else ~np.asarray(ignored, bool)
        self.right.append(np.where(same & counts, values, -np.inf).max(1))
        self.wrong.append(np.where(~same & counts, values, -np.inf).max(1))

    def open_set(self, rates: Sequence[float] = RATES) -> OpenSet:
        """The figures of all queries added."""
        right, wrong = np.concatenate(self.right), np.concatenate(self.wrong)
        present, absent = right > -np.inf, wrong > -np.inf  # a gallery of one person leaves nothing to be wrong with
        if not present.any():
            raise ArgumentError(f"none of the {len(right)} queries has a true match; check protocol and ignore rule")
        if not absent.any():
            raise ArgumentError("no query has a wrong image in its gallery, so nothing can be a false alarm")
        falling = -np.sort(-wrong[absent])
        tpir, thresholds, fpir = [], [], []
        for rate in rates:
            if not 0 < rate < 1:
                raise ArgumentError(f"a false-alarm rate lies between 0 and 1, got {rate}")
            if rate * len(falling) < 1 - 1e-9:
                raise ArgumentError(
                    f"a false-alarm rate of {rate:g} needs at least {math.ceil(1 / rate - 1e-9)} searches, there are "
                    f"{len(falling)}; ask for a larger rate"
                )
            threshold = falling[math.floor(rate * len(falling) + 1e-9)]  # strictly above it: at most this many alarms
            tpir.append(float(((right > wrong) & (right > threshold))[present].mean()))
            thresholds.append(float(threshold))
            fpir.append(float((falling > threshold).mean()))
        return OpenSet(tuple(rates), tuple(tpir), tuple(thresholds), tuple(fpir), int(present.sum()), len(falling))
