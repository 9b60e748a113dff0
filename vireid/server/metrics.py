"""Metrics for Prometheus: what the service counts, and what its galleries and `vireid watch` hold when it is read."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ValidationError

from vireid.errors import VireidError
from vireid.live.watch import STATUS
from vireid.server.responses import SearchResponse
from vireid.server.search_service import SearchService

log = logging.getLogger(__name__)
SEARCH_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_BUCKETS_S = (0.005, *SEARCH_BUCKETS_S, 30, 60)
CAMERA_COUNTERS = {  # of the status of `vireid watch`
    "frames": "Frames that were read",
    "dropped": "Frames that were dropped because the queue was full",
    "repeated": "Frames that were equal to the one before, as of a frozen stream",
    "refused": "Frames that could not be read",
    "detections": "People that were detected",
    "rows": "Rows that were written",
    "reconnects": "Times that the camera was connected again",
}
CAMERA_GAUGES = {"queued": "Frames that wait", "lag_s": "Seconds from the last frame until its rows were written"}


class CameraStatus(BaseModel):
    """A camera in the status of `vireid watch`."""

    state: str
    frames: int
    dropped: int
    repeated: int
    refused: int
    detections: int
    rows: int
    reconnects: int
    queued: int
    lag_s: float | None


class AlarmStatus(BaseModel):
    """The alarms in the status of `vireid watch`."""

    raised: int
    not_acknowledged: int


class WatchStatus(BaseModel):
    """What is read of the status of `vireid watch`."""

    at: datetime
    cameras: dict[str, CameraStatus]
    alarms: AlarmStatus | None = None


class Metrics:
    """The metrics of one application; `requests_in_pool` says how many requests compute or wait."""

    def __init__(self, galleries: Mapping[str, SearchService], pool: Any) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "vireid_requests", "Requests by operation", ["operation", "method", "status"], registry=self.registry
        )
        self.request_s = Histogram(
            "vireid_request_duration_seconds", "From the first byte of a request to the last of its answer",
            ["operation"], buckets=REQUEST_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.searches = Counter(
            "vireid_searches", "Searches: with matches, with nobody, or ranked without a threshold",
            ["gallery", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.search_s = Histogram(
            "vireid_search_duration_seconds", "Embedding and searching, without waiting for a place",
            ["gallery"], buckets=SEARCH_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.errors = Counter("vireid_errors", "Errors by kind", ["kind"], registry=self.registry)
        self.registry.register(Contents(galleries, pool))

    def searched(self, gallery: str, answer: SearchResponse) -> None:
        """Count a search."""
        outcome = {None: "ranked", True: "nobody", False: "matches"}[answer.nobody]
        self.searches.labels(gallery, outcome).inc()
        self.search_s.labels(gallery).observe(answer.took_s)

    def requested(self, operation: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(operation, method, status).inc()
        self.request_s.labels(operation).observe(seconds)


class Contents(Collector):
    """What is looked up at each reading: rows, the queue, and the status that `vireid watch` writes."""

    def __init__(self, galleries: Mapping[str, SearchService], pool: Any) -> None:
        self.galleries, self.pool = galleries, pool

    def describe(self) -> list[Metric]:
        """Nothing: else registering would read every gallery."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("vireid_computing_requests", "Requests that compute or wait", self.pool.requests)
        capacity = self.pool.max_computing + self.pool.max_waiting
        yield GaugeMetricFamily("vireid_computing_capacity", "From here on requests get 503", capacity)
        rows = GaugeMetricFamily("vireid_gallery_rows", "Rows of the gallery", labels=["gallery"])
        readable = GaugeMetricFamily("vireid_gallery_readable", "Whether the gallery can be read", labels=["gallery"])
        for name, service in self.galleries.items():
            try:
                rows.add_metric([name], service.archive.gallery.count())
                readable.add_metric([name], 1)
            except VireidError as error:
                log.error("the gallery %s cannot be read: %s", name, error)
                readable.add_metric([name], 0)
        yield rows
        yield readable
        yield from self.watched()

    def watched(self) -> Iterator[Metric]:
        """Of galleries that `vireid watch` writes into; its counters begin with 0 when it starts."""
        statuses = {name: status for name, one in self.galleries.items() if (status := watch_status(one))}
        at = GaugeMetricFamily("vireid_watch_status_seconds", "Unix time of the last status", labels=["gallery"])
        reading = GaugeMetricFamily("vireid_watch_camera_reading", "Whether frames come", labels=["gallery", "camera"])
        raised = CounterMetricFamily("vireid_watch_alarms", "Alarms that were raised", labels=["gallery"])
        waiting = GaugeMetricFamily(
            "vireid_watch_alarms_waiting", "Deliveries that are not acknowledged", labels=["gallery"]
        )
        cameras: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            name: CounterMetricFamily(f"vireid_watch_{name}", text, labels=["gallery", "camera"])
            for name, text in CAMERA_COUNTERS.items()
        }
        for name, text in CAMERA_GAUGES.items():
            metric = f"vireid_watch_{name.removesuffix('_s')}" + ("_seconds" if name.endswith("_s") else "")
            cameras[name] = GaugeMetricFamily(metric, text, labels=["gallery", "camera"])
        for gallery, status in statuses.items():
            at.add_metric([gallery], status.at.timestamp())
            if status.alarms is not None:
                raised.add_metric([gallery], status.alarms.raised)
                waiting.add_metric([gallery], status.alarms.not_acknowledged)
            for camera, counted in status.cameras.items():
                reading.add_metric([gallery, camera], counted.state == "reading")
                for name, family in cameras.items():
                    value = getattr(counted, name)
                    family.add_metric([gallery, camera], math.nan if value is None else value)
        if statuses:
            yield from (at, reading, raised, waiting, *cameras.values())


def watch_status(service: SearchService) -> WatchStatus | None:
    """The last status of `vireid watch`; None where it never ran, or where the file is something else."""
    path = service.archive.folder / STATUS
    try:
        return WatchStatus.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        log.warning("%s cannot be read; its figures are left out of the metrics", path)
        return None
