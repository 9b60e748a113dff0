"""Scale: index with many processes, on this machine or on a cluster of Ray. Needs the extra `scale`.

    pieces  ->  Ray Data, one piece a task  ->  a pool of actors  ->  one gallery
                                                each with a FeatureExtractor and the archive, open

Each actor calls `index_piece`, as one process does, and rows that are there are left alone. So the gallery is the
checkpoint: after a kill the same call resumes, and a piece that is there whole costs one look-up. (Ray Data's own
CheckpointConfig is not used: it keeps a second list of what is done, which a deletion, `overwrite` or a run without Ray
would make wrong.)

Unreadable images are reported and skipped. An exception ends its piece alone. An actor that dies is started
again and works its piece again, at most TRIES times. What is tried here and what is not: docs/serve/scale.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.errors import ParallelError
from vireid.images import GrayRule
from vireid.ingest.index import Indexed, index_piece
from vireid.ingest.sources import Piece
from vireid.ingest.video_settings import Rows
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery, split_url
from vireid.search.gallery import Gallery
from vireid.system import available_cores
from vireid.types import Backend

log = logging.getLogger(__name__)
TRIES = 3  # of a piece whose process dies: of a damaged file, or because memory is short
STORE_BYTES = 128 << 20  # of Ray's object store on this machine; only names and counts pass through it
SPARE = 1  # CPUs that no actor takes: Ray Data waits for good where its own tasks find none
TOKEN = secrets.token_hex(32)  # of sessions that this process begins; Ray reads it once
MAX_LINES = 1000  # about pictures that cannot be read, of one piece; the rest is counted


@dataclass(frozen=True)
class Job:
    """What every actor opens for itself; paths must mean the same on every machine."""

    bundle: Path
    gallery: str
    files: Path
    backend: Backend = "auto"
    device: str = "auto"
    batch_size: int = 64
    pose: str | None = None
    rows: Rows = "crops"
    overwrite: bool = False
    method: str | None = None  # the file of a network of your own
    thermal_range: tuple[float, float] | None = None  # of a gallery that is made; None takes that of the gallery

    def __post_init__(self) -> None:
        object.__setattr__(self, "bundle", self.bundle.resolve())
        object.__setattr__(self, "gallery", _for_many(self.gallery))
        object.__setattr__(self, "files", self.files.resolve())
        if self.method is not None:
            object.__setattr__(self, "method", str(Path(self.method).expanduser().resolve()))
        kind, colon, place = (self.pose or "").partition(":")
        if colon:
            object.__setattr__(self, "pose", f"{kind}:{Path(place).expanduser().resolve()}")
        if self.device.startswith("cuda:"):
            raise ParallelError(f"Ray gives each worker its own GPU; say --device cuda or auto, not {self.device}")

    def gallery_opened(self) -> Gallery:
        """The gallery, made where it is not there; raises GalleryError where it is another bundle's."""
        config = Bundle.open(self.bundle).config
        gray = None if self.thermal_range is None else GrayRule(*self.thermal_range)
        return open_gallery(self.gallery, model=config, gray=gray)


def index_with_ray(
    job: Job,
    pieces: Iterable[Piece],
    *,
    workers: int | None = None,
    address: str | None = None,
) -> Indexed:
    """Add pieces to the archive of a job, made where it is not there, by `workers` actors, one for each CPU by default.

    `address` is that of a cluster, "auto" for the one that this machine belongs to, or "HOST:PORT"; None starts Ray on
    this machine and ends it again. A session of Ray that this process has begun is used as it is. Pieces that failed
    are in `Indexed.failed`, and all others are done. Raises ParallelError and GalleryError.
    """
    if workers is not None and workers < 1:
        raise ParallelError(f"--workers is 1 or more, got {workers}")
    if address is not None and address.startswith("ray://"):  # Ray 2.60: 'Worker' has no attribute 'core_worker'
        raise ParallelError(
            f"Ray Data does not work through {address}; run this on a machine of the cluster, --ray auto"
        )
    listed = list(pieces)
    left = {piece.name for piece in listed}
    indexed, done = Indexed(0, 0), 0
    with (
        _session(address, workers or available_cores()),
        closing(job.gallery_opened()) as gallery,
    ):  # Ray forks, so it is first
        for row in _worked(job, listed, workers) if listed else ():
            left.discard(row["name"])
            failed = (f"{row['name']}: {row['error']}",) if row["error"] else ()
            indexed += Indexed(row["added"], row["present"], tuple(row["refused"]), failed, row["beside"])
            done += 1
            counts = indexed.added, indexed.present, done, len(listed)
            log.info("indexed %d pictures; %d were in the gallery; %d of %d pieces", *counts)
        gallery.optimize()
    lost = tuple(f"{name}: Ray gave up; see its output" for name in sorted(left))
    return indexed + Indexed(0, 0, (), lost)


