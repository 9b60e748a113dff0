"""Open a gallery by its url: the driver is imported when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from vireid.errors import GalleryError
from vireid.images import STRETCH, GrayRule
from vireid.search.gallery import Gallery


class GalleryModel(Protocol):
    """What a gallery keeps of vireid.Model."""

    @property
    def dim(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def gray(self) -> GrayRule: ...


def open_gallery(
    url: str | Path,
    dim: int | None = None,
    bundle_digest: str | None = None,
    *,
    model: GalleryModel | None = None,
    gray: GrayRule | None = None,
) -> Gallery:
    """Open `memory:`, `lance:PATH` (or a bare path) or `milvus:URI`; one that is not there is made if `dim` is given.

    A gallery keeps the digest of the bundle that it was made with and the rule `gray` for pictures of more than 8 bits;
    opening it with another of them, or another dim, raises GalleryError. None looks at none of them. `model` gives dim
    and digest, and the rule of a gallery that is made here where `gray` does not.
    """
    if model is not None:
        if dim is not None or bundle_digest is not None:
            raise GalleryError("a model says dim and bundle_digest itself; pass the model alone, or the two without it")
        dim, bundle_digest = model.dim, model.digest
    if dim is not None and not 1 <= dim <= 32_768:  # Milvus's bound
        raise GalleryError(f"dim is the length of a vector, 1 to 32768, got {dim}")
    new = STRETCH if model is None else model.gray
    driver, place = split_url(str(url))
    if driver == "memory":
        from vireid.search.drivers.memory import MemoryGallery

        return MemoryGallery(dim, bundle_digest or "", gray or new)
    if driver == "milvus":
        from vireid.search.drivers.milvus import MilvusGallery

        return MilvusGallery(place, dim, bundle_digest, gray, new)
    from vireid.search.drivers.lance import LanceGallery

    return LanceGallery(Path(place), dim, bundle_digest, gray, new)


def split_url(url: str) -> tuple[str, str]:
    """Driver and place of a gallery's url; a bare path is Lance's.

    >>> split_url("milvus:http://host:19530"), split_url("lance:a/b"), split_url("gallery"), split_url("memory:")
    (('milvus', 'http://host:19530'), ('lance', 'a/b'), ('lance', 'gallery'), ('memory', ''))
    """
    head, colon, rest = url.partition(":")
    if not colon or (len(head) == 1 and head.isalpha()):  # C:\gallery
        head, rest = "lance", url
    if head not in ("memory", "lance", "milvus"):
        raise GalleryError(
            f"a gallery is memory:, lance:PATH or milvus:URI, got {url!r}; write ./NAME for such a folder"
        )
    if (head == "memory") == bool(rest):
        raise GalleryError(f"memory: takes no path, lance: and milvus: need one; got {url!r}")
    if head == "lance" and "://" in rest:
        raise GalleryError(f"lance: takes a folder of this machine, got {rest!r}; object stores are not supported")
    return head, rest
