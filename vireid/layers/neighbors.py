"""Neighbors: the images most like each image of a set by cosine, and those pairs that choose each other.

    T_i = the k images of largest cosine with i, itself among them
          or, balanced: the k - k_cross largest of its own modality, itself among them, and k_cross of the other one
    M_ij = 1 if j is in T_i and i is in T_j

Only lists of k numbers per image are kept; similarities exist for one block of rows at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from vireid.errors import ArgumentError
from vireid.layers.pooling import at_least_float32
from vireid.layers.refiner import Apart

BLOCK_BYTES = 1 << 26  # of similarities at a time


class Nearest(NamedTuple):
    """Lists of neighbors, best first, the own modality before the other; -1 and -inf where there are fewer."""

    rows: Tensor  # (N, k) int64
    similarity: Tensor  # (N, k)


def nearest(
    x: Tensor, k: int, k_cross: int | None = None, modality: Tensor | None = None, apart: Apart | None = None
) -> Nearest:
    """T of the rows of x (N, D): `k` of all, of which `k_cross` of the other modality; None takes the k nearest of any.

    An image is always the first of its own list. Sets of fewer images give shorter lists. Raises ValueError for
    numbers out of range and a balanced list without modality (N,).
    """
    _check(k, k_cross, modality)
    with torch.autocast(x.device.type, enabled=False):  # bfloat16 would tell few neighbors apart
        return _nearest(normalize(at_least_float32(x), dim=1), k, k_cross, modality, apart)


def _nearest(unit: Tensor, k: int, k_cross: int | None, modality: Tensor | None, apart: Apart | None) -> Nearest:
    count = len(unit)
    rows = torch.empty(count, k, dtype=torch.int64, device=unit.device)
    similarity = unit.new_empty(count, k)
    step = max(1, BLOCK_BYTES // (unit.element_size() * max(1, count)))
    for groups in _groups(count, k, k_cross, modality, unit.device):
        own, gathered = groups[0][0], [unit[columns] for columns, _ in groups]
        for here in torch.arange(len(own), device=unit.device).split(step):
            at, lists = own[here], []
            mask = None if apart is None else apart(at)
            for (columns, size), among in zip(groups, gathered, strict=True):
                block = unit[at] @ among.T
                if mask is not None:
                    block.masked_fill_(mask[:, columns], -torch.inf)
                if columns is own:
                    block[here - here[0], here] = torch.inf  # even where another image has the very same vector
                lists.append(_largest(block, columns, size))
            rows[at] = torch.cat([nearest for nearest, _ in lists], 1)
            similarity[at] = torch.cat([values for _, values in lists], 1)
    return Nearest(rows, similarity)


def _groups(
    count: int, k: int, k_cross: int | None, modality: Tensor | None, device: torch.device
) -> list[list[tuple[Tensor, int]]]:
    """For the images of each modality: from which rows they take how many, their own first."""
    if k_cross is None:
        return [[(torch.arange(count, device=device), k)]]
    assert modality is not None
    same = [modality == kind for kind in modality.unique()]
    return [[(s.nonzero().squeeze(1), k - k_cross), ((~s).nonzero().squeeze(1), k_cross)] for s in same]


def reciprocal(rows: Tensor) -> Tensor:
    """M as lists: of T (N, k) those that choose each other, (N, m) with m the longest list, -1 behind shorter ones.

    >>> reciprocal(torch.tensor([[0, 1], [1, 0], [2, 1]]))
    tensor([[ 0,  1],
            [ 1,  0],
            [ 2, -1]])
    """
    count = len(rows)
    own = torch.arange(count, device=rows.device)[:, None].expand_as(rows)
    there = rows >= 0
    forward = own * count + rows
    mutual = there & torch.isin(rows * count + own, forward[there])
    order = (~mutual).to(torch.uint8).sort(dim=1, stable=True).indices  # the mutual ones first, in their order
    longest = int(mutual.sum(1).max()) if count else 0
    return rows.masked_fill(~mutual, -1).gather(1, order)[:, :longest]


def mutual_neighbors(
    x: Tensor, k: int, k_cross: int | None = None, modality: Tensor | None = None, apart: Apart | None = None
) -> Tensor:
    """M as lists (N, m) of x (N, D), or of sets x (S, N, D) with modality (S, N): then (S N, m) of flattened rows."""
    if x.dim() == 2:
        return reciprocal(nearest(x, k, k_cross, modality, apart).rows)
    per_set = [mutual_neighbors(one, k, k_cross, None if modality is None else modality[s]) for s, one in enumerate(x)]
    longest = max(lists.shape[1] for lists in per_set)
    shifted = [torch.where(lists >= 0, lists + s * x.shape[1], -1) for s, lists in enumerate(per_set)]
    return torch.cat([pad(lists, (0, longest - lists.shape[1]), value=-1) for lists in shifted])


def _largest(block: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of the rows that the columns stand for, those of the k largest values (n, k), and the values; padded if fewer."""
    values, places = block.topk(min(k, block.shape[1]), dim=1)
    rows = columns[places].masked_fill(values == -torch.inf, -1)
    return pad(rows, (0, k - rows.shape[1]), value=-1), pad(values, (0, k - rows.shape[1]), value=-torch.inf)


def _check(k: int, k_cross: int | None, modality: Tensor | None) -> None:
    if k < 1 or (k_cross is not None and not 0 <= k_cross < k):
        raise ArgumentError(
            f"k is 1 or more neighbors (an image counts as one of its own) and k_cross from 0 to k - 1, or null for "
            f"the k nearest of any modality; got k={k} and k_cross={k_cross}"
        )
    if k_cross is not None and modality is None:
        raise ArgumentError("neighbors balanced by modality (k_cross) need the modality of every row")
