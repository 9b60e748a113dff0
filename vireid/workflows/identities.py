"""`vireid identities`: the tracks of an archive grouped by person, as a table or JSON; written to the audit log."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid.declaration import configured
from vireid.deploy.model import Model
from vireid.errors import CalibrationError, SearchError
from vireid.evaluation.identity_scores import identity_scores
from vireid.evaluation.results import TerminalTable, markdown_table
from vireid.ingest.times import seconds
from vireid.models import DEFAULT
from vireid.search.archive import Archive, files_of
from vireid.search.audit import CONSOLE
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Record
from vireid.search.identities import Identity, IdentityOptions, identities_of
from vireid.workflows.options import GroupingOptions
from vireid.workflows.search import time_text

COLUMNS = ("identity", "tracks", "rows", "from", "until", "cameras")


@dataclass(frozen=True)
class IdentitiesReport:
    """Identities, that of most tracks first; `scores` are ID-F1, HOTA and AssA where they were requested."""

    identities: tuple[Identity, ...]
    scores: dict[str, float] | None = None

    @property
    def verdict(self) -> str:
        tracks = sum(len(one.tracks) for one in self.identities)
        said = f"{len(self.identities)} identities of {tracks} tracks"
        return said + "".join(f"; {name} {100 * value:.2f} %" for name, value in (self.scores or {}).items())

    def json(self) -> str:
        """Identities with the ids of their rows."""
        content = {
            "identities": [
                {**row, "cameras": list(one.cameras), "ids": list(one.ids)}
                for row, one in zip(self.rows(), self.identities, strict=True)
            ],
            "scores": self.scores,
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def markdown(self) -> str:
        """The table as Markdown, the verdict below it."""
        return markdown_table(*self._cells(), [self.verdict])

    def __rich__(self) -> TerminalTable:
        return TerminalTable(*self._cells(), [self.verdict])

    def rows(self) -> list[dict[str, Any]]:
        """One dict of COLUMNS for each identity."""
        return [row_of(number, one) for number, one in enumerate(self.identities, 1)]

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        return list(COLUMNS), [[str(row[name]) for name in COLUMNS] for row in self.rows()]


def find_identities(
    gallery: str, model: str | Path = DEFAULT, options: GroupingOptions | None = None, **words: Any
) -> IdentitiesReport:
    """Group the tracks of a gallery by person; `words` are the fields of GroupingOptions.

    Raises GalleryError, BundleError, RunError, CalibrationError where the model is not calibrated, SearchError for too
    many tracks or for scores of rows without `pid`, SourceError for a wrong time, MissingPackage and SettingsError.
    """
    options = configured(GroupingOptions, options, words)
    opened = Model.open(model)
    if opened.calibration is None:
        raise CalibrationError(f"identities need a calibration; run `vireid calibrate {model}`")
    rows = open_gallery(gallery, bundle_digest=opened.digest)
    limits = (seconds(options.after, "--after"), seconds(options.before, "--before"))
    after_s, before_s = (None if limit != limit else limit for limit in limits)
    where = Filter(cameras=options.cameras, after_s=after_s, before_s=before_s)
    with closing(Archive(rows, files_of(gallery, options.files))) as archive:
        identities = identities_of(rows, opened.calibration, where, IdentityOptions(prior=options.prior))
        labeled = [row for row in rows.rows(where) if row.pid] if options.score else None
        archive.audit.write("identities", CONSOLE, "admin", identities=len(identities), cameras=list(options.cameras))
    return IdentitiesReport(tuple(identities), None if labeled is None else scores_of(identities, labeled))


def scores_of(identities: list[Identity], labeled: list[Record]) -> dict[str, float]:
    """ID-F1 and HOTA of the rows that have a `pid`."""
    if not labeled:
        raise SearchError("no row has a pid to compare with; index a list with the column `pid`, or leave out --score")
    label = {name: number for number, one in enumerate(identities) for name in one.ids}
    known = [row for row in labeled if row.id in label]
    cameras, times_s, truth = ([getattr(row, name) for row in known] for name in ("camera", "time_s", "pid"))
    return identity_scores(cameras, times_s, truth, [label[row.id] for row in known])


def row_of(number: int, one: Identity) -> dict[str, Any]:
    """An identity as plain values by COLUMNS."""
    first_s, last_s = one.tracks[0].span.first_s, max(track.span.last_s for track in one.tracks)
    values = (
        number, len(one.tracks), len(one.ids), time_text(first_s), time_text(last_s), ", ".join(one.cameras)
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
