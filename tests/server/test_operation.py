"""What operates the service: health, readiness, metrics, the access log and a proxy in front."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from served import HERE, bearer, make_service, picture, search, stripes
from served import jpeg as jpeg_of

from vireid.errors import GalleryDamaged, ServiceError
from vireid.live.watch import STATUS
from vireid.server.access_log import access_log
from vireid.server.app import create_app
from vireid.server.search_service import SearchService


def figures(api: TestClient, **headers: str) -> dict[tuple[str, ...], float]:
    """Every sample of /metrics by its name and the values of its labels, by their names."""
    text = api.get("/metrics", headers=headers).text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_probes_need_no_token_and_no_name(closed: SearchService) -> None:
    for host in ("http://10.0.0.9:8000", "http://evil.example"):
        api = TestClient(create_app(closed), base_url=host)
        assert api.get("/healthz").json() == {"status": "ok"} and api.head("/healthz").status_code == 200
        assert api.get("/readyz").json() == {"status": "ready", "faults": []}


def test_metrics_are_read_by_an_address_with_a_token_and_behind_a_name(
    closed: SearchService, secrets: dict[str, str]
) -> None:
    monitor, named = bearer(secrets["monitor"]), replace(closed.settings, hosts=("search.example",))
    api = TestClient(create_app(replace(closed, settings=named)), base_url="http://127.0.0.1:8000")
    assert api.get("/metrics").status_code == 401 and api.get("/api/v1/about", headers=monitor).status_code == 400
    assert "vireid_gallery_rows" in api.get("/metrics", headers=monitor).text


def test_a_local_service_refuses_foreign_names_but_for_probes(service: SearchService) -> None:
    api = TestClient(create_app(service), base_url="http://evil.example")
    assert api.get("/healthz").status_code == 200 and api.get("/metrics").status_code == 400
    assert api.get("/api/v1/about").status_code == 400


def test_it_is_not_ready_where_a_gallery_or_the_tokens_cannot_be_read(
    closed: SearchService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> int:
        raise GalleryDamaged("/secret/path is cut off")

    api = TestClient(create_app(closed), base_url=HERE)
    (tmp_path / "tokens.json").write_text("{}")
    monkeypatch.setattr(closed.archive.gallery, "count", broken)
    answer = api.get("/readyz")
    assert answer.status_code == 503 and "secret" not in answer.text and api.get("/healthz").status_code == 200
    assert answer.json()["faults"] == ["a gallery cannot be read", "the tokens cannot be read"]


def test_metrics_count_searches_requests_errors_and_rows(service: SearchService, bundle: Any) -> None:
    api = TestClient(create_app(service), base_url=HERE, raise_server_exceptions=False)
    search(api, picture(bundle), false_match_rate=0.01)
    search(api, jpeg_of(stripes()), false_match_rate=0.01, filter={"modality": "infrared"})
    search(api, picture(bundle))
    search(api, b"no picture", status=415)
    found = figures(api)
    assert found["vireid_gallery_rows", "gallery"] == 64 and found["vireid_gallery_readable", "gallery"] == 1
    outcomes = {
        name: found.get(("vireid_searches_total", "gallery", name), 0) for name in ("matches", "nobody", "ranked")
    }
    assert outcomes == {"matches": 1, "nobody": 1, "ranked": 1}
    assert found["vireid_search_duration_seconds_count", "gallery"] == 3
    assert found["vireid_search_duration_seconds_sum", "gallery"] > 0
    assert found["vireid_requests_total", "POST", "search", "200"] == 3
    assert found["vireid_requests_total", "POST", "search", "415"] == 1 == found["vireid_errors_total", "UploadError"]
    assert found["vireid_computing_requests",] == 0 and found["vireid_computing_capacity",] == 34
    api.get("/nowhere/1")
    api.request("BREW", "/nowhere/2")
    found = figures(api)
    assert found["vireid_requests_total", "GET", "none", "404"] == 1
    assert found["vireid_requests_total", "other", "none", "404"] == 1


def test_an_unexpected_error_is_counted_and_has_the_id_of_its_answer(
    service: SearchService, bundle: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    api = TestClient(create_app(service), base_url=HERE, raise_server_exceptions=False)
    monkeypatch.setattr(service.searcher, "search_vectors", broken)
    files = {"picture": ("x.jpg", picture(bundle), "image/jpeg")}
    answer = api.post("/api/v1/search", files=files)
    assert answer.status_code == 500 and f"({answer.headers['x-request-id']}) failed" in caplog.text
    found = figures(api)
    assert found["vireid_errors_total", "unexpected"] == 1
    assert found["vireid_requests_total", "POST", "search", "500"] == 1


def test_metrics_hold_what_watch_writes(service: SearchService) -> None:
    api = TestClient(create_app(service), base_url=HERE)
    assert not [name for name, *_ in figures(api) if "watch" in name]
    camera = {
        "address": "rtsp://x", "state": "reading", "reason": "", "clock": "",
        "frames": 90, "queued": 2, "dropped": 7,
        "repeated": 1, "refused": 0, "detections": 12, "rows": 5, "reconnects": 3, "last_frame": None, "lag_s": None,
    }  # fmt: skip
    status = {
        "at": "2026-11-24T21:04:11.207Z",
        "cameras": {"gate": camera, "hall": {**camera, "state": "waiting", "lag_s": 0.4}},
        "alarms": {"raised": 4, "not_acknowledged": 1}, "persons": [], "over_budget": [],
    }  # fmt: skip
    file = service.archive.folder / STATUS
    file.write_text(json.dumps(status))
    found = figures(api)
    assert found["vireid_watch_dropped_total", "gate", "gallery"] == 7
    assert found["vireid_watch_alarms_total", "gallery"] == 4 and found["vireid_watch_alarms_waiting", "gallery"] == 1
    assert found["vireid_watch_camera_reading", "gate", "gallery"] == 1
    assert found["vireid_watch_camera_reading", "hall", "gallery"] == 0
    assert found["vireid_watch_lag_seconds", "hall", "gallery"] == 0.4
    assert found["vireid_watch_status_seconds", "gallery"] == pytest.approx(1795554251.207)
    file.write_text('{"at": "yesterday"}')
    assert not [name for name, *_ in figures(api) if "watch" in name]


def test_the_status_of_watch_has_what_the_metrics_read() -> None:
    from vireid.live import watch
    from vireid.server.metrics import CameraStatus

    source = Path(watch.__file__).read_text("utf-8")
    assert all(f'"{name}": ' in source for name in CameraStatus.model_fields)


def test_the_access_log_has_neither_pictures_nor_queries(
    closed: SearchService, secrets: dict[str, str], bundle: Any, tmp_path: Path
) -> None:
    file = tmp_path / "access.jsonl"
    with access_log(file) as logger:
        api = TestClient(create_app(closed, access_log=logger), base_url="http://somewhere")
        api.get("/api/v1/thumbnail?id=gate 1/5/1", headers=bearer(secrets["search"]))
        files = {"picture": ("secret-name.jpg", picture(bundle), "image/jpeg")}
        ask = {"ask": json.dumps({"filter": {"cameras": ["gate 1"]}, "purpose": "case 7"})}
        api.post("/api/v1/search", files=files, data=ask, headers=bearer(secrets["search"]))
        file.rename(tmp_path / "rotated.jsonl")
        answer = api.get("/api/v1/about")
    lines = [json.loads(line) for line in (tmp_path / "rotated.jsonl").read_text().splitlines()]
    assert [(one["operation"], one["caller"], one["role"], one["status"]) for one in lines] == [
        ("thumbnail", "the search", "search", 200), ("search", "the search", "search", 200),
    ]  # fmt: skip
    assert lines[1]["path"] == "/api/v1/search" and lines[1]["bytes"] > 100 and lines[1]["ms"] > 0
    text = (tmp_path / "rotated.jsonl").read_text()
    assert not [word for word in ("gate", "case 7", "secret-name", secrets["search"]) if word in text]
    [last] = [json.loads(line) for line in file.read_text().splitlines()]
    assert last["status"] == 401 and last["caller"] == "" and last["id"] == answer.headers["x-request-id"]


def test_an_access_log_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="access-log"), access_log(tmp_path / "absent/a.jsonl"):
        pass


def test_the_files_of_a_service_must_be_writable(bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(tmp_path / "files", bundle)
    api = TestClient(create_app(service), base_url=HERE)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert api.get("/readyz").json()["faults"] == ["a folder of files cannot be written"]
    service.archive.close()
    shutil.rmtree(service.archive.folder)
    assert api.get("/readyz").status_code == 200  # it is made with the first entry
