"""Watch-list: people whose passage raises an alarm, each for a purpose, until a date, at a known rate of false alarms.

    rows_per_day: 20000                # that the cameras add; more are counted when there are more
    persons:
      missing-118:
        purpose: missing person, case 2026/118
        until: 2026-12-01T00:00:00+01:00
        pictures: [anna.jpg]           # and `rows`, ids of the gallery
        false_alarms_per_day: 1
    webhook: {url: https://desk.example/alarms, secret: "${ALARM_SECRET}"}

**The threshold** follows from the budget. The pictures of a person are averaged, as a search does, those of each
modality by themselves: n vectors, one or two. In a day each is compared with each of the R new rows of the cameras. At
a false-match rate p of one comparison (calibration.py) these give p n R false alarms or fewer:

    p = budget / (n R)

and the threshold is the calibration's at p for the modalities of picture and row. The rows of one passage are alike and
raise one alarm together, so there are fewer in truth. It holds for people like those of the calibration. Where enough
passages are recorded, these say how many alarms would come, and the threshold falls to what they allow (recorded.py).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field

from vireid.declaration import Count, Integer, NonNegative, Positive, settings
from vireid.deploy.calibration import NEEDED, Calibration, pair_name
from vireid.errors import SettingsError, SourceError, VireidError
from vireid.ingest.times import seconds
from vireid.live.recorded import RECORDED_S, recorded_limit
from vireid.live.settings import Address, checked
from vireid.search.gallery import Filter, Gallery, Record
from vireid.search.searcher import mean_vector
from vireid.training.key_values import Located, read_yaml
from vireid.types import MODALITIES

Text = Annotated[str, Field(min_length=1)]
MIN_SECRET = 16  # characters of a webhook's


@settings
class Person:
    """A person who is looked for."""

    purpose: Text
    """Why; it stands in each alarm and in the audit log."""
    until: Text
    """When it ends: 2026-12-01T00:00:00+01:00."""
    false_alarms_per_day: Positive
    """The budget, from which the threshold follows."""
    pictures: tuple[Path, ...] = ()
    """Pictures of the person, one person in each."""
    rows: tuple[str, ...] = ()
    """Rows of the gallery that show the person, by id."""
    cameras: tuple[str, ...] = ()
    """Only at these cameras; at all by default."""

    @property
    def until_s(self) -> float:
        """Unix seconds; SourceError for a text that is not a time."""
        return seconds(self.until, "until")


@settings
class Webhook:
    """An address that events are sent to, as JSON with a signature."""

    url: Annotated[Address, Field(min_length=1)]
    """Where it listens, http:// or https://."""
    secret: Annotated[str, Field(min_length=MIN_SECRET)]
    """Key of the signature (HMAC-SHA256)."""
    timeout_s: Positive = 10.0
    """Seconds in which it has to answer with a status of 2xx."""


@settings
class Mqtt:
    """A broker of MQTT that events are published to, at quality of service 1."""

    host: Text
    """Name or address of the broker."""
    topic: Text = "vireid/alarms"
    """Topic of the events."""
    port: Annotated[Integer, Field(ge=1, le=65535)] = 1883
    """Its port; 8883 with tls."""
    user: str = ""
    """Name to log in with."""
    password: str = ""
    """Password to log in with."""
    tls: bool = False
    """Encrypt, and check the broker's certificate."""
    timeout_s: Positive = 10.0
    """Seconds in which it has to acknowledge."""


@settings
class WatchListSettings:
    """Who is looked for, and who learns of it."""

    persons: Mapping[str, Any]
    """People by name, each with the fields of a person."""
    rows_per_day: Count = 10_000
    """Rows that the cameras are expected to add in a day; where they add more, these are counted."""
    quiet_s: NonNegative = 60.0
    """Seconds around an alarm in which the same person at the same camera raises no other."""
    webhook: Mapping[str, Any] | None = None
    """An address that events are sent to."""
    mqtt: Mapping[str, Any] | None = None
    """A broker that events are published to."""


class Embedder(Protocol):
    """What a watch-list needs of FeatureExtractor."""

    def batches(self, pictures: Any, modality: Any = "auto") -> Iterable[tuple[np.ndarray, np.ndarray]]: ...


