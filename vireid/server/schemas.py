"""Request models: every field of a request is checked here, before other code reads it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

from vireid.declaration import Index, Integer, NoSwitch, Number, ascending
from vireid.errors import ArgumentError
from vireid.search.gallery import LIMITS_BYTES, MAX_TAGS, Filter, Moment
from vireid.search.searcher import Chance, Combine
from vireid.search.visits import GAP_S, JOIN_S
from vireid.types import MODALITIES

MAX_HITS = 2000  # that can be paged through; a narrower filter reaches the others
PAGE_SIZE = 48
DAY_S = 86400.0
ModalityName = Literal["visible", "infrared"]
CaseFormat = Literal["html", "csv", "json"]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NoSwitch]
Seconds = Annotated[float, Field(ge=-1e11, le=1e12, allow_inf_nan=False), NoSwitch]
Cosine = Annotated[float, Field(ge=-1.01, le=1.01, allow_inf_nan=False), NoSwitch]
GrayValue = Annotated[float, Field(allow_inf_nan=False), NoSwitch]
ValueRange = Annotated[tuple[GrayValue, GrayValue], AfterValidator(ascending)]  # (low, high)
Text = Annotated[str, Field(max_length=LIMITS_BYTES["track"])]
Id = Annotated[str, Field(min_length=1, max_length=LIMITS_BYTES["id"])]
Box = tuple[Fraction, Fraction, Fraction, Fraction]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class StrictModel(BaseModel):
    """A frozen model that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FilterRequest(StrictModel):
    """The gallery's filter as JSON; `modality` by name."""

    cameras: tuple[Text, ...] = Field(default=(), max_length=500)
    after_s: Seconds | None = None
    before_s: Seconds | None = None
    modality: ModalityName | None = None
    tags: tuple[Text, ...] = Field(default=(), max_length=MAX_TAGS)
    pids: tuple[Text, ...] = Field(default=(), max_length=500)
    tracks: tuple[Text, ...] = Field(default=(), max_length=500)

    def to_filter(self, without_ids: tuple[str, ...] = ()) -> Filter:
        """The gallery's filter; GalleryError where the conditions contradict each other."""
        given = self.model_dump(exclude={"modality"})
        modality = None if self.modality is None else MODALITIES.index(self.modality)
        return Filter(**given, modality=modality, without_ids=without_ids)

    def conditions(self) -> dict[str, object]:
        """The conditions that are set, for the audit log."""
        return self.model_dump(exclude_defaults=True)


class SearchRequest(StrictModel):
    """One search. `boxes` crop the pictures: fractions (left, top, right, bottom), one for each picture or none.

    `like` adds rows of the gallery to the query, beside pictures or alone; `right` and `wrong` are ids that were marked
    in an earlier result. `per_track` returns only the most similar crop of each track. `prior` is the probability that
    a row shows the person before its similarity is known; "searched" is one of all tracks searched, 0.5 even chances.
    `thermal_range` (low, high) is that of the pictures' gray values of more than 8 bits, where it is not the gallery's.
    """

    modality: Literal["auto", "visible", "infrared"] = "auto"
    boxes: tuple[Box | None, ...] = ()
    like: tuple[Id, ...] = Field(default=(), max_length=8)
    combine: Combine = "mean"
    filter: FilterRequest = FilterRequest()
    limit: Integer = Field(default=PAGE_SIZE, ge=1, le=200)
    offset: Integer = Field(default=0, ge=0, le=MAX_HITS)
    false_match_rate: Chance | None = None
    per_track: StrictBool = False
    prior: Literal["searched"] | Chance = "searched"
    thermal_range: ValueRange | None = None
    rerank: Literal["k-reciprocal", "center", "shortest-path", "nformer"] | None = None
    right: tuple[Id, ...] = Field(default=(), max_length=200)
    wrong: tuple[Id, ...] = Field(default=(), max_length=200)
    purpose: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _check_combinations(self) -> SearchRequest:
        if any(box is not None and (box[0] >= box[2] or box[1] >= box[3]) for box in self.boxes):
            raise ArgumentError("a box is (left, top, right, bottom) with left < right and top < bottom")
        if set(self.right) & set(self.wrong):
            raise ArgumentError("a hit is marked right or wrong, not both")
        if self.offset + self.limit > MAX_HITS:
            raise ArgumentError(f"a search returns up to {MAX_HITS} hits; narrow the cameras or the time")
        return self


class DetectRequest(StrictModel):
    """How a picture is read in which people are looked for; `thermal_range` as in a search."""

    thermal_range: ValueRange | None = None


class VisitsRequest(SearchRequest):
    """A search whose matches are grouped into visits; without a false-match rate the `limit` most similar tracks are.

    `per_track` is true whatever is sent, and `rerank` and `offset` have no meaning here.
    """

    gap_s: Number = Field(default=GAP_S, gt=0, le=30 * DAY_S, allow_inf_nan=False)
    join_s: Number = Field(default=JOIN_S, ge=0, le=DAY_S, allow_inf_nan=False)


class CaseFileRequest(SearchRequest):
    """A search with what stands above its hits; `limit` and `offset` have no meaning here."""

    name: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=4000)


class ListRequest(StrictModel):
    """One page of rows: by id, or the newest first, equals by id, those of unknown time last.

    The next page begins behind the last row: `after_id`, and for the newest first also its `after_time_s`.
    """

    filter: FilterRequest = FilterRequest()
    order: Literal["id", "newest"] = "id"
    limit: Integer = Field(default=PAGE_SIZE, ge=1, le=200)
    after_id: str = Field(default="", max_length=LIMITS_BYTES["id"])
    after_time_s: Seconds | None = None

    @property
    def after(self) -> Moment | None:
        """The row behind which a page of the newest begins, None: with the first."""
        return (math.nan if self.after_time_s is None else self.after_time_s, self.after_id) if self.after_id else None


class MarkRequest(StrictModel):
    """One hit marked right or wrong; `right` None removes its mark."""

    id: Id
    right: StrictBool | None
    similarity: Cosine | None = None
    probability: Fraction | None = None


class MarksRequest(StrictModel):
    """Marks of hits of one query, by the id that its result carries."""

    query: Digest
    marks: tuple[MarkRequest, ...] = Field(min_length=1, max_length=200)


class CaseChange(StrictModel):
    """The name and the note of a case, in place of those that it has."""

    name: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=4000)


class AddRequest(StrictModel):
    """A crop to add; without `id` one is made of the picture, camera and time."""

    id: str = Field(default="", max_length=LIMITS_BYTES["id"])
    camera: str = Field(min_length=1, max_length=LIMITS_BYTES["camera"])
    time_s: Seconds | None = None
    modality: Literal["auto", "visible", "infrared"] = "auto"
    track: Text = ""
    pid: Text = ""
    tags: tuple[Text, ...] = Field(default=(), max_length=MAX_TAGS)


class PersonRequest(StrictModel):
    """Rows of one person, whose other tracks are looked for; without a false-match rate the `limit` most similar."""

    ids: tuple[Id, ...] = Field(min_length=1, max_length=8)
    false_match_rate: Chance | None = None
    limit: Integer = Field(default=24, ge=1, le=200)
    purpose: str = Field(default="", max_length=200)


class ForgetRequest(StrictModel):
    """Rows to delete. Without `expect` they are only counted; with it they are deleted if their count equals it."""

    ids: tuple[Id, ...] = Field(default=(), max_length=1000)
    filter: FilterRequest = FilterRequest()
    expect: Index | None = None
