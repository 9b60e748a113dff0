"""Metrics: CMC, mAP and mINP from the ranks of the true matches.

For a query with n true matches in the gallery (ignored images taken out), let r_1 < ... < r_n be their ranks:

    AP  = 1/n sum_j j / r_j        mean over queries: mAP
    INP = n / r_n                  mean over queries: mINP (Ye et al., Deep Learning for Person Re-identification:
                                   A Survey and Outlook, TPAMI 2022)
    CMC(k) = share of queries with r_1 <= k, or with `cmc_over_pids` the share whose identity is among the k best
             identities, an identity counting by its best image (SYSU-MM01, LLCM).

Queries without a true match are left out of every average and counted. A rank is j plus the number of wrong images
that are at least as similar, so a tie never helps: a wrong image stands before a right one of equal similarity, and a
constant embedding gets the worst figures instead of the gallery order's. The numbers are those of the published
evaluators wherever these are defined by the similarities alone.

The counts come from one sort of the values of each row (no order of images is ever needed) and a binary search of the
matches in it: counting by comparison costs one pass over the row for each match, ten times as long with 40 matches.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from vireid.errors import ArgumentError
from vireid.evaluation.rows import Metrics

LENGTH = 20  # places of the CMC that the field reports
CHUNK = 1 << 19  # similarities treated at once: 2 MB of float32, which stays in a core's cache
LARGEST = 1e37  # similarities must be smaller than this in size, so that an ignored image lies below all of them
IGNORED = 3e38  # taken from the similarity of an ignored image: five times as fast as filling in by a mask


def measure(
    similarity: Tensor | np.ndarray,
    query_pid: np.ndarray,
    gallery_pid: np.ndarray,
    ignored: np.ndarray | None = None,
    cmc_over_pids: bool = False,
    length: int = LENGTH,
) -> Metrics:
    """CMC, mAP and mINP of a similarity matrix (Q, G) with pids (Q,), (G,) and a boolean mask (Q, G) of ignored images.

    Raises ValueError for shapes that do not fit, similarities that are not finite, an empty gallery, and when no query
    has a true match.

    >>> m = measure(np.array([[0.9, 0.8, 0.1], [0.9, 0.2, 0.3]]), [7, 8], [7, 9, 8])
    >>> m.cmc[:2], round(m.mAP, 2), m.mINP
    ((0.5, 1.0), 0.75, 0.75)
    """
    values = torch.as_tensor(similarity)
    query_pid, gallery_pid = np.asarray(query_pid), np.asarray(gallery_pid)
    if values.shape != (len(query_pid), len(gallery_pid)):
        raise ArgumentError(
            f"similarity must be (queries, gallery) = ({len(query_pid)}, {len(gallery_pid)}) like the pids, "
            f"got {tuple(values.shape)}"
        )
    if ignored is not None and np.shape(ignored) != tuple(values.shape):
        raise ArgumentError(f"the mask of ignored images must be {tuple(values.shape)}, got {np.shape(ignored)}")
    tally = Tally(gallery_pid, cmc_over_pids, length)
    step = max(1, 8 * CHUNK // max(1, len(gallery_pid)))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        mask = None if ignored is None else np.asarray(ignored, dtype=bool)[rows].take(tally.order, axis=1)
        tally.add(take_columns(values[rows], tally.order), query_pid[rows], mask)
    return tally.metrics()


def take_columns(values: Tensor, columns: np.ndarray) -> Tensor:
    """A copy of these columns of (q, G); on the CPU by numpy, which takes less than half of torch's time."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().take(columns, axis=1))
    return values.index_select(1, torch.from_numpy(columns).to(values.device))


