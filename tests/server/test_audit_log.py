"""The audit log: what a request writes, and how a change of the log is noticed."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import audit_entries, client, make_service, picture, search

from vireid.deploy.bundle import Bundle
from vireid.errors import AuditError
from vireid.search.audit import START, Audit
from vireid.server.search_service import SearchService
from vireid.server.settings import ServerSettings
from vireid.workflows.service import audit_of


def test_a_search_is_logged_without_its_picture(api: TestClient, service: SearchService, bundle: Bundle) -> None:
    data = picture(bundle)
    search(api, data, filter={"cameras": ["night 3"]}, false_match_rate=0.01, purpose="case 7", limit=5)
    [entry] = audit_entries(service, "search")
    assert entry["who"] == "this machine" and entry["role"] == "admin" and entry["at"].endswith("Z")
    assert entry["pictures"] == [hashlib.sha256(data).hexdigest()] and entry["filter"] == {"cameras": ["night 3"]}
    assert entry["hits"] == 5 and entry["purpose"] == "case 7" and entry["false_match_rate"] == 0.01
    assert len(json.dumps(entry)) < 1000
    kept = [path for path in service.archive.folder.rglob("*") if path.is_file()]
    assert not any(data in path.read_bytes() for path in kept)
    assert service.archive.audit.verify() == len(service.archive.audit.entries())
    assert api.get("/api/v1/audit", params={"last": 1}).json()["entries"][0] == entry


def test_a_search_that_cannot_be_logged_is_not_answered(
    api: TestClient, service: SearchService, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service.archive.audit, "write", full)
    answer = search(api, picture(bundle), status=500)
    assert set(answer) == {"error"} and "space" not in answer["error"]
    assert api.post("/api/v1/forget", json={"filter": {"pids": ["p5"]}, "expect": 8}).status_code == 500
    assert service.archive.gallery.count() == 64  # what cannot be logged is not deleted either


def test_a_purpose_may_be_required(bundle: Bundle, tmp_path: Path) -> None:
    api = client(make_service(tmp_path / "a", bundle, settings=ServerSettings(purpose_required=True)))
    assert "purpose" in search(api, picture(bundle), status=422)["error"]
    assert search(api, picture(bundle), purpose="a missing child")["hits"]


def test_a_changed_log_is_noticed(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.jsonl")
    assert log.verify() == 0 and log.entries() == []
    for number in range(5):
        log.write("search", "desk", "search", "127.0.0.1", hits=number, purpose="näher 人")
    assert log.verify() == 5 and [entry["hits"] for entry in log.entries(3)] == [4, 3, 2]
    assert log.entries()[-1]["previous"] == START and (tmp_path / "audit.jsonl").stat().st_mode & 0o077 == 0
    lines = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for changed in (
        [lines[0], lines[1].replace('"hits": 1', '"hits": 0'), *lines[2:]],
        [lines[0], *lines[2:]],
        lines[1:],
        [lines[0], "{}\n", *lines[1:]],
        ["\n", *lines],
        ["junk of another program"],
        ["[1]\n"],
        ["1" * 5000 + "\n"],
        [],
    ):
        (tmp_path / "audit.jsonl").write_text("".join(changed), encoding="utf-8")
        with pytest.raises(AuditError, match="line"):
            log.verify()
        assert all(isinstance(entry, dict) for entry in log.entries())
    (tmp_path / "audit.jsonl").write_text("".join(lines)[:-20], encoding="utf-8")  # the plug was pulled
    log.write("search", "desk", "search", hits=5)
    assert log.verify() == 6 and log.entries()[0]["hits"] == 5


def test_an_audit_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"there is no audit log .*typo\.files/audit\.jsonl; check the name"):
        audit_of(str(tmp_path / "typo"), None, 5)
    assert list(tmp_path.iterdir()) == []


def test_several_threads_write_one_chain(tmp_path: Path) -> None:
    logs = [Audit(tmp_path / "audit.jsonl") for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 4].write("search", str(number), "search"), range(80)))
    assert logs[0].verify() == 80 and {entry["who"] for entry in logs[0].entries()} == set(map(str, range(80)))
