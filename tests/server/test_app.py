"""The search service: what is asked, what is answered, what is kept and how it is forgotten."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("multipart", reason="needs the extra `serve`")
from fastapi.testclient import TestClient
from PIL import Image
from served import NAMES, START_S, calibration, client, crops, jpeg, make_bundle, make_service, quiet, stripes

from vireid.deploy.bundle import Bundle
from vireid.errors import AuditError, GalleryError
from vireid.ingest.index import Crop, SourceError, crops_of, index
from vireid.search.archive import Archive, files_of
from vireid.search.audit import START, Audit
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.server.app import Service, forget_older


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("app"))


@pytest.fixture
def service(bundle: Bundle, tmp_path: Path) -> Service:
    return make_service(tmp_path / "files", bundle)


@pytest.fixture
def api(service: Service) -> TestClient:
    return client(service)


def picture(bundle: Bundle, name: str = "5_1_1.jpg") -> bytes:
    return (bundle.path.parent / "data" / name).read_bytes()


def search(api: TestClient, *pictures: bytes, status: int = 200, **ask: Any) -> dict[str, Any]:
    files = [("picture", ("x.jpg", data, "image/jpeg")) for data in pictures]
    sent = {"data": {"ask": json.dumps(ask)}, "files": files} if files else {"json": ask}
    found = api.post("/api/search", **sent)
    assert found.status_code == status, found.text
    return found.json()


def entries(service: Service, what: str) -> list[dict[str, Any]]:
    return [entry for entry in service.archive.audit.entries() if entry["what"] == what]


# --- searching --------------------------------------------------------------------------------------------------------


def test_the_same_picture_comes_first_and_the_order_is_that_of_the_gallery(
    api: TestClient, service: Service, bundle: Bundle
) -> None:
    found = search(api, picture(bundle), modality="visible", limit=64)
    assert found["hits"][0]["id"] == "gate 1/5/1" and found["hits"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert found["modality"] == ["visible"] and found["searched"] == 64 and not found["more"]
    vector = service.searcher.extractor(Image.open(io.BytesIO(picture(bundle))), "visible")
    [expected] = service.archive.gallery.search(vector, 64)
    assert [hit["id"] for hit in found["hits"]] == [hit.record.id for hit in expected]
    made = calibration(bundle)
    for hit in found["hits"]:
        assert hit["probability"] == pytest.approx(float(made.probability(hit["similarity"], (0, 0))))
        assert set(hit) == {
            "id", "camera", "time_s", "modality", "track", "pid", "tags", "similarity", "probability", "match"
        }  # fmt: skip
        assert hit["match"] is None  # no rate was asked for


def test_pages_join_without_gap_or_repetition(api: TestClient, bundle: Bundle) -> None:
    whole = search(api, picture(bundle), limit=64)["hits"]
    pages = [search(api, picture(bundle), limit=20, offset=offset) for offset in (0, 20, 40, 60)]
    assert [hit for page in pages for hit in page["hits"]] == whole
    assert [page["more"] for page in pages] == [True, True, True, False]
    reranked = []
    for offset in range(0, 64, 16):
        reranked.append(search(api, picture(bundle), limit=16, offset=offset, rerank="k-reciprocal")["hits"])
    assert sorted(hit["id"] for page in reranked for hit in page) == sorted(hit["id"] for hit in whole)


def test_one_hit_per_track_and_its_pages(api: TestClient, bundle: Bundle) -> None:
    whole = search(api, picture(bundle), limit=64, per_track=True)
    tracks = [hit["track"] for hit in whole["hits"]]
    assert len(tracks) == 32 == len(set(tracks)) and whole["stamp"]["hits"] == "one per track" and not whole["more"]
    best: dict[str, str] = {}
    for hit in search(api, picture(bundle), limit=64)["hits"]:
        best.setdefault(hit["track"], hit["id"])
    assert [hit["id"] for hit in whole["hits"]] == list(best.values())
    pages = [search(api, picture(bundle), limit=12, offset=offset, per_track=True) for offset in (0, 12, 24)]
    assert [hit for page in pages for hit in page["hits"]] == whole["hits"]
    assert [page["more"] for page in pages] == [True, True, False]
    narrow = search(api, picture(bundle), per_track=True, rerank="k-reciprocal", filter={"cameras": ["night 3"]})
    assert sorted(hit["track"] for hit in narrow["hits"]) == sorted(f"3-{pid}" for pid in range(3, 11))
    marked = search(api, picture(bundle), limit=64, per_track=True, wrong=[whole["hits"][0]["id"]])
    assert tracks[0] not in {hit["track"] for hit in marked["hits"]} and len(marked["hits"]) == 31


def test_filters_narrow_what_is_searched(api: TestClient, bundle: Bundle) -> None:
    found = search(api, picture(bundle), filter={"modality": "infrared", "cameras": ["night 3"]}, limit=64)
    assert {hit["camera"] for hit in found["hits"]} == {"night 3"} and found["searched"] == len(found["hits"]) == 16
    hours = {"after_s": START_S + 3600 * 5, "before_s": START_S + 3600 * 6}
    assert {hit["pid"] for hit in search(api, picture(bundle), filter=hours)["hits"]} == {"p5"}
    assert search(api, picture(bundle), filter={"tags": ["night"], "pids": ["p4"], "tracks": ["4-4"]})["searched"] == 2
    nothing = search(api, picture(bundle), filter={"cameras": ["nowhere"]}, false_match_rate=0.01)
    assert nothing["hits"] == [] and nothing["nobody"] is True and nothing["searched"] == 0


def test_matches_and_nobody_follow_the_threshold(bundle: Bundle, tmp_path: Path) -> None:
    api = client(make_service(tmp_path / "a", bundle, threshold=0.9999))
    found = search(api, picture(bundle), false_match_rate=0.01, modality="visible")
    assert found["nobody"] is False and [hit["match"] for hit in found["hits"]].count(True) >= 1
    assert all(hit["match"] == (hit["similarity"] >= 0.9999) for hit in found["hits"])
    strange = search(api, jpeg(stripes()), false_match_rate=0.01, modality="visible")
    assert strange["nobody"] is True and strange["hits"] and not any(hit["match"] for hit in strange["hits"])
    told = search(api, picture(bundle), false_match_rate=0.0001)  # 4,000 pairs cannot support it
    assert told["nobody"] is None and "needs at least 300,000 pairs" in told["notes"][0]
    assert all(hit["match"] is None for hit in told["hits"])


def test_the_prior_is_a_number_or_one_of_what_is_searched(api: TestClient, bundle: Bundle) -> None:
    even = search(api, picture(bundle), modality="visible", limit=64)
    assert even["prior"] == 0.5
    for ask, prior, more in (
        (0.01, 0.01, {}),
        ("searched", 1 / 64, {}),
        ("searched", 1 / 16, {"filter": {"cameras": ["night 3"]}}),
        ("searched", 1 / 2, {"filter": {"cameras": ["nowhere"]}}),
    ):
        found = search(api, picture(bundle), modality="visible", limit=64, prior=ask, **more)
        assert found["prior"] == pytest.approx(prior)
        for hit in found["hits"]:
            odds = prior / (1 - prior) * np.exp(-8 + 12 * hit["similarity"])
            assert hit["probability"] == pytest.approx(odds / (1 + odds))
    assert [hit["id"] for hit in search(api, picture(bundle), modality="visible", limit=64, prior=0.01)["hits"]] == [
        hit["id"] for hit in even["hits"]
    ]
    for wrong in (0, 1, -1, "half", None, True):
        assert "prior" in search(api, picture(bundle), prior=wrong, status=422)["error"]


def test_without_a_calibration_the_list_is_ranked_and_nothing_is_claimed(bundle: Bundle, tmp_path: Path) -> None:
    api = client(make_service(tmp_path / "a", bundle, calibration=None))
    found = search(api, picture(bundle))
    assert found["nobody"] is None and {hit["probability"] for hit in found["hits"]} == {None}
    assert "vireid calibrate" in search(api, picture(bundle), false_match_rate=0.01, status=422)["error"]
    assert api.get("/api/about").json()["calibration"] is None


def test_a_pair_of_modalities_without_a_table_is_said(bundle: Bundle, tmp_path: Path) -> None:
    whole = calibration(bundle)
    part = {"pairs": {"visible/visible": whole.pairs["visible/visible"]}, "missing": {"visible/infrared": "no people"}}
    api = client(make_service(tmp_path / "a", bundle, calibration=calibration(bundle, **part)))
    found = search(api, picture(bundle), false_match_rate=0.01, modality="visible", limit=64)
    assert any("visible/infrared" in note for note in found["notes"])
    assert {hit["modality"] for hit in found["hits"] if hit["probability"] is None} == {"infrared"}


def test_several_pictures_a_box_and_rows_of_the_archive(api: TestClient, service: Service, bundle: Bundle) -> None:
    extract = service.searcher.extractor
    two = [picture(bundle, "5_1_0.png"), picture(bundle, "5_2_1.jpg")]
    images = [Image.open(io.BytesIO(data)) for data in two]
    vectors = extract(images, "visible")
    mean = vectors.mean(0, keepdims=True)
    expected = service.archive.gallery.search((mean / np.linalg.norm(mean)).astype(np.float32), 5)[0]
    assert [h["id"] for h in search(api, *two, limit=5, modality="visible")["hits"]] == [h.record.id for h in expected]
    best = search(api, *two, limit=2, combine="best", modality="visible")["hits"]
    assert {hit["id"] for hit in best} == {"gate 1/5/0", "hall 2/5/1"}

    frame = Image.new("RGB", (200, 120), "gray")
    frame.paste(images[0], (50, 20))
    width, height = images[0].size
    box = [50 / 200, 20 / 120, (50 + width) / 200, (20 + height) / 120]
    cut = search(api, jpeg(frame, "PNG"), boxes=[box], modality="visible")["hits"][0]
    assert cut["id"] == "gate 1/5/0" and cut["similarity"] == pytest.approx(1, abs=1e-5)

    like = api.post("/api/search", json={"like": ["gate 1/5/0"], "limit": 64}).json()
    assert "gate 1/5/0" not in [hit["id"] for hit in like["hits"]] and len(like["hits"]) == 63
    [expected] = service.archive.gallery.search(vectors[:1], 2)
    assert like["hits"][0]["id"] == expected[1].record.id and like["modality"] == ["visible"]
    both = search(api, two[1], like=["gate 1/5/0"], limit=5, modality="visible")
    assert len(both["modality"]) == 2


def test_marks_move_the_query_and_wrong_ones_are_gone(api: TestClient, service: Service, bundle: Bundle) -> None:
    before = [hit["id"] for hit in search(api, picture(bundle), limit=64)["hits"]]
    right, wrong = before[-1], before[1]
    after = search(api, picture(bundle), limit=64, right=[right], wrong=[wrong])
    ids = [hit["id"] for hit in after["hits"]]
    assert wrong not in ids and ids.index(right) < before.index(right) and "rocchio" in after["stamp"]["feedback"]
    assert entries(service, "search")[0]["marks"] == 2


def test_what_is_asked_wrongly_is_refused_in_words(api: TestClient, bundle: Bundle) -> None:
    assert "send a picture" in search(api, status=422)["error"]
    assert "shortest-path" not in api.get("/api/about").json()["reranks"]
    assert "k-reciprocal" in search(api, picture(bundle), rerank="shortest-path", status=422)["error"]
    assert "boxes" in search(api, picture(bundle), boxes=[None, None], status=422)["error"]
    assert "whole person" in search(api, picture(bundle), boxes=[[0, 0, 0.01, 0.01]], status=422)["error"]
    assert "no such row" in search(api, like=["no such row"], status=422)["error"]
    assert api.get("/api/nothing").status_code == 404 and "error" in api.get("/api/nothing").json()
    assert api.put("/api/search").status_code == 405


def test_about_says_what_is_here(api: TestClient, bundle: Bundle) -> None:
    about = api.get("/api/about").json()
    assert about["rows"] == 64 and about["cameras"] == dict.fromkeys(NAMES.values(), 16)
    assert about["modalities"] == {"visible": 32, "infrared": 32} and about["tags"] == {"night": 32}
    assert about["first_s"] == START_S + 3 * 3600 + 60 and about["last_s"] == START_S + 10 * 3600 + 241
    assert about["caller"] == {"name": "this machine", "role": "admin", "tokens": False}
    assert about["calibration"]["least_rate"]["visible/infrared"] == 30 / 4000
    assert about["network"]["method"] == "AGW" and about["attention"] == "" and about["examples"] == []


def test_rows_are_listed_a_page_at_a_time(api: TestClient) -> None:
    seen, after = [], ""
    for _ in range(7):
        page = api.post("/api/records/list", json={"limit": 10, "after_id": after}).json()
        seen += [row["id"] for row in page["rows"]]
        after = seen[-1]
    assert seen == sorted(seen) and len(set(seen)) == 64 and page["more"] is False
    assert api.post("/api/records/list", json={"limit": 10_000}).status_code == 422


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_thumbnails_are_small_jpegs_by_id_that_a_browser_may_keep_for_a_while(api: TestClient) -> None:
    found = api.get("/api/thumbnail", params={"id": "gate 1/5/0"})
    assert found.status_code == 200 and found.headers["content-type"] == "image/jpeg"
    assert found.headers["cache-control"] == "private, max-age=600" and found.headers["etag"]
    with Image.open(io.BytesIO(found.content)) as image:
        assert image.format == "JPEG" and max(image.size) <= 256
    assert api.get("/api/thumbnail", params={"id": "gate 1/5/9"}).status_code == 404


def test_attention_covers_the_picture_of_a_row_and_of_a_query(api: TestClient, bundle: Bundle, tmp_path: Path) -> None:
    for found in (
        api.get("/api/attention", params={"id": "gate 1/5/0"}),
        api.post("/api/attention", files={"picture": ("a", picture(bundle))}, data={"ask": "{}"}),
    ):
        assert found.status_code == 200 and found.headers["content-type"] == "image/png", found.text
        with Image.open(io.BytesIO(found.content)) as image:
            assert image.mode == "RGBA" and max(image.size) == 256
            alpha = np.asarray(image)[..., 3]
            assert alpha.max() > 100 > alpha.min()  # strong places are covered, weak ones are not
    off = client(make_service(tmp_path / "off", bundle, attention=None))
    assert off.get("/api/attention", params={"id": "gate 1/5/0"}).status_code == 501
    assert off.get("/api/about").json()["attention"]


# --- marks ------------------------------------------------------------------------------------------------------------


def test_marks_are_kept_taken_back_and_exported(api: TestClient, service: Service, bundle: Bundle) -> None:
    found = search(api, picture(bundle))
    query, first, second = found["query"], found["hits"][0], found["hits"][1]
    rows = [{"id": first["id"], "right": True, "similarity": 1.0}, {"id": second["id"], "right": False}]
    assert api.post("/api/marks", json={"query": query, "marks": rows}).json() == {"marks": 2}
    assert search(api, picture(bundle))["query"] == query  # the same picture is the same query
    exported = api.get("/api/marks", params={"query": query}).json()
    assert [(row["id"], row["right"]) for row in exported] == sorted([(first["id"], True), (second["id"], False)])
    assert exported[0]["camera"] == "gate 1" and exported[0]["who"] == "this machine"
    answer = api.get("/api/marks", params={"query": query, "format": "csv"})
    assert "attachment" in answer.headers["content-disposition"] and "text/csv" in answer.headers["content-type"]
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert {line["id"] for line in lines} == {first["id"], second["id"]} and set(lines[0]) == set(exported[0])
    api.post("/api/marks", json={"query": query, "marks": [{"id": first["id"], "right": None}]})
    assert [row["id"] for row in api.get("/api/marks", params={"query": query}).json()] == [second["id"]]
    assert [entry["right"] for entry in entries(service, "mark")] == [0, 1]
    assert len(entries(service, "export")) == 3


def test_an_exported_text_is_no_formula(service: Service) -> None:
    api = client(service)
    [crop] = [one for one in crops(service.bundle.path.parent) if one.id == "gate 1/5/0"]
    evil = Crop("=cmd|' /C calc'!A1", crop.path, "@camera", 0.0, "visible")
    index(service.archive, service.searcher.extractor, [evil], say=quiet)
    api.post("/api/marks", json={"query": "a" * 64, "marks": [{"id": evil.id, "right": True}]})
    [line] = csv.DictReader(io.StringIO(api.get("/api/marks", params={"format": "csv"}).text))
    assert line["id"] == "'" + evil.id and line["camera"] == "'@camera"


# --- adding and forgetting --------------------------------------------------------------------------------------------


def test_a_crop_is_added_and_found(api: TestClient, service: Service) -> None:
    record = {"camera": "new 9", "time_s": START_S, "tags": ["late"], "pid": "p99"}
    given = {"data": {"record": json.dumps(record)}, "files": {"picture": ("x", jpeg(stripes(), "PNG"))}}
    added = api.post("/api/records", **given)
    assert added.status_code == 200 and added.json()["modality"] == "visible"
    assert api.post("/api/records", **given).json() == added.json()  # the same crop again is the same row
    found = search(api, jpeg(stripes(), "PNG"))["hits"][0]
    assert found["id"] == added.json()["id"] and found["camera"] == "new 9" and found["similarity"] > 0.9999
    assert api.get("/api/about").json()["cameras"]["new 9"] == 1
    assert api.get("/api/thumbnail", params={"id": found["id"]}).status_code == 200
    assert entries(service, "add")[0]["id"] == found["id"]


def thumbnails(service: Service) -> int:
    return len(list((service.archive.folder / "thumbnails").rglob("*.jpg")))


@pytest.mark.parametrize(
    ("filter", "rows"),
    [({"pids": ["p5"]}, 8), ({"cameras": ["night 3"]}, 16), ({"tracks": ["1-4", "2-4"]}, 4),
     ({"before_s": START_S + 3600 * 5, "modality": "visible"}, 8)],
)  # fmt: skip
def test_people_are_forgotten_with_thumbnails_and_marks(
    api: TestClient, service: Service, filter: dict[str, Any], rows: int
) -> None:
    every = {crop.id for crop in crops(service.bundle.path.parent)}
    chosen = Filter(**{**filter, "modality": 0} if "modality" in filter else filter)
    going = {row.id for row in service.archive.gallery.rows(chosen)}
    marks = [{"id": id, "right": True} for id in every]
    api.post("/api/marks", json={"query": "b" * 64, "marks": marks})
    counted = api.post("/api/forget", json={"filter": filter}).json()
    assert counted == {"rows": rows, "deleted": False} and service.archive.gallery.count() == 64
    assert api.post("/api/forget", json={"filter": filter, "expect": rows + 1}).status_code == 409
    gone = api.post("/api/forget", json={"filter": filter, "expect": rows}).json()
    assert gone == {"rows": rows, "thumbnails": rows, "marks": rows, "deleted": True}
    assert {row.id for row in service.archive.gallery.rows()} == every - going and thumbnails(service) == 64 - rows
    assert {row["id"] for row in api.get("/api/marks").json()} == every - going
    assert api.get("/api/thumbnail", params={"id": next(iter(going))}).status_code == 404
    assert api.get("/api/about").json()["rows"] == 64 - rows
    assert entries(service, "forgotten")[0]["rows"] == rows == entries(service, "forget")[0]["rows"]


def test_rows_are_forgotten_by_id_and_never_all_at_once(api: TestClient, service: Service) -> None:
    ids = ["gate 1/5/0", "gate 1/5/1", "no such row"]
    assert api.post("/api/forget", json={"ids": ids, "expect": 2}).json()["rows"] == 2
    for body in ({}, {"filter": {}}, {"filter": {}, "expect": 62}, {"ids": ids, "filter": {"pids": ["p5"]}}):
        assert api.post("/api/forget", json=body).status_code == 422
    with pytest.raises(GalleryError, match="delete everything"):
        service.archive.forget(filter=Filter())
    assert service.archive.gallery.count() == 62


def test_nothing_is_left_on_the_disk(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="needs the extra `search`")
    place = tmp_path / "gallery"
    opened = open_gallery(f"lance:{place}", bundle.config.dim, bundle.config.digest)
    service = make_service(files_of(f"lance:{place}", None), bundle, opened)
    api = client(service)
    api.post("/api/marks", json={"query": "c" * 64, "marks": [{"id": "gate 1/5/0", "right": True}]})
    [record] = opened.fetch(["gate 1/5/0"])
    written = (record.vector.tobytes(), b"gate 1/5/0")

    def where(needle: bytes) -> list[str]:
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "audit.jsonl"]
        return [path.name for path in files if needle in path.read_bytes()]

    assert where(written[0]) and where(written[1])
    assert api.post("/api/forget", json={"filter": {"pids": ["p5"]}, "expect": 8}).status_code == 200
    assert where(written[0]) == [] and where(written[1]) == []
    assert opened.count() == 56 and search(api, picture(bundle))["hits"][0]["pid"] != "p5"
    service.archive.close()


def test_retention_forgets_by_age(service: Service) -> None:
    service.archive.gallery.upsert([_timeless(service)])
    client(service).post("/api/marks", json={"query": "d" * 64, "marks": [{"id": "gate 1/10/0", "right": True}]})
    days = (time.time() - (START_S + 3600 * 5)) / 86400  # people 3 and 4 came before
    gone, said = forget_older(service.archive, days, "vireid serve")
    assert gone.rows == 16 == gone.thumbnails and "1 rows have no time" in said
    assert service.archive.gallery.count() == 49 and entries(service, "retention")[0]["rows"] == 16
    assert len(service.archive.marks.of()) == 1  # made just now
    again, _ = forget_older(service.archive, days, "vireid serve")
    assert again.rows == 0 and len(entries(service, "retention")) == 1
    with pytest.raises(GalleryError, match="above 0"):
        service.archive.forget_older(0)


def _timeless(service: Service) -> Any:
    from dataclasses import replace

    [record] = service.archive.gallery.fetch(["gate 1/10/1"])
    return replace(record, id="no time", time_s=math.nan)


def test_the_service_applies_its_retention_while_it_runs(bundle: Bundle, tmp_path: Path) -> None:
    days = (time.time() - (START_S + 3600 * 5)) / 86400
    service = make_service(tmp_path / "a", bundle, keep_days=days)
    with client(service) as api:
        for _ in range(100):
            if service.archive.gallery.count() == 48:
                break
            time.sleep(0.05)
        assert api.get("/api/about").json()["keep_days"] == days
    assert service.archive.gallery.count() == 48


# --- the audit log ----------------------------------------------------------------------------------------------------


def test_a_search_is_logged_without_its_picture(api: TestClient, service: Service, bundle: Bundle) -> None:
    import hashlib

    data = picture(bundle)
    search(api, data, filter={"cameras": ["night 3"]}, false_match_rate=0.01, purpose="case 7", limit=5)
    [entry] = entries(service, "search")
    assert entry["who"] == "this machine" and entry["role"] == "admin" and entry["at"].endswith("Z")
    assert entry["pictures"] == [hashlib.sha256(data).hexdigest()] and entry["filter"] == {"cameras": ["night 3"]}
    assert entry["hits"] == 5 and entry["purpose"] == "case 7" and entry["false_match_rate"] == 0.01
    assert len(json.dumps(entry)) < 1000
    kept = [path for path in service.archive.folder.rglob("*") if path.is_file()]
    assert not any(data in path.read_bytes() for path in kept)
    assert service.archive.audit.verify() == len(service.archive.audit.entries())
    assert api.get("/api/audit", params={"last": 1}).json()["entries"][0] == entry


def test_a_search_that_cannot_be_logged_is_not_answered(
    api: TestClient, service: Service, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service.archive.audit, "write", full)
    answer = search(api, picture(bundle), status=500)
    assert set(answer) == {"error"} and "space" not in answer["error"]
    assert api.post("/api/forget", json={"filter": {"pids": ["p5"]}, "expect": 8}).status_code == 500
    assert service.archive.gallery.count() == 64  # what cannot be logged is not deleted either


def test_a_purpose_may_be_required(bundle: Bundle, tmp_path: Path) -> None:
    api = client(make_service(tmp_path / "a", bundle, purpose=True))
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
    ):
        (tmp_path / "audit.jsonl").write_text("".join(changed), encoding="utf-8")
        with pytest.raises(AuditError, match="line"):
            log.verify()
    (tmp_path / "audit.jsonl").write_text("".join(lines)[:-20], encoding="utf-8")  # the plug was pulled
    log.write("search", "desk", "search", hits=5)
    assert log.verify() == 6 and log.entries()[0]["hits"] == 5


def test_several_threads_write_one_chain(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    logs = [Audit(tmp_path / "audit.jsonl") for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 4].write("search", str(number), "search"), range(80)))
    assert logs[0].verify() == 80 and {entry["who"] for entry in logs[0].entries()} == set(map(str, range(80)))


# --- one's own pictures -----------------------------------------------------------------------------------------------


def test_a_folder_is_indexed_once_and_goes_on(bundle: Bundle, tmp_path: Path) -> None:
    data = bundle.path.parent / "data"
    for number, name in enumerate(("3_1_0.png", "3_3_0.png", "4_1_1.jpg")):
        (tmp_path / f"mine/gate {number}/day").mkdir(parents=True)
        (tmp_path / f"mine/gate {number}/day/{name}").write_bytes((data / name).read_bytes())
    (tmp_path / "mine/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "mine/notes.txt").write_text("no picture")
    service = make_service(tmp_path / "files", bundle, fill=False)
    extractor = service.searcher.extractor
    found = index(service.archive, extractor, crops_of(tmp_path / "mine"), say=quiet)
    assert (found.added, found.present, len(found.refused)) == (3, 0, 1) and "broken.jpg" in found.refused[0]
    rows = list(service.archive.gallery.rows())
    assert [row.camera for row in rows] == ["gate 0", "gate 1", "gate 2"]
    assert rows[0].id == "mine/gate 0/day/3_1_0.png" and [row.modality for row in rows] == [0, 1, 0]
    assert all(math.isnan(row.time_s) for row in rows)
    assert index(service.archive, extractor, crops_of(tmp_path / "mine"), say=quiet).present == 3
    timed = crops_of(tmp_path / "mine", file_time=True, modality="infrared")
    assert index(service.archive, extractor, timed, again=True, say=quiet).added == 3
    rows = list(service.archive.gallery.rows())
    assert len(rows) == 3 and {row.modality for row in rows} == {1} and not any(math.isnan(row.time_s) for row in rows)
    hit = search(client(service), (data / "4_1_1.jpg").read_bytes(), modality="infrared")["hits"][0]
    assert hit["id"] == "mine/gate 2/day/4_1_1.jpg" and hit["time_s"] > 0


def test_a_list_says_camera_time_modality_and_more(bundle: Bundle, tmp_path: Path) -> None:
    data = bundle.path.parent / "data"
    (tmp_path / "list.csv").write_text(
        "path,camera,time,modality,pid,tags\n"
        f"{data / '3_1_0.png'},gate,2026-11-24T21:00:00+01:00,visible,p3,hat|late\n"
        f"{data / '3_3_0.png'},,1795500000.5,,,\n",
        encoding="utf-8",
    )
    first, second = crops_of(tmp_path / "list.csv")
    assert first.camera == "gate" and first.time_s == 1795550400.0 and first.tags == ("hat", "late")
    assert second.camera == "list" and second.time_s == 1795500000.5 and second.modality == "auto"
    for text, told in (
        ("file\nx.jpg\n", "no column `path`"),
        ("path,kamera\nx.jpg,1\n", "unknown columns kamera"),
        ("path,time\nx.jpg,yesterday\n", "line 2: time is like"),
        ("path,modality\nx.jpg,thermal2\n", "line 2: modality is"),
        ("path,camera\n,a\n", "line 2: there is no path"),
    ):
        (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
        with pytest.raises(SourceError, match=told):
            list(crops_of(tmp_path / "bad.csv"))
    for nothing in (tmp_path / "absent", tmp_path / "files.zip"):
        with pytest.raises(SourceError, match=r"no folder and no \.csv"):
            list(crops_of(nothing))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no picture"):
        list(crops_of(tmp_path / "empty"))


def test_where_the_files_lie(tmp_path: Path) -> None:
    assert files_of("lance:a/night", None) == files_of("a/night", None) == Path("a/night.files")
    assert files_of("memory:", tmp_path) == tmp_path
    with pytest.raises(GalleryError, match="--files"):
        files_of("milvus:http://host", None)


def test_a_thumbnail_is_named_by_a_digest_whatever_the_id(tmp_path: Path) -> None:
    archive = Archive(open_gallery("memory:", 4), tmp_path / "files")
    for id in ("../../../etc/passwd", "/etc/passwd", "a" * 500, "x\n\u202e人"):
        name = archive.thumbnails.write(id, stripes())
        assert (tmp_path / "files/thumbnails" / name).is_file() and name[2] == "/" and len(name) == 3 + 64 + 4
        assert archive.thumbnails.read(id)
    assert {path.parent.parent.parent for path in tmp_path.rglob("*.jpg")} == {tmp_path / "files"}
    assert archive.thumbnails.read("\ud800") is None and archive.thumbnails.remove(["absent"]) == 0
