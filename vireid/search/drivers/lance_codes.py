"""Short codes of vectors, by faiss: what the sidecar of a gallery (lance_sidecar.py) finds candidates with.

A vector is turned by a fixed random rotation, so that no few numbers carry all of it, and each pair of its numbers
becomes one of 16 (four bits; product quantization, Jegou et al. 2011). 32 codes are compared in a few instructions by
tables in registers (Andre et al. 2015; faiss's IVFPQFastScan). The codes lie in lists of near vectors of one cell
(lance_cells.py): a search without a filter looks into the lists nearest to the query; a search with one into all lists
of the cells that can hold rows that pass, under a bitmap of these rows, because the lists near a visible query hold no
infrared rows. All files of codes of one gallery share rotation and code book, so scores of two files compare.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vireid.errors import GalleryError
from vireid.search.drivers.lance_cells import Cells
from vireid.search.drivers.lance_vectors import slices

log = logging.getLogger(__name__)

BITS, PAIR = 4, 2  # of one code, and the numbers that it stands for
LIST_ROWS = 4_000  # rows of one list
BLOCK = 65_536  # rows at a time, on the way in
SAMPLED = 65_536  # rows that rotation and code book are fitted on
ITERATIONS = 10  # of k-means
SEED = 20_230  # of the rotation and of k-means: the same rows give the same codes


@functools.cache
def available() -> bool:
    """Whether faiss is here; without it galleries are searched by LanceDB's own index."""
    try:
        _library()
    except GalleryError as error:
        log.info("%s", error)
        return False
    return True


@dataclass(frozen=True)
class Coder:
    """Rotation (D, P), code book (P / 2, 16, 2), and how far a search must look, measured on the rows themselves.

    P is D, or D + 1 where D is odd. `candidates` are ordered by their vectors for every ten rows that are wanted, under
    a filter; a search without one looks into the share `probed` of the lists and orders `open_candidates`. `rows` are
    those it was fitted to.
    """

    rotation: np.ndarray
    book: np.ndarray
    rows: int
    candidates: int = 1_000
    open_candidates: int = 1_000
    probed: float = 1.0

    @classmethod
    def fit(cls, sample: np.ndarray, rows: int) -> Coder:
        """A coder for vectors like these (N, D)."""
        faiss = _library()
        dim = sample.shape[1]
        padded = dim + dim % PAIR
        square, _ = np.linalg.qr(np.random.default_rng(SEED).standard_normal((padded, padded)))
        rotation = np.ascontiguousarray(square[:dim], np.float32)
        quantizer = faiss.ProductQuantizer(padded, padded // PAIR, BITS)
        quantizer.cp.min_points_per_centroid, quantizer.cp.seed = 1, SEED
        quantizer.train(sample @ rotation)
        book = faiss.vector_to_array(quantizer.centroids).reshape(padded // PAIR, 1 << BITS, PAIR)
        return cls(rotation, book.copy(), rows)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Coder:
        with np.load(path) as stored:
            numbers = {name: int(stored[name]) for name in ("rows", "candidates", "open_candidates")}
            return cls(stored["rotation"], stored["book"], probed=float(stored["probed"]), **numbers)

    def rotated(self, query: np.ndarray) -> np.ndarray:
        """One vector (D,) as (1, P); without BLAS, whose threads would wait for each other in a short search."""
        return np.einsum("d,dp->p", query, self.rotation)[None]

    def write(
        self, path: Path, vectors: Callable[[np.ndarray | slice], np.ndarray], cells: Cells, cell: np.ndarray
    ) -> None:
        """Write the codes of rows (N,) of these cells (N,), whose `vectors` (n, D) it asks for some at a time."""
        faiss = _library()
        padded, count = self.rotation.shape[1], int(cells.lists[-1])
        centers = np.empty((count, padded), np.float32)
        for at, (first, end) in enumerate(pairwise(cells.lists)):
            rows = np.flatnonzero(cell == at)
            wanted = max(end - first, SAMPLED * len(rows) // len(cell))
            centers[first:end] = _centers(vectors(rows[spread(len(rows), wanted)]) @ self.rotation, end - first)
        quantizer = faiss.IndexFlatIP(padded)
        quantizer.add(centers)
        index = faiss.IndexIVFPQ(quantizer, padded, count, padded // PAIR, BITS, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        faiss.copy_array_to_vector(self.book.reshape(-1), index.pq.centroids)
        index.is_trained = True
        owner = np.repeat(np.arange(len(cells.modality)), np.diff(cells.lists))
        for rows in slices(len(cell), BLOCK):
            block = np.ascontiguousarray(vectors(rows) @ self.rotation)
            score = block @ centers.T
            score[owner != cell[rows, None]] = -np.inf
            chosen = score.argmax(1)
            index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(chosen))
        faiss.write_index(faiss.IndexIVFPQFastScan(index), str(path))


def read(path: Path) -> Any:
    """A file of codes, mapped: processes that search the same gallery share its memory."""
    faiss = _library()
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def nearest(
    index: Any, turned: np.ndarray, passing: np.ndarray | None, count: int, look: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Up to `count` rows (n,) and their scores (n,), the best first, of a rotated query (1, P).

    Only rows of the mask `passing` (N,), which is None where all pass. `look` is the share of the lists to look into,
    the nearest ones, or the numbers of the lists (n,).
    """
    faiss = _library()
    options: dict[str, Any] = {}
    if passing is not None:
        bits = np.packbits(passing, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(len(passing), faiss.swig_ptr(bits))
    count = min(count, index.ntotal)
    if not isinstance(look, np.ndarray):
        options["nprobe"] = max(1, math.ceil(look * index.nlist))
        scores, rows = index.search(turned, count, params=faiss.SearchParametersIVF(**options))
    elif not len(look):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    else:  # faiss's own wrapper of this call takes no selector
        params = faiss.SearchParametersIVF(nprobe=len(look), **options)
        scores, rows = np.empty((1, count), np.float32), np.empty((1, count), np.int64)
        given = [
            np.ascontiguousarray(turned),
            np.ascontiguousarray(look),
            np.zeros(len(look), np.float32),
            scores,
            rows,
        ]
        query, lists, distances, *nearest_first = map(faiss.swig_ptr, given)
        index.search_preassigned_c(1, query, count, lists, distances, *nearest_first, False, params)
    there = rows[0] >= 0  # -1 where fewer pass
    return rows[0][there], scores[0][there]


def spread(rows: int, count: int) -> np.ndarray:
    """Up to `count` numbers of this many rows, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(count, rows)).astype(np.int64))


def _centers(sample: np.ndarray, lists: int) -> np.ndarray:
    if lists == 1:
        return sample.mean(0, keepdims=True)
    means = _library().Kmeans(
        sample.shape[1], lists, niter=ITERATIONS, seed=SEED, spherical=True, min_points_per_centroid=1
    )
    means.train(sample)
    return means.centroids


def _library() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise GalleryError("faster search of large galleries needs faiss: pip install 'vireid[search]'") from error
    return faiss
