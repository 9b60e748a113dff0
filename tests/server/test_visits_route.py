"""Visits over HTTP: matching tracks as passages and visits, in the audit log, for the role search alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import START_S, audit_entries, bearer, client, jpeg, picture, search, stripes

from vireid.deploy.bundle import Bundle
from vireid.server.search_service import SearchService


def ask_visits(api: TestClient, data: bytes, status: int = 200, **request: Any) -> dict[str, Any]:
    response = api.post("/api/v1/visits", files={"picture": ("x.jpg", data)}, data={"ask": json.dumps(request)})
    assert response.status_code == status, response.text
    return response.json()


def test_a_picture_is_answered_by_the_passages_of_all_matching_tracks(
    api: TestClient, bundle: Bundle, service: SearchService
) -> None:
    hits = search(api, picture(bundle), per_track=True, false_match_rate=0.01, limit=64)["hits"]
    matching = {(hit["camera"], hit["track"]) for hit in hits if hit["match"]}
    answer = ask_visits(api, picture(bundle), false_match_rate=0.01)
    passages = [one for visit in answer["visits"] for one in visit["passages"]]
    assert matching and {(one["camera"], one["best"]["track"]) for one in passages} == matching
    own = next(one for one in passages if one["best"]["id"] == "gate 1/5/1")
    assert (own["first_s"], own["last_s"], own["rows"]) == (START_S + 5 * 3600 + 60, START_S + 5 * 3600 + 61, 2)
    for visit in answer["visits"]:
        assert visit["first_s"] == visit["passages"][0]["first_s"]
        assert visit["cameras"] == list(dict.fromkeys(one["camera"] for one in visit["passages"]))
    [entry] = audit_entries(service, "visits")
    assert entry["passages"] == len(passages) and entry["visits"] == len(answer["visits"])
    assert len(ask_visits(api, picture(bundle), false_match_rate=0.01, gap_s=86400)["visits"]) == 1


def test_nobody_has_no_visit_and_without_a_rate_the_most_similar_tracks_are_shown(
    api: TestClient, bundle: Bundle
) -> None:
    nobody = ask_visits(api, jpeg(stripes()), false_match_rate=0.01, filter={"modality": "infrared"})
    assert nobody["nobody"] in (True, False) and (nobody["visits"] == []) == nobody["nobody"]
    some = ask_visits(api, picture(bundle), limit=5, join_s=0)
    assert sum(one["tracks"] for visit in some["visits"] for one in visit["passages"]) == 5
    assert some["nobody"] is None


@pytest.mark.parametrize("wrong", [{"gap_s": 0}, {"gap_s": "soon"}, {"join_s": -1}, {"gap": 5}])
def test_a_wrong_gap_is_refused(api: TestClient, bundle: Bundle, wrong: dict[str, Any]) -> None:
    refused = ask_visits(api, picture(bundle), 422, **wrong)
    assert next(iter(wrong)) in refused["error"]


def test_who_may_only_add_sees_no_visit(closed: SearchService, bundle: Bundle, secrets: dict[str, str]) -> None:
    ask_visits(client(closed, **bearer(secrets["ingest"])), picture(bundle), 403)
    ask_visits(client(closed), picture(bundle), 401)
