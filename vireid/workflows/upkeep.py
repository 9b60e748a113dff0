"""`vireid backup`, `restore`, `stats` and `reindex`: what an archive needs over the years."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import bundle_of
from vireid.deploy.pose_input import check_pose
from vireid.errors import ArgumentError, GalleryError
from vireid.images import GrayRule
from vireid.ingest.reindex import LIST, Reindexed
from vireid.ingest.reindex import reindex as reindex_archive
from vireid.search import backup
from vireid.search.archive import Archive, files_of
from vireid.search.audit import CONSOLE
from vireid.search.drivers.open import open_gallery
from vireid.search.stats import Stats, stats_of
from vireid.types import Backend

log = logging.getLogger(__name__)


def back_up(gallery: str, to: Path, files: Path | None = None) -> str:
    """Write a gallery and its files into the tar file `to`, and read it again; returns what to print.

    Raises BackupError, GalleryError and DiskFull.
    """
    with closing(Archive(open_gallery(gallery), files_of(gallery, files))) as archive:
        backup.back_up(archive, to, CONSOLE)
    manifest = backup.verify(to)
    size_mb = to.stat().st_size / 1e6
    return f"{to}: {manifest.rows:,} rows and {manifest.files:,} files, {size_mb:,.1f} MB, read again and complete"


def restore(file: Path, gallery: str, files: Path | None = None) -> str:
    """Put a backup into a new gallery, of any driver; returns what to print. Raises BackupError and GalleryError."""
    folder, manifest = files_of(gallery, files), backup.verify(file)
    gray = GrayRule.of(manifest.gray)
    with closing(open_gallery(gallery, manifest.dim, manifest.bundle_digest or None, gray=gray)) as opened:
        backup.restore(file, opened, folder, manifest, CONSOLE)
    return (
        f"{gallery}: {manifest.rows:,} rows, and {manifest.files:,} files in {folder}. People who were forgotten "
        "after the backup was made are back: forget them again"
    )


def stats(gallery: str, files: Path | None = None) -> Stats:
    """What an archive holds. Raises GalleryError and AuditError."""
    with closing(open_gallery(gallery)) as opened:
        return stats_of(opened, files_of(gallery, files))


def reindex(
    old: str,
    to: str | Path,
    new: str | None = None,
    *,
    files: Path | None = None,
    new_files: Path | None = None,
    backend: Backend = "auto",
    device: str = "auto",
    batch_size: int = 64,
    pose: str | None = None,
    method: str | None = None,
) -> tuple[str, Reindexed]:
    """Embed all rows of the gallery `old` with the model `to` into the gallery `new`, by default OLD-MODEL.

    Returns the new gallery and what its rows were made from. The old gallery stays as it is. Raises ArgumentError,
    GalleryError, BundleError and RunError.
    """
    bundle = bundle_of(to, method)
    check_pose(bundle, pose)
    if new is None:
        if old.startswith("milvus:"):
            raise ArgumentError("name the new gallery with --gallery; for one in Milvus none can be made up")
        new = f"{old.rstrip('/')}-{Path(to).name}"
    rows = open_gallery(old)
    with closing(Archive(rows, files_of(old, files))) as archive:
        if rows.info().bundle_digest == bundle.config.digest:
            raise GalleryError(f"{old} was made with {to} already; there is nothing to embed again")
        gray = rows.gray
        extractor = FeatureExtractor(bundle, backend, device, batch_size, pose).with_gray(gray)
        opened = open_gallery(new, bundle.config.dim, bundle.config.digest, gray=gray)
        done = reindex_archive(archive, opened, files_of(new, new_files), extractor, CONSOLE)
        archive.audit.write("reindexed", CONSOLE, "admin", to=new, rows=opened_rows(new))
    for line in done.refused[:5]:
        log.warning("left out: %s", line)
    return new, done


def opened_rows(gallery: str) -> int:
    """How many rows a gallery has."""
    with closing(open_gallery(gallery)) as opened:
        return opened.count()


def summary(new: str, done: Reindexed, folder: Path) -> str:
    """What a reindex did, in sentences."""
    text = f"{new}: {done.pictures} rows from their pictures, {len(done.thumbnails)} from thumbnails"
    if done.missing:
        text += f", {len(done.missing)} left out that have neither"
    if done.refused:
        text += f", {len(done.refused)} left out that cannot be read"
    return f"{text} ({folder / LIST} says which)"
