"""Evaluate: embeddings and a protocol in, figures per trial out; nothing is embedded again for a further trial.

Trials with the same queries share one product: a block of queries is compared with every image that is in any of their
galleries, and each trial reads its own columns. At most `BLOCK_BYTES` of similarities exist at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vireid.data.protocol import Protocol, Trial
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.metrics import LENGTH, Tally, take_columns
from vireid.evaluation.queries import NEAREST, QueryFigures, of_tally
from vireid.evaluation.refine import Refine, TrialEmbeddings
from vireid.evaluation.results import Results, Row
from vireid.evaluation.score_norm import COHORT, MIN_COHORT, STAMP, mean_of_others, spread
from vireid.types import MODALITIES, Similarity

Rerank = Callable[[Tensor, Tensor], Tensor]  # query (Q, D), gallery (G, D) as they are compared -> similarity (Q, G)
BLOCK_BYTES = 1 << 28
EQUAL = 1e-6  # of the largest number in a vector; rounding alone parts such vectors
log = logging.getLogger(__name__)


def evaluate(
    embeddings: Embeddings,
    protocol: Protocol,
    refine: Refine | None = None,
    rerank: Rerank | None = None,
    similarity: Similarity | None = None,
    device: str | torch.device | None = None,
    length: int = LENGTH,
) -> Results:
    """Figures of every trial of the protocol, with the stamps of the embeddings, the protocol and this evaluation.

    `similarity` "cosine" compares L2-normalized vectors, "euclidean" takes minus the squared distance of the raw ones;
    by default that of the embeddings. `device` None is the CPU. The stamp says where all vectors are equal. Raises
    ArgumentError for vectors that are not finite or zero, an empty gallery, no query with a match, and a stamp of the
    embeddings that contradicts the table or the protocol (another partition, say).
    """
    return evaluate_queries(embeddings, protocol, refine, rerank, similarity, device, length, nearest=0)[0]


def evaluate_queries(
    embeddings: Embeddings,
    protocol: Protocol,
    refine: Refine | None = None,
    rerank: Rerank | None = None,
    similarity: Similarity | None = None,
    device: str | torch.device | None = None,
    length: int = LENGTH,
    nearest: int = NEAREST,
) -> tuple[Results, list[QueryFigures]]:
    """As `evaluate`, with the figures of every query of each trial; trial 0 keeps the `nearest` images of each."""
    trials = list(protocol.trials(embeddings.table))
    if not trials:
        raise ArgumentError(f"{protocol.name} has no trial for this table; check its splits and cameras")
    check_finite(embeddings)
    similarity = similarity or embeddings.similarity
    stamp = _stamp(embeddings, protocol, refine, rerank, similarity)
    stamp |= _collapsed(embeddings, np.unique(np.concatenate([rows for trial in trials for rows in trial])))
    target = torch.device(device or "cpu")
    tallies = [
        Tally(embeddings.table.pid[gallery], protocol.cmc_over_pids, length, 0 if number else nearest)
        for number, (_, gallery) in enumerate(trials)
    ]
    if refine is None and rerank is None:
        for group in _same_queries(trials):
            _tally_group(embeddings, protocol, trials, group, tallies, similarity, target)
    else:
        for trial, tally in zip(trials, tallies, strict=True):
            _tally_transductive(embeddings, protocol, trial, tally, refine, rerank, similarity, target)
    rows = [
        Row(protocol.name, number, tally.metrics(), len(trials[number][1]), stamp)
        for number, tally in enumerate(tallies)
    ]
    queries = [
        of_tally(tally, embeddings.table, protocol.name, number, trials[number], stamp)
        for number, tally in enumerate(tallies)
    ]
    return Results(tuple(rows)), queries


def ranked_rows(
    embeddings: Embeddings,
    protocol: Protocol,
    trial: int = 0,
    k: int = 10,
    queries: np.ndarray | None = None,
    similarity: Similarity | None = None,
) -> np.ndarray:
    """Table rows (Q, k) of the k gallery images most like each query, best first; -1 where fewer than k images count.

    `queries` are table rows, by default all of the trial's. Equal similarities stand in gallery order. Raises
    ValueError for a trial or a query that the protocol has not.
    """
    trials = list(protocol.trials(embeddings.table))
    if not 0 <= trial < len(trials):
        raise ArgumentError(f"{protocol.name} has trials 0 to {len(trials) - 1}, got {trial}")
    all_queries, gallery = trials[trial]
    queries = all_queries if queries is None else np.asarray(queries)
    foreign = np.setdiff1d(queries, all_queries)
    if len(foreign):
        raise ArgumentError(
            f"rows {foreign[:5].tolist()} are not queries of {protocol.name}; choose from its query rows"
        )
    best = np.full((len(queries), k), -1, dtype=np.int64)
    for part, block, ignored in compare_rows(embeddings, protocol, queries, gallery, similarity):
        if ignored is not None:
            block.masked_fill_(torch.from_numpy(ignored), -torch.inf)
        values, columns = (x[:, :k].numpy() for x in block.sort(dim=1, descending=True, stable=True))
        best[part, : values.shape[1]] = np.where(np.isfinite(values), gallery[columns], -1)
    return best


def compare_rows(
    embeddings: Embeddings,
    protocol: Protocol,
    queries: np.ndarray,
    gallery: np.ndarray,
    similarity: Similarity | None = None,
) -> Iterator[tuple[slice, Tensor, np.ndarray | None]]:
    """Blocks of queries: their places (slice), similarities (q, G) to all gallery rows, and what is ignored or None."""
    check_finite(embeddings)
    similarity = similarity or embeddings.similarity
    gallery_table = embeddings.table[gallery]
    against = _vectors(embeddings, gallery, similarity)
    centers = _centers(embeddings, gallery, similarity) if protocol.normalized else None
    for part in _blocks(len(queries), len(gallery)):
        query_table = embeddings.table[queries[part]]
        block = _compare(_vectors(embeddings, queries[part], similarity), against, similarity)
        yield (
            part,
            _centered(block, query_table, gallery_table, centers),
            _ignored(protocol, query_table, gallery_table),
        )


def refined(embeddings: Embeddings, protocol: Protocol, refine: Refine, trial: int = 0) -> Embeddings:
    """All rows with the vectors that one trial is measured with; rows that are not in the trial have 0.

    Raises ValueError for a trial that the protocol has not.
    """
    trials = list(protocol.trials(embeddings.table))
    if not 0 <= trial < len(trials):
        raise ArgumentError(f"{protocol.name} has trials 0 to {len(trials) - 1}, got {trial}")
    rows = np.unique(np.concatenate(trials[trial]))
    part = _refined(embeddings, rows, trials[trial], protocol, refine).vectors
    vectors = np.zeros((len(embeddings), part.shape[1]), dtype=np.float32)
    vectors[rows] = part
    return replace(embeddings, vectors=vectors)


def _refined(embeddings: Embeddings, rows: np.ndarray, trial: Trial, protocol: Protocol, refine: Refine) -> Embeddings:
    """The embeddings of these rows, those of the trial, refined together."""
    query, gallery = (np.searchsorted(rows, part) for part in trial)
    given = TrialEmbeddings(
        embeddings.vectors[rows], embeddings.table[rows], embeddings.stamp, embeddings.similarity,
        query=query, gallery=gallery, ignore=protocol.ignore,
    )  # fmt: skip
    result = refine(given)
    if not np.array_equal(result.table.path, given.table.path):
        raise ArgumentError(f"refine must return the same {len(given)} rows in the same order; it changed the table")
    check_finite(result)
    return result


def check_finite(embeddings: Embeddings) -> None:
    """Raise ValueError if a vector holds NaN or infinity."""
    # The sum over a row is finite only if all its values are, unless it overflows: then look at the values.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = np.flatnonzero(~np.isfinite(embeddings.vectors.sum(1)))
    bad = suspect[~np.isfinite(embeddings.vectors[suspect]).all(1)]
    if len(bad):
        raise ArgumentError(
            f"{len(bad)} of {len(embeddings)} embeddings hold NaN or infinity, the first is that of "
            f"{embeddings.table.path[bad[0]]}; look at the training's log for the step where the loss stopped being "
            "finite, and embed again from a checkpoint before it"
        )


def _collapsed(embeddings: Embeddings, rows: np.ndarray) -> dict[str, str]:
    """What the stamp says of vectors that are all equal; ArgumentError if one of these rows is zero."""
    vectors = embeddings.vectors[rows]
    zero = rows[~vectors.any(1)]
    if len(zero):
        raise ArgumentError(
            f"{len(zero)} of {len(rows)} embeddings are zero, the first is that of {embeddings.table.path[zero[0]]}; "
            "such a vector is like every other. Look at the network's weights and at its last layers"
        )
    if len(rows) < 2 or np.abs(vectors - vectors[0]).max() > EQUAL * np.abs(vectors[0]).max():
        return {}
    log.warning("all %d embeddings are equal: the network tells no two pictures apart", len(rows))
    return {"embeddings": "all equal"}


def _tally_group(
    embeddings: Embeddings,
    protocol: Protocol,
    trials: list[Trial],
    group: list[int],
    tallies: list[Tally],
    similarity: Similarity,
    device: torch.device,
) -> None:
    """Fill the tallies of trials that ask with the same queries."""
    table, queries = embeddings.table, trials[group[0]][0]
    galleries = [trials[t][1][tallies[t].order] for t in group]
    union = galleries[0] if len(group) == 1 else np.unique(np.concatenate(galleries))
    against = _vectors(embeddings, union, similarity, device)
    columns = [np.searchsorted(union, g) for g in galleries] if len(group) > 1 else []
    gallery_tables = [table[gallery] for gallery in galleries]
    centers = _centers(embeddings, union, similarity, device) if protocol.normalized else None
    for part in _blocks(len(queries), len(union)):
        rows = queries[part]
        query_table = table[rows]
        block = _compare(_vectors(embeddings, rows, similarity, device), against, similarity)
        block = _centered(block, query_table, table[union], centers)
        for place, trial in enumerate(group):
            own = take_columns(block, columns[place]) if columns else block
            tallies[trial].add(own, table.pid[rows], _ignored(protocol, query_table, gallery_tables[place]))


def _tally_transductive(
    embeddings: Embeddings,
    protocol: Protocol,
    trial: Trial,
    tally: Tally,
    refine: Refine | None,
    rerank: Rerank | None,
    similarity: Similarity,
    device: torch.device,
) -> None:
    """Fill the tally of one trial whose queries and gallery are refined or re-ranked together."""
    queries, gallery = trial[0], trial[1][tally.order]
    rows = np.unique(np.concatenate([queries, gallery]))
    own = embeddings[rows] if refine is None else _refined(embeddings, rows, trial, protocol, refine)
    query_at, gallery_at = np.searchsorted(rows, queries), np.searchsorted(rows, gallery)
    against = _vectors(own, gallery_at, similarity, device)
    query_table, gallery_table = embeddings.table[queries], embeddings.table[gallery]
    reranked = None
    centers = _centers(own, gallery_at, similarity, device) if protocol.normalized else None
    if rerank is not None:
        if protocol.normalized:
            raise ArgumentError(f"{protocol.name} normalizes plain similarities; leave the re-ranking out")
        reranked = rerank(_vectors(own, query_at, similarity, device), against)
        if reranked.shape != (len(queries), len(gallery)):
            raise ArgumentError(f"rerank must return ({len(queries)}, {len(gallery)}), got {tuple(reranked.shape)}")
    for part in _blocks(len(queries), len(gallery)):
        if reranked is None:
            block = _compare(_vectors(own, query_at[part], similarity, device), against, similarity)
            block = _centered(block, query_table[part], gallery_table, centers)
        else:
            block = reranked[part]
        tally.add(block, query_table.pid[part], _ignored(protocol, query_table[part], gallery_table))


def _same_queries(trials: list[Trial]) -> Iterator[list[int]]:
    """Numbers of the trials with equal query rows."""
    groups: dict[bytes, list[int]] = {}
    for number, (queries, _) in enumerate(trials):
        groups.setdefault(np.ascontiguousarray(queries).tobytes(), []).append(number)
    yield from groups.values()


def _blocks(num_queries: int, num_gallery: int) -> Iterator[slice]:
    """Query slices whose float32 similarities to the whole gallery stay below BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // (4 * max(1, num_gallery)))
    for start in range(0, num_queries, step):
        yield slice(start, min(start + step, num_queries))


