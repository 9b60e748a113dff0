"""Asked: what a request may say, checked field by field before anything else looks at it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vireid.errors import ArgumentError
from vireid.search.gallery import LIMITS_BYTES, MAX_TAGS, Filter
from vireid.search.searcher import EVEN
from vireid.types import MODALITIES

MOST_HITS = 2000  # that can be paged through; who needs more narrows the filter
PAGE = 48
Word = Literal["visible", "infrared"]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=-1e11, le=1e12, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=LIMITS_BYTES["track"])]
Id = Annotated[str, Field(min_length=1, max_length=LIMITS_BYTES["id"])]
Box = tuple[Fraction, Fraction, Fraction, Fraction]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Where(Strict):
    """A filter as JSON; `modality` by its word."""

    cameras: tuple[Text, ...] = Field(default=(), max_length=500)
    after_s: Seconds | None = None
    before_s: Seconds | None = None
    modality: Word | None = None
    tags: tuple[Text, ...] = Field(default=(), max_length=MAX_TAGS)
    pids: tuple[Text, ...] = Field(default=(), max_length=500)
    tracks: tuple[Text, ...] = Field(default=(), max_length=500)

    def filter(self, without: tuple[str, ...] = ()) -> Filter:
        """The gallery's filter; GalleryError where the conditions contradict each other."""
        given = self.model_dump(exclude={"modality"})
        modality = None if self.modality is None else MODALITIES.index(self.modality)
        return Filter(**given, modality=modality, without_ids=without)

    def told(self) -> dict[str, object]:
        """The conditions that were set, for the audit log."""
        return self.model_dump(exclude_defaults=True)


class Ask(Strict):
    """One search. `boxes` cut the pictures, in fractions (left, top, right, bottom), one for each or none.

    `like` asks with rows of the gallery, beside pictures or alone; `right` and `wrong` are marks of an earlier answer.
    `per_track` shows the most alike crop of each track alone. `prior` is the probability that a row shows the person
    before it was looked at, "searched": one row of all that are searched does.
    """

    modality: Literal["auto", "visible", "infrared"] = "auto"
    boxes: tuple[Box | None, ...] = ()
    like: tuple[Id, ...] = Field(default=(), max_length=8)
    combine: Literal["mean", "best"] = "mean"
    filter: Where = Where()
    limit: int = Field(default=PAGE, ge=1, le=200)
    offset: int = Field(default=0, ge=0, le=MOST_HITS)
    false_match_rate: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    per_track: bool = False
    prior: Literal["searched"] | Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = EVEN
    rerank: Literal["k-reciprocal", "shortest-path", "nformer"] | None = None
    right: tuple[Id, ...] = Field(default=(), max_length=200)
    wrong: tuple[Id, ...] = Field(default=(), max_length=200)
    purpose: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _boxes_have_an_inside(self) -> Ask:
        if any(box is not None and (box[0] >= box[2] or box[1] >= box[3]) for box in self.boxes):
            raise ArgumentError("a box is (left, top, right, bottom) with left < right and top < bottom")
        if set(self.right) & set(self.wrong):
            raise ArgumentError("a hit is marked right or wrong, not both")
        if self.offset + self.limit > MOST_HITS:
            raise ArgumentError(f"at most {MOST_HITS} hits are given; narrow the cameras or the time")
        return self


class Browse(Strict):
    filter: Where = Where()
    limit: int = Field(default=PAGE, ge=1, le=200)
    after_id: str = Field(default="", max_length=LIMITS_BYTES["id"])


class NewMark(Strict):
    """`right` None takes a mark back."""

    id: Id
    right: bool | None
    similarity: float | None = Field(default=None, ge=-1.01, le=1.01, allow_inf_nan=False)
    probability: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)


class NewMarks(Strict):
    query: Digest
    marks: tuple[NewMark, ...] = Field(min_length=1, max_length=200)


class NewRecord(Strict):
    """A crop to add; `id` is made of the picture, camera and time where it is not given."""

    id: str = Field(default="", max_length=LIMITS_BYTES["id"])
    camera: str = Field(min_length=1, max_length=LIMITS_BYTES["camera"])
    time_s: Seconds | None = None
    modality: Literal["auto", "visible", "infrared"] = "auto"
    track: Text = ""
    pid: Text = ""
    tags: tuple[Text, ...] = Field(default=(), max_length=MAX_TAGS)


class Forget(Strict):
    """What to delete. Without `expect` only counts; with it deletes if the count is still the same."""

    ids: tuple[Id, ...] = Field(default=(), max_length=1000)
    filter: Where = Where()
    expect: int | None = Field(default=None, ge=0)
