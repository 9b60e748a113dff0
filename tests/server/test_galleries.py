"""Several galleries in one service, and what other processes write while it runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import HERE, bearer, calibration, crops, make_service, picture, search

from vireid.deploy.bundle_config import CALIBRATION
from vireid.errors import ServiceError
from vireid.ingest.index import index
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery
from vireid.server.app import create_app
from vireid.server.auth import Tokens
from vireid.server.calibration_file import CalibrationFile
from vireid.server.settings import ServerSettings
from vireid.workflows.service import open_services


@pytest.fixture
def two(bundle: Any, tmp_path: Path) -> Any:
    """A service of a full gallery `night` and an empty one `day`, with tokens for either and both."""
    tokens = Tokens(tmp_path / "tokens.json")
    secrets = {
        "both": tokens.add("both", "admin"),
        "night": tokens.add("night", "search", galleries=("night",)),
        "day": tokens.add("day", "admin", galleries=("day",)),
        "gone": tokens.add("gone", "search", galleries=("attic",)),
    }
    settings = ServerSettings(tokens=tokens, hosts=())
    services = [
        make_service(tmp_path / name, bundle, settings=settings, name=name, fill=name == "night")
        for name in ("night", "day")
    ]
    return TestClient(create_app(*services), base_url=HERE), secrets


def test_a_request_names_its_gallery_and_a_token_its_galleries(two: Any, bundle: Any) -> None:
    api, secrets = two
    about = api.get("/api/v1/about", headers=bearer(secrets["both"])).json()
    assert (about["gallery"], about["galleries"], about["rows"]) == ("night", ["night", "day"], 64)
    other = api.get("/api/v1/about?gallery=day", headers=bearer(secrets["both"])).json()
    assert (other["gallery"], other["rows"]) == ("day", 0)
    own = api.get("/api/v1/about", headers=bearer(secrets["day"])).json()
    assert (own["gallery"], own["galleries"]) == ("day", ["day"])
    refused = api.get("/api/v1/thumbnail?id=gate 1/5/1&gallery=night", headers=bearer(secrets["day"]))
    assert refused.status_code == 403 and refused.json()["error"].startswith("this token may use the galleries day;")
    assert api.get("/api/v1/about", headers=bearer(secrets["gone"])).status_code == 403
    assert api.get("/api/v1/about?gallery=attic", headers=bearer(secrets["both"])).status_code == 404
    assert api.get("/api/v1/about?gallery=attic").status_code == 401  # a caller without a token learns no name
    added = api.post(
        "/api/v1/records?gallery=day", headers=bearer(secrets["both"]),
        files={"picture": ("x.jpg", picture(bundle), "image/jpeg")}, data={"record": '{"camera": "door"}'},
    )  # fmt: skip
    assert added.status_code == 200
    rows = [
        api.get(f"/api/v1/about?gallery={name}", headers=bearer(secrets["both"])).json()["rows"]
        for name in ("night", "day")
    ]
    assert rows == [64, 1]
    metrics = api.get("/metrics?gallery=day", headers=bearer(secrets["both"])).text
    assert (
        'vireid_gallery_rows{gallery="night"} 64.0' in metrics and 'vireid_gallery_rows{gallery="day"} 1.0' in metrics
    )


def test_galleries_of_a_service_have_different_names(bundle: Any, tmp_path: Path) -> None:
    urls = [str(tmp_path / "a/night"), str(tmp_path / "b/night")]
    for url in urls:
        open_gallery(url, model=bundle.config).close()
    with pytest.raises(ServiceError, match="several galleries are called night"):
        open_services(bundle.path, urls, device="cpu")
    services = open_services(bundle.path, [urls[0], f"other={urls[1]}"], device="cpu")
    assert [service.name for service in services] == ["night", "other"]
    assert services[1].archive.folder == tmp_path / "b/night.files"
    below = open_services(bundle.path, [urls[0], f"other={urls[1]}"], device="cpu", files=tmp_path / "files")
    assert [service.archive.folder.name for service in below] == ["night", "other"]
    for service in (*services, *below):
        service.archive.close()


def test_a_calibration_of_another_process_is_seen(
    bundle: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    file = CalibrationFile(folder, bundle.config.digest)
    service = make_service(tmp_path / "files", bundle, calibration=None, calibration_file=file)
    api = TestClient(create_app(service), base_url=HERE)
    assert api.get("/api/v1/about").json()["calibration"] is None
    search(api, picture(bundle), false_match_rate=0.01, status=422)
    calibration(bundle).save(folder / CALIBRATION)
    answer = search(api, picture(bundle), false_match_rate=0.01)
    assert answer["hits"][0]["match"] and answer["hits"][0]["probability"] is not None
    (folder / CALIBRATION).write_text("{")
    with caplog.at_level(logging.ERROR, "vireid.server.calibration_file"):
        assert search(api, picture(bundle), false_match_rate=0.01)["hits"][0]["match"]
        assert api.get("/api/v1/about").json()["calibration"]["dataset"] == "manifest"
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1 and "stays in use" in told[0]
    (folder / CALIBRATION).unlink()
    search(api, picture(bundle), false_match_rate=0.01, status=422)


def test_rows_of_another_process_are_seen(bundle: Any, tmp_path: Path) -> None:
    url = str(tmp_path / "night")
    service = make_service(tmp_path / "night.files", bundle, open_gallery(url, model=bundle.config), fill=False)
    api = TestClient(create_app(service), base_url=HERE)
    assert api.get("/api/v1/about").json()["rows"] == 0
    other = Archive(open_gallery(url), tmp_path / "night.files")  # as of another process: a connection of its own
    index(other, service.searcher.extractor, crops(bundle.path.parent)[:8])
    assert search(api, picture(bundle, "3_1_1.jpg"))["searched"] == 8
    service.clear_facets()
    assert api.get("/api/v1/about").json()["rows"] == 8
    other.forget(["gate 1/3/0"])
    assert search(api, picture(bundle, "3_1_1.jpg"))["searched"] == 7
    assert api.get("/api/v1/thumbnail?id=gate 1/3/0").status_code == 404
    other.close()
    service.archive.close()


def test_counts_by_camera_are_made_again_after_a_while(
    service: Any, api: TestClient, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api.get("/api/v1/about").json()["rows"] == 64
    service.archive.gallery.delete(ids=["gate 1/3/0"])
    when, _, rows, facets = service._facets
    monkeypatch.setattr(service, "_facets", (when, 1e6, rows, facets))
    assert api.get("/api/v1/about").json()["rows"] == 64  # counting took long: not at every new row
    monkeypatch.setattr(service, "_facets", (when, 0.0, rows, facets))
    assert api.get("/api/v1/about").json()["rows"] == 63