@dataclass(frozen=True)
class Wanted:
    """A person with a mean vector for each modality of the pictures, (n, D), and these modalities (n,)."""

    name: str
    person: Person
    until_s: float
    vectors: np.ndarray
    modalities: np.ndarray
    pictures: int  # that show the person, rows included


@dataclass(frozen=True)
class Listed:
    """What a file of a watch-list holds."""

    path: Path
    persons: dict[str, Person]
    rows_per_day: int
    quiet_s: float
    webhook: Webhook | None
    mqtt: Mqtt | None


def read_watchlist(path: Path) -> Listed:
    """The watch-list in a YAML file; SettingsError names every fault with its line."""
    faults: list[str] = []
    top = checked(WatchListSettings, read_yaml(path, Located), "", path, faults)
    if top is None:
        raise SettingsError(faults)
    persons: dict[str, Person] = {}
    for name, given in top.persons.items():
        if person := checked(Person, given, f"persons.{name}", path, faults):
            persons[name] = replace(person, pictures=tuple(path.parent / picture for picture in person.pictures))
            faults += [f"{path}: `persons.{name}`: {fault}" for fault in _conflicts(person)]
    webhook = None if top.webhook is None else checked(Webhook, top.webhook, "webhook", path, faults)
    mqtt = None if top.mqtt is None else checked(Mqtt, top.mqtt, "mqtt", path, faults)
    if webhook is not None and urlsplit(webhook.url).scheme not in ("http", "https"):
        faults.append(f"{path}: `webhook.url` begins with http:// or https://, got {webhook.url}")
    if not top.persons:
        faults.append(f"{path}: `persons` is empty; leave the watch-list out where nobody is looked for")
    if faults:
        raise SettingsError(faults)
    return Listed(path, persons, top.rows_per_day, top.quiet_s, webhook, mqtt)


def _conflicts(person: Person) -> list[str]:
    faults = []
    try:
        _ = person.until_s
    except SourceError as error:
        faults.append(str(error))
    if not person.pictures and not person.rows:
        faults.append("give `pictures`, or `rows` of the gallery, that show the person")
    return faults