class Worker:
    """An actor: works one piece after the other and returns a row of counts for each."""

    def __init__(self, job: Job, tries: Any) -> None:
        self._job, self._tries = job, tries

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        piece: Piece = row["piece"]
        try:
            if _ray().get(self._tries.begin.remote(piece.name)) > TRIES:
                raise ParallelError(f"its process died {TRIES} times; a damaged file, or too little memory?")
            archive, extractor = self._opened
            indexed = index_piece(archive, extractor, piece, rows=self._job.rows, overwrite=self._job.overwrite)
        except Exception as error:  # ends this piece, and no other
            return _row(piece.name, Indexed(0, 0), f"{type(error).__name__}: {error}")
        return _row(piece.name, indexed)

    @cached_property
    def _opened(self) -> tuple[Archive, FeatureExtractor]:
        """Opened with the first piece, so that what is missing on this machine is reported like any other fault."""
        job = self._job
        bundle = Bundle.open(job.bundle, job.method)
        extractor = FeatureExtractor(bundle, job.backend, job.device, job.batch_size, job.pose)
        return Archive(job.gallery_opened(), job.files), extractor


class Tries:
    """An actor that outlives the others and counts how often each piece was begun."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        self._begun[name] += 1
        return self._begun[name]


def _row(name: str, indexed: Indexed, error: str = "") -> dict[str, Any]:
    refused = list(indexed.refused[:MAX_LINES])
    if more := len(indexed.refused) - len(refused):
        refused.append(f"{more} more pictures of {name}")
    return {
        "name": name,
        "added": indexed.added,
        "present": indexed.present,
        "beside": indexed.beside,
        "refused": refused,
        "error": error,
    }


def _worked(job: Job, pieces: list[Piece], workers: int | None) -> Iterator[dict[str, Any]]:
    """The rows of all pieces, in the order in which they are done."""
    ray = _ray()
    cpus, gpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("CPU", "GPU"))
    max_workers = max(1, cpus - SPARE)
    if (count := workers or max_workers) > max_workers:
        raise ParallelError(f"this cluster has {cpus} CPUs, and Ray Data needs one; --workers is at most {max_workers}")
    count = min(count, len(pieces))
    needs: dict[str, float] = {"num_cpus": 1}
    if gpus and job.device != "cpu":
        needs = {"num_gpus": 1 / -(-count // gpus)}  # whole shares of one GPU, or an actor would wait for good
    tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
    # One block is one task; one task at a time, or an actor that dies would take another piece's try with it.
    items = ray.data.from_items([{"piece": piece} for piece in pieces], override_num_blocks=len(pieces))
    pool = ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1)
    yield from items.map(Worker, fn_constructor_args=(job, tries), compute=pool, **needs).iter_rows()


@contextlib.contextmanager
def _session(address: str | None, workers: int) -> Iterator[None]:
    """Ray, begun and ended here unless the caller has begun it: no dashboard, no statistics sent, no progress bars.

    Ray listens on all of a machine's addresses and runs what it is sent by who knows its token. On this machine that is
    TOKEN; Ray itself would keep one in the home folder, where other users may read it.
    """
    ray = _ray()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.")  # of itself
        if not ray.is_initialized():
            stack.enter_context(_environment(RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal"))
            quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
            if address is None:
                stack.enter_context(_environment(RAY_AUTH_TOKEN=TOKEN))
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vr-", ignore_cleanup_errors=True))
                inner = os.path.join(folder, "r")  # Ray opens it to every user; the one around it is ours
                local = {"num_cpus": workers + SPARE, "object_store_memory": STORE_BYTES, "include_dashboard": False}
                stack.callback(ray.shutdown)
                ray.init("local", **local, _temp_dir=inner, **quiet)
            else:
                stack.callback(ray.shutdown)
                try:
                    ray.init(address, **quiet)
                except (ConnectionError, RuntimeError, ValueError) as error:
                    raise ParallelError(
                        f"no Ray cluster answers at {address} ({error}); check that it runs, and set "
                        "RAY_AUTH_MODE=token if it asks for a token"
                    ) from error
        settings = ray.data.DataContext.get_current()
        before = settings.enable_progress_bars, settings.max_errored_blocks
        settings.enable_progress_bars, settings.max_errored_blocks = False, -1  # a task that Ray gives up ends no other
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            settings.enable_progress_bars, settings.max_errored_blocks = before


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """These variables, for a while; RAY_BACKEND_LOG_LEVEL and the like stay where the user has set them."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _for_many(url: str) -> str:
    """A gallery that several processes can write, with an absolute path."""
    driver, place = split_url(url)
    if driver == "memory":
        raise ParallelError(
            "memory: is gone with its process; index with several workers into lance:PATH or milvus:http"
        )
    if driver == "milvus" and "://" not in place:
        raise ParallelError(f"one process at a time can open {url}; start a Milvus server, or leave --workers out")
    return url if driver == "milvus" else f"lance:{Path(place).resolve()}"


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ParallelError("several workers need Ray, which is not installed: pip install 'vireid[scale]'") from error
    return ray  # as Any: its types name no callable classes
