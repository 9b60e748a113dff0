"""Errors of a route: a VireidError's message goes to the client, everything else to the log alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from hostile_pictures import GOOD
from served import post_picture

from vireid.errors import ArgumentError, DiskFull, VireidError
from vireid.server.app import UNEXPECTED
from vireid.server.search_service import SearchService


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, OSError, AssertionError])
def test_an_unexpected_error_is_logged_and_the_client_gets_a_fixed_text(
    api: TestClient,
    service: SearchService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    """A plain ValueError of numpy or of vireid's own code is a fault of the server, not of the request."""

    def broken(*given: Any, **more: Any) -> None:
        raise kind("/srv/secret/path")

    monkeypatch.setattr(service.searcher, "search_vectors", broken)
    with caplog.at_level(logging.ERROR, "vireid.server"):
        response = post_picture(api, GOOD)
    assert response.status_code == 500 and response.json() == {"error": UNEXPECTED}
    assert response.headers["content-security-policy"] and response.headers["cache-control"] == "no-store"
    [record] = [record for record in caplog.records if record.name.startswith("vireid.server")]
    assert "POST /api/v1/search" in record.getMessage()
    assert record.exc_info and record.exc_info[0] is kind and "secret" in str(record.exc_info[1])


class Teapot(VireidError):
    http_status = 418


@pytest.mark.parametrize(
    ("error", "status"),
    [(ArgumentError("k is 1 or more, got 0"), 422), (Teapot("short and stout"), 418)],
    ids=lambda value: type(value).__name__,
)
def test_a_vireid_error_is_reported_with_its_status(
    api: TestClient, service: SearchService, monkeypatch: pytest.MonkeyPatch, error: VireidError, status: int
) -> None:
    def broken(*given: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(service.searcher, "search_vectors", broken)
    response = post_picture(api, GOOD)
    assert response.status_code == status and response.json() == {"error": str(error)}


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("marks.sqlite", "POST", "marks", {"query": "0" * 64, "marks": [{"id": "a", "right": True}]}),
        ("marks.sqlite", "GET", "marks", None),
        ("cases.sqlite", "GET", "cases", None),
        ("cases.sqlite", "DELETE", "cases/no-such", None),
        ("watch.sqlite", "GET", "alarms", None),
    ],
)
def test_files_of_the_server_that_are_damaged_are_named_in_its_log_alone(
    api: TestClient,
    service: SearchService,
    caplog: pytest.LogCaptureFixture,
    name: str,
    method: str,
    path: str,
    body: Any,
) -> None:
    folder = service.archive.folder
    service.archive.marks.close()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"no database at all " * 200)
    with caplog.at_level(logging.ERROR, "vireid.server"):
        response = api.request(method, f"/api/v1/{path}", json=body)
    assert response.status_code == 503 and "the server's log has the reason" in response.json()["error"]
    assert str(folder) not in response.text and str(folder / name) in caplog.text


def test_a_full_disk_is_reported_without_its_path(
    api: TestClient, service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **more: Any) -> None:
        raise DiskFull(Path("/srv/secret/x.jpg"))

    monkeypatch.setattr(service.searcher, "search_vectors", broken)
    response = post_picture(api, GOOD)
    assert response.status_code == 507 and "disk of the server is full" in response.json()["error"]
    assert "secret" not in response.text