@dataclass
class WatchList:
    """Compares new rows with the people of a list; `recorded` has the limits from recordings by person (log-odds)."""

    listed: Listed
    wanted: tuple[Wanted, ...]
    calibration: Calibration
    rows_per_day: float
    recorded: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        listed: Listed,
        extractor: Embedder,
        gallery: Gallery,
        calibration: Calibration,
        cameras: tuple[str, ...] = (),
    ) -> WatchList:
        """Embed the pictures and find the rows; VireidError where a picture, a row or the calibration is missing.

        `cameras` are those that are watched, all of the gallery by default.
        """
        wanted = []
        for name, person in listed.persons.items():
            try:
                wanted.append(_embedded(name, person, extractor, gallery))
            except VireidError as error:
                raise SettingsError([f"{listed.path}: `persons.{name}`: {error}"]) from error
        opened = cls(listed, tuple(wanted), calibration, listed.rows_per_day)
        opened.follow(gallery, cameras)
        if faults := [fault for one in wanted for fault in opened.unsupported(one)]:
            raise SettingsError([f"{listed.path}: {fault}" for fault in faults])
        return opened

    def rate(self, one: Wanted) -> float:
        """The false-match rate of one comparison that keeps the budget of a person."""
        return one.person.false_alarms_per_day / (len(one.vectors) * self.rows_per_day)

    def follow(self, gallery: Gallery, cameras: tuple[str, ...], now: float | None = None) -> None:
        """Take the limits from what is recorded by now, where that is enough."""
        self.recorded = {}
        after_s = (time.time() if now is None else now) - RECORDED_S
        for one in self.wanted:
            where = Filter(one.person.cameras or cameras, after_s, without_ids=one.person.rows)
            alarms_a_row = one.person.false_alarms_per_day / self.rows_per_day
            limit = recorded_limit(one.vectors, one.modalities, gallery, where, self.calibration, alarms_a_row)
            if limit is not None:
                self.recorded[one.name] = limit

    def unsupported(self, one: Wanted) -> list[str]:
        """Why neither the calibration nor the recordings can keep the budget of a person, if so."""
        if one.name in self.recorded:
            return []
        faults = []
        both = " and pictures of both modalities" if len(one.vectors) > 1 else ""
        for kind in sorted(set(one.modalities.tolist())):
            for other in range(len(MODALITIES)):
                rate, finest = self.rate(one), NEEDED / self.calibration.pair((kind, other)).other_pairs
                if rate < finest * (1 - 1e-9):
                    lowest = finest * len(one.vectors) * self.rows_per_day
                    faults.append(
                        f"`persons.{one.name}`: {one.person.false_alarms_per_day:g} false alarms a day among "
                        f"{self.rows_per_day:,.0f} rows a day{both} is a false-match rate of {rate:.1g}; the "
                        f"calibration of {pair_name((kind, other))} goes down to {finest:.1g}: give "
                        f"{math.ceil(lowest * 10) / 10:g} or more, or calibrate on more people"
                    )
        return faults

    def threshold(self, one: Wanted, pair: tuple[int, int]) -> float:
        """The similarity from which pictures and a row of these modalities raise an alarm.

        Where there are more rows than the calibration supports, it is the highest that it does. Recordings only lower
        it: somebody who passes often would else raise it until no passage of hers is found.
        """
        measured = self.calibration.pair(pair)
        calibrated = self.calibration.threshold(min(max(self.rate(one), NEEDED / measured.other_pairs), 0.5), pair)
        if one.name not in self.recorded:
            return calibrated
        return min(calibrated, (self.recorded[one.name] - measured.offset) / measured.slope)

    def over_budget(self) -> list[str]:
        """People whose budget cannot be kept, for there are more rows than calibration and recordings support."""
        return [one.name for one in self.wanted if self.unsupported(one)]

    def active(self, now: float) -> list[Wanted]:
        """The people whose time has not ended."""
        return [one for one in self.wanted if now < one.until_s]

    def events(self, rows: Sequence[Record], now: float | None = None) -> list[dict[str, Any]]:
        """An event for each person and row that match, in order of the rows; the more similar modality counts."""
        now = time.time() if now is None else now
        if not rows:
            return []
        events = []
        vectors = np.stack([row.vector for row in rows]).astype(np.float64)
        for one in self.active(now):
            similarities = vectors @ one.vectors.astype(np.float64).T
            for row, line in zip(rows, similarities, strict=True):
                if row.id in one.person.rows or (one.person.cameras and row.camera not in one.person.cameras):
                    continue
                limits = [self.threshold(one, (int(kind), row.modality)) for kind in one.modalities]
                best = int(np.argmax(line - np.array(limits)))
                if line[best] >= limits[best]:
                    events.append(self._event(one, row, float(line[best]), limits[best]))
        return events

    def _event(self, one: Wanted, row: Record, similarity: float, threshold: float) -> dict[str, Any]:
        from datetime import UTC, datetime

        at = datetime.fromtimestamp(row.time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "id": hashlib.sha256(f"{one.name}\0{row.id}".encode()).hexdigest()[:32],
            "kind": "alarm",
            "person": one.name,
            "purpose": one.person.purpose,
            "camera": row.camera,
            "time": at,
            "time_s": row.time_s,
            "row": row.id,
            "track": row.track,
            "modality": MODALITIES[row.modality],
            "similarity": round(similarity, 4),
            "threshold": round(threshold, 4),
            "false_alarms_per_day": one.person.false_alarms_per_day,
        }


def _embedded(name: str, person: Person, extractor: Embedder, gallery: Gallery) -> Wanted:
    vectors, kinds = list[np.ndarray](), list[int]()
    for batch, modalities in extractor.batches(list(person.pictures)) if person.pictures else ():
        vectors += list(batch)
        kinds += modalities.tolist()
    for record in gallery.fetch(person.rows):
        vectors.append(record.vector)
        kinds.append(record.modality)
    every = np.array(kinds)
    modalities = np.unique(every)
    means = [mean_vector(np.stack(vectors)[every == kind])[0] for kind in modalities]
    return Wanted(name, person, person.until_s, np.stack(means), modalities, len(vectors))