def _vectors(
    embeddings: Embeddings, rows: np.ndarray, similarity: Similarity, device: torch.device | None = None
) -> Tensor:
    """A copy of these vectors, float32 (n, D) on the device, ready to be compared."""
    vectors = torch.from_numpy(embeddings.vectors[rows]).to(device)
    if similarity != "cosine":
        return vectors
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors.div_(norm.clamp_min_(torch.finfo(torch.float32).tiny))


def _compare(query: Tensor, gallery: Tensor, similarity: Similarity) -> Tensor:
    """Similarity (q, G) in full float32."""
    product = query @ gallery.T
    if similarity == "cosine":
        return product
    # -|q - g|^2 = 2 q.g - |q|^2 - |g|^2, without a second matrix
    return product.mul_(2).sub_(query.square().sum(1)[:, None]).sub_(gallery.square().sum(1))


def _centers(
    embeddings: Embeddings, gallery: np.ndarray, similarity: Similarity, device: torch.device | None = None
) -> np.ndarray:
    """(2, 2) what is subtracted from the similarities of a query and a gallery image of each modality; DataError."""
    cohorts = []
    for kind, name in enumerate(MODALITIES):
        rows = np.sort(gallery[embeddings.table.modality[gallery] == kind])  # in any order the same cohort
        if len(rows) < MIN_COHORT:
            raise DataError(
                f"normalized scores need {MIN_COHORT} or more {name} images in the gallery, there are {len(rows)}"
            )
        cohorts.append(_vectors(embeddings, rows[spread(len(rows), COHORT)], similarity, device))
    return np.array(
        [
            [mean_of_others(_compare(one, other, similarity).cpu().numpy(), one is other) for other in cohorts]
            for one in cohorts
        ]
    )


