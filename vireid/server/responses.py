"""Response models: what each route answers, field by field; vireid.Client reads the same models.

Fields may be added in any version: models ignore those that they do not know.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vireid.types import Modality, Role, Size


class Response(BaseModel):
    """A frozen model whose docstrings of fields stand in the OpenAPI description."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ErrorResponse(Response):
    """Every error: what was expected, what came, what to do."""

    error: str


class HealthResponse(Response):
    """The process answers."""

    status: Literal["ok"]


class ReadyResponse(Response):
    """Whether searches can be answered."""

    status: Literal["ready", "not ready"]
    faults: list[str]
    """What cannot be used; the log of the service has the details."""


# --- session and description ------------------------------------------------------------------------------------------


class SessionResponse(Response):
    """Who is signed in."""

    name: str
    role: Role


class SignedOut(Response):
    """The session has ended; empty."""


class CallerResponse(Response):
    """The caller, as the service sees them."""

    name: str
    role: Role
    tokens: bool
    """Whether the service asks for tokens."""


class NetworkResponse(Response):
    """The network that makes the vectors."""

    method: str
    size: Size
    """(height, width) of its pictures."""
    trained_on: str
    digest: str
    """The first 12 characters of the bundle's sha256."""


class CalibrationResponse(Response):
    """What a calibration was made on and supports."""

    dataset: str
    split: str
    own_data: bool
    """False where it is a data set that vireid knows by name, and so not these cameras."""
    people: str
    num_people: int
    least_rate: dict[str, float]
    """The smallest false-match rate that it supports, by pair of modalities."""
    missing: dict[str, str]
    """Pairs of modalities without a table, and why."""


class LimitsResponse(Response):
    """Of one request."""

    picture_bytes: int
    picture_pixels: int
    pictures: int


class ExampleResponse(Response):
    """A query that the page offers; its picture is at `examples/NUMBER`."""

    name: str
    modality: str
    within: str


class PublicAbout(Response):
    """What every caller may know."""

    version: str
    caller: CallerResponse
    purpose: bool
    """Whether every search has to name its purpose."""


class AboutResponse(PublicAbout):
    """The archive, its network and the limits, for the role search."""

    gallery: str
    """The name of the gallery that the rest describes; `?gallery=NAME` chooses another."""
    galleries: list[str]
    """All that the token may use."""
    rows: int
    cameras: dict[str, int]
    """Rows by camera."""
    modalities: dict[Modality, int]
    tags: dict[str, int]
    first_s: float | None
    """Unix seconds of the first row whose time is known."""
    last_s: float | None
    network: NetworkResponse
    calibration: CalibrationResponse | None
    attention: str
    """Why there are no heat maps; empty where there are."""
    reranks: list[str]
    gray: str
    """How gray values of more than 8 bits become 8 in pictures of the archive."""
    thermal_ranges: dict[str, tuple[float, float]]
    """The cameras that have a range of their own for that: low, which is black, and high."""
    keep_days: float | None
    limits: LimitsResponse
    detection: bool = False
    """Whether POST detect finds the people in a picture."""
    examples: list[ExampleResponse]


# --- rows and searches ------------------------------------------------------------------------------------------------


class Row(Response):
    """A row of the gallery, without the path of its picture."""

    id: str
    camera: str
    time_s: float | None
    """Unix seconds; null where it is unknown."""
    modality: Modality
    track: str
    pid: str
    tags: list[str]


class Hit(Row):
    """A row of the answer."""

    similarity: float
    """Cosine with the query."""
    probability: float | None
    """That it shows the person, by the calibration; null without one."""
    match: bool | None
    """Whether it reaches the threshold of its pair of modalities; null without a false-match rate."""


class SearchResponse(Response):
    """One page of ranked hits, and what is known of all rows that pass the filter."""

    query: str
    """The id that marks are kept by: the same pictures, boxes and rows are the same query."""
    modality: list[Modality]
    """What each picture was embedded as."""
    hits: list[Hit]
    more: bool
    """Whether there is another page."""
    nobody: bool | None
    """Whether nothing reaches the threshold; null without a false-match rate."""
    matches: int | None
    all_counted: bool
    stamp: dict[str, str]
    notes: list[str]
    searched: int
    """Rows that pass the filter."""
    tracks: int | None
    prior: float
    took_s: float


