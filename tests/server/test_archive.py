"""Changing the archive over HTTP: marks, adding, deleting, retention."""

from __future__ import annotations

import csv
import io
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import START_S, audit_entries, client, crops, jpeg, make_service, picture, search, stripes

from vireid.deploy.bundle import Bundle
from vireid.errors import GalleryError
from vireid.ingest.index import Crop, index
from vireid.search.archive import files_of
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.server.retention import apply_retention
from vireid.server.search_service import SearchService
from vireid.server.settings import ServerSettings

WAIT_S = 300.0  # ends a test that hangs


# --- marks ------------------------------------------------------------------------------------------------------------


def test_marks_are_kept_taken_back_and_exported(api: TestClient, service: SearchService, bundle: Bundle) -> None:
    found = search(api, picture(bundle))
    query, first, second = found["query"], found["hits"][0], found["hits"][1]
    rows = [{"id": first["id"], "right": True, "similarity": 1.0}, {"id": second["id"], "right": False}]
    assert api.post("/api/v1/marks", json={"query": query, "marks": rows}).json() == {"marks": 2}
    assert search(api, picture(bundle))["query"] == query  # the same picture is the same query
    exported = api.get("/api/v1/marks", params={"query": query}).json()
    assert [(row["id"], row["right"]) for row in exported] == sorted([(first["id"], True), (second["id"], False)])
    assert exported[0]["camera"] == "gate 1" and exported[0]["who"] == "this machine"
    answer = api.get("/api/v1/marks", params={"query": query, "format": "csv"})
    assert "attachment" in answer.headers["content-disposition"] and "text/csv" in answer.headers["content-type"]
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert {line["id"] for line in lines} == {first["id"], second["id"]} and set(lines[0]) == set(exported[0])
    api.post("/api/v1/marks", json={"query": query, "marks": [{"id": first["id"], "right": None}]})
    assert [row["id"] for row in api.get("/api/v1/marks", params={"query": query}).json()] == [second["id"]]
    assert [entry["right"] for entry in audit_entries(service, "mark")] == [0, 1]
    assert len(audit_entries(service, "export")) == 3


def test_an_exported_text_is_no_formula(service: SearchService) -> None:
    api = client(service)
    [crop] = [one for one in crops(service.bundle.path.parent) if one.id == "gate 1/5/0"]
    evil = Crop("=cmd|' /C calc'!A1", crop.path, "@camera", 0.0, "visible")
    index(service.archive, service.searcher.extractor, [evil])
    api.post("/api/v1/marks", json={"query": "a" * 64, "marks": [{"id": evil.id, "right": True}]})
    [line] = csv.DictReader(io.StringIO(api.get("/api/v1/marks", params={"format": "csv"}).text))
    assert line["id"] == "'" + evil.id and line["camera"] == "'@camera"


# --- adding and deleting ----------------------------------------------------------------------------------------------


def test_a_crop_is_added_and_found(api: TestClient, service: SearchService) -> None:
    record = {"camera": "new 9", "time_s": START_S, "tags": ["late"], "pid": "p99"}
    given = {"data": {"record": json.dumps(record)}, "files": {"picture": ("x", jpeg(stripes(), "PNG"))}}
    added = api.post("/api/v1/records", **given)
    assert added.status_code == 200 and added.json()["modality"] == "visible"
    assert api.post("/api/v1/records", **given).json() == added.json()  # the same crop again is the same row
    found = search(api, jpeg(stripes(), "PNG"))["hits"][0]
    assert found["id"] == added.json()["id"] and found["camera"] == "new 9" and found["similarity"] > 0.9999
    assert api.get("/api/v1/about").json()["cameras"]["new 9"] == 1
    assert api.get("/api/v1/thumbnail", params={"id": found["id"]}).status_code == 200
    assert audit_entries(service, "add")[0]["id"] == found["id"]


def thumbnails(service: SearchService) -> int:
    return len(list((service.archive.folder / "thumbnails").rglob("*.jpg")))


