"""Case files and cases over HTTP: what they hold, who may delete them, and the alarms of a watch-list."""

from __future__ import annotations

import csv
import json
import time
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import audit_entries, bearer, client, picture, search

from vireid.deploy.bundle import Bundle
from vireid.live.store import NAME, WatchStore
from vireid.server.search_service import SearchService


def post(api: TestClient, path: str, data: bytes, **ask: Any) -> Any:
    return api.post(f"/api/v1/{path}", files={"picture": ("x.jpg", data)}, data={"ask": json.dumps(ask)})


def test_a_case_file_holds_all_hits_and_how_they_came_about(
    api: TestClient, service: SearchService, bundle: Bundle
) -> None:
    hits = search(api, picture(bundle), false_match_rate=0.01, limit=64)["hits"]
    ask = {"false_match_rate": 0.01, "name": "case <7>", "note": "seen at the gate", "purpose": "test"}
    rows = list(csv.DictReader(post(api, "case-file?format=csv", picture(bundle), **ask).text.splitlines()))
    assert [row["id"] for row in rows] == [hit["id"] for hit in hits]
    assert [row["match"] for row in rows] == [str(hit["match"]) for hit in hits]
    assert all((row["probability"] == "") == (hit["match"] is False) for row, hit in zip(rows, hits, strict=True))
    content = post(api, "case-file?format=json", picture(bundle), **ask).json()
    assert len(content["hits"]) == 64 and content["hits"][0]["time"] == "2023-11-15T03:14:21+00:00"
    about = content["search"]
    assert about["searched by"] == "this machine (admin)" and about["false-match rate"] == "0.01"
    assert bundle.config.digest[:12] in about["model"] and about["purpose"] == "test" and about["rows searched"] == "64"
    answer = post(api, "case-file", picture(bundle), **ask)
    assert answer.headers["content-disposition"] == 'attachment; filename="case.html"'
    page = answer.text
    assert page.count("data:image/jpeg;base64,") == 65 and "case &lt;7&gt;" in page and "<7>" not in page
    assert "seen at the gate" in page and "://" not in page and "Matches: " in page
    places = [page.index(text) for text in ("seen at the gate", "searched by", "<h2>Hits", "rows searched")]
    assert places == sorted(places)
    assert "2023-11-15 03:14:21 UTC" in page
    exports = audit_entries(service, "export")
    assert [entry["form"] for entry in exports] == ["html", "json", "csv"] and exports[0]["hits"] == 64


def test_a_case_without_a_query_is_refused(api: TestClient) -> None:
    assert api.post("/api/v1/case-file", json={}).status_code == 422
    assert api.post("/api/v1/cases", json={"name": "empty"}).status_code == 422
    assert api.get("/api/v1/cases").json() == {"cases": []}


def test_a_case_is_kept_opened_changed_and_deleted(api: TestClient, service: SearchService, bundle: Bundle) -> None:
    box = [0.1, 0.1, 0.9, 0.9]
    kept = post(api, "cases", picture(bundle), name="gate", note="first", boxes=[box], right=["gate 1/5/0"]).json()
    assert kept["request"] == {"boxes": [box], "right": ["gate 1/5/0"]} and kept["pictures"] == 1
    assert api.get(f"/api/v1/cases/{kept['id']}").json() == kept
    assert api.get(f"/api/v1/cases/{kept['id']}/pictures/0").content == picture(bundle)
    assert api.get(f"/api/v1/cases/{kept['id']}/pictures/1").status_code == 404
    changed = api.post(f"/api/v1/cases/{kept['id']}", json={"name": "hall", "note": "second"}).json()
    assert (changed["name"], changed["note"]) == ("hall", "second")
    assert [case["name"] for case in api.get("/api/v1/cases").json()["cases"]] == ["hall"]
    assert api.delete(f"/api/v1/cases/{kept['id']}").json() == {"deleted": True}
    assert api.get(f"/api/v1/cases/{kept['id']}").status_code == 404
    assert picture(bundle) not in service.archive.cases.path.read_bytes()
    kinds = {entry["what"] for entry in service.archive.audit.entries()}
    assert {"keep case", "open case", "change case", "delete case"} <= kinds


def test_retention_deletes_old_cases(service: SearchService) -> None:
    cases = service.archive.cases
    now = time.time()
    cases.add("old", "", "desk", now - 10 * 86400, "{}", [b"picture"])
    new = cases.add("new", "", "desk", now, "{}", [])
    service.archive.forget_older(5)
    assert [case.id for case in cases.all()] == [new.id]


def test_only_the_author_and_an_administrator_delete_a_case(
    closed: SearchService, bundle: Bundle, secrets: dict[str, str]
) -> None:
    searcher, admin = (client(closed, **bearer(secrets[role])) for role in ("search", "admin"))
    first, second = (post(admin, "cases", picture(bundle), name="theirs").json()["id"] for _ in range(2))
    own = post(searcher, "cases", picture(bundle), name="own").json()["id"]
    assert searcher.get(f"/api/v1/cases/{first}").status_code == 200
    refused = searcher.delete(f"/api/v1/cases/{first}")
    assert refused.status_code == 403 and "the admin" in refused.json()["error"]
    assert searcher.delete(f"/api/v1/cases/{own}").status_code == 200
    assert admin.delete(f"/api/v1/cases/{second}").status_code == 200
    assert client(closed, **bearer(secrets["ingest"])).get("/api/v1/cases").status_code == 403


def test_alarms_of_the_watch_list_are_read_and_not_changed(api: TestClient, service: SearchService) -> None:
    assert api.get("/api/v1/alarms").json() == {"watched": False, "alarms": []}
    store = WatchStore(service.archive.folder / NAME)
    event = {
        "kind": "alarm", "person": "anna", "purpose": "missing", "camera": "gate 1", "time": "", "row": "gate 1/5/0",
        "track": "1-5", "modality": "visible", "similarity": 0.9, "threshold": 0.8, "false_alarms_per_day": 1,
    }  # fmt: skip
    for number in range(3):
        store.raise_alarm({**event, "id": f"{number}", "time_s": 1000.0 * number}, ("webhook",), 60, 0)
    store.acknowledged(store.due("webhook", 1)[0])
    answer = api.get("/api/v1/alarms?last=2").json()
    assert answer["watched"] and [alarm["id"] for alarm in answer["alarms"]] == ["2", "1"]
    assert answer["alarms"][0]["waiting"] == ["webhook"] and answer["alarms"][0]["person"] == "anna"
    assert api.get("/api/v1/alarms").json()["alarms"][2]["waiting"] == [] and store.waiting() == 2
    store.close()


def test_the_scene_of_a_picture_is_that_picture_and_is_logged(api: TestClient, service: SearchService) -> None:
    answer = api.get("/api/v1/scene", params={"id": "gate 1/5/1"})
    assert answer.status_code == 200 and answer.headers["vireid-scene"] == "picture"
    assert answer.content[:2] == b"\xff\xd8" and audit_entries(service, "scene")[0]["id"] == "gate 1/5/1"
    assert api.get("/api/v1/scene", params={"id": "nothing"}).status_code == 404
