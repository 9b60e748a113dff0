"""Case file: a search with all its hits as one HTML page, CSV or JSON, to read, print and keep."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from vireid.figures.answer_page import Shown, answer_page
from vireid.search.archive import jpeg_of
from vireid.search.marks import as_csv
from vireid.search.searcher import Answer
from vireid.server.auth import Caller
from vireid.server.schemas import MAX_HITS, CaseFileRequest, CaseFormat
from vireid.server.search_service import SearchService, hit_of
from vireid.server.uploads import SentFile
from vireid.types import MODALITIES
from vireid.version import __version__

MEDIA_TYPES: dict[CaseFormat, str] = {"html": "text/html", "csv": "text/csv", "json": "application/json"}
HEAD = ("note", "searched by", "at", "purpose")  # what stands above the hits of the page
PICTURED = 200  # hits with a picture in the page; the tables hold all
COLUMNS = (
    "rank", "id", "camera", "time", "time_s", "modality", "track", "pid", "tags", "similarity", "probability", "match"
)  # fmt: skip


def case_file(
    service: SearchService, caller: Caller, request: CaseFileRequest, pictures: Sequence[SentFile], form: CaseFormat
) -> str:
    """The text of the file; the search is written to the audit log as an export before it is returned."""
    service.check_request(request, pictures)
    crops, uploads = service.decode(pictures, request)
    vectors, modalities = service.query_vectors(request, crops)
    answer, notes = service.rank(request, vectors, modalities, PICTURED if form == "html" else MAX_HITS)
    rows = [row_of(rank, hit) for rank, hit in enumerate(map(hit_of, answer.hits), 1)]
    service.log(
        caller, "export", form=form, pictures=[upload.digest for upload in uploads], like=list(request.like),
        filter=request.filter.conditions(), purpose=request.purpose, hits=len(rows),
    )  # fmt: skip
    if form == "csv":
        return as_csv(rows, COLUMNS)
    about = about_search(service, caller, request, modalities, answer)
    if form == "json":
        content = {"search": about, "verdict": verdict(answer), "notes": notes, "hits": rows}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return _page(service, request, crops, answer, rows, about, notes)


def row_of(rank: int, hit: Any) -> dict[str, Any]:
    """A hit as plain values by COLUMNS; below the threshold there is no probability."""
    values = hit.model_dump()
    values |= {"rank": rank, "time": time_text(hit.time_s), "tags": "|".join(hit.tags)}
    values["probability"] = None if hit.match is False else hit.probability
    return {name: values[name] for name in COLUMNS}


def about_search(
    service: SearchService, caller: Caller, request: CaseFileRequest, modalities: Sequence[int], answer: Answer
) -> dict[str, str]:
    """Who searched when for what, and what made the list; empty values are left out."""
    config, calibration = service.bundle.config, service.calibration
    given = {
        "case": request.name,
        "note": request.note,
        "searched by": f"{caller.name} ({caller.role})",
        "at": time_text(time.time()),
        "purpose": request.purpose,
        "pictures read as": ", ".join(MODALITIES[modality] for modality in modalities),
        "rows of the archive as query": ", ".join(request.like),
        "filter": json.dumps(request.filter.conditions(), ensure_ascii=False) if request.filter.conditions() else "",
        "rows searched": f"{answer.rows:,}",
        "false-match rate": "no threshold" if request.false_match_rate is None else f"{request.false_match_rate:g}",
        "calibration": "none" if calibration is None else f"{calibration.dataset}, {calibration.split}",
        "model": f"{config.method}, trained on {config.trained_on} ({config.digest[:12]})",
        "software": f"vireid {__version__}",
    }
    return {key: text for key, text in {**given, **answer.stamp}.items() if text}


def verdict(answer: Answer) -> str:
    """Whether somebody matches, as a sentence."""
    if answer.matches is None:
        return "Ranked, best first; there is no threshold"
    if answer.nobody:
        return "No match in the archive; the most similar crops are shown"
    return f"Matches: {answer.matches.count:,}{'' if answer.matches.complete else ' or more'}"


def _page(
    service: SearchService, request: CaseFileRequest, crops: Sequence[Image.Image], answer: Answer,
    rows: Sequence[dict[str, Any]], about: dict[str, str], notes: Sequence[str],
) -> str:  # fmt: skip
    queries = [Shown(jpeg_of(crop), (f"Picture {number}",)) for number, crop in enumerate(crops, 1)]
    queries += [Shown(service.archive.thumbnails.read(row_id), (row_id,)) for row_id in request.like]
    hits = [Shown(service.archive.thumbnails.read(row["id"]), lines_of(row, request)) for row in rows]
    said = ". ".join([verdict(answer), *notes])
    if len(rows) == PICTURED:
        said += f". The first {PICTURED} are pictured; the CSV and JSON files hold up to {MAX_HITS:,}"
    lead = "A hit is a lead and no proof of identity: a person must decide."
    head = {key: readable(text) if key == "at" else text for key, text in about.items() if key in HEAD}
    rest = {key: text for key, text in about.items() if key not in ("case", *HEAD)}
    return answer_page(request.name or "vireid case file", queries, hits, f"{said}. {lead}", rest, head)


def lines_of(row: dict[str, Any], request: CaseFileRequest) -> tuple[str, ...]:
    """What stands below the picture of a hit."""
    marked = "marked right" if row["id"] in request.right else ""
    said = {True: "match", False: "below the threshold", None: ""}[row["match"]]
    shown = (
        f"{row['rank']}. {row['camera']}",
        readable(row["time"]),
        row["modality"],
        f"similarity {row['similarity']:.4f}",
        "" if row["probability"] is None else f"probability {100 * row['probability']:.1f} %",
        said,
        marked,
        f"track {row['track']}" if row["track"] else "",
        row["pid"],
        row["id"],
    )
    return tuple(line for line in shown if line)


def readable(time: str) -> str:
    """A time of time_text for people.

    >>> readable("2026-11-23T21:46:33+00:00")
    '2026-11-23 21:46:33 UTC'
    """
    return time.replace("T", " ").replace("+00:00", " UTC")


def time_text(time_s: float | None) -> str:
    """A moment in UTC, empty where it is unknown."""
    return "" if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
