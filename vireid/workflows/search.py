"""`vireid search`: one question to a gallery without a server: pictures of one person in, a ranked list out."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vireid import images
from vireid.declaration import configured
from vireid.deploy.model import Model
from vireid.errors import ArgumentError
from vireid.evaluation.rerank import KReciprocal
from vireid.evaluation.results import TerminalTable, markdown_table
from vireid.figures.answer_page import Shown, answer_page
from vireid.images import STRETCH, GrayRule
from vireid.models import DEFAULT
from vireid.search.archive import THUMBNAIL_PX, Archive, files_of
from vireid.search.centering import Centering
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Record
from vireid.search.searcher import Answer, Ranked, Searcher
from vireid.system import file_digest, replacing
from vireid.types import MODALITIES
from vireid.workflows.options import QueryOptions
from vireid.workflows.service import CONSOLE, check_pose

COLUMNS = ("rank", "similarity", "probability", "camera", "time", "modality", "pid", "track", "path")


@dataclass(frozen=True)
class SearchReport:
    """The answer to a search; `thumbnails` are the JPEGs of its hits in order, None where there is none.

    `gray` is the gallery's rule for pictures of more than 8 bits.
    """

    pictures: tuple[Path, ...]
    answer: Answer
    thumbnails: tuple[bytes | None, ...]
    stamp: dict[str, str]
    gray: GrayRule = STRETCH

    @property
    def verdict(self) -> str:
        """Whether somebody in the gallery is the person, where a false-match rate was given."""
        nobody = self.answer.nobody
        matches = self.answer.matches
        if nobody is None or matches is None:
            said = "Ranked, best first"
        elif nobody:
            said = "No match in the gallery; the most similar are shown"
        else:
            said = f"Matches in the gallery: {matches.count}{'' if matches.complete else ' or more'}"
        return said + (f" ({self.answer.uncalibrated})" if self.answer.uncalibrated else "")

    def rows(self) -> list[dict[str, Any]]:
        """One dict of COLUMNS for each hit."""
        return [row_of(rank, hit) for rank, hit in enumerate(self.answer.hits, 1)]

    def json(self) -> str:
        """Hits, verdict and stamp as JSON."""
        content = {
            "pictures": [str(path) for path in self.pictures],
            "nobody": self.answer.nobody,
            "hits": self.rows(),
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
        names = [name for name in COLUMNS if any(row[name] not in (None, "") for row in rows)]
        return names, [[text_of(row[name]) for name in names] for row in rows]

    def html(self, path: Path) -> Path:
        """Write one page that holds the pictures of the query and the thumbnails of the hits."""
        queries = [Shown(thumbnail(picture, self.gray), (picture.name,)) for picture in self.pictures]
        hits = [
            Shown(jpeg, tuple(f"{name} {text_of(row[name])}" for name in COLUMNS if row[name] not in (None, "")))
            for jpeg, row in zip(self.thumbnails, self.rows(), strict=True)
        ]
        with replacing(path) as partial:
            page = answer_page("vireid search", queries, hits, self.verdict, self.stamp)
            partial.write_text(page, encoding="utf-8")
        return path


def search_pictures(
    pictures: Sequence[Path],
    gallery: str,
    model: str | Path = DEFAULT,
    options: QueryOptions | None = None,
    **words: Any,
) -> SearchReport:
    """Search a gallery with one or more pictures of one person; `words` are the fields of QueryOptions.

    The search is written to the audit log. Raises PictureError, GalleryError, BundleError, RunError, CalibrationError,
    SearchError and SettingsError.
    """
    options = configured(QueryOptions, options, words)
    if not pictures:
        raise ArgumentError("give one or more pictures of the same person")
    opened = Model.open(model, options.backend, options.device, pose=options.pose)
    check_pose(opened.bundle, options.pose)
    rows = open_gallery(gallery, bundle_digest=opened.digest)
    with closing(Archive(rows, files_of(gallery, options.files))) as archive:
        only = None if options.only is None else MODALITIES.index(options.only)
        searcher = Searcher(opened, rows)
        rerankers = {"k-reciprocal": KReciprocal(), "center": Centering(searcher.overview)}
        answer = searcher.search(
            list(pictures),
            options.modality,
            k=options.k,
            where=Filter(cameras=options.cameras, modality=only),
            false_match_rate=options.false_match_rate,
            per_track=options.per_track,
            rerank=None if options.rerank is None else rerankers[options.rerank],
            prior=options.prior or "searched",
        )
        digests = [file_digest(path) for path in pictures]
        archive.audit.write("search", CONSOLE, "admin", pictures=digests, hits=len(answer.hits))
        thumbnails = tuple(archive.thumbnails.read(hit.record.id) for hit in answer.hits)
    stamp = {"gallery": gallery, "model": f"{model} ({opened.digest[:12]})", **answer.stamp}
    return SearchReport(tuple(pictures), answer, thumbnails, stamp, rows.gray)


def row_of(rank: int, hit: Ranked) -> dict[str, Any]:
    """A hit as plain values by COLUMNS."""
    record = hit.record
    probability = None if hit.match is False else hit.probability  # below the threshold it says too much
    values = (
        rank,
        round(hit.similarity, 4),
        None if probability is None else round(probability, 4),
        record.camera,
        time_of(record),
        MODALITIES[record.modality],
        record.pid,
        record.track,
        record.path,
    )
    return dict(zip(COLUMNS, values, strict=True))


def time_of(record: Record) -> str:
    """The time of a record in UTC, empty where it is unknown."""
    if math.isnan(record.time_s):
        return ""
    return datetime.fromtimestamp(record.time_s, UTC).isoformat(timespec="seconds")


def text_of(value: Any) -> str:
    """A value of a row as it is printed."""
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def thumbnail(path: Path, gray: GrayRule = STRETCH) -> bytes:
    """A picture as a small JPEG."""
    small, file = images.read(path, gray=gray), io.BytesIO()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    small.save(file, "JPEG", quality=88)
    return file.getvalue()
