"""k-reciprocal re-ranking: two images are alike if their neighborhoods are.

Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. All N = Q + G images
of a trial are taken together, so a figure obtained with it is transductive; it is off by default and always stamped.

    d(i, j)   squared Euclidean distance, divided by the largest of row i
    N(i, k)   the k + 1 nearest images of i, itself among them
    R(i, k)   {j in N(i, k): i in N(j, k)}                                  reciprocal neighbors
    R*(i)     R(i, k1) and every R(c, k1/2), c in R(i, k1), of which more than two thirds lie in R(i, k1)
    V(i, j)   exp(-d(i, j)) for j in R*(i), else 0, divided by the sum of its row
    V'(i)     mean of V over the k2 nearest images of i (local query expansion)
    J(i, j)   sum_c min(V'(i, c), V'(j, c)) / (2 - the same sum)            Jaccard similarity
    result    (1 - weight) J(q, g) + weight (1 - d(q, g))                   one minus the paper's final distance

k1/2 is rounded as the authors' Python code rounds it, half to even (numpy.around): k1 = 20 gives 10, but 5 gives 2 and
7 gives 4. V has about a hundred entries in a row, so all but the result is sparse or lives for one block of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from vireid.errors import ArgumentError

BLOCK_BYTES = 1 << 26  # of similarities, of gathered vectors, of pairs that share a neighbor


@dataclass(frozen=True)
class KReciprocal:
    """Re-ranking with the paper's k1, k2 and `weight` (its lambda) of the original distance; see this file's head."""

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or not 1 <= self.k2 <= self.k1 + 1 or not 0 <= self.weight <= 1:
            raise ArgumentError(
                "k1 must be at least 1, k2 from 1 to k1 + 1 and weight from 0 to 1, "
                f"got {self.k1}, {self.k2} and {self.weight}"
            )

    @property
    def stamp(self) -> str:
        """How figures obtained with it are marked."""
        return f"k-reciprocal k1={self.k1} k2={self.k2} weight={self.weight:g}"

    def memory_bytes(self, num_queries: int, num_gallery: int) -> int:
        """Estimate of the peak of a call beyond the vectors: the result, the neighbors, V and three blocks."""
        images = num_queries + num_gallery
        row = 12 * (3 * (self.k1 + 1) + 2 * 6 * (self.k1 + 1))  # neighbors, and V before and after its expansion
        return 4 * num_queries * num_gallery + images * row + 3 * min(BLOCK_BYTES, 8 * images**2)

    def __call__(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Similarity (Q, G), from 0 to 1, of vectors (Q, D), (G, D) compared by Euclidean distance.

        It has their device and type; L2-normalize them to compare by cosine. Neighbors whose distances differ by less
        than float32 tells apart can change places, which moves single results; float64 has the exact ones. Raises
        ValueError if there are fewer than k1 + 1 images in all.
        """
        vectors = torch.cat([query, gallery])
        count, num_queries = len(vectors), len(query)
        if count <= self.k1:
            raise ArgumentError(
                f"k1 = {self.k1} neighbors need at least {self.k1 + 1} images, got {count}; take a smaller k1"
            )
        near, farthest = _neighbors(vectors, self.k1 + 1)
        expanded = _expanded(near, int(np.around(self.k1 / 2)))
        weights = _weights(expanded, vectors, farthest)
        if self.k2 > 1:
            weights = sparse.csr_array(_indicator(near[:, : self.k2], count, weights.dtype.type(1 / self.k2)) @ weights)
        result = torch.empty(num_queries, len(gallery), device=query.device, dtype=vectors.dtype)
        of_query, of_gallery = weights[:num_queries], sparse.csc_array(weights[num_queries:])
        # weight (1 - d) = weight (1 - |q|^2 / m) + (2 weight / m) closeness, with m the largest distance of q's row
        halves = gallery.square().sum(1) / 2
        largest = torch.from_numpy(farthest[:num_queries]).to(query.device)
        for rows, shared in _shared(of_query, of_gallery, len(gallery)):
            jaccard = torch.from_numpy(shared).to(query.device)
            jaccard.div_(2 - jaccard)
            scale = largest[rows, None]
            block = torch.mul(_closeness(query[rows], gallery, halves), 2 * self.weight / scale, out=result[rows])
            block.add_(self.weight * (1 - query[rows].square().sum(1, keepdim=True) / scale))
            block.clamp_max_(self.weight).add_(jaccard, alpha=1 - self.weight)
        return result


def _closeness(rows: Tensor, vectors: Tensor, halves: Tensor) -> Tensor:
    """x.y - |y|^2 / 2, (n, N): half the squared distance but for the row's own |x|^2 / 2, with the sign turned."""
    return torch.addmm(halves, rows, vectors.T, beta=-1)