class Tally:
    """Collects the figures of one trial from row blocks of its similarity matrix.

    The columns of every block must follow `order` (G,), which lays the gallery out in levels: first one image of each
    identity, then a second one of each that has two, and so on, identities with more images first. So the best
    similarity of every identity is a maximum over a few slices, and the matches of an identity are found by arithmetic.
    `nearest` images of each query are kept, if any.
    """

    def __init__(
        self, gallery_pid: np.ndarray, cmc_over_pids: bool = False, length: int = LENGTH, nearest: int = 0
    ) -> None:
        if len(gallery_pid) == 0:
            raise ArgumentError("the gallery is empty; check the protocol and the split of the table")
        self.cmc_over_pids, self.length = cmc_over_pids, length
        self.nearest = min(nearest, len(gallery_pid))
        self.pids, label, counts = np.unique(gallery_pid, return_inverse=True, return_counts=True)
        by_count = np.argsort(-counts, kind="stable")
        self.sizes = counts[by_count]  # (P,) images of each identity, largest first
        self.place = np.empty_like(by_count)  # (P,) position of each sorted pid in that order
        self.place[by_count] = np.arange(len(by_count))
        grouped = np.argsort(self.place[label], kind="stable")
        level = np.empty(len(grouped), dtype=np.int64)  # how many images of the same identity come before
        level[grouped] = np.arange(len(grouped)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        self.order = np.lexsort((self.place[label], level))
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(level))])  # (levels + 1,) first column of each level
        self.first: list[np.ndarray] = []
        self.precision: list[np.ndarray] = []
        self.inverse: list[np.ndarray] = []
        self.lists: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, similarity: Tensor, query_pid: np.ndarray, ignored: np.ndarray | Tensor | None) -> None:
        """Add queries: similarity (q, G) with columns in `order` (overwritten), pids (q,), ignored (q, G) or None.

        Raises ValueError for similarities that are not finite.
        """
        if not similarity.is_floating_point() or similarity.dtype in (torch.float16, torch.bfloat16):
            similarity = similarity.float()
        if self.nearest:
            self.lists.append(self._nearest(similarity, ignored))
        at = np.minimum(np.searchsorted(self.pids, query_pid), len(self.pids) - 1)
        place = self.place[at]
        size = np.where(self.pids[at] == query_pid, self.sizes[place], 0)
        rows = max(1, CHUNK // similarity.shape[1])
        parts = [slice(start, start + rows) for start in range(0, len(similarity), rows)]

        def figures(part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            mask = None
            if ignored is not None and bool(ignored[part].any()):
                mask = torch.as_tensor(ignored[part], device=similarity.device)
            return self._figures(similarity[part], place[part], size[part], mask)

        workers = torch.get_num_threads() if similarity.device.type == "cpu" else 1
        done = map(figures, parts) if workers == 1 or len(parts) == 1 else _pool(workers).map(figures, parts)
        for first, precision, inverse in done:
            self.first.append(first)
            self.precision.append(precision)
            self.inverse.append(inverse)

    def _figures(
        self, similarity: Tensor, place: np.ndarray, size: np.ndarray, ignored: Tensor | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First rank (0: no match), average precision and inverse negative penalty of each query, all (q,)."""
        device, max_size = similarity.device, max(1, int(size.max()))
        low, high = torch.aminmax(similarity)
        if not (low > -LARGEST and high < LARGEST):
            bad = int((~(similarity.abs() < LARGEST)).any(1).sum())
            raise ArgumentError(
                f"similarities must be finite and below {LARGEST:g} in size; in {bad} of {len(similarity)} rows they "
                "are not: look for NaN or infinity in the embeddings and embed again"
            )
        if ignored is not None:
            similarity.sub_(ignored.view(torch.uint8), alpha=IGNORED)
        level = np.arange(max_size)
        real = level < size[:, None]
        # A match that a query has not is replaced by its identity's first: writing a cell twice does no harm.
        columns = torch.from_numpy(self.starts[np.where(real, level, 0)] + place[:, None]).to(device)
        right = similarity.gather(1, columns).masked_fill_(torch.from_numpy(~real).to(device), -torch.inf)
        right = _sorted_rows(right)  # (q, M) the matches, worst first, before them those that do not count
        similarity.scatter_(1, columns, -torch.inf)  # from here on wrong images only
        counts = right > -LARGEST
        total = counts.sum(1)  # (q,) matches
        # The worst stands in column M - total, the best in the last: place j from 1 in order of likeness.
        position = torch.arange(max_size, 0, -1, device=device)
        first = self._first_over_pids(similarity, right[:, -1:]) if self.cmc_over_pids else None
        before = similarity.shape[1] - torch.searchsorted(_sorted_rows(similarity), right)
        rank = (position + before).double()
        precision = (position / rank).masked_fill_(~counts, 0).sum(1) / total
        last = rank.gather(1, (max_size - total).clamp_max(max_size - 1)[:, None])[:, 0]
        first = rank[:, -1] if first is None else first
        first = torch.where(total > 0, first.long(), 0)
        return first.cpu().numpy(), precision.cpu().numpy(), (total / last).cpu().numpy()

    def _first_over_pids(self, wrong: Tensor, best: Tensor) -> Tensor:
        """Rank (q,) of the true identity: `wrong` (q, G) similarities, `best` (q, 1) that of the best match."""
        num_pids, full = len(self.pids), int(self.sizes[-1])
        by_pid = wrong[:, : full * num_pids].unflatten(1, (full, num_pids)).amax(1)
        for a, b in zip(self.starts[full:-1], self.starts[full + 1 :], strict=True):
            torch.maximum(by_pid[:, : b - a], wrong[:, a:b], out=by_pid[:, : b - a])
        return 1 + (by_pid >= best).sum(1)

    def _nearest(self, similarity: Tensor, ignored: np.ndarray | Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """Places (q, k) in the gallery of the images most like each query, -1 where fewer count, and similarities."""
        if ignored is not None:
            mask = torch.as_tensor(ignored, dtype=torch.bool, device=similarity.device)
            similarity = similarity.masked_fill(mask, -torch.inf)
        values, columns = (x.cpu().numpy() for x in similarity.topk(self.nearest, dim=1))
        places = self.order[columns]
        again = np.lexsort((places, -values), axis=1)  # equal similarities stand in gallery order
        places, values = (np.take_along_axis(x, again, axis=1) for x in (places, values))
        counts = values > -LARGEST
        return np.where(counts, places, -1), np.where(counts, values, 0.0).astype(np.float32)

    def metrics(self) -> Metrics:
        """The averages over all queries added; ValueError when none has a true match."""
        first = np.concatenate([np.zeros(0, np.int64), *self.first])
        valid = first > 0
        if not valid.any():
            raise ArgumentError(
                f"none of the {len(first)} queries has a true match among the gallery images that count; "
                "check that query and gallery share identities and that the ignore rule leaves some"
            )
        cmc = np.bincount(first[valid], minlength=self.length + 1)[1 : self.length + 1].cumsum() / valid.sum()
        return Metrics(
            cmc=tuple(cmc.tolist()),
            mAP=float(np.concatenate(self.precision)[valid].mean()),
            mINP=float(np.concatenate(self.inverse)[valid].mean()),
            num_queries=len(first),
            num_valid=int(valid.sum()),
        )


def _sorted_rows(values: Tensor) -> Tensor:
    """Sort every row ascending, on the CPU in place: numpy's vectorized sort is 30 times as fast as torch's there."""
    if values.device.type != "cpu":
        return values.sort(1).values
    values.numpy().sort(axis=1)
    return values


def _pool(workers: int) -> ThreadPoolExecutor:
    """One pool for the process: numpy and torch work without the interpreter's lock."""
    if workers not in _POOLS:
        _POOLS[workers] = ThreadPoolExecutor(workers, thread_name_prefix="metrics")
    return _POOLS[workers]


_POOLS: dict[int, ThreadPoolExecutor] = {}
