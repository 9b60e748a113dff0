"""`vireid index`, `serve`, `forget`, `token` and `audit`: from your own pictures to a page that searches them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.declaration import configured
from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import bundle_of
from vireid.deploy.pose_input import check_pose
from vireid.errors import ArgumentError, AuditError, ServiceError, SourceError
from vireid.images import GrayRule
from vireid.ingest import nanodet
from vireid.ingest.detect import Detector, open_detector
from vireid.ingest.folder import SHOWN, LeftOut
from vireid.ingest.index import Indexed, index, pieces_of
from vireid.ingest.recordings import recordings_of
from vireid.ingest.segments import FOLDER as BOXES
from vireid.ingest.sources import Piece, thermal_ranges
from vireid.ingest.times import seconds
from vireid.search.archive import AUDIT, Archive, files_of
from vireid.search.audit import CONSOLE, Audit
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.server.auth import LOCAL_NAMES, Tokens, check_binding, is_loopback
from vireid.server.certificate import check_certificate
from vireid.system import printable, replacing
from vireid.wording import counted
from vireid.workflows.options import ForgetOptions, IndexOptions, ServeOptions, TokenOptions

if TYPE_CHECKING:
    from vireid.server.search_service import SearchService
    from vireid.server.settings import Example, ServerSettings

log = logging.getLogger(__name__)
Ranges = Mapping[str, tuple[float, float]]  # by camera
NO_DETECTOR = "none"
NAMES_LEFT_OUT = "left_out.txt"  # beside the thumbnails


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
    work = (bundle, gallery, place, pieces, options, ranges_of_all(sources))
    indexed = index_parallel(*work) if in_parallel else index_here(*work)
    indexed += Indexed(0, 0, left_out=left_out.total)
    _report(place, left_out, indexed)
    return indexed


def _report(place: Path, left_out: LeftOut, indexed: Indexed) -> None:
    """The first of what was left out in the log, and the names of all in a file where there are more."""
    shortened = any(len(names) > SHOWN for names in left_out.names.values())
    for head, lines in (("left out", indexed.refused), ("failed", indexed.failed)):
        for line in lines[:SHOWN]:
            log.warning("%s: %s", head, printable(line))
        if len(lines) > SHOWN:
            log.warning("%s: %d more", head, len(lines) - SHOWN)
            shortened = True
    path = place / NAMES_LEFT_OUT
    path.unlink(missing_ok=True)  # of an earlier run
    if shortened:
        named = [f"{name} ({reason})" for reason, names in left_out.names.items() for name in names]
        with replacing(path) as partial:
            partial.write_text("\n".join(map(printable, [*named, *indexed.refused, *indexed.failed])) + "\n", "utf-8")
        log.info("the names of all files left out are in %s", path)


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


def ranges_of_all(sources: Sequence[Path]) -> dict[str, tuple[float, float]]:
    """The range of gray values of each camera for which a list gives one; SourceError where two lists differ."""
    ranges: dict[str, tuple[float, float]] = {}
    for source in sources:
        for camera, ends in thermal_ranges(source).items():
            if (other := ranges.setdefault(camera, ends)) != ends:
                raise SourceError(
                    f"{source}: camera {camera!r} has the range {GrayRule(*ends)} here and {GrayRule(*other)} in "
                    "another list; a camera has one"
                )
    return ranges


def start_of(options: IndexOptions) -> float:
    """Unix seconds of `start`, nan where it is empty; ArgumentError for a text that is not a time."""
    try:
        return seconds(options.start, "--start")
    except SourceError as error:
        raise ArgumentError(str(error)) from None


def index_here(
    bundle: Bundle, gallery: str, place: Path, pieces: Iterable[Piece], options: IndexOptions, ranges: Ranges
) -> Indexed:
    """Index pieces in this process; `place` is the folder of thumbnails, `ranges` are those of cameras' gray values."""
    extractor = FeatureExtractor(bundle, options.backend, options.device, options.batch_size, options.pose)
    opened = open_gallery(gallery, model=bundle.config, gray=options.gray)
    with closing(Archive(opened, place)) as archive:
        archive.gray.add(ranges, archive.gallery)
        indexed = index(archive, extractor, pieces, rows=options.rows, overwrite=options.overwrite)
        archive.audit.write("index", CONSOLE, "admin", added=indexed.added, present=indexed.present)
    return indexed


