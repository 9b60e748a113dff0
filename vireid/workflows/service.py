"""`vireid index`, `serve`, `forget`, `token` and `audit`: from your own pictures to a page that searches them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.declaration import configured
from vireid.deploy.bundle import Bundle
from vireid.deploy.bundle_config import CALIBRATION
from vireid.deploy.calibration import Calibration
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import bundle_of
from vireid.deploy.pose_input import to_do
from vireid.errors import ArgumentError, AuditError, ServiceError, SourceError
from vireid.ingest.folder import LeftOut
from vireid.ingest.index import Indexed, index, pieces_of
from vireid.ingest.segments import FOLDER as BOXES
from vireid.ingest.sources import Piece
from vireid.ingest.times import seconds
from vireid.search.archive import AUDIT, Archive, files_of
from vireid.search.audit import Audit
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.server.attention import Attention
from vireid.server.auth import LOCAL_NAMES, Tokens, check_binding, is_loopback
from vireid.server.certificate import check_certificate
from vireid.system import printable
from vireid.workflows.options import ForgetOptions, IndexOptions, ServeOptions, TokenOptions

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
    target: str | Path,
    pictures: Path | Sequence[Path],
    gallery: str,
    options: IndexOptions | None = None,
    **words: Any,
) -> Indexed:
    """Index folders, CSVs or videos into a gallery, which is created if it does not exist; see ingest/index.py.

    `target` is a model by name, a run folder or a bundle.

    `words` are the fields of IndexOptions. With `workers` or `ray` several processes do it; see ingest/ray.py. Raises
    SourceError where no picture can be read, ArgumentError, GalleryError, BundleError, BoxesError, DetectorError,
    ParallelError, SettingsError and RunError.
    """
    options = configured(IndexOptions, options, words)
    in_parallel = options.workers is not None or options.ray is not None
    sources = different(pictures)
    sources = [source.resolve() for source in sources] if in_parallel else sources  # other processes start elsewhere
    names = [source.resolve().name for source in sources]
    if in_parallel and (twice := [name for name in names if names.count(name) > 1]):
        raise ArgumentError(
            f"{len(twice)} sources are called {twice[0]}, and several workers would not see each other's pictures; "
            "index them one after the other, or by their parent folder"
        )
    place, left_out = files_of(gallery, options.files), LeftOut()
    pieces = pieces_of_all(sources, options, place, left_out)
    for line in left_out.lines():
        log.warning("left out: %s", line)
    bundle = bundle_of(target, options.method)
    check_pose(bundle, options.pose)
    indexed = (index_parallel if in_parallel else index_here)(bundle, gallery, place, pieces, options)
    indexed += Indexed(0, 0, left_out=left_out.total)
    for head, lines in (("left out", indexed.refused), ("failed", indexed.failed)):
        for line in lines[:5]:
            log.warning("%s: %s", head, printable(line))
        if len(lines) > 5:
            log.warning("%s: %d more", head, len(lines) - 5)
    return indexed


def different(pictures: Path | Sequence[Path]) -> list[Path]:
    """The sources, each once, however it is spelled."""
    sources = [pictures] if isinstance(pictures, Path) else list(pictures)
    return list({source.resolve(): source for source in reversed(sources)}.values())[::-1]


def pieces_of_all(
    sources: Sequence[Path], options: IndexOptions, place: Path, left_out: LeftOut | None = None
) -> Iterator[Piece]:
    """The pieces of all sources, whose beginnings are read before anything is made; SourceError, ArgumentError."""
    opened = []
    for source in sources:
        pieces = pieces_of(
            source, file_time=options.file_time, modality=options.modality, videos=options.videos,
            start_s=start_of(options), store=place / BOXES, left_out=left_out,
        )  # fmt: skip
        first = next(pieces, None)
        if first is None:
            raise SourceError(f"{source} lists no picture; give one line for each")
        opened.append(chain([first], pieces))
    return chain.from_iterable(opened)


def start_of(options: IndexOptions) -> float:
    """Unix seconds of `start`, nan where it is empty; ArgumentError for a text that is not a time."""
    try:
        return seconds(options.start, "--start")
    except SourceError as error:
        raise ArgumentError(str(error)) from None


def index_here(bundle: Bundle, gallery: str, place: Path, pieces: Iterable[Piece], options: IndexOptions) -> Indexed:
    """Index pieces in this process; `place` is the folder of thumbnails, marks and the audit log."""
    extractor = FeatureExtractor(bundle, options.backend, options.device, options.batch_size, options.pose)
    opened = open_gallery(gallery, model=bundle.config, gray=options.gray)
    with closing(Archive(opened, place)) as archive:
        indexed = index(archive, extractor, pieces, rows=options.rows, overwrite=options.overwrite)
        archive.audit.write("index", CONSOLE, "admin", added=indexed.added, present=indexed.present)
    return indexed


def index_parallel(
    bundle: Bundle, gallery: str, place: Path, pieces: Iterable[Piece], options: IndexOptions
) -> Indexed:
    """Index pieces with processes of Ray."""
    from vireid.ingest.ray import Job, index_with_ray

    job = Job(
        bundle.path, gallery, place, options.backend, options.device, options.batch_size, options.pose, options.rows,
        options.overwrite, None if bundle.method is None else str(bundle.method), options.thermal_range,
    )  # fmt: skip
    indexed = index_with_ray(job, pieces, workers=options.workers, address=options.ray)
    Audit(place / AUDIT).write("index", CONSOLE, "admin", added=indexed.added, present=indexed.present)
    return indexed


def open_service(
    target: str | Path,
    gallery: str,
    options: ServeOptions | None = None,
    *,
    examples: Sequence[Example] = (),
    **words: Any,
) -> SearchService:
    """All that `create_app` needs; `words` are the fields of ServeOptions, `examples` queries that the page offers.

    Raises AccessError where other machines could reach the service without tokens, ServiceError for a certificate that
    cannot be used, and SettingsError.
    """
    from vireid.search.searcher import Searcher
    from vireid.server.search_service import SearchService, load_rerankers
    from vireid.server.settings import ServerSettings

    options = configured(ServeOptions, options, words)
    tokens = None if options.tokens is None else Tokens(options.tokens)
    check_binding(options.host, tokens)
    check_certificate(options.certificate, options.key)
    bundle = bundle_of(target, options.method)
    check_pose(bundle, options.pose)
    extractor = FeatureExtractor(bundle, options.backend, options.device, pose=options.pose)
    rerankers = load_rerankers(bundle, options.refine)
    opened = open_gallery(gallery, bundle_digest=bundle.config.digest)
    calibration = None
    if (bundle.path / CALIBRATION).is_file():
        calibration = Calibration.load(bundle.path, bundle.config.digest)
    else:
        log.warning(
            "not calibrated: results are ranked, but there is no match threshold; run `vireid calibrate %s`", target
        )
    settings = ServerSettings(
        tokens=tokens, hosts=options.names or (LOCAL_NAMES if is_loopback(options.host) else ()),
        retention_days=options.keep_days, purpose_required=options.purpose,
        https=options.certificate is not None or options.behind_tls, examples=examples,
    )  # fmt: skip
    searcher, archive = Searcher(extractor, opened, calibration), Archive(opened, files_of(gallery, options.files))
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
    options: ForgetOptions | None = None,
    *,
    confirm: Callable[[int], bool],
    **words: Any,
) -> str:
    """Delete rows for good, with thumbnails and marks: those that pass a filter, or those older than `older_than_days`.

    `words` are the fields of ForgetOptions. `confirm` gets the number of rows and says whether to delete them. Returns
    a sentence about what was deleted. Raises ArgumentError, GalleryError and SettingsError.
    """
    from vireid.server.retention import apply_retention

    options = configured(ForgetOptions, options, words)
    older_than_days = options.older_than_days
    if where.empty == (older_than_days is None):
        raise ArgumentError(
            "name what to forget by --pid, --track, --camera, --before, or else by --older-than-days alone"
        )
    with closing(Archive(open_gallery(gallery), files_of(gallery, options.files))) as archive:
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


def token(name: str, options: TokenOptions | None = None, **words: Any) -> str:
    """Make a token and return what to print, or take one out; `words` are the fields of TokenOptions.

    Raises AccessError, ArgumentError and SettingsError.
    """
    options = configured(TokenOptions, options, words)
    tokens = Tokens(options.file)
    if options.revoke:
        tokens.revoke(name)
        return f"{name} is taken out of {options.file}; it stopped working now"
    if options.role is None:
        raise ArgumentError("say what the token may do: --role search, ingest or admin")
    return tokens.add(name, options.role, options.days)


def audit_of(gallery: str, files: Path | None, last: int) -> tuple[int, list[dict]]:
    """The number of lines of an archive's audit log, which is checked, and its last entries.

    Raises AuditError where there is no log: a check of nothing would say that all is well.
    """
    log = Audit(files_of(gallery, files) / AUDIT)
    if not log.path.is_file():
        raise AuditError(
            f"there is no audit log {log.path}; check the name of the gallery, or say with --files where its files lie"
        )
    return log.verify(), log.entries(last)
