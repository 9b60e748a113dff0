"""`vireid search`: one question to a gallery without a server: pictures of one person in, a ranked list out."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from vireid import images
from vireid.declaration import configured
from vireid.deploy.calibration import NEEDED, Calibration, pair_name
from vireid.deploy.model import Model
from vireid.deploy.pose_input import check_pose
from vireid.errors import ArgumentError, CalibrationError
from vireid.evaluation.results import TerminalTable, markdown_table
from vireid.images import STRETCH, GrayRule
from vireid.models import DEFAULT
from vireid.search.archive import THUMBNAIL_PX, Archive, files_of
from vireid.search.audit import CONSOLE
from vireid.search.centering import Centering
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.search.reranking import Rerank
from vireid.search.searcher import Answer, Ranked, Searcher, SearchOptions
from vireid.search.visits import Passage, VisitOptions, Visits, find_visits
from vireid.system import file_digest, printable, replacing
from vireid.types import MODALITIES
from vireid.wording import counted, one_in
from vireid.workflows.options import QueryOptions

COLUMNS = ("rank", "similarity", "probability", "camera", "time", "modality", "pid", "track", "path")
VISIT_COLUMNS = (
    "visit", "camera", "from", "until", "rows", "similarity", "probability", "modality", "pid", "path"
)  # fmt: skip
VISITS_RATE = 1e-3  # of false matches of one comparison, where visits are requested without one


@dataclass(frozen=True)
class Limits:
    """From which similarity on a hit is a match: `thresholds` by pair of modalities."""

    false_match_rate: float
    thresholds: dict[str, float]

    def __str__(self) -> str:
        values = ", ".join(f"{value:.4f} {pair}" for pair, value in self.thresholds.items())
        return f"a false-match rate of {one_in(self.false_match_rate)} (threshold {values})"


@dataclass(frozen=True)
class SearchReport:
    """The answer to a search; `thumbnails` are the JPEGs of its hits in order, None where there is none.

    `gray` is the rule by which pictures of more than 8 bits were read, `limits` what a match needs.
    """

    pictures: tuple[Path, ...]
    answer: Answer
    thumbnails: tuple[bytes | None, ...]
    stamp: dict[str, str]
    gray: GrayRule = STRETCH
    limits: Limits | None = None
    columns: ClassVar[tuple[str, ...]] = COLUMNS
    listed: ClassVar[str] = "hits"  # what `rows` are called in JSON

    @property
    def verdict(self) -> str:
        """Whether somebody in the gallery is the person, where a false-match rate was given."""
        nobody = self.answer.nobody
        matches = self.answer.matches
        limits = "" if self.limits is None else f" at {self.limits}"
        if nobody is None or matches is None:
            said = "Most similar first; no threshold was set (--false-match-rate)"
        elif nobody:
            said = f"No match in the gallery{limits}; the most similar pictures are listed"
        else:
            said = f"{counted(matches.count, 'match', 'matches', more=not matches.complete)} in the gallery{limits}"
        return said + (f" ({self.answer.uncalibrated})" if self.answer.uncalibrated else "")

    def rows(self) -> list[dict[str, Any]]:
        """One dict of `columns` for each hit."""
        return [row_of(rank, hit) for rank, hit in enumerate(self.answer.hits, 1)]

    def json(self) -> str:
        """Hits, verdict and stamp as JSON."""
        content = {
            "pictures": [str(path) for path in self.pictures],
            "nobody": self.answer.nobody,
            "matches": None if self.answer.matches is None else self.answer.matches.count,
            "false_match_rate": None if self.limits is None else self.limits.false_match_rate,
            "thresholds": {} if self.limits is None else self.limits.thresholds,
            self.listed: self.rows(),
            "stamp": self.stamp,
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def markdown(self) -> str:
        """The table as Markdown, the verdict below it."""
        return markdown_table(*self._cells(), [self.verdict])

    def __rich__(self) -> TerminalTable:
        return TerminalTable(*self._cells(), [self.verdict])

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """The names of the columns that hold anything, and the text of every hit in them."""
        rows = self.rows()
        names = [name for name in self.columns if any(row[name] not in (None, "") for row in rows)]
        return names, [[text_of(row[name]) for name in names] for row in rows]

    def html(self, path: Path) -> Path:
        """Write one page that holds the pictures of the query and the thumbnails of the hits."""
        from vireid.figures.answer_page import Shown, answer_page

        queries = [Shown(thumbnail(picture, self.gray), (printable(picture.name),)) for picture in self.pictures]
        hits = [
            Shown(jpeg, tuple(f"{name} {text_of(row[name])}" for name in self.columns if row[name] not in (None, "")))
            for jpeg, row in zip(self.thumbnails, self.rows(), strict=True)
        ]
        with replacing(path) as partial:
            page = answer_page("vireid search", queries, hits, self.verdict, self.stamp)
            partial.write_text(page, encoding="utf-8")
        return path


@dataclass(frozen=True)
class VisitsReport(SearchReport):
    """The answer to a search as passages; `thumbnails` are those of the most similar row of each."""

    visits: Visits = field(kw_only=True)
    columns: ClassVar[tuple[str, ...]] = VISIT_COLUMNS
    listed: ClassVar[str] = "passages"

    @property
    def verdict(self) -> str:
        """How many visits there are, and what is not among them."""
        many, passages = len(self.visits.visits), len(self.visits.passages)
        limits = "" if self.limits is None else f" at {self.limits}"
        said = (
            f"No match in the gallery{limits}"
            if not passages and self.answer.nobody
            else f"{counted(many, 'visit')} ({counted(passages, 'passage')}){limits}"
        )
        if self.answer.matches is None:
            said += f", of the {len(self.answer.hits)} most similar tracks: without a calibration there is no threshold"
        elif not self.visits.complete:
            said += ", of more tracks that match"
        if self.visits.undated:
            said += f"; {counted(len(self.visits.undated), 'matching track')} without a time"
        if self.visits.simultaneous:
            number = counted(len(self.visits.simultaneous), "track")
            said += f"; left out: {number} that the same camera saw at the same time as a more similar one"
        return said

    def rows(self) -> list[dict[str, Any]]:
        """One dict of `columns` for each passage."""
        return [
            passage_row(number, passage)
            for number, visit in enumerate(self.visits.visits, 1)
            for passage in visit.passages
        ]


def search_pictures(
    pictures: Sequence[Path],
    gallery: str,
    model: str | Path = DEFAULT,
    options: QueryOptions | None = None,
    **words: Any,
) -> SearchReport:
    """Search a gallery with one or more pictures of one person; `words` are the fields of QueryOptions.

    With `visits` the report is a VisitsReport. The search is written to the audit log. Raises PictureError,
    GalleryError, BundleError, RunError, CalibrationError, SearchError and SettingsError.
    """
    options = configured(QueryOptions, options, words)
    if not pictures:
        raise ArgumentError("give one or more pictures of the same person")
    if options.visits and options.rerank is not None:
        raise ArgumentError("--rerank orders a list, and --visits takes every match; leave one of them out")
    opened = Model.open(model, options.backend, options.device, options.method, pose=options.pose)
    check_pose(opened.bundle, options.pose)
    rows = open_gallery(gallery, bundle_digest=opened.digest)
    with closing(Archive(rows, files_of(gallery, options.files))) as archive:
        searcher = Searcher(opened, rows)
        if options.thermal_range is not None:
            searcher = searcher.with_gray(GrayRule.of(options.thermal_range))
        search = _Search.of(searcher, pictures, options)
        visits, where = None, where_of(options)
        if options.visits:
            grouping = VisitOptions(gap_s=options.gap_s, join_s=options.join_s)
            visits = find_visits(search, rows, where, grouping, k=options.k)
            answer, records = visits.answer, [passage.best.record for passage in visits.passages]
        else:
            answer = search(options.k)
            records = [hit.record for hit in answer.hits]
        digests = [file_digest(path) for path in pictures]
        archive.audit.write("search", CONSOLE, "admin", pictures=digests, hits=len(records))
        thumbnails = tuple(archive.thumbnails.read(record.id) for record in records)
        stamp = {"gallery": gallery, "model": f"{model} ({opened.digest[:12]})", **answer.stamp, **archive.gray.stamp}
    report = (tuple(pictures), answer, thumbnails, stamp, searcher.gray, search.limits)
    return SearchReport(*report) if visits is None else VisitsReport(*report, visits=visits)


def where_of(options: QueryOptions) -> Filter:
    """The rows that are searched."""
    only = None if options.only is None else MODALITIES.index(options.only)
    return Filter(cameras=options.cameras, modality=only)


@dataclass(frozen=True)
class _Search:
    """Searches with pictures that were embedded once, for a number of hits; `limits` as those of a SearchReport."""

    answer: Callable[[int], Answer]
    limits: Limits | None

    @classmethod
    def of(cls, searcher: Searcher, pictures: Sequence[Path], options: QueryOptions) -> _Search:
        rate, calibration = options.false_match_rate, searcher.calibration
        if options.visits and rate is None and isinstance(calibration, Calibration):
            finest = (NEEDED / pair.other_pairs for pair in calibration.pairs.values())
            rate = max(VISITS_RATE, *finest)
        vectors, kinds = searcher.embedded(list(pictures), options.modality)
        settings = SearchOptions(
            false_match_rate=rate,
            per_track=options.per_track or options.visits,
            rerank=None if options.rerank is None else reranker_of(options.rerank, searcher),
            prior=options.prior or "searched",
        )
        limits = None
        if rate is not None and isinstance(calibration, Calibration):
            gallery = MODALITIES if options.only is None else (options.only,)
            limits = Limits(rate, {})
            for pair in dict.fromkeys(pair_name((kind, MODALITIES.index(name))) for kind in kinds for name in gallery):
                with suppress(CalibrationError):  # of a pair that the gallery does not hold, or the search raises it
                    limits.thresholds[pair] = calibration.threshold(rate, pair)
        return cls(lambda k: searcher.search_vectors(vectors, kinds, k, where_of(options), settings), limits)

    def __call__(self, k: int) -> Answer:
        return self.answer(k)


def reranker_of(name: str, searcher: Searcher) -> Rerank:
    """The re-ranking of a name of QueryOptions."""
    if name == "center":
        return Centering(searcher.overview)
    from vireid.evaluation.rerank import KReciprocal  # which imports torch

    return KReciprocal()


def passage_row(number: int, passage: Passage) -> dict[str, Any]:
    """A passage of a visit as plain values by VISIT_COLUMNS."""
    best = row_of(number, passage.best)
    values = {"visit": number, "from": time_text(passage.first_s), "until": time_text(passage.last_s)}
    return {name: {**best, **values, "rows": passage.rows}[name] for name in VISIT_COLUMNS}


def row_of(rank: int, hit: Ranked) -> dict[str, Any]:
    """A hit as plain values by COLUMNS."""
    record = hit.record
    probability = None if hit.match is False else hit.probability  # below the threshold it says too much
    values = (
        rank,
        round(hit.similarity, 4),
        None if probability is None else round(probability, 4),
        record.camera,
        time_text(record.time_s),
        MODALITIES[record.modality],
        record.pid,
        record.track,
        record.path,
    )
    return dict(zip(COLUMNS, values, strict=True))


def time_text(time_s: float) -> str:
    """A moment in UTC, empty for nan."""
    return "" if math.isnan(time_s) else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def text_of(value: Any) -> str:
    """A value of a row as it is printed."""
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def thumbnail(path: Path, gray: GrayRule = STRETCH) -> bytes:
    """A picture as a small JPEG."""
    small, file = images.read(path, gray=gray), io.BytesIO()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    small.save(file, "JPEG", quality=88)
    return file.getvalue()