@pytest.mark.parametrize(
    ("filter", "rows"),
    [({"pids": ["p5"]}, 8), ({"cameras": ["night 3"]}, 16), ({"tracks": ["1-4", "2-4"]}, 4),
     ({"before_s": START_S + 3600 * 5, "modality": "visible"}, 8)],
)  # fmt: skip
def test_people_are_forgotten_with_thumbnails_and_marks(
    api: TestClient, service: SearchService, filter: dict[str, Any], rows: int
) -> None:
    every = {crop.id for crop in crops(service.bundle.path.parent)}
    chosen = Filter(**{**filter, "modality": 0} if "modality" in filter else filter)
    going = {row.id for row in service.archive.gallery.rows(chosen)}
    marks = [{"id": id, "right": True} for id in every]
    api.post("/api/v1/marks", json={"query": "b" * 64, "marks": marks})
    counted = api.post("/api/v1/forget", json={"filter": filter}).json()
    assert counted == {"rows": rows, "deleted": False} and service.archive.gallery.count() == 64
    assert api.post("/api/v1/forget", json={"filter": filter, "expect": rows + 1}).status_code == 409
    gone = api.post("/api/v1/forget", json={"filter": filter, "expect": rows}).json()
    assert gone.pop("recordings") and gone.pop("alarms") == 0 and gone.pop("cases_left") == []
    assert gone.pop("cases_changed") == gone.pop("cases_deleted") == 0
    assert gone == {"rows": rows, "thumbnails": rows, "marks": rows, "deleted": True}
    assert {row.id for row in service.archive.gallery.rows()} == every - going and thumbnails(service) == 64 - rows
    assert {row["id"] for row in api.get("/api/v1/marks").json()} == every - going
    assert api.get("/api/v1/thumbnail", params={"id": next(iter(going))}).status_code == 404
    assert api.get("/api/v1/about").json()["rows"] == 64 - rows
    assert audit_entries(service, "forgotten")[0]["rows"] == rows == audit_entries(service, "forget")[0]["rows"]


def test_rows_are_forgotten_by_id_and_never_all_at_once(api: TestClient, service: SearchService) -> None:
    ids = ["gate 1/5/0", "gate 1/5/1", "no such row"]
    assert api.post("/api/v1/forget", json={"ids": ids, "expect": 2}).json()["rows"] == 2
    for body in ({}, {"filter": {}}, {"filter": {}, "expect": 62}, {"ids": ids, "filter": {"pids": ["p5"]}}):
        assert api.post("/api/v1/forget", json=body).status_code == 422
    with pytest.raises(GalleryError, match="delete everything"):
        service.archive.forget(where=Filter())
    assert service.archive.gallery.count() == 62


def test_nothing_is_left_on_the_disk(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="extra: search")
    place = tmp_path / "gallery"
    opened = open_gallery(f"lance:{place}", bundle.config.dim, bundle.config.digest)
    service = make_service(files_of(f"lance:{place}", None), bundle, opened)
    api = client(service)
    api.post("/api/v1/marks", json={"query": "c" * 64, "marks": [{"id": "gate 1/5/0", "right": True}]})
    [record] = opened.fetch(["gate 1/5/0"])
    written = (record.vector.tobytes(), b"gate 1/5/0")

    def where(needle: bytes) -> list[str]:
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "audit.jsonl"]
        return [path.name for path in files if needle in path.read_bytes()]

    assert where(written[0]) and where(written[1])
    assert api.post("/api/v1/forget", json={"filter": {"pids": ["p5"]}, "expect": 8}).status_code == 200
    assert where(written[0]) == [] and where(written[1]) == []
    assert opened.count() == 56 and search(api, picture(bundle))["hits"][0]["pid"] != "p5"
    service.archive.close()


def test_retention_forgets_by_age(service: SearchService) -> None:
    service.archive.gallery.upsert([_timeless(service)])
    client(service).post("/api/v1/marks", json={"query": "d" * 64, "marks": [{"id": "gate 1/10/0", "right": True}]})
    days = (time.time() - (START_S + 3600 * 5)) / 86400  # people 3 and 4 came before
    gone, said = apply_retention(service.archive, days, "vireid serve")
    assert gone.rows == 16 == gone.thumbnails and "retention does not reach 1 row without a time" in said
    assert service.archive.gallery.count() == 49 and audit_entries(service, "retention")[0]["rows"] == 16
    assert len(service.archive.marks.of()) == 1  # made just now
    again, _ = apply_retention(service.archive, days, "vireid serve")
    assert again.rows == 0 and len(audit_entries(service, "retention")) == 1
    with pytest.raises(GalleryError, match="above 0"):
        service.archive.forget_older(0)


def _timeless(service: SearchService) -> Any:
    [record] = service.archive.gallery.fetch(["gate 1/10/1"])
    return replace(record, id="no time", time_s=math.nan)


def test_the_service_applies_its_retention_while_it_runs(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = (time.time() - (START_S + 3600 * 5)) / 86400
    service = make_service(tmp_path / "a", bundle, settings=ServerSettings(retention_days=days))
    applied = threading.Event()
    clear = service.clear_facets
    monkeypatch.setattr(service, "clear_facets", lambda: (clear(), applied.set()))
    with client(service) as api:
        assert applied.wait(WAIT_S), "retention did not run"
        assert service.archive.gallery.count() == 48 == api.get("/api/v1/about").json()["rows"]
        assert api.get("/api/v1/about").json()["keep_days"] == days
