"""Requests of other sites: host names, origins, and the headers of every response."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import HERE


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil", "[::2]:8000"]
)
def test_another_host_name_is_refused(api: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name now leads to this machine."""
    found = api.get("/api/v1/about", headers={"host": host})
    assert found.status_code == 400 and "cameras" not in found.text
    assert api.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_the_machines_own_names_are_answered(api: TestClient, host: str) -> None:
    assert api.get("/api/v1/about", headers={"host": host}).status_code == 200


def test_a_request_that_another_site_sent_is_refused(api: TestClient) -> None:
    cross = {"origin": "https://evil.example"}
    body = {"filter": {"pids": ["p5"]}, "expect": 8}
    for headers in (cross, {"origin": "null"}, {"origin": HERE + "1"}, {"origin": "http://[::1"},
                    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):  # fmt: skip
        assert api.post("/api/v1/forget", json=body, headers=headers).status_code == 403
    assert api.get("/api/v1/thumbnail?id=x", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    own = {"origin": HERE, "sec-fetch-site": "same-origin"}
    assert api.post("/api/v1/forget", json={"filter": {"pids": ["p5"]}}, headers=own).status_code == 200
    asked = api.options("/api/v1/search", headers={**cross, "access-control-request-method": "POST"})
    assert asked.status_code in (403, 405)
    assert "access-control-allow-origin" not in api.get("/api/v1/about", headers=cross).headers


@pytest.mark.parametrize(
    "path", ["/", "/page/app.js", "/api/v1/about", "/api/nothing", "/api/v1/thumbnail?id=gate 1/5/0"]
)
def test_every_answer_carries_the_policy(api: TestClient, path: str) -> None:
    for found in (api.get(path), api.get(path, headers={"host": "evil.example"})):
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert found.headers["x-content-type-options"] == "nosniff" and found.headers["x-frame-options"] == "DENY"
        assert found.headers["referrer-policy"] == "no-referrer" and found.headers["cache-control"]
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in found.headers