def index_parallel(
    bundle: Bundle, gallery: str, place: Path, pieces: Iterable[Piece], options: IndexOptions, ranges: Ranges
) -> Indexed:
    """Index pieces with processes of Ray; see index_here."""
    from vireid.ingest.ray import Job, index_with_ray

    job = Job(
        bundle.path, gallery, place, options.backend, options.device, options.batch_size, options.pose, options.rows,
        options.overwrite, None if bundle.method is None else str(bundle.method), options.thermal_range,
    )  # fmt: skip
    if ranges:
        with closing(Archive(job.gallery_opened(), job.files)) as archive:
            archive.gray.add(ranges, archive.gallery)
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
    """open_services of one gallery."""
    [service] = open_services(target, [gallery], options, examples=examples, **words)
    return service


def open_services(
    target: str | Path,
    galleries: Sequence[str],
    options: ServeOptions | None = None,
    *,
    examples: Sequence[Example] = (),
    **words: Any,
) -> list[SearchService]:
    """All that `create_app` needs for galleries of one model; each is a url, or NAME=URL (named_gallery).

    `words` are the fields of ServeOptions, `examples` queries that the page offers. Of several galleries `files` is the
    folder of their folders of files. Raises AccessError where other machines could reach the service without tokens,
    ServiceError for a certificate that cannot be used or two galleries of one name, CalibrationError, DetectorError,
    GalleryError and SettingsError.
    """
    from vireid.search.searcher import Searcher
    from vireid.server.attention import Attention
    from vireid.server.calibration_file import CalibrationFile
    from vireid.server.search_service import SearchService, load_rerankers

    options = configured(ServeOptions, options, words)
    named = named_galleries(galleries)
    tokens = None if options.tokens is None else Tokens(options.tokens)
    check_binding(options.host, tokens)
    check_certificate(options.certificate, options.key)
    bundle = bundle_of(target, options.method)
    check_pose(bundle, options.pose)
    extractor = FeatureExtractor(bundle, options.backend, options.device, pose=options.pose)
    rerankers, attention = load_rerankers(bundle, options.refine), Attention(bundle)
    calibration_file = CalibrationFile(bundle.path, bundle.config.digest)
    if (calibration := calibration_file.current()) is None:
        log.warning(
            "not calibrated: results are ranked, but there is no match threshold; run `vireid calibrate %s`", target
        )
    settings = server_settings(options, tokens, examples)
    services = []
    for name, url in named:
        files = options.files if options.files is None or len(named) == 1 else options.files / name
        opened = open_gallery(url, bundle_digest=bundle.config.digest)
        searcher, archive = Searcher(extractor, opened, calibration), Archive(opened, files_of(url, files))
        services.append(
            SearchService(
                bundle, searcher, archive, calibration, attention, rerankers, settings, name, calibration_file
            )
        )
    return services


def server_settings(options: ServeOptions, tokens: Tokens | None, examples: Sequence[Example]) -> ServerSettings:
    """The settings that all galleries of a service share; DetectorError where its detector cannot be opened."""
    from vireid.server.detection import Detection
    from vireid.server.settings import ServerSettings

    detector = _detector(options)
    return ServerSettings(
        tokens=tokens, hosts=options.names or (LOCAL_NAMES if is_loopback(options.host) else ()),
        retention_days=options.keep_days, purpose_required=options.purpose,
        https=options.certificate is not None or options.behind_tls, examples=examples,
        detection=None if detector is None else Detection(detector),
    )  # fmt: skip


def _detector(options: ServeOptions) -> Detector | None:
    """The detector of uploaded pictures; by default nanodet where it runs here."""
    if options.detector is None:
        return open_detector() if nanodet.runs_here() else None
    return None if str(options.detector) == NO_DETECTOR else open_detector(options.detector, device=options.device)


def named_galleries(urls: Sequence[str]) -> list[tuple[str, str]]:
    """Name and url of each gallery of a service; ServiceError where two have one name."""
    named = [named_gallery(url) for url in urls]
    names = [name for name, _ in named]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ServiceError(f"several galleries are called {sorted(twice)[0]}; give one of them a name: NAME=PATH")
    return named


def named_gallery(text: str) -> tuple[str, str]:
    """Name and url of a gallery of a service; without a name it is that of the folder.

    >>> named_gallery("lance:data/night"), named_gallery("day=lance:data/night"), named_gallery("runs/a=b")
    (('night', 'lance:data/night'), ('day', 'lance:data/night'), ('a=b', 'runs/a=b'))
    """
    name, equals, url = text.partition("=")
    if equals and url and re.fullmatch(r"[\w.-]{1,80}", name):
        return name, url
    return re.split(r"[/\\:]", text.rstrip("/\\"))[-1], text


