"""Checks that every driver of a gallery makes: vectors, batches, ids, what a stored gallery is for."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vireid import models
from vireid.errors import GalleryError, RowMissing
from vireid.images import STRETCH, GrayRule
from vireid.search.gallery import FORMAT, Filter, Record

UNIT_TOLERANCE = 1e-3  # of a vector's length; float16 embeddings stay within


def unit_vectors(vectors: np.ndarray, dim: int) -> np.ndarray:
    """(N, D) float32; GalleryError unless every row is finite, of this length and of norm 1."""
    unit = np.asarray(vectors)
    if unit.ndim != 2 or unit.shape[1] != dim or unit.dtype.kind != "f":
        raise GalleryError(
            f"this gallery takes vectors (N, {dim}) of floats, got {unit.shape} of {unit.dtype}; were they made with "
            "the bundle that the gallery was made with?"
        )
    unit = np.ascontiguousarray(unit, np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", unit, unit, dtype=np.float64))
    if not np.isfinite(norms).all():
        raise GalleryError(f"vector {int(np.flatnonzero(~np.isfinite(norms))[0])} holds NaN or infinite numbers")
    if (off := np.abs(norms - 1) > UNIT_TOLERANCE).any():
        row = int(np.flatnonzero(off)[0])
        raise GalleryError(
            f"vector {row} has length {norms[row]:.4g}, expected 1; FeatureExtractor returns unit vectors, those of "
            "`vireid embed` are divided by their length first"
        )
    return unit


def batch(records: Iterable[Record], dim: int) -> tuple[list[Record], np.ndarray]:
    """The records and their vectors (N, D); GalleryError for a wrong vector or an id that comes twice."""
    given = list(records)
    seen: set[str] = set()
    for record in given:
        if record.id in seen:
            raise GalleryError(f"id {record.id!r} comes twice in one call; every record has an id of its own")
        seen.add(record.id)
    shapes = {np.shape(record.vector) for record in given}
    if wrong := shapes - {(dim,)}:
        raise GalleryError(f"this gallery takes vectors of {dim} numbers, got {', '.join(map(str, sorted(wrong)))}")
    return given, unit_vectors(np.stack([r.vector for r in given]) if given else np.zeros((0, dim), np.float32), dim)


def hit_count(k: int) -> None:
    if not isinstance(k, int | np.integer) or k < 1:
        raise GalleryError(f"k is the number of hits, 1 or more, got {k}")


def deletion(ids: Sequence[str], where: Filter | None) -> None:
    """GalleryError unless rows to delete are named, by ids or by a filter that is not empty."""
    if isinstance(ids, str):
        raise GalleryError(f"ids is a list of ids, got the text {ids[:40]!r}")
    if bool(len(ids)) == (where is not None):
        raise GalleryError("delete takes ids or a filter, and not both")
    if where is not None and where.empty:
        raise GalleryError("an empty filter would delete everything; name a condition, or remove the gallery itself")


@dataclass(frozen=True)
class Kept:
    """What a gallery is for: the length of its vectors, the bundle and the gray rule that they were made with."""

    dim: int
    digest: str = ""
    gray: GrayRule = STRETCH


def stored(url: str, dim: int | None, digest: str | None, gray: GrayRule | None, kept: Kept) -> None:
    """GalleryError if a gallery is not for vectors of this length, this bundle or this gray rule; None is any."""
    stored_digest = kept.digest
    if digest is not None and digest != stored_digest:
        made_with = models.name_of(stored_digest)
        use = f"--model {made_with}" if made_with else "--model with the run or bundle that it was indexed with"
        raise GalleryError(
            f"{url} holds embeddings of {named(stored_digest)}, this is {named(digest)}: vectors of two networks are "
            f"not comparable. Give {use}, or embed its pictures again into a new gallery: "
            f"vireid reindex {url} --to MODEL"
        )
    if dim is not None and dim != kept.dim:
        raise GalleryError(f"{url} holds vectors of {kept.dim} numbers, not {dim}; use the bundle it was made with")
    if gray is not None and gray != kept.gray:
        use = "leave the range out" if kept.gray.ends is None else f"give {kept.gray}, or leave the range out"
        raise GalleryError(
            f"{url} was made with gray values of {kept.gray}, this is {gray}: a picture of 16 bits would have two "
            f"vectors; {use}, or index into a new gallery"
        )


def named(digest: str) -> str:
    """A bundle in words: the name of a model that comes with vireid, and the beginning of the digest."""
    if not digest:
        return "an unknown bundle"
    name = models.name_of(digest)
    return f"the model {name} (bundle {digest[:12]}...)" if name else f"bundle {digest[:12]}..."


def description(digest: str, gray: GrayRule) -> str:
    """What a stored gallery says about itself: its format, the bundle that it is for, and a fixed range of gray."""
    return json.dumps({"format": FORMAT, "bundle": digest} | ({"gray": gray.ends} if gray.ends else {}))


def described(text: str | bytes | None, url: str, dim: int, advice: str) -> Kept:
    """What a description says; GalleryError with `advice` where vireid wrote none, or another format."""
    try:
        about = json.loads(text or "")
        written, kept = about["format"], Kept(dim, about["bundle"], GrayRule.of(about.get("gray")))
    except (KeyError, ValueError, TypeError) as error:
        raise GalleryError(f"{url} is not a gallery that vireid wrote; {advice}") from error
    if written != FORMAT:
        raise GalleryError(f"{url} is in format {written!r}, expected {FORMAT!r}; index the pictures again")
    return kept


def already_there(ids: Sequence[str]) -> GalleryError:
    named = ", ".join(repr(each) for each in ids[:3]) + (", ..." if len(ids) > 3 else "")
    verb = "is" if len(ids) == 1 else "are"
    return GalleryError(f"{len(ids)} of these ids {verb} in the gallery already: {named}; upsert replaces them")


def unknown_ids(ids: Sequence[str], there: Container[str], missing: str) -> None:
    """GalleryError for unknown ids unless they are to be skipped."""
    if isinstance(ids, str) or missing not in ("refuse", "skip"):
        raise GalleryError(f"fetch takes a list of ids and missing is refuse or skip, got {ids[:3]!r} and {missing!r}")
    unknown = [each for each in ids if each not in there] if missing == "refuse" else []
    if unknown:
        named = ", ".join(repr(each) for each in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        verb = "is" if len(unknown) == 1 else "are"
        raise RowMissing(f"{len(unknown)} of these ids {verb} not in the gallery (deleted?): {named}")


def no_gallery(url: str) -> GalleryError:
    return GalleryError(f"there is no gallery at {url}; `vireid index` makes one, or open_gallery with dim=")
