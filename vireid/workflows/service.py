"""`vireid index`, `serve`, `forget`, `token` and `audit`: from your own pictures to a page that searches them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import CALIBRATION
from vireid.deploy.calibration import Calibration
from vireid.deploy.extractor import FeatureExtractor, Modality
from vireid.deploy.model import bundle_of
from vireid.deploy.pose_input import to_do
from vireid.deploy.runtimes import Backend
from vireid.errors import ServiceError, SourceError
from vireid.ingest.index import Indexed, Rows, index, pieces_of
from vireid.ingest.segments import FOLDER as BOXES
from vireid.ingest.segments import VideoSettings
from vireid.ingest.sources import seconds
from vireid.search.archive import AUDIT, Archive, files_of
from vireid.search.audit import Audit
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.server.attention import Attention
from vireid.server.auth import LOCAL_NAMES, Role, Tokens, check_binding, is_loopback

if TYPE_CHECKING:
    from vireid.server.search_service import SearchService
    from vireid.server.settings import Example

log = logging.getLogger(__name__)
CONSOLE = "this machine's console"  # who, in the audit log, where a command and no request did it


def check_pose(bundle: Bundle, pose: str | None) -> None:
    """ServiceError at once, and not at the first picture, where the bundle also takes what is not given."""
    if bundle.config.inputs and pose is None:
        advice = to_do(bundle) or "such a bundle is used from Python (FeatureExtractor), with arrays by name"
        raise ServiceError(f"{bundle.config.method} also takes {', '.join(bundle.config.inputs)}; {advice}")


def index_pictures(
    target: Path,
    pictures: Path,
    gallery: str,
    *,
    files: Path | None = None,
    modality: Modality = "auto",
    file_time: bool = False,
    overwrite: bool = False,
    videos: VideoSettings | None = None,
    start: str = "",
    rows: Rows = "crops",
    backend: Backend = "torch",
    device: str = "auto",
    batch_size: int = 64,
    pose: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
) -> Indexed:
    """Index a folder, a CSV or a video into a gallery, which is made where it is not there; see ingest/index.py.

    `start` is the first moment of a single video, as in a CSV. With `workers` many processes do it, on the cluster at
    the address `ray` or here; see ingest/ray.py. Raises SourceError where no picture could be read, GalleryError,
    BundleError, BoxesError, DetectorError, ParallelError and RunError.
    """
    many = workers is not None or ray is not None
    pictures = pictures.resolve() if many else pictures  # other processes start elsewhere
    place = files_of(gallery, files)
    pieces = pieces_of(
        pictures, file_time=file_time, modality=modality, videos=videos, start_s=seconds(start, "--start"),
        store=place / BOXES,
    )  # fmt: skip
    first = next(pieces, None)  # before anything is made
    if first is None:
        raise SourceError(f"{pictures} lists no picture; give one line for each")
    bundle, all_pieces = bundle_of(target), chain([first], pieces)
    check_pose(bundle, pose)
    if many:
        from vireid.ingest.ray import Job, index_with_ray

        job = Job(bundle.path, gallery, place, backend, device, batch_size, pose, rows, overwrite)
        indexed = index_with_ray(job, all_pieces, workers=workers, address=ray)
        Audit(place / AUDIT).write("index", CONSOLE, "admin", added=indexed.added, present=indexed.present)
    else:
        extractor = FeatureExtractor(bundle, backend, device, batch_size, pose)
        opened = open_gallery(gallery, bundle.config.dim, bundle.config.digest)
        with closing(Archive(opened, place)) as archive:
            indexed = index(archive, extractor, all_pieces, rows=rows, overwrite=overwrite)
            archive.audit.write("index", CONSOLE, "admin", added=indexed.added, present=indexed.present)
    for head, lines in (("left out", indexed.refused), ("failed", indexed.failed)):
        for line in lines[:5]:
            log.warning("%s: %s", head, line)
        if len(lines) > 5:
            log.warning("%s: %d more", head, len(lines) - 5)
    return indexed


def open_service(
    target: Path,
    gallery: str,
    *,
    files: Path | None = None,
    host: str = "127.0.0.1",
    names: Sequence[str] = (),
    tokens: Path | None = None,
    keep_days: float | None = None,
    purpose: bool = False,
    secure: bool = False,
    refine: Path | None = None,
    pose: str | None = None,
    backend: Backend = "torch",
    device: str = "auto",
    examples: Sequence[Example] = (),
) -> SearchService:
    """All that `create_app` needs; raises AccessError where the service would be open to others without tokens."""
    from vireid.search.searcher import Searcher
    from vireid.server.search_service import SearchService, load_rerankers
    from vireid.server.settings import ServerSettings

    known = None if tokens is None else Tokens(tokens)
    check_binding(host, known)
    bundle = bundle_of(target)
    check_pose(bundle, pose)
    extractor = FeatureExtractor(bundle, backend, device, pose=pose)
    rerankers = load_rerankers(bundle, refine)
    place = files_of(gallery, files)
    opened = open_gallery(gallery, bundle_digest=bundle.config.digest)
    calibration = None
    if (bundle.path / CALIBRATION).is_file():
        calibration = Calibration.load(bundle.path, bundle.config.digest)
    else:
        log.warning(
            "not calibrated: results are ranked, but there is no match threshold; run `vireid calibrate %s`", target
        )
    hosts = tuple(names) or (LOCAL_NAMES if is_loopback(host) else ())
    settings = ServerSettings(
        tokens=known, hosts=hosts, retention_days=keep_days, purpose_required=purpose, https=secure, examples=examples
    )
    searcher, archive = Searcher(extractor, opened, calibration), Archive(opened, place)
    return SearchService(bundle, searcher, archive, calibration, Attention(bundle), rerankers, settings)


def run_service(
    service: SearchService,
    host: str,
    port: int,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve until stopped; the address is reported once it listens. ServiceError if it cannot."""
    from vireid.server.app import create_app
    from vireid.server.run import run_app

    tokens = service.settings.tokens
    check_binding(host, tokens)  # again: the service may have been made for another host
    scheme = "http" if certificate is None else "https"
    name = f"[{host}]" if ":" in host else host
    if not is_loopback(host) and certificate is None:
        log.warning(
            "without --certificate tokens are sent unencrypted; put a proxy with TLS in front, and let nothing but the "
            "proxy reach this port"
        )
    service.archive.audit.write("start", CONSOLE, "admin", host=host, port=port, tokens=tokens is not None)

    def report(listening_port: int) -> None:
        log.info("open %s://%s:%d  (Ctrl+C stops it)", scheme, name, listening_port)

    run_app(create_app(service), host, port, report, certificate, key)


