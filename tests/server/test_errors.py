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
    [(ArgumentError("k is 1 or more, got 0"), 422), (Teapot("short and stout"), 418), (DiskFull(Path("x.jpg")), 507)],
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
