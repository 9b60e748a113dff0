"""vireid.Client against a real server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
pytest.importorskip("uvicorn", reason="extra: serve")
from served import make_service, picture
from serving import RunningServer

import vireid
from vireid.errors import RequestError, SettingsError
from vireid.server.auth import Tokens
from vireid.server.responses import AboutResponse, PublicAbout
from vireid.server.settings import ServerSettings


@pytest.fixture
def running(bundle: Any, tmp_path: Path, secrets: dict[str, str]) -> Iterator[RunningServer]:
    settings = ServerSettings(tokens=Tokens(tmp_path / "tokens.json"), hosts=())
    server = RunningServer(make_service(tmp_path / "files", bundle, settings=settings))
    yield server
    server.stop()


def test_search_mark_add_and_forget(running: RunningServer, secrets: dict[str, str], bundle: Any) -> None:
    with vireid.Client(running.url, secrets["admin"]) as client:
        about = client.about()
        assert isinstance(about, AboutResponse) and about.rows == 64 and about.caller.name == "the admin"
        path = bundle.path.parent / "data/5_1_1.jpg"
        answer = client.search(path, false_match_rate=0.01, filter={"cameras": ["gate 1"]}, limit=3)
        assert answer.hits[0].id == "gate 1/5/1" and answer.hits[0].match and answer.nobody is False
        both = client.search([path, picture(bundle, "5_2_1.jpg")], combine="best")
        assert both.modality == ["visible", "visible"]
        like = client.search(like=["gate 1/5/1"])
        assert "gate 1/5/1" not in [hit.id for hit in like.hits]
        visits = client.visits(path, false_match_rate=0.01)
        assert "gate 1/5/1" in [one.best.id for visit in visits.visits for one in visit.passages]
        assert visits.query == client.search(path).query
        assert client.visits(like=["gate 1/5/1"], limit=3).nobody is None
        page = client.case_file(path, name="case 7", filter={"cameras": ["gate 1"]}).decode()
        assert "<h1>case 7</h1>" in page and "gate 1/5/1" in page
        assert client.case_file(like=["gate 1/5/1"], file_format="csv").startswith(b"rank,id,camera")
        assert client.alarms().alarms == [] and not client.alarms(last=1).watched
        assert client.mark(answer.query, {"gate 1/5/1": True, "gate 1/6/1": False}) == 2
        assert client.mark(answer.query, {"gate 1/6/1": None}) == 1
        times = [row.time_s for row in client.rows(limit=10, order="newest")]
        assert len(times) == 64 and times == sorted(times, reverse=True)
        assert len(list(client.rows(limit=10))) == 64 and client.thumbnail("gate 1/5/1").startswith(b"\xff\xd8")
        assert client.attention(path, "visible").startswith(b"\x89PNG")
        added = client.add(path, "door", pid="p5", time_s=1.7e9)
        person = client.person([answer.hits[0].id], limit=2, purpose="erasure")
        assert person.tracks[0].named and answer.hits[0].id in person.tracks[0].ids and len(person.tracks) == 3
        assert client.count(pids=["p5"]) == 9 and [row.id for row in client.rows(filter={"cameras": ["door"]})] == [
            added.id
        ]
        with pytest.raises(RequestError, match="9 such rows now, not 8") as error:
            client.forget(pids=["p5"], expect=8)
        assert error.value.http_status == 409
        gone = client.forget(pids=["p5"], expect=9)
        assert gone.deleted and gone.rows == 9 and gone.marks == 1
        assert client.audit(1)[0]["what"] == "forgotten"


def test_what_is_refused_says_why(running: RunningServer, secrets: dict[str, str], tmp_path: Path) -> None:
    with vireid.Client(running.url + "/", secrets["ingest"]) as client:
        about = client.about()
        assert isinstance(about, PublicAbout) and not isinstance(about, AboutResponse)
        with pytest.raises(RequestError, match="needs search") as error:
            client.search(like=["gate 1/5/1"])
        assert error.value.http_status == 403
        with pytest.raises(RequestError, match="415"):
            client.add(b"%PDF-1.7", "door")
        with pytest.raises(SettingsError, match=r"limit.*\n.*cameras"):
            client.search(limit=0, cameras=["gate 1"])
    with vireid.Client(running.url) as client, pytest.raises(RequestError, match="needs a token"):
        client.about()
    running.stop()
    with (
        vireid.Client(running.url) as client,
        pytest.raises(RequestError, match="is the service running there") as error,
    ):
        client.about()
    assert error.value.http_status == 0
