"""Re-ranking by the local shortest path: the first images of a global search are compared stripe by stripe, aligned.

Wang, Li, Ma: "Cross-modal Local Shortest Path and Global Enhancement for Visible-Thermal Person Re-Identification",
arXiv 2022 (CM-LSP-GE). The path is a published equation (layers/stripe_path.py), how it joins the search a choice.

A vector is a global part g followed by h stripes of d numbers. For the `shortlist` gallery images of the largest cosine
between the global parts, with their shortest path S,

    similarity = cos(g_q, g_g) - weight S / ((2h - 1) d)

and cos(g_q, g_g) - weight for all others: S / ((2h - 1) d) is never above 1, so they stay behind the shortlist, in
their order. Images that the protocol ignores for a query take part in its shortlist.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from vireid.errors import ArgumentError
from vireid.layers.embedder import Embedder
from vireid.layers.pooling import at_least_float32
from vireid.layers.stripe_path import path_table, range_normalized, stripe_costs
from vireid.layers.stripes import Stripes

BLOCK_BYTES = 1 << 26  # of gathered stripes and tables


@dataclass(frozen=True)
class LocalShortestPath:
    """Re-ranking of vectors (N, D) whose last `stripes` times `dim` numbers are stripes; see this file's head.

    `shortlist` None compares a query with the whole gallery by its stripes; so must vectors without a global part be.
    """

    stripes: int
    dim: int
    shortlist: int | None = 100
    weight: float = 1.0

    def __post_init__(self) -> None:
        short = 1 if self.shortlist is None else self.shortlist
        if min(self.stripes, self.dim, short) < 1 or not self.weight >= 0:
            raise ArgumentError(
                "stripes, dim and shortlist must be 1 or more (shortlist None: the whole gallery) and weight 0 or "
                f"more, got {self.stripes}, {self.dim}, {self.shortlist} and {self.weight}"
            )

    @classmethod
    def of(cls, embedder: Embedder, shortlist: int | None = 100, weight: float = 1.0) -> LocalShortestPath:
        """The re-ranking for what an embedder deploys; ValueError if that holds no stripes."""
        stripes = dict(embedder.named_children()).get("stripes")
        if not isinstance(stripes, Stripes):
            raise ArgumentError(
                f"{type(embedder).__name__} deploys no stripes to compare; re-rank embeddings of cmlspge, or others "
                "with parts, by the shortest path"
            )
        return cls(stripes.parts, stripes.dim, shortlist, weight)

    @property
    def stamp(self) -> str:
        """How figures obtained with it are marked."""
        short = "all" if self.shortlist is None else self.shortlist
        return f"local shortest path stripes={self.stripes}x{self.dim} shortlist={short} weight={self.weight:g}"

    def __call__(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Similarity (Q, G) of vectors (Q, D), (G, D), L2-normalized or not; it has their device and type.

        Raises ValueError for vectors too short for the stripes, and for a shortlist of vectors without a global part.
        """
        local, columns = self.stripes * self.dim, query.shape[1]
        if columns < local or gallery.shape[1] != columns:
            raise ArgumentError(
                f"vectors of {self.stripes} stripes of {self.dim} numbers have {local} or more, got {columns} and "
                f"{gallery.shape[1]}; take the embeddings that hold the stripes"
            )
        if columns == local and self.shortlist is not None:
            raise ArgumentError(
                "these vectors are stripes alone, with nothing to make a shortlist by; pass shortlist=None"
            )
        whole = [normalize(at_least_float32(x[:, : columns - local]), dim=1) for x in (query, gallery)]
        parts = [
            range_normalized(x[:, columns - local :].unflatten(1, (self.stripes, self.dim))) for x in (query, gallery)
        ]
        similarity = whole[0] @ whole[1].T  # (Q, G), 0 without a global part
        if self.shortlist is None or self.shortlist >= len(gallery):
            for rows in _blocks(len(query), len(gallery) * 3 * self.stripes**2):
                similarity[rows] -= self.weight * self._path(parts[0][rows], parts[1])
            return similarity.to(query.dtype)
        for rows in _blocks(len(query), self.shortlist * self.stripes * (self.dim + 3 * self.stripes)):
            near, places = similarity[rows].topk(self.shortlist, dim=1)  # (q, k)
            path = self._path(parts[0][rows, None], parts[1][places])[:, 0]
            similarity[rows] = (similarity[rows] - self.weight).scatter(1, places, near - self.weight * path)
        return similarity.to(query.dtype)

    def _path(self, a: Tensor, b: Tensor) -> Tensor:
        """S / ((2h - 1) d), (..., N, M), of normalized stripes (..., N, h, d), (..., M, h, d)."""
        path = path_table(stripe_costs(a, b))[..., -1, -1]
        return (path / ((2 * self.stripes - 1) * self.dim)).clamp_(max=1)  # above 1 by rounding alone


def _blocks(rows: int, numbers: int) -> list[slice]:
    """Slices of rows that each take this many float32 numbers, below BLOCK_BYTES together."""
    step = max(1, BLOCK_BYTES // (4 * max(1, numbers)))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
