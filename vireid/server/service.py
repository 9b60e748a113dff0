"""Service: what the app works with, and what belongs to it: re-rankings and retention."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import WEIGHTS
from vireid.deploy.calibration import Calibration
from vireid.evaluation.local_shortest_path import LocalShortestPath
from vireid.evaluation.rerank import KReciprocal
from vireid.layers.embedder import load_embedder
from vireid.search.archive import Archive, Forgotten
from vireid.search.gallery_refiner import open_refiner
from vireid.search.searcher import Rerank, Searcher
from vireid.server.attention import Attention
from vireid.server.auth import LOCAL_NAMES, Tokens
from vireid.server.uploads import Limits


@dataclass(frozen=True)
class Example:
    """A query that the page offers: a JPEG, its modality, a word to show, and where it is searched ("": everywhere)."""

    name: str
    jpeg: bytes
    modality: str = "auto"
    within: str = ""


@dataclass
class Service:
    """All that the app works with. `tokens` None: this machine alone, and whoever sits there may do everything.

    `hosts` are the host names that are answered to, () any; `keep_days` is the retention; `purpose` says that every
    search has to name one; `secure` that browsers reach the service by https.
    """

    bundle: Bundle
    searcher: Searcher
    archive: Archive
    calibration: Calibration | None = None
    attention: Attention | None = None
    tokens: Tokens | None = None
    hosts: Sequence[str] = LOCAL_NAMES
    limits: Limits = field(default_factory=Limits)
    keep_days: float | None = None
    purpose: bool = False
    secure: bool = False
    examples: Sequence[Example] = ()
    reranks: dict[str, Rerank] = field(default_factory=lambda: {"k-reciprocal": KReciprocal()})


def reranks_of(bundle: Bundle, refine: Path | None = None) -> dict[str, Rerank]:
    """The re-rankings by name that suit what a bundle's network gives; that of the run `refine` was trained on it."""
    found: dict[str, Rerank] = {"k-reciprocal": KReciprocal()}
    # a network without stripes has no path to compare them by
    with contextlib.suppress(ValueError):
        found["shortest-path"] = LocalShortestPath.of(load_embedder(bundle.path / WEIGHTS))
    if refine is not None:
        refiner = open_refiner(refine, bundle)
        found[refiner.name] = refiner
    return found


def forget_older(archive: Archive, days: float, who: str) -> tuple[Forgotten, str]:
    """Apply a retention of so many days, note it in the audit log and say what was done."""
    gone, unknown = archive.forget_older(days)
    if gone.rows or gone.marks:
        archive.audit.write(
            "retention", who, "admin", days=days, rows=gone.rows, thumbnails=gone.thumbnails, marks=gone.marks
        )
    kept = f"; {unknown} rows have no time, which no age can reach" if unknown else ""
    counts = f"{gone.rows} rows, {gone.thumbnails} thumbnails and {gone.marks} marks"
    return gone, f"forgot {counts} older than {days:g} days{kept}"