class DetectedPerson(Response):
    """A person in an uploaded picture."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom in pixels of the upright picture."""
    score: float
    """The detector's, 0 to 1."""


class DetectResponse(Response):
    """The people in an uploaded picture, the highest score first."""

    size: Size
    """(height, width) of the upright picture."""
    people: list[DetectedPerson]
    took_s: float


class PassageResponse(Response):
    """The person at one camera, in Unix seconds; `rows` is the number of crops, `best` the most similar one."""

    camera: str
    first_s: float
    last_s: float
    tracks: int
    rows: int
    best: Hit


class VisitResponse(Response):
    """Passages in order of their beginning."""

    first_s: float
    last_s: float
    cameras: list[str]
    passages: list[PassageResponse]


class VisitsResponse(Response):
    """Visits in order of time; see vireid/search/visits.py. `complete` is false where more tracks match."""

    query: str
    modality: list[Modality]
    visits: list[VisitResponse]
    undated: list[Hit]
    simultaneous: list[Hit]
    nobody: bool | None
    complete: bool
    searched: int
    tracks: int | None
    stamp: dict[str, str]
    notes: list[str]
    took_s: float


class ListResponse(Response):
    """One page of rows in the requested order."""

    rows: list[Row]
    more: bool


class MarksResponse(Response):
    """How many marks the query has now."""

    marks: int


class MarkedRow(Response):
    """A mark with what is known of its row, as it is exported."""

    query: str
    id: str
    right: bool
    camera: str | None
    time_s: float | None
    modality: int | None
    track: str | None
    pid: str | None
    similarity: float | None
    probability: float | None
    who: str
    at: float


# --- cases and alarms -------------------------------------------------------------------------------------------------


class CaseResponse(Response):
    """A search that is kept."""

    id: str
    name: str
    note: str
    who: str
    at: float
    """When it was kept, Unix seconds."""
    request: dict[str, Any]
    """What to send as `ask` to search again, with `pictures` pictures of the case."""
    pictures: int


class CasesResponse(Response):
    """Cases, the newest first."""

    cases: list[CaseResponse]


class CaseDeleted(Response):
    """Whether the case was there."""

    deleted: bool


class AlarmResponse(Response):
    """An alarm of `vireid watch`: a row that reached the threshold of a person on the watch-list."""

    id: str
    person: str
    purpose: str
    camera: str
    time_s: float
    row: str
    track: str
    modality: Modality
    similarity: float
    threshold: float
    waiting: list[str]
    """Channels that did not acknowledge it yet."""


class AlarmsResponse(Response):
    """The last alarms, the newest first; `watched` is False where no watch-list was ever used with this archive."""

    watched: bool
    alarms: list[AlarmResponse]


# --- changes and administration ---------------------------------------------------------------------------------------


class AddResponse(Response):
    """The row that was written."""

    id: str
    modality: Modality


class PersonTrack(Response):
    """A track that may show the person, with the ids of all its rows."""

    row: Row
    """The row that was named, or the most similar one."""
    first_s: float | None
    last_s: float | None
    ids: list[str]
    named: bool
    """Whether a row of the request belongs to it."""
    similarity: float | None
    """Of `row`; null where the track is named."""
    match: bool | None
    """Whether it reaches the threshold; null where the track is named, and without a false-match rate."""


class PersonResponse(Response):
    """The named tracks first, then the most similar first; `complete` is false where more match than are listed."""

    tracks: list[PersonTrack]
    complete: bool
    notes: list[str]


class ForgetResponse(Response):
    """Rows that were counted, or with `deleted` what was deleted."""

    rows: int
    deleted: bool
    thumbnails: int | None = None
    marks: int | None = None
    alarms: int | None = None
    cases_changed: int | None = None
    """Cases that lost rows or pictures."""
    cases_deleted: int | None = None
    """Cases that had nothing left to search with."""
    cases_left: list[str] | None = None
    """Names and ids of cases that still hold pictures of the people."""
    recordings: list[str] | None = None
    """Files of this machine that still hold the people: pictures, recordings and boxes."""


class AuditResponse(Response):
    """Entries of the audit log, newest first."""

    entries: list[dict[str, Any]] = Field(
        description="Each has `at`, `who`, `role`, `from`, `what`, `previous` and what belongs to its kind."
    )
