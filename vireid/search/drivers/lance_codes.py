"""Short codes of vectors, by faiss: what the sidecar of a gallery (lance_sidecar.py) finds candidates with.

A vector is turned by a fixed random rotation, so that no few numbers carry all of it, and each pair of its numbers
becomes one of 16 (four bits; product quantization, Jegou et al. 2011). 32 codes are compared in a few instructions by
tables in registers (Andre et al. 2015; faiss's IVFPQFastScan). The codes lie in lists of near vectors: a search without
a filter looks into some of them, a search with a filter into all, under a bitmap of the rows that pass, because the
lists near a visible query hold no infrared rows. All files of codes of one gallery share rotation and code book, so
scores of two files compare.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vireid.errors import GalleryError

log = logging.getLogger(__name__)

BITS, PAIR = 4, 2  # of one code, and the numbers that it stands for
LIST_ROWS = 4_000  # rows of one list
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

    def write(self, path: Path, sample: np.ndarray, blocks: Iterable[np.ndarray], rows: int) -> None:
        """Write the codes of blocks (n, D) of together `rows` vectors, which `sample` stands for."""
        faiss = _library()
        lists = max(1, round(rows / LIST_ROWS))
        padded = self.rotation.shape[1]
        quantizer = faiss.IndexFlatIP(padded)
        quantizer.add(_centers(sample @ self.rotation, lists))
        index = faiss.IndexIVFPQFastScan(quantizer, padded, lists, padded // PAIR, BITS, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        faiss.copy_array_to_vector(self.book.reshape(-1), index.pq.centroids)
        index.is_trained = True
        for block in blocks:
            index.add(block @ self.rotation)
        faiss.write_index(index, str(path))


def read(path: Path) -> Any:
    """A file of codes, mapped: processes that search the same gallery share its memory."""
    faiss = _library()
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def nearest(
    index: Any, turned: np.ndarray, passing: np.ndarray | None, count: int, probed: float
) -> tuple[np.ndarray, np.ndarray]:
    """Up to `count` rows (n,) and their scores (n,), the best first, of a rotated query (1, P).

    Only rows of the mask `passing` (N,), which is None where all pass. `probed` is the share of the lists to look into.
    """
    faiss = _library()
    options: dict[str, Any] = {"nprobe": max(1, math.ceil(probed * index.nlist))}
    if passing is not None:
        bits = np.packbits(passing, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(len(passing), faiss.swig_ptr(bits))
    scores, rows = index.search(turned, min(count, index.ntotal), params=faiss.SearchParametersIVF(**options))
    there = rows[0] >= 0  # -1 where fewer pass
    return rows[0][there], scores[0][there]


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
