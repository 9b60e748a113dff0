"""Deleting a person from one of their rows: the tracks that are found, and what cases hold of the person."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import audit_entries, client, crops, picture

from vireid.deploy.bundle import Bundle
from vireid.search.gallery import Filter
from vireid.server.search_service import SearchService
from vireid.workflows.service import still_held


def keep(api: TestClient, *pictures: bytes, **ask: Any) -> str:
    files = [("picture", ("x", data)) for data in pictures]
    given: dict[str, Any] = {"data": {"ask": json.dumps(ask)}, "files": files} if files else {"json": ask}
    return api.post("/api/v1/cases", **given).json()["id"]


def test_the_tracks_of_a_person_are_listed_with_all_their_rows(api: TestClient, service: SearchService) -> None:
    asked = {"ids": ["gate 1/5/0", "night 3/5/1"], "false_match_rate": 0.01}
    found = api.post("/api/v1/person", json=asked).json()
    own, others = found["tracks"][:2], found["tracks"][2:]
    assert [track["row"]["id"] for track in own] == asked["ids"] and all(track["named"] for track in own)
    assert own[0]["ids"] == ["gate 1/5/0", "gate 1/5/1"] and own[0]["last_s"] - own[0]["first_s"] == 1
    assert others and all(track["match"] and not track["named"] for track in others) and found["complete"]
    listed = [row for track in found["tracks"] for row in track["ids"]]
    assert len(listed) == len(set(listed)) == 2 * len(found["tracks"])
    entry = audit_entries(service, "find person")[0]
    assert entry["ids"] == asked["ids"] and entry["tracks"] == len(found["tracks"])


def test_without_a_threshold_the_most_similar_tracks_are_listed(api: TestClient) -> None:
    found = api.post("/api/v1/person", json={"ids": ["gate 1/5/0"], "limit": 3}).json()["tracks"]
    assert [track["match"] for track in found] == [None] * 4 and [track["named"] for track in found] == [True] + 3 * [
        False
    ]
    assert [track["similarity"] for track in found[1:]] == sorted(
        (track["similarity"] for track in found[1:]), reverse=True
    )
    assert api.post("/api/v1/person", json={"ids": ["no such row"]}).status_code == 404
    assert api.post("/api/v1/person", json={"ids": []}).status_code == 422


def test_a_purpose_is_needed_where_searches_need_one(closed: SearchService, bundle: Bundle, secrets: Any) -> None:
    strict = replace(closed, settings=replace(closed.settings, purpose_required=True))
    admin = client(strict, authorization=f"Bearer {secrets['admin']}")
    assert admin.post("/api/v1/person", json={"ids": ["gate 1/5/0"]}).status_code == 422
    assert admin.post("/api/v1/person", json={"ids": ["gate 1/5/0"], "purpose": "art. 17"}).status_code == 200


def test_cases_lose_what_they_hold_of_deleted_rows(api: TestClient, service: SearchService, bundle: Bundle) -> None:
    own, other = picture(bundle, "5_1_0.png"), picture(bundle, "6_1_1.jpg")  # that of gate 1/5/0, and somebody else's
    rows = ["gate 1/5/0", "gate 1/5/1"]
    untouched = keep(api, other, right=["gate 1/6/0"])
    only_rows = keep(api, like=rows)
    only_picture = keep(api, own, right=rows)
    both = keep(api, own, other, boxes=[None, [0, 0, 1, 0.5]], wrong=[rows[1], "gate 1/6/0"], name="two people")
    marked = keep(api, other, right=[rows[0], "gate 1/6/0"], name="same person")
    gone = api.post("/api/v1/forget", json={"ids": rows, "expect": 2}).json()
    assert (gone["cases_changed"], gone["cases_deleted"]) == (2, 2)
    assert gone["cases_left"] == [f"same person ({marked})"]
    kept = {case["id"]: case for case in api.get("/api/v1/cases").json()["cases"]}
    assert set(kept) == {untouched, both, marked} and not {only_rows, only_picture} & set(kept)
    assert kept[untouched]["request"] == {"right": ["gate 1/6/0"]}
    assert kept[both]["request"] == {"boxes": [[0, 0, 1, 0.5]], "wrong": ["gate 1/6/0"]} and kept[both]["pictures"] == 1
    assert api.get(f"/api/v1/cases/{both}/pictures/0").content == other
    assert kept[marked]["request"] == {"right": ["gate 1/6/0"]}
    assert own not in service.archive.cases.path.read_bytes()
    entry = audit_entries(service, "forgotten")[0]
    assert (entry["cases_changed"], entry["cases_deleted"], entry["cases_left"]) == (2, 2, gone["cases_left"])


def test_a_filter_reaches_cases_too(api: TestClient, service: SearchService, bundle: Bundle) -> None:
    keep(api, picture(bundle, "5_1_0.png"))
    [crop] = [one for one in crops(bundle.path.parent) if one.id == "gate 1/5/0"]
    gone = service.archive.forget(where=Filter(tracks=(crop.track,)))
    assert gone.cases_deleted == 1 and service.archive.cases.all() == [] and "and 1 case" in str(gone)


def test_what_still_holds_a_person_is_named_on_the_command_line() -> None:
    assert still_held([], []) == []
    lines = still_held(["a.mp4"], ["gate (1f)"])
    assert lines[1] == "a.mp4" and lines[3] == "gate (1f)" and "1 case with pictures of them" in lines[2]
