"""People in uploaded pictures over HTTP: boxes, limits, roles, and a place among what computes."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
pytest.importorskip("uvicorn", reason="extra: serve")
from PIL import Image
from served import SMALL, bearer, client, jpeg, make_service, picture
from serving import RunningServer
from spotted import Spotter, frame

import vireid
from vireid.deploy.bundle import Bundle
from vireid.errors import DetectorError, RequestError
from vireid.ingest import detect, nanodet
from vireid.server.auth import Tokens
from vireid.server.detection import Detection
from vireid.server.settings import ServerSettings
from vireid.workflows.service import open_service


def detecting(folder: Path, bundle: Bundle, detector: Any = None, **settings: Any) -> Any:
    """A service with a detector."""
    given = ServerSettings(detection=Detection(detector or Spotter()), **settings)
    return make_service(folder / "files", bundle, fill=False, settings=given)


def sent(data: bytes, **ask: Any) -> dict[str, Any]:
    return {"files": [("picture", ("a.png", data, "image/png"))], "data": {"ask": json.dumps(ask)}}


def test_people_are_answered_in_pixels_the_best_first(tmp_path: Path, bundle: Bundle) -> None:
    api = client(detecting(tmp_path, bundle))
    assert api.get("/api/v1/about").json()["detection"] is True
    found = api.post(
        "/api/v1/detect", **sent(jpeg(frame((20, 10, 60, 110), (100, 20, 160, 140), (200, 5, 206, 100)), "PNG"))
    )
    assert found.status_code == 200
    assert found.json()["size"] == [160, 320] and found.json()["took_s"] >= 0
    people = found.json()["people"]
    assert [one["box"] for one in people] == [[100, 20, 160, 140], [20, 10, 60, 110]]
    assert [one["score"] for one in people] == sorted((one["score"] for one in people), reverse=True)
    nobody = api.post("/api/v1/detect", **sent(jpeg(frame(), "PNG"))).json()
    assert nobody["people"] == [] and nobody["size"] == [160, 320]
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    frame((20, 10, 60, 110)).save(turned, "PNG", exif=exif)
    assert api.post("/api/v1/detect", **sent(turned.getvalue())).json()["size"] == [320, 160]


def test_a_request_is_checked_as_that_of_a_search(tmp_path: Path, bundle: Bundle, secrets: dict[str, str]) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    api = client(detecting(tmp_path, bundle, limits=SMALL, tokens=tokens), **bearer(secrets["search"]))
    small = jpeg(frame())

    def status(expected: int, **request: Any) -> str:
        answer = api.post("/api/v1/detect", **request)
        assert answer.status_code == expected, answer.text
        return answer.json()["error"]

    assert "expected one picture, got 0" in status(422, json={})
    assert "expected one picture, got 2" in status(422, files=[("picture", ("a", small)), ("picture", ("b", small))])
    assert "thermal_range" in status(422, **sent(small, thermal_range=[3, 1]))
    assert "boxes" in status(422, **sent(small, boxes=[]))
    status(415, **sent(b"%PDF-1.7 is no picture"))
    status(413, **sent(jpeg(Image.new("RGB", (2000, 2000)))))
    status(413, **sent(jpeg(Image.effect_noise((900, 900), 200).convert("RGB"), "PNG")))
    without = client(make_service(tmp_path / "without", bundle, fill=False))
    assert without.get("/api/v1/about").json()["detection"] is False
    answer = without.post("/api/v1/detect", **sent(small))
    assert answer.status_code == 501 and "by --detector" in answer.json()["error"]


def test_detection_waits_for_its_place_and_is_counted(tmp_path: Path, bundle: Bundle) -> None:
    begun, go_on = threading.Event(), threading.Event()
    working: list[int] = []

    def slow(frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        working.append(1)
        assert len(working) == 1  # one thread at a time
        begun.set()
        assert go_on.wait(300)
        working.pop()
        return [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))]

    service = detecting(tmp_path, bundle, slow, max_computing=2, max_waiting=1)
    api = client(service)
    answers: list[int] = []

    def ask() -> None:
        answers.append(api.post("/api/v1/detect", **sent(jpeg(frame()))).status_code)

    with api:  # one event loop for all requests
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert begun.wait(300)
        pool = api.app.state.pool  # type: ignore[attr-defined]
        wait = threading.Event()
        while pool.requests < 3:
            wait.wait(0.01)
        assert api.get("/healthz").status_code == 200  # the event loop is free
        full = api.post("/api/v1/detect", **sent(jpeg(frame())))
        assert full.status_code == 503 and full.headers["retry-after"] == "5"
        go_on.set()
        for thread in threads:
            thread.join(300)
        metrics = api.get("/metrics").text
    assert answers == [200, 200, 200]
    assert 'vireid_requests_total{method="POST",operation="detect",status="200"} 3.0' in metrics
    assert 'vireid_requests_total{method="POST",operation="detect",status="503"} 1.0' in metrics


@pytest.fixture
def running(tmp_path: Path, bundle: Bundle) -> Iterator[RunningServer]:
    server = RunningServer(detecting(tmp_path, bundle))
    yield server
    server.stop()


def test_the_client_detects_and_searches_for_one(running: RunningServer, bundle: Bundle) -> None:
    with vireid.Client(running.url) as api:
        found = api.detect(jpeg(frame((100, 20, 160, 140)), "PNG"))
        assert found.size == (160, 320) and found.people[0].box == (100, 20, 160, 140)
        assert api.detect(picture(bundle), thermal_range=(0, 9)).people == []
        with pytest.raises(RequestError, match="415") as error:
            api.detect(b"no picture")
        assert error.value.http_status == 415


def test_serve_opens_a_detector_by_folder_or_name(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[float] = []

    def make(min_score: float) -> Spotter:
        opened.append(min_score)
        return Spotter()

    monkeypatch.setitem(detect.SHIPPED, "spotter", detect.Shipped(make, 0.7, tmp_path))
    with pytest.raises(DetectorError, match="did you mean spotter"):
        open_service(bundle.path, "memory:", detector="spoter", device="cpu")
    gallery = f"lance:{tmp_path / 'g'}"
    vireid.open_gallery(gallery, model=bundle.config)
    assert open_service(bundle.path, gallery, detector="none").settings.detection is None
    monkeypatch.setattr(nanodet, "installed", lambda name: False)
    assert open_service(bundle.path, gallery).settings.detection is None
    monkeypatch.undo()
    monkeypatch.setitem(detect.SHIPPED, "spotter", detect.Shipped(make, 0.7, tmp_path))
    by_default = open_service(bundle.path, gallery).settings.detection
    assert by_default is not None and isinstance(by_default._detector, nanodet.NanoDet)
    service = open_service(bundle.path, gallery, detector="spotter", device="cpu")
    assert opened == [0.7]
    assert service.settings.detection is not None
    assert len(service.settings.detection.people(frame((20, 10, 60, 110)))) == 1