def _neighbors(vectors: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest images of each (N, k), nearest first, and the largest squared distance of each (N,)."""
    near = np.empty((len(vectors), k), dtype=np.int32)
    halves = vectors.square().sum(1) / 2
    smallest = torch.empty_like(halves)
    step = max(1, BLOCK_BYTES // (8 * len(vectors)))
    for start in range(0, len(vectors), step):
        rows = slice(start, start + step)
        closeness = _closeness(vectors[rows], vectors, halves)
        near[rows] = closeness.topk(k, dim=1).indices.cpu().numpy()
        smallest[rows] = closeness.amin(1)
    return near, (2 * (halves - smallest)).clamp_min_(torch.finfo(vectors.dtype).tiny).cpu().numpy()


def _indicator(columns: np.ndarray, count: int, value: np.generic) -> sparse.csr_array:
    """(N, count) with `value` in these columns (N, k) of each row."""
    rows, k = columns.shape
    entries = (np.full(columns.size, value), columns.reshape(-1), np.arange(0, columns.size + 1, k, dtype=np.int32))
    return sparse.csr_array(entries, shape=(rows, count))


def _reciprocal(near: np.ndarray) -> sparse.csr_array:
    forward = _indicator(near, len(near), np.int32(1))
    return forward.multiply(forward.T.tocsr()).tocsr()


def _expanded(near: np.ndarray, half: int) -> sparse.csr_array:
    """R*: nonzero (i, j) where j is in the expanded reciprocal neighborhood of i."""
    whole, small = _reciprocal(near), _reciprocal(near[:, : half + 1])
    # How many of R(c, k1/2) lie in R(i, k1), for the candidates c in R(i, k1).
    common = (whole @ small.T.tocsr()).multiply(whole).tocoo()
    sizes = np.diff(small.indptr)
    taken = 3 * common.data > 2 * sizes[common.col]
    candidates = sparse.csr_array(
        (np.ones(int(taken.sum()), np.int32), (common.row[taken], common.col[taken])), shape=whole.shape
    )
    return (whole + candidates @ small).tocsr()


def _weights(expanded: sparse.csr_array, vectors: Tensor, farthest: np.ndarray) -> sparse.csr_array:
    """V: exp(-d) on the pairs of `expanded`, each row summing to 1."""
    count, indptr = len(vectors), expanded.indptr
    row = np.repeat(np.arange(count), np.diff(indptr))
    distance = torch.empty(len(row), dtype=vectors.dtype, device=vectors.device)
    squares = vectors.square().sum(1)
    i, j = (torch.from_numpy(at.astype(np.int64)).to(vectors.device) for at in (row, expanded.indices))
    for part in torch.arange(len(row), device=vectors.device).split(max(1, BLOCK_BYTES // (128 * vectors.shape[1]))):
        one, other = i[part], j[part]
        product = torch.linalg.vecdot(vectors.index_select(0, one), vectors.index_select(0, other))
        distance[part] = squares[one] + squares[other] - 2 * product
    value = np.exp(-distance.clamp_min_(0).cpu().numpy() / farthest[row])
    value /= np.bincount(row, value, minlength=count)[row].astype(value.dtype)
    return sparse.csr_array((value, expanded.indices, indptr), shape=expanded.shape)


def _shared(
    of_query: sparse.csr_array, of_gallery: sparse.csc_array, num_gallery: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of query rows with sum_c min(V'(q, c), V'(g, c)) for all gallery images, (q, G)."""
    num_queries = len(of_query.indptr) - 1
    lengths = np.diff(of_gallery.indptr)
    pairs = np.concatenate([[0], np.cumsum(lengths[of_query.indices])])[of_query.indptr]  # before each query row
    max_pairs, max_rows = BLOCK_BYTES // 64, max(1, BLOCK_BYTES // (8 * num_gallery))
    start = 0
    while start < num_queries:
        stop = int(np.searchsorted(pairs, pairs[start] + max_pairs, side="right")) - 1
        stop = min(max(stop, start + 1), start + max_rows, num_queries)
        entries = slice(of_query.indptr[start], of_query.indptr[stop])
        column, value = of_query.indices[entries], of_query.data[entries]
        row = np.repeat(np.arange(stop - start), np.diff(of_query.indptr[start : stop + 1]))
        repeat = lengths[column]
        # Position of every gallery entry in a column that the query has too.
        at = np.repeat(of_gallery.indptr[column] - (np.cumsum(repeat) - repeat), repeat) + np.arange(repeat.sum())
        smaller = np.minimum(np.repeat(value, repeat), of_gallery.data[at])
        cell = np.repeat(row * num_gallery, repeat) + of_gallery.indices[at]
        total = np.bincount(cell, smaller, minlength=(stop - start) * num_gallery).astype(value.dtype)
        yield slice(start, stop), total.reshape(stop - start, num_gallery)
        start = stop