def run_service(services: Sequence[SearchService], options: ServeOptions | None = None, **words: Any) -> None:
    """Serve until stopped; the address is reported once it listens; `words` are the fields of ServeOptions.

    ServiceError if it cannot.
    """
    from vireid.server.access_log import access_log
    from vireid.server.app import create_app
    from vireid.server.run import run_app

    options = configured(ServeOptions, options, words)
    host, tokens = options.host, services[0].settings.tokens
    check_binding(host, tokens)  # again: the service may have been made for another host
    scheme = "http" if options.certificate is None else "https"
    name = f"[{host}]" if ":" in host else host
    if not is_loopback(host) and options.certificate is None and not options.behind_tls:
        log.warning(
            "without --certificate tokens are sent unencrypted; put a proxy with TLS in front, and let nothing but the "
            "proxy reach this port"
        )
    for service in services:
        service.archive.audit.write("start", CONSOLE, "admin", host=host, port=options.port, tokens=tokens is not None)

    def report(listening_port: int) -> None:
        log.info("open %s://%s:%d  (Ctrl+C stops it)", scheme, name, listening_port)

    with access_log(options.access_log) as logger:
        app = create_app(*services, access_log=logger)
        run_app(app, host, options.port, report, options.certificate, options.key, options.proxies)


def forget_rows(
    gallery: str,
    where: Filter,
    options: ForgetOptions | None = None,
    *,
    ids: Sequence[str] = (),
    confirm: Callable[[int], bool],
    **words: Any,
) -> str:
    """Delete rows for good, with thumbnails, marks and alarms: by ids, by a filter, or those of `older_than_days`.

    `words` are the fields of ForgetOptions. `confirm` gets the number of rows and says whether to delete them. Returns
    sentences about what was deleted, and about the recordings on this machine that still hold the people. Raises
    ArgumentError, GalleryError and SettingsError.
    """
    from vireid.server.retention import apply_retention

    options = configured(ForgetOptions, options, words)
    older_than_days = options.older_than_days
    if [bool(ids), not where.empty, older_than_days is not None].count(True) != 1:
        raise ArgumentError(
            "name what to forget by --id alone, by --pid, --track, --camera, --before, or by --older-than-days alone"
        )
    with closing(Archive(open_gallery(gallery), files_of(gallery, options.files))) as archive:
        if older_than_days is not None:
            _, summary = apply_retention(archive, older_than_days, CONSOLE)
            return summary
        named = archive.gallery.fetch(ids, missing="skip") if ids else list(archive.gallery.rows(where))
        rows = len(named)
        if not rows or not confirm(rows):
            return f"nothing deleted; {counted(rows, 'row')} matched"
        recordings = recordings_of(archive, named)
        conditions = {name: value for name, value in vars(where).items() if value not in ((), None)}
        what: dict[str, Any] = {"ids": list(ids)} if ids else {"filter": conditions}
        archive.audit.write("forget", CONSOLE, "admin", **what, rows=rows)
        gone = archive.forget(ids) if ids else archive.forget(where=where)
        archive.audit.write("forgotten", CONSOLE, "admin", **what, **vars(gone))
    lines = [f"permanently deleted {gone}"]
    if gone.cases_changed:
        lines.append(f"{counted(gone.cases_changed, 'other case')} lost rows or pictures of them")
    return "\n".join([*lines, *still_held(recordings, gone.cases_left)])


def still_held(recordings: Sequence[str], cases: Sequence[str]) -> list[str]:
    """Lines that name the files from which forgotten people would come again, and the cases with their pictures."""
    lines = list[str]()
    if recordings:
        number, show = counted(len(recordings), "file"), "shows" if len(recordings) == 1 else "show"
        lines += [f"still on this machine: {number} that {show} them; indexing these again brings the rows back:"]
        lines += recordings
    if cases:
        number = counted(len(cases), "case")
        lines += [f"still kept: {number} with pictures of them; delete these on the page if they must go:", *cases]
    return lines


def token(name: str, options: TokenOptions | None = None, **words: Any) -> str:
    """Make a token and return what to print, or take one out; `words` are the fields of TokenOptions.

    Raises AccessError, ArgumentError and SettingsError.
    """
    options = configured(TokenOptions, options, words)
    tokens = Tokens(options.file)
    if options.revoke:
        tokens.revoke(name)
        return f"revoked the token of {name} in {options.file}; it no longer works"
    if options.role is None:
        raise ArgumentError("say what the token may do: --role search, ingest, monitor or admin")
    return tokens.add(name, options.role, options.days, options.galleries)


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