def forget_rows(
    gallery: str,
    where: Filter,
    *,
    files: Path | None = None,
    older_than_days: float | None = None,
    confirm: Callable[[int], bool],
) -> str:
    """Delete rows for good, with thumbnails and marks: those that pass a filter, or those older than `older_than_days`.

    `confirm` gets the number of rows and says whether to delete them. Returns a sentence about what was deleted.
    """
    from vireid.server.retention import apply_retention

    if where.empty == (older_than_days is None):
        raise ServiceError(
            "name what to forget by --pid, --track, --camera, --before, or else by --older-than-days alone"
        )
    place = files_of(gallery, files)
    with closing(Archive(open_gallery(gallery), place)) as archive:
        if older_than_days is not None:
            _, summary = apply_retention(archive, older_than_days, CONSOLE)
            return summary
        rows = archive.gallery.count(where)
        if not rows or not confirm(rows):
            return f"nothing deleted; {rows} rows match"
        conditions = {name: value for name, value in vars(where).items() if value not in ((), None)}
        archive.audit.write("forget", CONSOLE, "admin", filter=conditions, rows=rows)
        gone = archive.forget(where=where)
        archive.audit.write("forgotten", CONSOLE, "admin", filter=conditions, **vars(gone))
        return f"deleted {gone.rows} rows, {gone.thumbnails} thumbnails and {gone.marks} marks for good"


def token(path: Path, name: str, role: Role | None, days: float | None, revoke: bool) -> str:
    """Make a token and return what to print, or take one out."""
    tokens = Tokens(path)
    if revoke:
        tokens.revoke(name)
        return f"{name} is taken out of {path}; it stopped working now"
    if role is None:
        raise ServiceError("say what the token may do: --role search, ingest or admin")
    return tokens.add(name, role, days)


def audit_of(gallery: str, files: Path | None, last: int) -> tuple[int, list[dict]]:
    """The number of lines of an archive's audit log, which is checked, and its last entries."""
    log = Audit(files_of(gallery, files) / AUDIT)
    return log.verify(), log.entries(last)
