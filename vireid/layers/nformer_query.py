"""NFormer for live search: a gallery that is refined once, and a query that is refined with its surroundings alone.

The whole form needs all images for every query. Here a query meets the gallery images nearest to it, the landmarks, and
the stored mutual neighbors of all of these; lists of neighbors are brought up to date with the query, and the layers
run on that part. What is left out are images two steps away and more, so the result is that of the whole form where
the part is closed, and close to it elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vireid.errors import ArgumentError
from vireid.layers.neighbors import Nearest, nearest, reciprocal
from vireid.layers.nformer import NFormerRefiner


class Answer(NamedTuple):
    """A refined query (width,), and rows (n,) of the gallery as they are beside it, (n, width); all of length 1."""

    query: Tensor
    rows: Tensor
    gallery: Tensor


@dataclass(frozen=True)
class RefinedGallery:
    """A gallery of G images with what is stored of it: tokens, neighbors and the landmarks that were drawn in it."""

    refiner: NFormerRefiner
    tokens: Tensor  # (G, width), projected, of length 1
    modality: Tensor  # (G,)
    chosen: Nearest  # the lists of neighbors (G, k) before they are made mutual
    mutual: Tensor  # (G, m), -1 behind shorter lists
    draws: list[Tensor]  # landmarks (depth, l) of every draw
    refined: Tensor  # (G, width), without any query

    @staticmethod
    @torch.no_grad()
    def of(refiner: NFormerRefiner, vectors: Tensor, modality: Tensor) -> RefinedGallery:
        """Refine the vectors (G, dim) of a gallery; the refiner has to be in evaluation mode."""
        tokens = refiner.tokens(vectors)
        chosen = nearest(tokens, refiner.settings.k, refiner.settings.k_cross, modality)
        mutual, draws = reciprocal(chosen.rows), refiner.draws_of(modality)
        return RefinedGallery(
            refiner, tokens, modality, chosen, mutual, draws, refiner.transform(tokens, mutual, draws)
        )

    @torch.no_grad()
    def refine(self, vector: Tensor, modality: int, shortlist: int = 200) -> Answer:
        """Refine one query (dim,) with its `shortlist` nearest gallery images, which are those to compare it with.

        They come in the order of their likeness before refinement.
        """
        if shortlist < 1:
            raise ArgumentError(f"the shortlist holds 1 gallery image or more, got {shortlist}")
        token = self.refiner.tokens(vector[None])[0]
        similarity = self.tokens @ token
        near = similarity.topk(min(shortlist, len(similarity))).indices
        own = self._own(similarity, modality)
        part = self._part(torch.cat([near, own[own >= 0]]))
        lists = self._lists(part, similarity, modality, own)
        place = torch.full_like(self.modality, -1)  # row of the gallery -> row of the part
        place[part] = torch.arange(len(part), device=part.device)
        tokens = torch.cat([self.tokens[part], token[None]])
        draws = [place[landmarks] for landmarks in self.draws]
        refined = self.refiner.transform(tokens, reciprocal(lists), draws)
        return Answer(refined[-1], near, refined[place[near]])

    def _groups(self, modality: int) -> tuple[tuple[Tensor, int], ...]:
        """Gallery images from which a query of this modality takes neighbors, and how many it takes beside itself."""
        k, k_cross = self.refiner.settings.k, self.refiner.settings.k_cross
        if k_cross is None:
            return ((torch.ones_like(self.modality, dtype=torch.bool), k - 1),)
        same = self.modality == modality
        return (same, k - k_cross - 1), (~same, k_cross)

    def _own(self, similarity: Tensor, modality: int) -> Tensor:
        """The query's list (k - 1,), rows of the gallery, -1 where there are fewer; itself is left out."""
        lists = []
        for group, count in self._groups(modality):
            rows = group.nonzero().squeeze(1)
            best = rows[similarity[rows].topk(min(count, len(rows))).indices]
            lists.append(torch.nn.functional.pad(best, (0, count - len(best)), value=-1))
        return torch.cat(lists)

    def _part(self, rows: Tensor) -> Tensor:
        """These rows and the landmarks, with the mutual neighbors of all of them, ascending."""
        rows = torch.cat([rows, *(landmarks.flatten() for landmarks in self.draws)]).unique()
        around = torch.cat([rows, self.mutual[rows].flatten()]).unique()
        return around[around >= 0]

    def _lists(self, part: Tensor, similarity: Tensor, modality: int, own: Tensor) -> Tensor:
        """Lists (n + 1, k) of the part and, last, of the query, as rows of the part; -1 for what lies outside."""
        query, k_cross = len(part), self.refiner.settings.k_cross
        place = torch.full_like(self.modality, -1)
        place[part] = torch.arange(query, device=part.device)
        chosen, values = self.chosen.rows[part], self.chosen.similarity[part].clone()
        lists = torch.where(chosen >= 0, place[chosen.clamp(min=0)], -1)
        if k_cross is not None:  # a query can drive out of a list only what stands in it for its own modality
            of_same = torch.arange(self.refiner.settings.k, device=part.device) < self.refiner.settings.k - k_cross
            values.masked_fill_(of_same != (self.modality[part] == modality)[:, None], torch.inf)
        weakest, column = values.min(1)
        enters = similarity[part] > weakest
        lists[enters, column[enters]] = query
        mine = torch.where(own >= 0, place[own.clamp(min=0)], -1)
        return torch.cat([lists, torch.cat([mine.new_tensor([query]), mine])[None]])
