"""`vireid watch`: live cameras into a gallery, with a watch-list if one is given."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vireid.declaration import configured
from vireid.deploy.bundle_config import CALIBRATION
from vireid.deploy.calibration import Calibration
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import bundle_of
from vireid.deploy.pose_input import check_pose
from vireid.errors import WatchError
from vireid.ingest.detect import Detector, open_detector
from vireid.live.alarms import WHO, Alarms
from vireid.live.channels import Send, mqtt, webhook
from vireid.live.people import People, check_tracker
from vireid.live.reader import Arrivals, Reader
from vireid.live.settings import Cameras, read_cameras
from vireid.live.shots import Link
from vireid.live.store import NAME, WatchStore
from vireid.live.watch import Watch, Watched
from vireid.live.watchlist import WatchList, read_watchlist
from vireid.search.archive import Archive, files_of
from vireid.search.drivers.open import open_gallery
from vireid.workflows.options import WatchOptions

log = logging.getLogger(__name__)
LOCK = ".watch.lock"


def watch_cameras(
    cameras: Path,
    gallery: str,
    model: str | Path,
    options: WatchOptions | None = None,
    *,
    show: Callable[[dict[str, Any]], None] = lambda status: None,
    detector: Detector | None = None,
    stop: threading.Event | None = None,
    **words: Any,
) -> dict[str, Any]:
    """Watch the cameras of a YAML file until `stop` is set, or the process gets SIGTERM or SIGINT; the last status.

    `show` gets the status as it runs; `detector` takes the place of the settings' one; `words` are the fields of
    WatchOptions. Raises SettingsError, WatchError, GalleryError, BundleError, CalibrationError, DetectorError.
    """
    options = configured(WatchOptions, options, words)
    settings = read_cameras(cameras)
    bundle = bundle_of(model, options.method)
    check_pose(bundle, options.pose)
    for camera in settings.by_name.values():
        check_tracker(camera)
    detector = detector or _detector(settings, options)
    extractor = FeatureExtractor(bundle, options.backend, options.device, options.batch_size, options.pose)
    with ExitStack() as stack:
        rows = open_gallery(gallery, model=bundle.config)
        archive = stack.enter_context(closing(Archive(rows, files_of(gallery, options.files))))
        stack.enter_context(_alone(archive.folder / LOCK))
        store = stack.enter_context(closing(WatchStore(archive.folder / NAME)))
        watch = _assembled(settings, archive, extractor.with_gray(rows.gray), store, detector)
        if options.watchlist is not None:
            calibration = Calibration.load(bundle.path / CALIBRATION, bundle.config.digest)
            _with_watchlist(watch, options.watchlist, calibration)
        if stop is not None:
            watch.stop = stop
        stack.enter_context(_stopped_by_signals(watch.stop))
        watch.run(options.seconds or math.inf, options.status_s, show)
        status = watch.status()
        added = {name: one["rows"] for name, one in status["cameras"].items()}
        archive.audit.write("watch", WHO, "admin", rows=added)
    return status


def _detector(settings: Cameras, options: WatchOptions) -> Detector | None:
    if all(camera.whole or camera.boxes is not None for camera in settings.by_name.values()):
        return None
    return open_detector(settings.detector, settings.min_score, settings.label, options.device, settings.folder)


def _assembled(
    settings: Cameras, archive: Archive, extractor: FeatureExtractor, store: WatchStore, detector: Detector | None
) -> Watch:
    arrivals, watched = Arrivals(), dict[str, Watched]()
    for name, camera in settings.by_name.items():
        link = Link(name, camera, store.progress(name, camera.shown), gray=archive.gray.of(name))
        watched[name] = Watched(Reader(link, arrivals), People(name, camera, detector))
    return Watch(archive, extractor, store, arrivals, watched)


def _with_watchlist(watch: Watch, path: Path, calibration: Calibration) -> None:
    """Let a watch look for the people of a list; who and why is written to the audit log."""
    listed = read_watchlist(path)
    watch.watchlist = WatchList.open(listed, watch.extractor, watch.archive.gallery, calibration, tuple(watch.cameras))
    channels: dict[str, Send] = {}
    if listed.webhook is not None:
        channels["webhook"] = webhook(listed.webhook)
    if listed.mqtt is not None:
        channels["mqtt"] = mqtt(listed.mqtt)
    watch.alarms = Alarms(watch.store, watch.archive.audit, channels)
    for one in watch.watchlist.wanted:
        if one.until_s <= time.time():
            log.warning("%s: %s is no longer looked for: `until` was %s", path, one.name, one.person.until)
        watch.archive.audit.write(
            "watch-list", WHO, "admin", person=one.name, purpose=one.person.purpose, until=one.person.until,
            pictures=one.pictures, false_alarms_per_day=one.person.false_alarms_per_day,
        )  # fmt: skip


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """WatchError where another process watches into this archive."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WatchError(
            f"another `vireid watch` writes into this archive (it holds {path}); put its cameras into one file, or "
            "stop it first"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT end the watch in order: what was taken is written first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