def _centered(block: Tensor, query: Table, gallery: Table, centers: np.ndarray | None) -> Tensor:
    """Similarities (q, G), changed in place, without the mean of their pair of modalities if there are `centers`."""
    if centers is not None:
        for kind in np.unique(gallery.modality):
            columns = torch.from_numpy(gallery.modality == kind).to(block.device)
            block -= torch.outer(torch.from_numpy(centers[query.modality, kind]).to(block), columns.to(block))
    return block


def _ignored(protocol: Protocol, query: Table, gallery: Table) -> np.ndarray | None:
    ignored = protocol.ignore(query, gallery)
    if ignored is None:
        return None
    if ignored.shape != (len(query), len(gallery)) or ignored.dtype != np.bool_:
        raise DataError(
            f"the ignore rule of {protocol.name} must return a boolean mask ({len(query)}, {len(gallery)}), "
            f"got {ignored.dtype} {ignored.shape}"
        )
    return ignored


def _stamp(
    embeddings: Embeddings, protocol: Protocol, refine: Refine | None, rerank: Rerank | None, similarity: str
) -> dict[str, str]:
    """Everything under which the figures hold; no entry may be contradicted by another."""
    if similarity not in ("cosine", "euclidean"):
        raise ArgumentError(f'similarity must be "cosine" or "euclidean", got {similarity!r}')
    table = embeddings.table
    stamp = dict(embeddings.stamp)
    here = {
        "dataset": table.dataset,
        "similarity": similarity,
        "refine": _name(refine),
        "rerank": _name(rerank),
        **({"partition": table.partition} if table.partition else {}),
        **({"scores": STAMP} if protocol.normalized else {}),
    }
    for part in (here, protocol.stamp):
        for key, value in part.items():
            if stamp.setdefault(key, value) != value:
                raise ArgumentError(
                    f"{protocol.name} is to be measured with {key} {value!r}, but the embeddings are stamped "
                    f"{stamp[key]!r}; take the table and the run of one and the same"
                )
    return stamp


def _name(step: object) -> str:
    """How a refining or re-ranking step is called in the stamp: its `stamp`, or a function's name."""
    if step is None:
        return "none"
    name = getattr(step, "stamp", None) or getattr(step, "__name__", None)
    if not isinstance(name, str):
        raise ArgumentError(f"{type(step).__name__} needs a text attribute `stamp` that names it beside its figures")
    return name
